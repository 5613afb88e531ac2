"""Emulated optical switches in a process of their own, which take no time to switch: `python emulated_switches.py COUNT PORTS`.

Prints a line of JSON, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.southbound.netconf.session import Credentials

PASSWORD = "sesame"


@contextmanager
def serving(count: int, ports: int, directory: Path) -> Iterator[tuple[list[int], Credentials]]:
    """The TCP ports of switches in another process, and how to log in there."""
    command = [sys.executable, __file__, str(count), str(ports)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        keys: dict[str, str] = json.loads(process.stdout.readline())
        known_hosts = directory / "known_hosts"
        known_hosts.write_text("".join(f"[127.0.0.1]:{port} {key}\n" for port, key in keys.items()))
        yield [int(port) for port in keys], Credentials("bellhop", known_hosts, password=PASSWORD)
        process.stdin.close()


async def serve(count: int, ports: int) -> None:
    from topologies.emulation.optical_switch import EmulatedOpticalSwitch

    keys: dict[int, str] = {}
    switches = [EmulatedOpticalSwitch(f"ocs{number}", ports, switching_time_s=0.0) for number in range(count)]
    for switch in switches:
        port = await switch.start(passwords={"bellhop": PASSWORD})
        keys[port] = switch.host_public_key
    print(json.dumps(keys), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for switch in switches:
        await switch.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
