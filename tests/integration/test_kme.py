"""KMEs on real TLS sockets, fed by emulated QKD links, met by a foreign ETSI GS QKD 014 client and by curl."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from etsi_qkd_014_client import QKD014Client

from apps.kme.program import Kme, running
from apps.kme.settings import KmeSettings
from controller.southbound.device import Changed, Connected, DeviceEvent, Diff, KeyRelay, QkdLinkReport, Refused, State, Unreachable
from controller.southbound.drivers.kme import Kme as KmeDriver
from topologies.emulation import pki
from topologies.emulation.qkd_modules import EmulatedQkdLink, ModuleEnd, Setting

PATIENCE_S = 20.0


def client_context(certificates: Path, role: pki.Role, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(*pki.issue(certificates, role, name))
    return context


class Site:
    """A few KMEs on fixed ports, their drivers and their QKD links."""

    def __init__(self, directory: Path, neighbours: Sequence[tuple[str, str]], saes: dict[str, str]) -> None:
        self.certificates = directory / "pki"
        self.links: dict[str, EmulatedQkdLink] = {}
        self.drivers: dict[str, KmeDriver] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        names = sorted({name for pair in neighbours for name in pair})
        ports = {}
        for name in names:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                ports[name] = probe.getsockname()[1]
        self.urls = {name: f"https://127.0.0.1:{port}" for name, port in ports.items()}
        self.settings = {}
        for name in names:
            cert, key = pki.issue(self.certificates, "kme", name)
            peers = {other for pair in neighbours if name in pair for other in pair} - {name}
            self.settings[name] = KmeSettings(
                id=name,
                port=ports[name],
                saes=frozenset(sae for sae, home in saes.items() if home == name),
                ca=self.certificates / "ca.crt",
                cert=cert,
                key=key,
                peers={peer: self.urls[peer] for peer in peers},
                store=directory / f"{name}.db",
                kek=directory / f"{name}.kek",
            )
        for a, b in neighbours:
            ends = tuple(ModuleEnd(name, self.urls[name], client_context(self.certificates, "qkd", name)) for name in (a, b))
            assert len(ends) == 2
            self.links[f"{a}-{b}"] = EmulatedQkdLink(f"qkd:{a}--{b}", ends, Setting(True, 40_000.0, 0.02))

    async def start(self, name: str) -> Kme:
        stack = AsyncExitStack()
        kme = await stack.enter_async_context(running(self.settings[name]))
        self._stacks[name] = stack
        return kme

    async def stop(self, name: str) -> None:
        await self._stacks.pop(name).aclose()

    async def state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = await self.request("GET", f"{self.urls[name]}/control/v1/state", "controller", "c1")
        return state

    async def request(self, method: str, url: str, role: pki.Role, who: str, **body: Any) -> Any:
        status, answer = await self.answer(method, url, role, who, **body)
        assert status == 200, answer
        return answer

    async def answer(self, method: str, url: str, role: pki.Role, who: str, **body: Any) -> tuple[int, Any]:
        context = client_context(self.certificates, role, who)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, ssl=context, json=body or None) as response,
        ):
            raw = await response.read()
            return response.status, json.loads(raw) if raw else None

    def application(self, sae: str, kme: str) -> QKD014Client:
        cert, key = pki.issue(self.certificates, "sae", sae)
        return QKD014Client(self.urls[kme].removeprefix("https://"), str(cert), str(key), str(self.certificates / "ca.crt"))


@asynccontextmanager
async def site(directory: Path, neighbours: Sequence[tuple[str, str]], saes: dict[str, str], *, live: bool = True) -> AsyncIterator[Site]:
    made = Site(directory, neighbours, saes)
    async with AsyncExitStack() as stack:
        for name in made.settings:
            await made.start(name)
        stack.push_async_callback(_stop_all, made)
        tasks = []
        for name in made.settings:
            made.drivers[name] = KmeDriver(name, made.urls[name], client_context(made.certificates, "controller", "c1"))
            tasks.append(asyncio.create_task(made.drivers[name].run()))
        if live:
            tasks += [asyncio.create_task(link.run()) for link in made.links.values()]
        stack.push_async_callback(_cancel, tasks)
        await until(lambda: _true(all(driver.connected for driver in made.drivers.values())))
        yield made


async def _stop_all(made: Site) -> None:
    for name in tuple(made._stacks):
        await made.stop(name)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in done), done


async def _true(value: bool) -> bool:
    return value


async def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not await condition():  # noqa: ASYNC110 - there is no event: the condition is another program's
            await asyncio.sleep(0.05)


def line(service: str, saes: tuple[str, str], path: Sequence[str], **more: Any) -> dict[str, KeyRelay]:
    """The relay entries of one path, by KME."""
    ends = [None, *path, None]
    more = {"rate_bps": 20_000.0, "stock_keys": 6, **more}
    return {name: KeyRelay(service, saes, ends[i], ends[i + 2], **more) for i, name in enumerate(path)}


async def program(made: Site, entries: dict[str, KeyRelay]) -> None:
    for name, entry in entries.items():
        await made.drivers[name].apply(Diff(name, add=(entry,)))


async def stocked(made: Site, service: str, ends: Sequence[str], count: int) -> None:
    async def full() -> bool:
        states = [await made.drivers[name].read() for name in ends]
        return all(state.stock_keys.get(service, 0) >= count for state in states)

    await until(full)


LINE = [("alice", "relay1"), ("relay1", "relay2"), ("relay2", "bob")]
PATH = ["alice", "relay1", "relay2", "bob"]
SAES = {"sae-a": "alice", "sae-b": "bob", "sae-x": "bob"}


async def test_both_applications_get_the_same_keys_over_two_trusted_nodes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with site(tmp_path, LINE, SAES) as made:
        await program(made, line("svc", ("sae-a", "sae-b"), PATH))
        await stocked(made, "svc", ["alice", "bob"], 6)
        alice, bob = made.application("sae-a", "alice"), made.application("sae-b", "bob")
        for master, slave, names in ((alice, bob, ("sae-a", "sae-b")), (bob, alice, ("sae-b", "sae-a"))):
            code, status = await asyncio.to_thread(master.get_status, names[1])
            assert code == 200
            assert {status.source_kme_id, status.target_kme_id} == {"alice", "bob"}
            assert (status.key_size, status.stored_key_count, status.max_sae_id_count) == (256, 6, 0)
            code, got = await asyncio.to_thread(master.get_key, names[1], 3)
            assert code == 200
            keys = {key.key_id: key.key for key in got.keys}
            assert len(set(keys.values())) == 3
            assert all(len(base64.b64decode(key)) == 32 for key in keys.values())
            code, same = await asyncio.to_thread(slave.get_key_with_key_IDs, names[0], list(keys))
            assert code == 200
            assert {key.key_id: key.key for key in same.keys} == keys
            code, error = await asyncio.to_thread(slave.get_key_with_key_IDs, names[0], list(keys)[:1])
            assert code == 400
            assert "not found" in error.message
        await stocked(made, "svc", ["alice", "bob"], 6)
        for name in PATH:
            text = json.dumps(await made.state(name))
            assert not any(key in text for key in keys.values())
        assert not any(key in caplog.text for key in keys.values())


async def test_curl_fetches_and_another_sae_is_refused(tmp_path: Path) -> None:
    async def curl(sae: str, kme: str, path: str) -> tuple[int, str]:
        cert, key = pki.issue(made.certificates, "sae", sae)
        command: list[str | Path] = [
            "curl",
            "-s",
            "-w",
            "\n%{http_code}",
            "--cacert",
            made.certificates / "ca.crt",
            "--cert",
            cert,
            "--key",
            key,
        ]
        process = await asyncio.create_subprocess_exec(*command, f"{made.urls[kme]}/api/v1/keys/{path}", stdout=asyncio.subprocess.PIPE)
        body, _, code = (await process.communicate())[0].decode().rpartition("\n")
        return int(code), body

    async with site(tmp_path, LINE, SAES) as made:
        await program(made, line("svc", ("sae-a", "sae-b"), PATH))
        await stocked(made, "svc", ["alice", "bob"], 2)
        code, body = await curl("sae-a", "alice", "sae-b/enc_keys?number=1&size=256")
        assert code == 200
        key = json.loads(body)["keys"][0]
        assert await curl("sae-x", "bob", f"sae-a/dec_keys?key_ID={key['key_ID']}") == (401, "")
        assert await curl("sae-a", "bob", "sae-b/status") == (401, "")
        code, body = await curl("sae-b", "bob", f"sae-a/dec_keys?key_ID={key['key_ID']}")
        assert (code, json.loads(body)) == (200, {"keys": [key]})
        for query, word in (("size=255", "multiple of 8"), ("size=512", "size"), ("number=0", "number"), ("number=x", "integer")):
            code, body = await curl("sae-a", "alice", f"sae-b/enc_keys?{query}")
            assert code == 400
            assert word in json.loads(body)["message"]


async def test_wrong_roles_and_a_server_that_is_someone_else_are_refused(tmp_path: Path) -> None:
    async with site(tmp_path, LINE[:1], {"sae-a": "alice", "sae-b": "relay1"}, live=False) as made:
        url = made.urls["alice"]
        assert (await made.answer("GET", f"{url}/control/v1/state", "sae", "sae-a"))[0] == 403
        assert (await made.answer("POST", f"{url}/peer/v1/room", "controller", "c1"))[0] == 403
        assert (await made.answer("POST", f"{url}/peer/v1/room", "kme", "stranger"))[0] == 403
        assert (await made.answer("POST", f"{url}/qkd/v1/links", "qkd", "relay1"))[0] == 403
        assert await made.answer("GET", f"{url}/api/v1/keys/sae-b/status", "controller", "c1") == (401, None)
        status, answer = await made.answer("POST", f"{url}/qkd/v1/blocks", "qkd", "alice", link="l", nonsense=1)
        assert status == 400
        assert "Block" in answer["detail"]
        async with aiohttp.ClientSession() as session:
            nobody = ssl.create_default_context(cafile=str(made.certificates / "ca.crt"))
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{url}/control/v1/state", ssl=nobody)
        impostor = KmeDriver("relay1", url, client_context(made.certificates, "controller", "c1"))
        task = asyncio.create_task(impostor.run())
        await asyncio.sleep(0.2)
        with pytest.raises(Unreachable):
            await impostor.read()
        await _cancel([task])


async def test_an_empty_pool_is_503_and_what_waits_comes_when_it_fills(tmp_path: Path) -> None:
    async with site(tmp_path, LINE, SAES, live=False) as made:
        await program(made, line("svc", ("sae-a", "sae-b"), PATH))
        alice = made.application("sae-a", "alice")
        code, error = await asyncio.to_thread(alice.get_key, "sae-b")
        assert (code, "not enough key" in error.message) == (503, True)
        tasks = [asyncio.create_task(link.run()) for link in made.links.values()]
        await stocked(made, "svc", ["alice", "bob"], 6)
        code, error = await asyncio.to_thread(alice.get_key, "sae-b", 7)
        assert code == 503
        code, got = await asyncio.to_thread(alice.get_key, "sae-b", 6)
        assert (code, len(got.keys)) == (200, 6)
        await _cancel(tasks)


async def targets(application: QKD014Client, kme: str) -> bool:
    _, status = await asyncio.to_thread(application.get_status, "sae-b")
    return bool(status.target_kme_id == kme)


async def test_a_restart_keeps_entries_and_keys_and_delivers_none_twice(tmp_path: Path) -> None:
    async with site(tmp_path, LINE, SAES) as made:
        entries = line("svc", ("sae-a", "sae-b"), PATH)
        await program(made, entries)
        await stocked(made, "svc", ["alice", "bob"], 6)
        made.links["relay1-relay2"].set(False, 0.0, 0.0)
        alice, bob = made.application("sae-a", "alice"), made.application("sae-b", "bob")
        _, first = await asyncio.to_thread(alice.get_key, "sae-b", 2)
        for name in PATH:
            await made.stop(name)
        for name in PATH:
            await made.start(name)
        state = await made.state("alice")
        assert state["relays"][0]["right"] == "relay1"
        assert state["stock_keys"]["svc"]["master"] >= 4
        await until(partial(targets, alice, "bob"))
        code, same = await asyncio.to_thread(bob.get_key_with_key_IDs, "sae-a", [key.key_id for key in first.keys])
        assert code == 200
        assert [key.key for key in same.keys] == [key.key for key in first.keys]
        code, more = await asyncio.to_thread(alice.get_key, "sae-b", 4)
        assert code == 200
        assert not {key.key for key in more.keys} & {key.key for key in first.keys}


async def test_two_shares_over_disjoint_paths_make_one_key(tmp_path: Path) -> None:
    ring = [("alice", "relay1"), ("relay1", "bob"), ("alice", "relay2"), ("relay2", "bob")]
    async with site(tmp_path, ring, SAES) as made:
        for share, middle in enumerate(("relay1", "relay2")):
            entries = line("svc", ("sae-a", "sae-b"), ["alice", middle, "bob"], share=share, shares=2)
            await program(made, entries)
        await stocked(made, "svc", ["alice", "bob"], 6)
        alice, bob = made.application("sae-a", "alice"), made.application("sae-b", "bob")
        _, got = await asyncio.to_thread(alice.get_key, "sae-b", 2)
        _, same = await asyncio.to_thread(bob.get_key_with_key_IDs, "sae-a", [key.key_id for key in got.keys])
        assert [key.key for key in same.keys] == [key.key for key in got.keys]


async def test_a_split_service_gets_whole_keys_over_each_of_its_paths(tmp_path: Path) -> None:
    ring = [("alice", "relay1"), ("relay1", "bob"), ("alice", "relay2"), ("relay2", "bob")]
    async with site(tmp_path, ring, SAES) as made:
        for number, middle in enumerate(("relay1", "relay2")):
            await program(made, line("svc", ("sae-a", "sae-b"), ["alice", middle, "bob"], share=number, split=2))
        await stocked(made, "svc", ["alice", "bob"], 6)
        levels = {name: (await made.state(name))["pool_bytes"] for name in ("relay1", "relay2")}
        alice, bob = made.application("sae-a", "alice"), made.application("sae-b", "bob")
        await made.stop("relay1")
        _, got = await asyncio.to_thread(alice.get_key, "sae-b", 6)
        _, same = await asyncio.to_thread(bob.get_key_with_key_IDs, "sae-a", [key.key_id for key in got.keys])
        assert [key.key for key in same.keys] == [key.key for key in got.keys]
        await stocked(made, "svc", ["alice", "bob"], 6)  # over the path that is left
        assert all(level > 0 for of in levels.values() for level in of.values())


async def test_the_driver_reads_checks_applies_and_hears(tmp_path: Path) -> None:
    async with site(tmp_path, LINE[:1], {"sae-a": "alice", "sae-b": "relay1"}) as made:
        driver, entry = made.drivers["alice"], KeyRelay("svc", ("sae-a", "sae-b"), None, "relay1", 1000.0)
        events = driver.events()

        async def heard(wanted: Callable[[DeviceEvent], bool]) -> DeviceEvent:
            async with asyncio.timeout(PATIENCE_S):
                async for event in events:
                    if wanted(event):
                        return event
            raise AssertionError

        assert (await driver.read()).items == frozenset()
        wrong = entry._replace(right="mars", saes=("sae-q", "sae-b"))
        faults = await driver.check(Diff("alice", add=(wrong,)))
        assert len(faults) == 2
        assert "mars" in faults[0]
        with pytest.raises(Refused, match="mars"):
            await driver.apply(Diff("alice", add=(entry, wrong._replace(service="other"))))
        assert (await driver.read()).items == frozenset()
        await driver.apply(Diff("alice", add=(entry,)))
        assert (await driver.read()).items == frozenset({entry})
        made.links["alice-relay1"].set(True, 12_000.0, 0.03)
        await heard(lambda event: event == QkdLinkReport("alice", "qkd:alice--relay1", True, 12_000.0, 0.03))
        made.links["alice-relay1"].set(False, 0.0, 0.11)
        await heard(lambda event: event == QkdLinkReport("alice", "qkd:alice--relay1", False, 0.0, 0.11))
        await made.request("POST", f"{made.urls['alice']}/control/v1/relays", "controller", "c2", remove=[entry._asdict()])
        assert isinstance(await heard(lambda event: not isinstance(event, QkdLinkReport)), Changed), "its own change is no event"
        await made.stop("alice")
        await heard(lambda event: not isinstance(event, QkdLinkReport))
        with pytest.raises(Unreachable):
            await driver.read()
        await made.start("alice")
        await heard(lambda event: isinstance(event, Connected))
        assert await driver.read() == State(pool_bytes=(await driver.read()).pool_bytes)


SERVE = "import asyncio, sys; from apps.kme.program import *; asyncio.run(serve([KmeSettings.model_validate_json(sys.argv[1])]))"


async def test_a_killed_kme_comes_back_and_no_key_was_delivered_twice_or_differs(tmp_path: Path) -> None:
    async def spawn() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, made.settings["alice"].model_dump_json())
        await until(lambda: _answers(made, "alice"))
        return process

    async with site(tmp_path, LINE[:1], {"sae-a": "alice", "sae-b": "relay1"}) as made:
        entries = line("svc", ("sae-a", "sae-b"), ["alice", "relay1"], stock_keys=64, rate_bps=200_000.0)
        await program(made, entries)
        await made.stop("alice")
        process = await spawn()
        ledger: list[tuple[str, str]] = []

        async def fetch() -> None:
            url = f"{made.urls['alice']}/api/v1/keys/sae-b/enc_keys"
            while True:
                try:
                    status, answer = await made.answer("POST", url, "sae", "sae-a", number=2)
                    if status == 200:
                        ledger.extend((key["key_ID"], key["key"]) for key in answer["keys"])
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

        async def grown(count: int) -> bool:
            return len(ledger) >= count

        client = asyncio.create_task(fetch())
        for kill in range(1, 4):
            await until(partial(grown, 12 * kill))
            process.kill()
            await process.wait()
            process = await spawn()
        await _cancel([client])
        process.terminate()
        await process.wait()
        await made.start("alice")
        assert len({key_id for key_id, _ in ledger}) == len({key for _, key in ledger}) == len(ledger)
        for start in range(0, len(ledger), 50):
            wanted = [{"key_ID": key_id} for key_id, _ in ledger[start : start + 50]]
            url = f"{made.urls['relay1']}/api/v1/keys/sae-a/dec_keys"
            answer = await made.request("POST", url, "sae", "sae-b", key_IDs=wanted)
            assert [(key["key_ID"], key["key"]) for key in answer["keys"]] == ledger[start : start + 50]


async def _answers(made: Site, name: str) -> bool:
    try:
        return bool(await made.state(name))
    except aiohttp.ClientError:
        return False


async def test_an_emulated_link_resynchronises_then_fills_both_pools_alike(tmp_path: Path) -> None:
    async with site(tmp_path, LINE[:1], {}, live=False) as made:
        ends = tuple(ModuleEnd(name, made.urls[name], client_context(made.certificates, "qkd", name)) for name in LINE[0])
        link = EmulatedQkdLink("l", (ends[0], ends[1]), Setting(True, 40_000.0, 0.02), resync_s=0.5)
        task = asyncio.create_task(link.run())

        async def reported(up: bool) -> bool:
            states = [await made.state(name) for name in LINE[0]]
            return all([report["up"] for report in state["links"]] == [up] for state in states)

        async def pools() -> set[int]:
            return {pool for name in LINE[0] for pool in (await made.state(name))["pool_bytes"].values()}

        await until(partial(reported, False))
        assert await pools() == {0}
        await until(partial(reported, True))
        await asyncio.sleep(2.5)
        link.set(False, 0.0, 0.0)
        await until(partial(reported, False), 1.0)
        levels = await pools()
        assert len(levels) == 1
        assert 9_000 <= levels.pop() <= 16_000, "two or three seconds at 5000 bytes per second"
        await made.stop("alice")
        await made.start("alice")
        await until(partial(reported, False))
        await _cancel([task])
