"""Five optical switches in a row that hang, lie, drop, refuse or come back changed, and a controller killed in the middle of a change.

The controller is a process of its own; the switches are emulated in the test's, which looks at what each of them holds and at the fibre
plant's log of light. Between the ends of the row there are two ways, over switches of their own.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest

from controller.cli.document import BELLHOP
from controller.network import document
from topologies.emulation.classical import ClassicalNetwork
from topologies.emulation.emulator import DEVICE_TIMES, Emulator
from topologies.emulation.netconf.server import Misbehaviour
from topologies.emulation.optical_switch import EmulatedOpticalSwitch
from topologies.emulation.workspace import Workspace, lay_out

WAYS = {way: ("west", *(f"{way}{number}" for number in (2, 3, 4)), "east") for way in "ab"}
FOREIGN = (4, 12)
"""A cross-connect of somebody else's on every switch."""
Held = dict[str, set[tuple[int, int]]]
Way = tuple[tuple[str, str], ...]


def network() -> str:
    """Port 9 and 10 of the switch at the transmitter lead to the two ways, which come in at 1 and 2 of that at the receiver."""
    end = {"technology": "bb84-decoy", "wavelength_nm": 1550.12, "max_loss_db": 14}
    lines = [
        "name: row",
        "nodes:",
        f"  alice: {{kind: source, modules: {{tx: {end | {'role': 'tx', 'port': 'west:1'}}}}}}",
        f"  bob: {{kind: bell-station, modules: {{rx: {end | {'role': 'rx', 'port': 'east:9'}}}}}}",
    ]
    names = sorted({name for way in WAYS.values() for name in way})
    lines += [f"  {name}: {{kind: optical-switch, ports: 16, insertion_loss_db: 0.8, driver: netconf}}" for name in names]
    lines += ["links:"]
    for number, (way, row) in enumerate(WAYS.items()):
        for near, far in pairwise(row):
            out, into = 9 + number * (near == "west"), 1 + number * (far == "east")
            length_km = 1.0 + number
            lines.append(f"  - {{kind: fibre, id: {way}-{near}-{far}, ends: ['{near}:{out}', '{far}:{into}'], length_km: {length_km}}}")
    return "\n".join(lines)


def path(way: str) -> Held:
    """What the switches hold for light that takes a way."""
    second = "ab".index(way)
    inner: Held = {name: {(1, 9)} for name in WAYS[way][1:-1]}
    return {**inner, "west": {(1, 9 + second)}, "east": {(1 + second, 9)}}


def first_fibre(way: str) -> str:
    return f"{way}-west-{way}2"


