"""Relaying between KMEs that reach each other by function calls: what is tampered with, replayed or unknown changes nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from apps.kme.pad import RelayMessage
from apps.kme.relay import Blocks, Refusal, Relay, Room, faults
from apps.kme.settings import KmeSettings
from apps.kme.vault import Vault
from controller.southbound.device import KeyRelay

PATH = ["alice", "relay", "bob"]
DIAMOND = [PATH, ["alice", "other", "bob"]]
SAES = {"alice": "a", "bob": "b"}
BLOCK_BYTES = 4096


def entry(at: str, **more: Any) -> KeyRelay:
    left, right = {"alice": (None, "relay"), "relay": ("alice", "bob"), "bob": ("relay", None)}[at]
    return KeyRelay("svc", ("a", "b"), left, right, **{"rate_bps": 1e6, "stock_keys": 4, **more})


class Network:
    """Alice, a trusted node and Bob, or such along several paths. `tamper` sees every message between them and may put another in its place, or raise."""

    def __init__(self, directory: Path, paths: Sequence[Sequence[str]] = (PATH,)) -> None:
        self.hops = [hop for path in paths for hop in pairwise(path)]
        self.vaults: dict[str, Vault] = {}
        self.relays: dict[str, Relay] = {}
        self.seen: list[tuple[str, str, RelayMessage]] = []
        self.tamper: Callable[[RelayMessage], RelayMessage] = lambda message: message
        for name in dict.fromkeys(name for hop in self.hops for name in hop):
            self.vaults[name] = Vault(directory / f"{name}.db", bytes(32), name, 1 << 20)
            self.relays[name] = Relay(self.settings(name, directory), self.vaults[name], self.calls_of(name))

    def settings(self, name: str, directory: Path) -> KmeSettings:
        peers = [there for hop in self.hops for here, there in (hop, hop[::-1]) if here == name]
        nowhere = directory / "nowhere"
        return KmeSettings(
            id=name,
            saes=frozenset({SAES[name]} if name in SAES else ()),
            ca=nowhere,
            cert=nowhere,
            key=nowhere,
            store=nowhere,
            kek=nowhere,
            peers=dict.fromkeys(peers, "https://nowhere"),
        )

    def calls_of(self, caller: str) -> Callable[[str, str, BaseModel], Any]:
        async def call(kme: str, what: str, body: BaseModel) -> Any:
            match body:
                case Room():
                    return (await self.relays[kme].room(caller, body)).model_dump()
                case Blocks():
                    return {"blocks": await self.relays[kme].held_by_peer(caller, body.blocks)}
                case RelayMessage():
                    sent = self.tamper(RelayMessage.model_validate_json(body.model_dump_json()))
                    self.seen.append((caller, kme, sent))
                    await self.relays[kme].receive(caller, sent)
                    return {}

        return call

    def feed(self, a: str, b: str, *, size: int = BLOCK_BYTES) -> None:
        name, key = f"{a}-{b}-{os.urandom(4).hex()}", os.urandom(size)
        for here, there in ((a, b), (b, a)):
            self.vaults[here].add_block(there, name, bytearray(key))
            self.relays[here].block_arrived(there)

    async def stock(self) -> dict[str, Any]:
        return {name: dict(self.vaults[name].stock()) for name in PATH}


@asynccontextmanager
async def network(directory: Path, **more: Any) -> AsyncIterator[Network]:
    made = Network(directory)
    for name in PATH:
        assert await made.relays[name].change([entry(name, **more)], []) == []
    async with working(made):
        yield made


@asynccontextmanager
async def split(directory: Path, rates_bps: Sequence[float], stock_keys: int) -> AsyncIterator[Network]:
    """A service whose keys are split over the two paths of the diamond."""
    made = Network(directory, DIAMOND)
    entries: dict[str, list[KeyRelay]] = {}
    for number, (path, rate_bps) in enumerate(zip(DIAMOND, rates_bps, strict=True)):
        for left, here, right in zip((None, *path), path, (*path[1:], None), strict=False):
            one = KeyRelay("svc", ("a", "b"), left, right, rate_bps, number, split=len(DIAMOND), stock_keys=stock_keys)
            entries.setdefault(here, []).append(one)
    for name, of in entries.items():
        assert await made.relays[name].change(of, []) == []
    async with working(made):
        yield made


@asynccontextmanager
async def working(made: Network) -> AsyncIterator[None]:
    work = [asyncio.create_task(relay.run()) for relay in made.relays.values()]
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        results = await asyncio.gather(*work, return_exceptions=True)
        for relay, vault in zip(made.relays.values(), made.vaults.values(), strict=True):
            relay.close()
            vault.close()
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - polls another thread's store
            await asyncio.sleep(0.01)


async def test_both_ends_are_stocked_and_the_trusted_node_keeps_nothing(tmp_path: Path) -> None:
    async with network(tmp_path) as made:
        made.feed("alice", "relay")
        made.feed("relay", "bob")
        await until(lambda: all(made.vaults[end].stock().get("svc") == {"master": 4, "slave": 4} for end in ("alice", "bob")))
        assert made.vaults["relay"].stock() == {}
        assert made.relays["alice"].far_ends == {"svc": "bob"}
        got = made.vaults["alice"].deliver_new("a", "b", 256, 4)
        assert made.vaults["bob"].deliver_named("a", "b", [key_id for key_id, _ in got]) == got
        for vault, spent in (("alice", 1), ("relay", 2), ("bob", 1)):
            # Each hop spends a tag key and the keys, once for each direction.
            assert sum(made.vaults[vault].levels().values()) == spent * (BLOCK_BYTES - 2 * (32 + 4 * 32))


def flip(message: RelayMessage) -> RelayMessage:
    return message.model_copy(update={"text": bytes([message.text[0] ^ 1]) + message.text[1:]})


async def test_a_tampered_batch_is_offered_by_nobody_and_its_bytes_are_burnt(tmp_path: Path) -> None:
    async with network(tmp_path) as made:
        made.tamper = flip
        made.feed("relay", "bob")
        made.feed("alice", "relay")
        await until(lambda: made.vaults["relay"].levels().get("alice", BLOCK_BYTES) < BLOCK_BYTES)
        assert await made.stock() == {name: {} for name in PATH}
        made.tamper = lambda message: message
        await until(lambda: made.vaults["alice"].stock().get("svc") == {"master": 4, "slave": 4})


async def test_an_unanswered_batch_is_never_offered_to_its_master(tmp_path: Path) -> None:
    def lose_answer(kme: str) -> None:
        receive = made.relays[kme].receive

        async def deaf(neighbour: str, message: RelayMessage) -> None:
            await receive(neighbour, message)
            raise Refusal(502, "the answer was lost")

        made.relays[kme].receive = deaf  # type: ignore[method-assign]

    async with network(tmp_path) as made:
        lose_answer("bob")
        made.feed("alice", "relay")
        made.feed("relay", "bob")
        await until(lambda: made.vaults["bob"].stock().get("svc", {}).get("slave", 0) >= 4)
        assert made.vaults["alice"].ready("svc", "master") == 0


async def test_replayed_unknown_and_misdirected_messages_are_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as made:
        made.feed("alice", "relay")
        made.feed("relay", "bob")
        await until(lambda: all(made.vaults[end].stock().get("svc") == {"master": 4, "slave": 4} for end in ("alice", "bob")))
        before, levels = await made.stock(), [vault.levels() for vault in made.vaults.values()]
        for sender, receiver, message in made.seen:
            with pytest.raises(Refusal, match="used before"):
                await made.relays[receiver].receive(sender, message)
        sender, receiver, message = made.seen[0]
        for change, status in (
            ({"service": "other"}, 404),
            ({"share": 1}, 404),
            ({"shares": 2}, 409),
            ({"toward": "left" if message.toward == "right" else "right"}, 403),
            ({"spans": message.spans[:0]}, 400),
            ({"text": message.text[1:]}, 409),
        ):
            with pytest.raises(Refusal) as refused:
                await made.relays[receiver].receive(sender, message.model_copy(update=change))
            assert refused.value.status == status
        with pytest.raises(Refusal) as refused:
            await made.relays["relay"].receive("mallory", message)
        assert refused.value.status == 403
        assert (await made.stock(), [vault.levels() for vault in made.vaults.values()]) == (before, levels)


async def test_a_path_without_key_burns_none_on_the_hops_that_have_some(tmp_path: Path) -> None:
    async with network(tmp_path) as made:
        made.feed("alice", "relay")
        await until(lambda: made.vaults["alice"].spendable("relay") > 0)
        await asyncio.sleep(0.3)
        assert made.vaults["alice"].levels() == {"relay": BLOCK_BYTES}
        assert made.seen == []


async def test_the_rate_bounds_what_is_relayed(tmp_path: Path) -> None:
    async with network(tmp_path, rate_bps=1024.0, stock_keys=64) as made:
        for hop in (("alice", "relay"), ("relay", "bob")):
            made.feed(*hop, size=1 << 16)
        await asyncio.sleep(1.7)
        # 4 keys a second, and 4 saved up at the start.
        assert 4 <= made.vaults["alice"].ready("svc", "master") <= 4 + 1.7 * 4


async def test_the_rates_of_a_split_add_up_and_each_path_carries_whole_keys(tmp_path: Path) -> None:
    async with split(tmp_path, [1024.0, 2048.0], stock_keys=64) as made:
        for hop in made.hops:
            made.feed(*hop, size=1 << 16)
        begun = time.monotonic()
        await until(lambda: made.vaults["alice"].ready("svc", "master") >= 24)
        # 4 and 8 keys a second, and as many saved up at the start
        ready = made.vaults["alice"].ready("svc", "master")
        assert ready <= 12 + (time.monotonic() - begun + 1) * 12
        carried = {caller: message.share for caller, _, message in made.seen if caller in ("relay", "other")}
        assert carried == {"relay": 0, "other": 1}
        assert all(message.shares == 1 for _, _, message in made.seen)
        got = made.vaults["alice"].deliver_new("a", "b", 256, 12)
        assert made.vaults["bob"].deliver_named("a", "b", [key_id for key_id, _ in got]) == got


async def test_a_path_of_a_split_without_key_holds_up_no_other(tmp_path: Path) -> None:
    async with split(tmp_path, [1e6, 1e6], stock_keys=4) as made:
        made.feed("alice", "other")
        made.feed("other", "bob")
        await until(lambda: all(made.vaults[end].ready("svc", "master") >= 4 for end in ("alice", "bob")))
        assert {message.share for _, _, message in made.seen} == {1}
        one = next(entry for entry in made.relays["alice"].entries.values() if entry.share == 1)
        assert await made.relays["alice"].change([], [one]) == []
        made.feed("alice", "relay")
        made.feed("relay", "bob")
        made.vaults["alice"].deliver_new("a", "b", 256, 4)
        made.relays["alice"].wake(["svc"])
        await until(lambda: made.vaults["alice"].ready("svc", "master") >= 4)
        assert made.seen[-1][2].share == 0, "the path that is left goes on by itself"


async def test_entries_change_all_or_none_and_last(tmp_path: Path) -> None:
    async with network(tmp_path) as made:
        relay = made.relays["alice"]
        good = entry("alice")._replace(service="second")
        assert await relay.change([good, good._replace(service="third", right="mars")], [entry("alice")])
        assert set(relay.entries) == {("svc", 0)}
        assert await relay.change([good], [entry("alice")], only_check=True) == []
        assert set(relay.entries) == {("svc", 0)}
        assert await relay.change([good], [entry("alice"), entry("alice", share=3)]) == []
        again = Relay(relay.settings, made.vaults["alice"], made.calls_of("alice"))
        assert again.entries == relay.entries == {("second", 0): good}
        again.close()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"right": "mars"}, "not a neighbour"),
        ({"left": "relay"}, "two different neighbours"),
        ({"right": None}, "two different neighbours"),
        ({"saes": ("x", "b")}, "not served"),
        ({"saes": ("a", "a")}, "two different SAE"),
        ({"share": 1}, "share must be"),
        ({"share": 2, "split": 2}, "share must be"),
        ({"shares": 2, "split": 2}, "one of them must be 1"),
        ({"split": 0}, "at least 1"),
        ({"rate_bps": 0.0}, "rate_bps"),
        ({"rate_bps": float("nan")}, "rate_bps"),
        ({"key_bits": 255}, "key_bits"),
        ({"stock_keys": 0}, "stock_keys"),
    ],
)
def test_faults_say_what_is_wrong(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    made = Network(tmp_path)
    try:
        assert faults([entry("alice")], made.relays["alice"].settings) == []
        assert word in " ".join(faults([entry("alice")._replace(**change)], made.relays["alice"].settings))
    finally:
        for name in PATH:
            made.relays[name].close()
            made.vaults[name].close()
