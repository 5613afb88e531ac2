"""An Open vSwitch for a test alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

TOOLS = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "unshare")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
DPID = 0x0000BE1100000001


class OpenVSwitch:
    """An Open vSwitch of its own, of the user-space datapath: private database and sockets, ended by `stop`.

    The daemon is started by `within`, a command prefix: that of a network namespace, which ends with it.
    """

    def __init__(self, run: Path, within: tuple[str, ...] = ("unshare", "-n")) -> None:
        self._environment = {**os.environ, "OVS_RUNDIR": str(run), "OVS_DBDIR": str(run), "OVS_LOGDIR": str(run)}
        self.management = str(run / "br0.mgmt")
        self._within = within
        self._run = run
        self._log = run / "daemons.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        database, socket = str(self._run / "conf.db"), self._run / "db.sock"
        self("ovsdb-tool", "create", database, str(SCHEMA))
        self._spawn("ovsdb-server", database, f"--remote=punix:{socket}")
        deadline_s = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline_s, self._log.read_text()
            time.sleep(0.02)
        self._spawn(*self._within, "ovs-vswitchd", f"unix:{socket}", "--disable-system")
        self.vsctl(
            *("add-br", "br0", "--"),
            *("set", "bridge", "br0", "datapath_type=netdev", "protocols=OpenFlow13", "fail_mode=secure"),
            f"other_config:datapath-id={DPID:016x}",
        )

    def connect(self, controller: str) -> None:
        self.vsctl("set-controller", "br0", controller)

    def vsctl(self, *command: str) -> str:
        return self("ovs-vsctl", f"--db=unix:{self._run / 'db.sock'}", "--retry", "--timeout=15", *command)

    def ofctl(self, command: str, *arguments: str) -> str:
        return self("ovs-ofctl", "-O", "OpenFlow13", command, self.management, *arguments)

    def flows(self) -> str:
        return self.ofctl("dump-flows", "--no-stats")

    def _spawn(self, *command: str) -> None:
        with self._log.open("ab") as output:
            self._processes.append(subprocess.Popen(command, env=self._environment, stdout=output, stderr=output))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def unix_door(path: Path, port: int) -> AsyncIterator[None]:
    """A Unix socket that leads to the listener's port: the switch, in its namespace, cannot reach ours by TCP."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_unix_server(relay, path):
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)
