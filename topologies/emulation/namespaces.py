"""Namespaces of a run's own, which the kernel takes down with everything in them when the run ends, however it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from typing import TypeVar

Made = TypeVar("Made")

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 15
"""How long what runs inside may take to stop before the kernel ends it."""
_CHUNK_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


def enclose() -> int:
    """Go on in a child that has namespaces of its own for network, processes and mounts; returns a descriptor of the network outside.

    This process stays behind: it hands SIGTERM and SIGINT on, waits, and ends with the child's exit code. When either dies, the kernel
    ends every process inside, and with the last one goes the network: interfaces, bridges and the far ends of cables that lead out.
    To be called before there are threads. OSError without the right to do so.
    """
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    alive, held = os.pipe()
    _checked(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWNS))
    child = os.fork()
    if child:
        os.close(alive)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(_hand_on, child))
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    os.close(held)
    # The first process of a namespace is deaf to signals for which it has no handler.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if select.select([alive], [], [], 0)[0]:  # the parent was gone before it could be told of
        os._exit(1)
    os.close(alive)
    for command in ("mount --make-rprivate /", "mount -t proc proc /proc", "ip link set lo up"):
        subprocess.run(command.split(), check=True)
    return outside


def _hand_on(child: int, number: int, frame: object) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)
    signal.alarm(_STOP_TIMEOUT_S)  # its default action ends this process, and so the child


def within(namespace: int | str, work: Callable[[], Made]) -> Made:
    """What `work` makes in another network namespace, given as a descriptor or a path as /proc/PID/ns/net. Sockets stay there."""

    def there() -> Made:
        descriptor = os.open(namespace, os.O_RDONLY) if isinstance(namespace, str) else os.dup(namespace)
        try:
            _checked(_libc.setns(descriptor, _CLONE_NEWNET))
        finally:
            os.close(descriptor)
        return work()

    with ThreadPoolExecutor(1) as thread:  # a namespace is a thread's; this thread ends with it
        return thread.submit(there).result()


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@asynccontextmanager
async def relayed(address: tuple[str, int], outside: int) -> AsyncIterator[None]:
    """Carry connections to `address` in this network namespace to the same address outside, where something listens on loopback only."""
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_carry(reader, writer, address, outside))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(carry, *address)
    try:
        yield
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: tuple[str, int], outside: int) -> None:
    far_writer = None
    with closing(within(outside, socket.socket)) as far:
        far.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(far, address)
            far_reader, far_writer = await asyncio.open_connection(sock=far)
            pumps = {asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))}
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody listens outside: the caller sees its connection end
        finally:
            for each in filter(None, (writer, far_writer)):
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