class Row:
    """The running network: its switches, and its controller, which is asked over its API."""

    def __init__(self, workspace: Workspace, emulator: Emulator, client: aiohttp.ClientSession) -> None:
        self.workspace = workspace
        self.emulator = emulator
        self._client = client
        self._controller: subprocess.Popen[bytes] | None = None
        self._stopped: set[Way] = set()

    def switch(self, name: str) -> EmulatedOpticalSwitch:
        found = self.emulator.optical[name]
        assert isinstance(found, EmulatedOpticalSwitch)
        return found

    def held(self) -> Held:
        """What each switch holds beside what is somebody else's, which every one of them must still hold."""
        assert all(FOREIGN in switch.cross_connects for switch in self.emulator.optical.values())
        return {name: rest for name, switch in self.emulator.optical.items() if (rest := set(switch.cross_connects) - {FOREIGN})}

    def stray_light(self) -> list[Way]:
        """Every way that the light has ever taken out of the first switch without coming to the receiver, but for what a cut fibre stopped."""
        assert not self.emulator.light_log.forgotten
        ways = {way for interval in self.emulator.light_log.intervals() for way in interval.ways}
        return sorted(way for way in ways if len(way) > 2 and way[-1] != ("bob", "rx") and way not in self._stopped)

    def lit(self) -> bool:
        """Whether light arrives at the receiver now."""
        return any(ray.ports[-1] == ("bob", "rx") for rays in self.emulator.plant.light().rays.values() for ray in rays)

    async def cut(self, way: str) -> None:
        """Cut the first fibre of a way."""
        self._stopped.add((("alice", "tx"), ("west", "1"), ("west", "9" if way == "a" else "10")))
        await self.emulator.set_link(first_fibre(way), up=False)

    async def mend(self, way: str) -> None:
        """Mend that fibre and say so: no light can tell of a dark fibre that it would pass."""
        await self.emulator.set_link(first_fibre(way), up=True)
        await self.api("PATCH", f"/api/v1/links/{first_fibre(way)}", {"admin": "enabled"})

    async def come_back(self, name: str, cross_connects: dict[int, int]) -> None:
        """A switch goes away, and returns with other cross-connects."""
        switch, ssh = self.switch(name), self.workspace.directory / "ssh"
        await switch.close()
        switch.patch(cross_connects)
        await switch.start(
            port=switch.port, authorized_keys=ssh / "authorized_keys", host_key=asyncssh.read_private_key(ssh / f"{name}.key")
        )

    async def start_controller(self, until: Callable[[], Any] | None = None) -> None:
        """Until all is connected, unless it is to be waited for something else."""
        await self._launch()
        await self.until(until or self._ready)

    async def _launch(self) -> None:
        command = [*BELLHOP, "run", "--config", str(self.workspace.settings), "--verbose"]
        with self._log.open("ab") as log:
            self._controller = await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def _log(self) -> Path:
        return self.workspace.directory / "controller.log"

    async def _ready(self) -> bool:
        assert self._controller is not None
        if self._controller.poll() is not None and "is taken" in self._log.read_text().splitlines()[-1]:
            await self._launch()  # while none ran, somebody's outgoing connection had the port
        try:
            return bool((await self.api("GET", "/readyz"))["ready"])
        except aiohttp.ClientError:
            return False

    async def kill_controller(self, number: int = signal.SIGKILL) -> None:
        if self._controller is not None:
            self._controller.send_signal(number)
            await asyncio.to_thread(self._controller.wait)

    async def api(self, method: str, url: str, body: object = None) -> Any:
        async with self._client.request(method, f"{self.workspace.api}{url}", json=body) as answer:
            return await answer.json(content_type=None)

    async def ask(self) -> str:
        return str((await self.api("POST", "/api/v1/services", {"kind": "lightpath", "request": {"ends": ["alice/tx", "bob/rx"]}}))["id"])

    async def take_down(self) -> None:
        for each in await self.services():
            await self.api("DELETE", f"/api/v1/services/{each['id']}")

    async def services(self) -> list[dict[str, Any]]:
        return list((await self.api("GET", "/api/v1/services"))["services"])

    async def until(self, condition: Callable[[], Any], timeout_s: float = 40.0) -> None:
        """Wait until `condition`, plain or a coroutine function, is true."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = condition()
                    if await found if asyncio.iscoroutine(found) else found:
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"not within {timeout_s} s: {self.held()} {await self.services()}")

    async def settled(self, *expected: Held) -> str:
        """Why the service has failed, or nothing when it serves; once the switches hold one that is expected and nothing is under way."""

        async def at_rest() -> bool:
            return self.held() in expected and all(each["state"] in ("ACTIVE", "FAILED") for each in await self.services())

        await self.until(at_rest)
        return "".join(each["reason"] for each in await self.services() if each["state"] == "FAILED")


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Row]:
    (directory / "row.yaml").write_text(network())
    workspace = lay_out(document.load(directory / "row.yaml"), directory, any_ports=True)
    emulator = Emulator(workspace.topology, directory, ClassicalNetwork(workspace.topology, workspace.openflow), DEVICE_TIMES["demo"])
    async with emulator.running(), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as client:
        for switch in emulator.optical.values():
            assert isinstance(switch, EmulatedOpticalSwitch)
            switch.patch(dict([FOREIGN]))
        row = Row(workspace, emulator, client)
        try:
            await row.start_controller()
            yield row
        finally:
            await row.kill_controller(signal.SIGTERM)


FAULTS = {
    "hang": "",
    "drop": "",
    "drop-after": "",
    "lie": "a4: it confirmed the change, yet read back",
    "refuse": "a4: operation-failed: the device cannot do commit now",
}
"""What a switch does at the commit, and how the service's reason begins if it fails for that."""


