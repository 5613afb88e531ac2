"""Relaying keys hop by hop between KMEs, and keeping the ends of every service stocked.

A key is made at the KME of its master SAE and travels to the KME of its slave SAE under a one-time pad on every hop. Each KME answers
only after the next one has, so the first knows that a key has arrived before it offers it to its SAE. A batch whose fate is unknown is
never offered; the far end's copy expires. All of it runs on the relay entries in the vault: no controller is needed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from apps.kme.pad import TAG_KEY_BYTES, Name, RelayMessage, TagMismatch, Toward, join_shares, seal, split_shares, unseal, wipe
from apps.kme.settings import KmeSettings
from apps.kme.vault import Key, Missing, Vault
from controller.southbound.device import KeyRelay

log = logging.getLogger("bellhop.kme")

P = ParamSpec("P")
T = TypeVar("T")

ENTRY: TypeAdapter[KeyRelay] = TypeAdapter(KeyRelay)
MAX_BATCH_KEYS = 128
MAX_BATCH_BYTES = 8192
"""One key of the largest size. Pool blocks have at least 32 bytes, so a batch never names more spans than a message may hold."""
PLENTY_BYTES = 1 << 30
MAX_KEY_BITS = 8 * MAX_BATCH_BYTES
BACKOFF_S = (0.1, 5.0)
ANNOUNCE_S = 5.0
EXPIRE_S = 60.0


class Refusal(Exception):
    """A request from or to another KME that cannot be met. `status` is the HTTP status that says so."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class Room(BaseModel):
    """The question how many bytes the path can carry now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Name
    share: int = Field(ge=0)
    toward: Toward


class RoomAnswer(BaseModel):
    """`bytes` that the hop `narrowest` can carry, message tags included; `end` is the KME at the end of the path."""

    bytes: int = Field(ge=0)
    narrowest: str = Field(max_length=1024)
    end: Name


class Blocks(BaseModel):
    """Names of pool blocks: those the caller holds; in the answer, those of them that both hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: tuple[Name, ...] = Field(max_length=256)


Call = Callable[[str, str, BaseModel], Awaitable[Any]]
"""`call(kme, what, body)` asks a neighbouring KME and returns its decoded answer; raises `Refusal`."""


def heading(entry: KeyRelay, toward: Toward) -> str | None:
    """The neighbour on that side; None at the end."""
    return entry.right if toward == "right" else entry.left


def master_and_slave(entry: KeyRelay, toward: Toward) -> tuple[str, str]:
    left, right = entry.saes
    return (left, right) if toward == "right" else (right, left)


def outward(entry: KeyRelay) -> Toward | None:
    """Where this KME's own keys of the service go; None in the middle of the path."""
    if entry.left is None:
        return "right"
    return "left" if entry.right is None else None


def faults(entries: Sequence[KeyRelay], settings: KmeSettings) -> list[str]:
    """What is wrong with the relay entries that a KME is to hold."""
    found = []
    services: dict[str, KeyRelay] = {}
    for entry in entries:
        where = f"relay {entry.service}/{entry.share}"
        first = services.setdefault(entry.service, entry)
        if (first.saes, first.shares, first.key_bits, first.split) != (entry.saes, entry.shares, entry.key_bits, entry.split):
            found.append(f"{where}: SAEs, shares, split and key size must be the same for all paths of a service")
        if not entry.service or entry.saes[0] == entry.saes[1] or not all(entry.saes):
            found.append(f"{where}: needs a service name and two different SAE IDs")
        if entry.left == entry.right:
            found.append(f"{where}: needs two different neighbours, or one neighbour and null for the side whose SAE is served here")
        for neighbour in (entry.left, entry.right):
            if neighbour is not None and neighbour not in settings.peers:
                found.append(f"{where}: {neighbour} is not a neighbour of {settings.id}; its neighbours are {sorted(settings.peers)}")
        for sae, neighbour in zip(entry.saes, (entry.left, entry.right), strict=True):
            if neighbour is None and sae not in settings.saes:
                found.append(f"{where}: SAE {sae} is not served by {settings.id}")
        if min(entry.shares, entry.split) != 1:
            found.append(f"{where}: shares and split must be at least 1, and one of them must be 1")
        if not 0 <= entry.share < max(entry.shares, entry.split):
            found.append(f"{where}: share must be from 0 to {max(entry.shares, entry.split) - 1}")
        if not 0 < entry.rate_bps < float("inf"):
            found.append(f"{where}: rate_bps must be positive")
        if entry.key_bits % 8 or not 64 <= entry.key_bits <= MAX_KEY_BITS:
            found.append(f"{where}: key_bits must be a multiple of 8 from 64 to {MAX_KEY_BITS}")
        if entry.stock_keys < 1:
            found.append(f"{where}: stock_keys must be at least 1")
    return found


