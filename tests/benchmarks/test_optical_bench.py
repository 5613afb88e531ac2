"""What the NETCONF client does in a second beside ncclient, what a driver adds to its rpcs, and what a hundred sessions take.

The emulated switches run in another process and take no time to switch. Printed, never asserted, but for what the devices hold afterwards.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from emulated_switches import PASSWORD, serving
from lxml import etree

from controller.southbound.device import Connected, CrossConnect, Diff
from controller.southbound.drivers.netconf_device import NetconfDevice
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.netconf import rpc
from controller.southbound.netconf.session import Credentials, RpcRefusedError, Session, open_session

pytestmark = pytest.mark.timeout(300)

MODEL = OpticalSwitch(frozenset())
PAIR = CrossConnect(1, 17)
EDITS, THEIR_EDITS, WINDOW = 2000, 30, 100
ROUNDS = 60
SWITCHES = 100


def edit(number: int) -> etree._Element:
    """Adds a cross-connect and takes it away, in turn."""
    change = Diff("", remove=(PAIR,)) if number % 2 else Diff("", add=(PAIR,))
    config = MODEL.edit(frozenset({PAIR}) if number % 2 else frozenset(), change)
    assert config is not None
    return config


async def our_edits(port: int, login: Credentials) -> float:
    async with open_session("127.0.0.1", port, login) as session:
        start = time.perf_counter()
        for first in range(0, EDITS, WINDOW):
            outcomes = await session.pipeline(*(rpc.edit_config("candidate", edit(number)) for number in range(first, first + WINDOW)))
            assert not any(isinstance(each, RpcRefusedError) for each in outcomes)
        return EDITS / (time.perf_counter() - start)


def their_edits(port: int) -> float:
    from ncclient import manager

    with manager.connect(
        host="127.0.0.1",
        port=port,
        username="bellhop",
        password=PASSWORD,
        hostkey_verify=False,
        allow_agent=False,
        look_for_keys=False,
    ) as session:
        start = time.perf_counter()
        for number in range(THEIR_EDITS):
            config = rpc.element(rpc.BASE, "config")
            config.append(edit(number))
            assert session.edit_config(target="candidate", config=config).ok
        return THEIR_EDITS / (time.perf_counter() - start)


@pytest.mark.filterwarnings("ignore")  # ncclient's and paramiko's own
def test_edits_beside_ncclient(tmp_path: Path) -> None:
    with serving(1, 32, tmp_path) as ((port,), login):
        theirs, ours = their_edits(port), asyncio.run(our_edits(port, login))
    print(f"\nedit-config to one switch: {ours:.0f}/s, {WINDOW} at once; ncclient {theirs:.1f}/s; {ours / theirs:.0f} times as many")


async def timed(work: Callable[[int], Awaitable[None]], number: int) -> float:
    start = time.perf_counter()
    await work(number)
    return time.perf_counter() - start


async def lightpath(ports: list[int], login: Credentials) -> tuple[list[float], list[float]]:
    """Seconds that a change takes on all switches at once: by the driver, and its rpcs sent raw in one go."""
    async with AsyncExitStack() as stack:
        drivers = [NetconfDevice(f"ocs{port}", f"127.0.0.1:{port}", login, OpticalSwitch) for port in ports]
        streams = [driver.events() for driver in drivers]
        running = [asyncio.create_task(driver.run()) for driver in drivers]
        for driver, events in zip(drivers, streams, strict=True):
            assert await anext(events) == Connected(driver.name)

        async def driven(number: int) -> None:
            change = ((PAIR,), ()) if number % 2 == 0 else ((), (PAIR,))
            await asyncio.gather(*(driver.apply(Diff(driver.name, *change)) for driver in drivers))

        sessions = [await stack.enter_async_context(open_session("127.0.0.1", port, login)) for port in ports]

        async def one(session: Session, number: int) -> None:
            outcomes = await session.pipeline(
                rpc.lock("running"),
                rpc.lock("candidate"),
                rpc.get_config("running", MODEL.configuration()),
                rpc.edit_config("candidate", edit(number)),
                rpc.validate("candidate"),
                rpc.commit(),
                rpc.get_config("running", MODEL.configuration()),
                rpc.unlock("candidate"),
                rpc.unlock("running"),
            )
            assert not any(isinstance(each, RpcRefusedError) for each in outcomes)

        async def raw(number: int) -> None:
            await asyncio.gather(*(one(session, number) for session in sessions))

        times_s: dict[Callable[[int], Awaitable[None]], list[float]] = {driven: [], raw: []}
        for _ in range(ROUNDS):
            for work, taken in times_s.items():  # in turn; each takes away what it added
                taken += [await timed(work, number) for number in (0, 1)]
        for driver in drivers:
            assert (await driver.read()).items == frozenset()
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return times_s[driven], times_s[raw]


def test_a_lightpath_over_five_switches_beside_its_rpcs(tmp_path: Path) -> None:
    with serving(5, 32, tmp_path) as (ports, login):
        by_driver, raw = asyncio.run(lightpath(ports, login))
    driver_ms, raw_ms = (statistics.median(times_s) * 1e3 for times_s in (by_driver, raw))
    print(
        f"\na change on 5 switches at once: {driver_ms:.1f} ms by the driver, {raw_ms:.1f} ms raw; {driver_ms / raw_ms:.2f} times as long"
    )


HOLD = """
import asyncio, json, sys, time
from pathlib import Path
from controller.southbound.device import Connected
from controller.southbound.drivers.netconf_device import NetconfDevice
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.netconf.session import Credentials

def megabytes():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024

async def hold(ports, login):
    before, start = megabytes(), time.perf_counter()
    drivers = [NetconfDevice(str(port), f"127.0.0.1:{port}", login, OpticalSwitch) for port in ports]
    streams = [driver.events() for driver in drivers]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.run()) for driver in drivers]
        for driver, events in zip(drivers, streams):
            event = await anext(events)
            assert event == Connected(driver.name), event
        states = await asyncio.gather(*(driver.read() for driver in drivers))
        assert all(len(state.power_dbm) == 192 for state in states)
        print(json.dumps([before, megabytes(), time.perf_counter() - start]))
        for task in tasks:
            task.cancel()

known_hosts, password, *ports = sys.argv[1:]
asyncio.run(hold(ports, Credentials("bellhop", Path(known_hosts), password=password)))
"""


def test_a_hundred_switches_held(tmp_path: Path) -> None:
    with serving(SWITCHES, 192, tmp_path) as (ports, login):
        command = [sys.executable, "-c", HOLD, str(login.known_hosts), PASSWORD, *map(str, ports)]
        before_mb, held_mb, seconds = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    print(
        f"\n{SWITCHES} switches of 192 ports connected and read in {seconds:.1f} s: {held_mb:.0f} MB, {held_mb - before_mb:.0f} MB more than none"
    )