@pytest.mark.parametrize("does", FAULTS)
async def test_the_second_of_five_switches_goes_wrong_between_validate_and_commit(tmp_path: Path, does: Any) -> None:
    """The switch at the source comes last. The change is whole afterwards, or all of it is taken back and the service says why."""
    async with running(tmp_path) as row:
        planned = row.switch("a4").misbehaviours
        planned.append(Misbehaviour("commit", does))
        await row.ask()
        await row.until(lambda: not planned)
        assert "west" not in row.held(), "no light comes in before it is done"
        reason = await row.settled({} if FAULTS[does] else path("a"))
        assert reason.startswith(FAULTS[does])
        assert bool(reason) == bool(FAULTS[does])
        assert (row.stray_light(), row.lit()) == ([], not reason)


@pytest.mark.parametrize("does", ["drop", "refuse"])
async def test_a_switch_of_the_other_way_goes_wrong_in_a_restoration(tmp_path: Path, does: Any) -> None:
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        row.switch("b4").misbehaviours.append(Misbehaviour("commit", does))
        await row.cut("a")
        reason = await row.settled(path("b") if does == "drop" else {})
        assert reason == ("" if does == "drop" else "b4: operation-failed: the device cannot do commit now")
        assert (row.stray_light(), row.lit()) == ([], does == "drop")


async def test_a_lightpath_is_moved_off_a_switch_that_is_drained(tmp_path: Path) -> None:
    """Light is out before the old way is taken apart, and lit again when the new one is whole."""
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        await row.api("PATCH", "/api/v1/nodes/a3", {"admin": "draining"})
        assert await row.settled(path("b")) == ""
        assert (row.stray_light(), row.lit()) == ([], True)


@pytest.mark.parametrize("does", ["hang", "drop-after", "refuse"])
async def test_the_switch_at_the_source_goes_wrong_when_light_is_put_out(tmp_path: Path, does: Any) -> None:
    """Nothing behind it is taken apart before it has let go, and in the end all is."""
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        planned = row.switch("west").misbehaviours
        planned.append(Misbehaviour("commit", does))
        await row.take_down()
        await row.until(lambda: not planned)
        assert row.held().keys() >= path("a").keys() - {"west"}
        assert await row.settled({}) == ""
        assert (row.stray_light(), row.lit()) == ([], False)


async def test_nothing_is_taken_apart_while_the_switch_at_the_source_is_away(tmp_path: Path) -> None:
    """The controller is new and has never read it. What it waits for is told."""
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        west, ssh = row.switch("west"), row.workspace.directory / "ssh"
        await west.close()
        await row.take_down()
        await row.kill_controller()

        async def told() -> bool:
            with suppress(aiohttp.ClientError):
                (service,) = await row.services()
                return all(f"{name}: light may still come from west (" in service["reason"] for name in ("a2", "a3", "a4", "east"))
            return False

        await row.start_controller(told)
        assert row.held() == path("a") and row.lit()
        key = asyncssh.read_private_key(ssh / "west.key")
        await west.start(port=west.port, authorized_keys=ssh / "authorized_keys", host_key=key)
        assert await row.settled({}) == ""
        assert (row.stray_light(), row.lit()) == ([], False)