class Relay:
    """The relay entries of one KME and the work they ask for. `run` does the work; the other methods answer the KME's callers."""

    def __init__(self, settings: KmeSettings, vault: Vault, call: Call) -> None:
        self.settings = settings
        self._vault = vault
        self._call = call
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"vault-{settings.id}")
        self.entries = {(entry.service, entry.share): entry for entry in map(ENTRY.validate_json, vault.relays())}
        self.far_ends: dict[str, str] = {}
        """The KME at the other end, per service; known once a path has been asked."""
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._wake: dict[str, dict[int, asyncio.Event]] = {}
        """Per service, and per path of a split, which has a stock-keeping of its own."""
        self._announce = {peer: asyncio.Event() for peer in settings.peers}

    async def store(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a vault call in the vault's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._thread.shutdown()

    # Relay entries

    async def change(self, add: Sequence[KeyRelay], remove: Sequence[KeyRelay], *, only_check: bool = False) -> list[str]:
        """Add and remove relay entries, all or none; an added entry replaces the one for its service and share. Returns what is wrong."""
        async with self._changing:
            removed = {(entry.service, entry.share) for entry in remove}
            added = {(entry.service, entry.share): entry for entry in add}
            found = [] if len(added) == len(add) else ["the same service and share is added twice"]
            after = {key: entry for key, entry in self.entries.items() if key not in removed} | added
            touched = {entry.service for entry in (*add, *remove)}
            found += faults([entry for entry in after.values() if entry.service in touched], self.settings)
            if found or only_check:
                return found
            rows = [(*key, json.dumps(entry._asdict())) for key, entry in added.items()]
            await self.store(self._vault.change_relays, removed, rows)
            self.entries = after
        self._changed.set()
        self.wake(touched)
        return []

    def ends_here(self, service: str) -> list[KeyRelay]:
        """The entries of a service that begins or ends here, by share; empty when a share is missing or it only passes through."""
        entries = sorted((entry for entry in self.entries.values() if entry.service == service), key=lambda entry: entry.share)
        whole = entries and (entries[0].split > 1 or len(entries) == entries[0].shares) and outward(entries[0]) is not None
        return entries if whole else []

    def _together(self, service: str, number: int) -> list[KeyRelay]:
        """The entries that carry a key together: all shares, or the one path of that number of a split."""
        entries = self.ends_here(service)
        return [entry for entry in entries if entry.share == number] if entries and entries[0].split > 1 else entries

    def between(self, master: str, slave: str) -> list[KeyRelay]:
        """One entry for each service by which the SAE `master`, served here, reaches `slave`."""
        return [
            entry
            for entry in self.entries.values()
            if entry.share == 0 and (toward := outward(entry)) is not None and master_and_slave(entry, toward) == (master, slave)
        ]

    # What other KMEs ask

    def _entry(self, neighbour: str, service: str, share: int, toward: Toward) -> KeyRelay:
        entry = self.entries.get((service, share))
        if entry is None:
            raise Refusal(404, f"{self.settings.id} has no relay entry for {service}/{share}")
        if heading(entry, "left" if toward == "right" else "right") != neighbour:
            raise Refusal(403, f"{service}/{share} does not come to {self.settings.id} from {neighbour} on its way {toward}")
        return entry

    async def room(self, neighbour: str, ask: Room) -> RoomAnswer:
        """What the path ahead of `neighbour` can carry."""
        return await self._room_ahead(self._entry(neighbour, ask.service, ask.share, ask.toward), ask.toward)

    async def _room_ahead(self, entry: KeyRelay, toward: Toward) -> RoomAnswer:
        following = heading(entry, toward)
        if following is None:
            return RoomAnswer(bytes=PLENTY_BYTES, narrowest="", end=self.settings.id)
        answer = await self._call(following, "room", Room(service=entry.service, share=entry.share, toward=toward))
        try:
            ahead = RoomAnswer.model_validate(answer)
        except ValidationError as error:
            raise Refusal(502, f"{following} gave no sensible answer: {error}") from error
        here = await self.store(self._vault.spendable, following)
        if ahead.bytes < here:
            return ahead
        return RoomAnswer(bytes=here, narrowest=f"from {self.settings.id} to {following}", end=ahead.end)

    async def receive(self, neighbour: str, message: RelayMessage) -> None:
        """Take a batch from a neighbour: keep it if it ends here, else pass it on. Returns when its end has it."""
        entry = self._entry(neighbour, message.service, message.share, message.toward)
        key_bytes = entry.key_bits // 8
        if message.shares != entry.shares or len(message.text) != key_bytes * len(message.key_ids):
            raise Refusal(409, f"{message.service}: {entry.shares} shares of {entry.key_bits} bits are relayed here")
        if sum(span.length for span in message.spans) != TAG_KEY_BYTES + len(message.text):
            raise Refusal(400, "the spans do not name as many pool bytes as the message needs")
        try:
            pad = await self.store(self._vault.spent_by_peer, neighbour, message.spans)
        except Missing as error:
            raise Refusal(409, str(error)) from error
        try:
            text = unseal(message, pad)
        except TagMismatch as error:
            log.warning("%s: refused keys of %s from %s: %s", self.settings.id, message.service, neighbour, error)
            raise Refusal(400, str(error)) from error
        finally:
            wipe(pad)
        try:
            if heading(entry, message.toward) is None:
                await self._keep(entry, message, text)
            else:
                await self._send(entry, message.toward, message.origin, message.key_ids, text)
        finally:
            wipe(text)

    async def _keep(self, entry: KeyRelay, message: RelayMessage, text: bytearray) -> None:
        size = entry.key_bits // 8
        keys = [(key_id, text[i * size : (i + 1) * size]) for i, key_id in enumerate(message.key_ids)]
        master, slave = master_and_slave(entry, message.toward)
        try:
            if entry.shares == 1:
                await self.store(self._vault.store_keys, "slave", entry.service, master, slave, keys)
            else:
                await self.store(self._vault.store_shares, entry.service, master, slave, entry.share, entry.shares, keys)
        except Missing as error:
            raise Refusal(409, str(error)) from error
        finally:
            wipe(*(key for _, key in keys))
        self.far_ends[entry.service] = message.origin

    async def _send(self, entry: KeyRelay, toward: Toward, origin: str, key_ids: Sequence[str], text: bytearray) -> None:
        following = heading(entry, toward)
        if following is None:
            raise Refusal(409, f"{entry.service}/{entry.share} ends at {self.settings.id}")
        try:
            spans, pad = await self.store(self._vault.spend, following, TAG_KEY_BYTES + len(text))
        except Missing as error:
            raise Refusal(503, str(error)) from error
        plain = RelayMessage(
            service=entry.service, share=entry.share, shares=entry.shares, toward=toward, origin=origin, key_ids=tuple(key_ids), spans=spans
        )
        message = seal(plain, text, pad)
        wipe(pad)
        await self._call(following, "relay", message)

    async def held_by_peer(self, peer: str, blocks: Iterable[str]) -> list[str]:
        """Take note that `peer` holds these blocks; returns those of them that are here too. From now on both may spend them."""
        held = await self.store(self._vault.confirm, peer, blocks)
        if held:
            self.wake(self._wake)
        return held

    # The work

    def wake(self, services: Iterable[str]) -> None:
        """Look at the stock of these services now: a key was fetched, or there is something new to relay with."""
        for service in services:
            for path in self._wake.get(service, {}).values():
                path.set()

    def block_arrived(self, peer: str) -> None:
        self._announce[peer].set()

    async def run(self) -> None:
        """Keep the services stocked and the pools agreed on, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            for peer in self._announce:
                tasks.create_task(self._announce_to(peer))
            while True:
                self._changed.clear()
                for service, number in {(entry.service, entry.share if entry.split > 1 else 0) for entry in self.entries.values()}:
                    if number not in self._wake.get(service, ()) and self._together(service, number):
                        wake = self._wake.setdefault(service, {})[number] = asyncio.Event()
                        tasks.create_task(self._keep_stocked(service, number, wake))
                await self._changed.wait()

    async def _expire(self) -> None:
        while True:
            await self.store(self._vault.expire, self.settings.key_lifetime_s)
            self.wake(self._wake)
            await asyncio.sleep(min(EXPIRE_S, self.settings.key_lifetime_s))

    async def _announce_to(self, peer: str) -> None:
        """Agree with `peer` on the blocks both hold: after every new block, and again until all are confirmed."""
        while True:
            self._announce[peer].clear()
            blocks = await self.store(self._vault.unconfirmed, peer)
            if blocks:
                try:
                    answer = Blocks.model_validate(await self._call(peer, "blocks", Blocks(blocks=tuple(blocks))))
                    await self.held_by_peer(peer, set(answer.blocks) & set(blocks))
                except (Refusal, ValidationError) as error:
                    log.debug("%s: blocks not agreed with %s: %s", self.settings.id, peer, error)
            await _set_within(self._announce[peer], ANNOUNCE_S)

    async def _keep_stocked(self, service: str, number: int, wake: asyncio.Event) -> None:
        """Fill the stock of one service at its rate, backing off while the path has no key, until the service is gone.

        The paths of a split do so each at its own rate, and a path without key holds up no other; when the last key is missing each may
        make one.
        """
        loop = asyncio.get_running_loop()
        allowance_bits, counted_at, backoff_s, wanting = float("inf"), loop.time(), BACKOFF_S[0], ""
        while entries := self._together(service, number):
            entry = entries[0]
            name = f"{service}, path {number}," if entry.split > 1 else service
            rate_bps = min(entry.rate_bps for entry in entries)
            now = loop.time()
            # A second's worth may be saved up, and always a whole key, so that slow services relay at all.
            most_bits = max(rate_bps, float(entry.key_bits))
            allowance_bits, counted_at = min(most_bits, allowance_bits + rate_bps * (now - counted_at)), now
            wanted = min(entry.stock_keys - await self.store(self._vault.ready, service, "master"), MAX_BATCH_KEYS)
            batch = min(max(0, wanted), int(min(most_bits, 8 * MAX_BATCH_BYTES)) // entry.key_bits)
            batch_bits = batch * entry.key_bits
            wake.clear()
            if wanted <= 0 and service in self.far_ends:  # a full stock asks once, to learn who is at the other end
                await wake.wait()
            elif allowance_bits < batch_bits:
                await _set_within(wake, (batch_bits - allowance_bits) / rate_bps)
            else:
                try:
                    made = await self._make(entries, batch)
                    allowance_bits -= made * entry.key_bits
                    backoff_s = BACKOFF_S[0]
                    if wanting:
                        log.info("%s: %s relays keys again", self.settings.id, name)
                    wanting = ""
                except Refusal as error:
                    if not wanting:
                        log.warning("%s: %s relays no keys: %s", self.settings.id, name, error)
                    wanting = str(error)
                    await _set_within(wake, backoff_s)
                    backoff_s = min(2 * backoff_s, BACKOFF_S[1])
        del self._wake[service][number]
        if not self._wake[service]:
            del self._wake[service]

    async def _make(self, entries: Sequence[KeyRelay], most: int) -> int:
        """Make up to `most` keys, relay them over all the service's paths, and offer them to the master SAE; returns how many."""
        entry, size = entries[0], entries[0].key_bits // 8
        toward = outward(entry)
        if toward is None:
            raise Refusal(409, f"{entry.service} does not begin at {self.settings.id}")
        rooms = await _all([self._room_ahead(path, toward) for path in entries])
        self.far_ends[entry.service] = rooms[0].end
        if most < 1:
            return 0
        narrowest = min(rooms, key=lambda room: room.bytes)
        count = min(most, (narrowest.bytes - TAG_KEY_BYTES) // size)
        if count < 1:
            raise Refusal(503, f"the pool {narrowest.narrowest} has {narrowest.bytes} bytes, too few for a key of {entry.key_bits} bits")
        parts = split_shares(bytearray(secrets.token_bytes(count * size)), entry.shares)
        key_ids = [str(uuid.uuid4()) for _ in range(count)]
        whole = join_shares(parts)
        keys: list[Key] = [(key_id, whole[i * size : (i + 1) * size]) for i, key_id in enumerate(key_ids)]
        try:
            await _all([self._send(path, toward, self.settings.id, key_ids, part) for path, part in zip(entries, parts, strict=True)])
            await self.store(self._vault.store_keys, "master", entry.service, *master_and_slave(entry, toward), keys)
        finally:
            wipe(whole, *parts, *(key for _, key in keys))
        return count


async def _all(works: Sequence[Awaitable[T]]) -> list[T]:
    """All results, once every work has ended; the first failure when there is one."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]


async def _set_within(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
