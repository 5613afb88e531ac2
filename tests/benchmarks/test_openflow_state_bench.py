"""Ten thousand rules on a real Open vSwitch: pushed beside `ovs-ofctl add-flows` of the same file, read back and compared in slices.

Both push to one switch with the user-space datapath, in a network namespace of the benchmark's own, in turn. Processor time is this
process's; the longest slice is the most that one callback of the event loop took, the garbage collector's longest pass, which is in that
of one of them, is named beside it. BENCH_RULES: how many. Figures are printed,
never asserted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import time
from asyncio import Handle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from private_ovs import DPID, MISSING, OpenVSwitch, until

from controller.southbound.device import Diff, FlowRule, Item, State, diff
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.compiled import compiled
from controller.southbound.openflow.listener import OpenFlowListener
from controller.telemetry.loop import ShortTurns

RULES = int(os.environ.get("BENCH_RULES", "10000"))
REPEATS = 3
OURS = 0xBE11 << 48


class Slices:
    """The processor time that callbacks of the event loop, and the collector, take at most from one `begin` to the next."""

    def __init__(self) -> None:
        self.longest_s = self.collector_s = self.began_s = self._collecting_s = 0.0
        run = Handle._run

        def timed(handle: Handle) -> None:
            start_s = time.thread_time()
            run(handle)
            self.longest_s = max(self.longest_s, time.thread_time() - start_s)

        Handle._run = timed  # type: ignore[method-assign, assignment]
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_s = time.thread_time()
        else:
            self.collector_s = max(self.collector_s, time.thread_time() - self._collecting_s)

    async def begin(self) -> None:
        await asyncio.sleep(0)
        self.longest_s, self.collector_s, self.began_s = 0.0, 0.0, time.process_time()

    async def told(self, what: str, wall_s: float | None = None) -> None:
        cpu_s = time.process_time() - self.began_s
        await asyncio.sleep(0)  # the slice that this is in counts, too
        wall = f"{wall_s:10.3f}" if wall_s is not None else f"{'':10}"
        print(f"{what:56}{wall}{cpu_s:10.3f}{1000 * self.longest_s:10.1f}{1000 * self.collector_s:14.1f}")


def rules() -> list[FlowRule]:
    """Made anew, so that nothing is equal only because it is the same."""
    return [
        FlowRule(
            100,
            (("eth_dst", mac(2, number)), ("eth_src", mac(3, number)), ("eth_type", 0x0800), ("in_port", number % 48 + 1)),
            (("output", number % 47 + 1),),
            OURS | number % 500,
        )
        for number in range(RULES)
    ]


def mac(first: int, number: int) -> str:
    return bytes((first, 0, *number.to_bytes(4))).hex(":")


def written(rule: FlowRule) -> str:
    match = dict(rule.match)
    text = f"in_port={match['in_port']},dl_src={match['eth_src']},dl_dst={match['eth_dst']},dl_type=0x0800"
    return f"cookie={rule.cookie:#x},priority={rule.priority},{text},actions=output:{rule.actions[0][1]}"


@asynccontextmanager
async def bridge(run: Path) -> AsyncIterator[tuple[OpenVSwitch, OpenFlowSwitch]]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221 - nothing else runs yet
    switch = OpenVSwitch(run, within=())
    try:
        switch.start()
        async with OpenFlowListener("127.0.0.1", 0) as listener:
            driver = OpenFlowSwitch("br0", DPID, listener)
            running = asyncio.create_task(driver.run())
            switch.connect(f"tcp:127.0.0.1:{listener.port}")
            await until(lambda: driver.connected)
            yield switch, driver
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        switch.stop()


async def measure(run: Path) -> None:
    slices, table = Slices(), run / "flows.txt"
    table.write_text("\n".join(map(written, rules())) + "\n")
    print(f"\n{f'{RULES} rules':56}{'s':>10}{'CPU s':>10}{'slice ms':>10}{'collector ms':>14}")
    async with bridge(run) as (switch, driver):
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShortTurns)
        loop.collect_in_short_passes()  # as the daemon does
        theirs_s: list[float] = []
        ours_s: list[float] = []
        for turn in range(REPEATS):
            began_s = time.perf_counter()
            await asyncio.to_thread(switch.ofctl, "add-flows", str(table))
            theirs_s.append(time.perf_counter() - began_s)
            assert (await asyncio.to_thread(switch.flows)).count("cookie=") == RULES
            await asyncio.to_thread(switch.ofctl, "del-flows")
            await asyncio.sleep(0.5)
            if turn == 0:
                compiled.cache_clear()
            change = Diff("br0", add=tuple(rules()))
            await slices.begin()
            began_s = time.perf_counter()
            await driver.apply(change)
            ours_s.append(time.perf_counter() - began_s)
            await slices.told(f"push and barriers, {'first' if turn == 0 else 'compiled before'}", ours_s[-1])
            assert (await asyncio.to_thread(switch.flows)).count("cookie=") == RULES
            if turn < REPEATS - 1:
                await asyncio.to_thread(switch.ofctl, "del-flows")
                await asyncio.sleep(0.5)
        print(f"{'ovs-ofctl add-flows, best':56}{min(theirs_s):10.3f}")
        print(f"{'ours to ovs-ofctl, best of each':56}{min(ours_s) / min(theirs_s):9.2f}x")
        desired = frozenset[Item](rules())
        states: list[State] = []  # kept: who starts anew has no earlier reading to throw away
        for what in ("after the push", "after a restart", "again"):
            if what == "after a restart":
                driver._rules.clear()
            await slices.begin()
            began_s = time.perf_counter()
            states.append(await driver.read())
            change = await asyncio.to_thread(diff, "br0", states[-1].items, desired, frozenset())  # as the reconciler does
            await slices.told(f"read back and diff, {what}", time.perf_counter() - began_s)
            assert change.empty, "what was pushed is what is read"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace")
@pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch: no {', '.join(MISSING)}")
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")
def test_ten_thousand_rules_beside_ovs_ofctl() -> None:
    done = subprocess.run(["unshare", "-n", sys.executable, __file__], capture_output=True, text=True, timeout=100)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    with TemporaryDirectory() as directory, asyncio.Runner(loop_factory=ShortTurns) as runner:
        runner.run(measure(Path(directory)))