@pytest.mark.parametrize("others", [{5: 13}, {1: 10, 5: 13}, {5: 9}], ids=["beside ours", "at our ingress", "at our egress"])
async def test_a_switch_comes_back_with_other_cross_connects(tmp_path: Path, others: dict[int, int]) -> None:
    """What is ours is put back where there is room, and else led around it. What somebody else has put there stays."""
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        await row.come_back("a3", dict([FOREIGN]) | others)
        theirs = set(others.items())
        room = {1, 9}.isdisjoint(port for pair in theirs for port in pair)
        assert await row.settled(path("a") | {"a3": theirs | {(1, 9)}} if room else path("b") | {"a3": theirs}) == ""
        assert {way[-1][0] for way in row.stray_light()} == {"a3"}, "where others broke it"
        assert row.lit()


async def test_a_service_with_no_way_around_somebody_comes_back_when_the_port_is_free(tmp_path: Path) -> None:
    """Somebody has a port of the switch at the receiver, which is in every way."""
    async with running(tmp_path) as row:
        await row.ask()
        assert await row.settled(path("a")) == ""
        await row.come_back("east", dict([FOREIGN]) | {5: 9})

        async def told() -> bool:
            (service,) = await row.services()
            return service["state"] == "DEGRADED" and row.held()["east"] == {(5, 9)}

        await row.until(told)
        await row.come_back("east", dict([FOREIGN]))
        assert await row.settled(path("a")) == ""
        assert row.lit()


async def moment(row: Row, chance: random.Random, taken_s: float) -> None:
    """Let a random part of the time pass, or a few changes of switches, which take up little of it."""
    if chance.random() < 0.5:
        await asyncio.sleep(chance.uniform(0, taken_s))
        return
    left, held = chance.randint(1, 6), row.held()
    with suppress(TimeoutError):
        async with asyncio.timeout(taken_s):
            while left:
                await asyncio.sleep(0.001)
                left, held = left - (row.held() != held), row.held()
    await asyncio.sleep(chance.uniform(0, 0.02))


async def campaign(row: Row, kills: int, seed: int) -> list[int]:
    """Set up, move off a cut fibre and take down; each is stopped at a random point by a kill, and left to the next controller to finish.

    Returns for each kill how many of the path's five switches then held their part of it.
    """
    chance, found = random.Random(seed), list[int]()
    taken_s: dict[str, float] = {}
    for number in range(3 + kills):  # the first three are left alone, to see how long each takes
        before = row.held()
        way, other = "ab" if before != path("b") else "ba"
        does = "set up" if not before else "move" if number % 3 == 1 else "take down"
        after = {"set up": path("a"), "move": path(other), "take down": {}}[does]
        start = time.monotonic()
        begun = asyncio.create_task({"set up": row.ask, "move": partial(row.cut, way), "take down": row.take_down}[does]())
        if number >= 3:
            await moment(row, chance, taken_s[does])
            await row.kill_controller()
            between = row.held()
            found.append(sum(between.get(name) == pairs for name, pairs in (after or before).items()))
            await asyncio.gather(begun, return_exceptions=True)  # who asked may never have heard
            await row.start_controller()
        else:
            await begun
        # the fibre that was cut is not asked whether it may
        assert await row.settled(after, *([before] if number >= 3 and does != "move" else [])) == ""
        taken_s.setdefault(does, time.monotonic() - start)
        assert row.lit() == bool(row.held())
        await row.mend(way)
    return found


async def test_the_controller_killed_in_the_middle_of_a_change(tmp_path: Path) -> None:
    async with running(tmp_path) as row:
        assert len(await campaign(row, 3, 5)) == 3
        assert row.stray_light() == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [5, 6, 7])
async def test_the_controller_killed_at_fifty_points(tmp_path: Path, seed: int) -> None:
    async with running(tmp_path) as row:
        found = await campaign(row, 50, seed)
        assert row.stray_light() == []
    print(f"\nswitches of five that were done when the controller was killed: {sorted(found)}")
    assert any(0 < each < 5 for each in found), "the kills came in the middle"
