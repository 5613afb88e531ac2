"""Clients that send what no client should, at the emulated switch; each time, what is left in its datastores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh
import pytest

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import END_OF_MESSAGE, Deframer, frame
from topologies.emulation.optical_switch import OPTICAL_SWITCH, EmulatedOpticalSwitch

pytestmark = pytest.mark.timeout(30)

PASSWORD = "sesame"
HELLO = frame(rpc.hello([rpc.BASE_1_0, rpc.BASE_1_1]), chunked=False)
EDIT = f'<rpc xmlns="{rpc.BASE}" xmlns:nc="{rpc.BASE}" message-id="1"><edit-config><target><candidate/></target>%s</edit-config></rpc>'
CONFIG = EDIT % "<config>%s</config>"
CONNECTS = f'<cross-connects xmlns="{OPTICAL_SWITCH}">%s</cross-connects>'
PAIR = "<pair><ingress>2</ingress><egress>18</egress></pair>"
GOOD = CONFIG % (CONNECTS % PAIR)
COMMIT = f'<rpc xmlns="{rpc.BASE}" message-id="2"><commit/></rpc>'
LAUGHS = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12))


@pytest.fixture
async def switch() -> AsyncIterator[EmulatedOpticalSwitch]:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0)
    switch.patch({1: 17})
    await switch.start(passwords={"bellhop": PASSWORD})
    yield switch
    await switch.close()


@asynccontextmanager
async def raw(switch: EmulatedOpticalSwitch) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
    """A session of base:1.1 whose hellos have been said, for any bytes."""
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{switch.port} {switch.host_public_key}\n")
    async with asyncssh.connect(
        "127.0.0.1", switch.port, config=None, username="bellhop", password=PASSWORD, client_keys=None, known_hosts=known
    ) as connection:
        process = await connection.create_process(subsystem="netconf", encoding=None)
        process.stdin.write(HELLO)
        await process.stdout.readuntil(END_OF_MESSAGE)
        yield process


async def answers(process: asyncssh.SSHClientProcess[bytes], count: int) -> list[rpc.Reply]:
    deframer, replies = Deframer(), []
    deframer.chunked = True
    while len(replies) < count:
        while (message := deframer.take()) is None:
            data = await asyncio.wait_for(process.stdout.read(65536), 5)
            assert data, "the session ended"
            deframer.feed(data)
        reply = rpc.parse(message)
        assert isinstance(reply, rpc.Reply)
        replies.append(reply)
    return replies


async def untouched(switch: EmulatedOpticalSwitch) -> None:
    """Nothing is left of the bad client: another one finds both datastores as they were, free to lock, and can work."""
    async with raw(switch) as process:
        reads = [
            f'<rpc xmlns="{rpc.BASE}" message-id="{n}"><get-config><source><{name}/></source></get-config></rpc>'
            for n, name in enumerate(("running", "candidate"))
        ]
        locks = [
            f'<rpc xmlns="{rpc.BASE}" message-id="{n}"><lock><target><{name}/></target></lock></rpc>'
            for n, name in enumerate(("running", "candidate"))
        ]
        process.stdin.write(b"".join(frame(text.encode(), chunked=True) for text in (*reads, *locks, GOOD, COMMIT)))
        running, candidate, *rest = await answers(process, 6)
    for read in (running, candidate):
        assert read.data is not None
        ports = [(pair[0].text, pair[1].text) for pair in read.data.iter(rpc.q(OPTICAL_SWITCH, "pair"))]
        assert ports == [("1", "17")]
    assert all(reply.ok for reply in rest)
    assert switch.cross_connects == {(1, 17), (2, 18)}


@pytest.mark.parametrize(
    ("message", "tag", "said"),
    [
        (EDIT % f"<config xmlns=''>{CONNECTS % PAIR}</config>", "missing-element", "in another namespace"),
        (EDIT % "", "missing-element", "no config"),
        (CONFIG % "<cross-connects/>", "unknown-namespace", OPTICAL_SWITCH),
        (CONFIG % (CONNECTS % PAIR).replace("polatis", "example"), "unknown-namespace", OPTICAL_SWITCH),
        (CONFIG % (CONNECTS % f"<pair xmlns='urn:x'>{PAIR}</pair>"), "unknown-namespace", OPTICAL_SWITCH),
        (CONFIG % (CONNECTS % PAIR.replace("18", "70000")), "invalid-value", "70000"),
        (CONFIG % (CONNECTS % PAIR.replace("18", "1.5")), "invalid-value", "1.5"),
        (CONFIG % (CONNECTS % PAIR.replace("<egress>18</egress>", "")), "missing-element", "egress"),
        (CONFIG % (CONNECTS % PAIR.replace("18", "17")), "data-exists", "port 17 is already used"),
        (CONFIG % (CONNECTS % (PAIR + PAIR.replace("2", "3"))), "data-exists", "port 18 is already used"),
        (CONFIG % (CONNECTS % ("<pair>" * 100 + "</pair>" * 100)), "missing-element", "no ingress"),
        (CONFIG % ("<x>" * 300 + "</x>" * 300), "malformed-message", "depth"),
        (GOOD[:-10], "malformed-message", "not well-formed"),
        (GOOD.replace("18", "&amp;&x;"), "malformed-message", "not well-formed"),
        (GOOD.replace("18", "\x00"), "malformed-message", "not well-formed"),
        ("\ufeff" + GOOD + GOOD, "malformed-message", "not well-formed"),
        (f"<!DOCTYPE rpc [{LAUGHS}]>" + GOOD.replace("18", "&a12;"), "malformed-message", "document type"),
        ('<!DOCTYPE rpc [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + GOOD.replace("18", "&e;"), "malformed-message", "document type"),
        (GOOD.replace("<target><candidate/></target>", ""), "missing-element", "target"),
        (GOOD.replace("<config>", "<default-operation>maybe</default-operation><config>"), "invalid-value", "maybe"),
        (GOOD.replace("edit-config", "exit-config"), "operation-not-supported", "exit-config"),
        (
            f'<rpc xmlns="{rpc.BASE}" message-id="1"><get><filter>{"<x/>" * 2000}</filter></get></rpc>',
            "too-big",
            "at most",
        ),
    ],
)
async def test_what_is_refused_leaves_nothing(switch: EmulatedOpticalSwitch, message: str, tag: str, said: str) -> None:
    async with raw(switch) as process:
        process.stdin.write(frame(message.encode(), chunked=True))
        process.stdin.write(frame(COMMIT.encode(), chunked=True))
        refusal, commit = await answers(process, 2)
        assert [error.tag for error in refusal.errors] == [tag]
        assert said in refusal.errors[0].message
        assert commit.ok and switch.cross_connects == {(1, 17)}
    await untouched(switch)


@pytest.mark.parametrize(
    "ending",
    [
        b"",
        b"\n#100\n<rpc",
        b"\n#",
        b"nonsense",
        b"\n#0\n",
        b"\n#4294967295\n<rpc>",
        b"\n#99999999999\n",
        b"\n##\n",
        frame(b"\xff\xfe", chunked=True)[:-4] + b"\n#1\n",
        END_OF_MESSAGE,
    ],
)
async def test_a_session_that_ends_in_a_half_message_leaves_nothing(switch: EmulatedOpticalSwitch, ending: bytes) -> None:
    async with raw(switch) as process:
        process.stdin.write(frame(GOOD.encode(), chunked=True))
        (edited,) = await answers(process, 1)
        assert edited.ok
        process.stdin.write(ending)
        process.stdin.write_eof()
        assert await asyncio.wait_for(process.stdout.read(), 5) == b""
    await untouched(switch)


@pytest.mark.parametrize(
    "greeting",
    [HELLO[:40], b"<hello/>" + END_OF_MESSAGE, HELLO.replace(b"<capabilities>", b"<!DOCTYPE x><capabilities>"), b"\x00" * 5_000_000],
)
async def test_a_session_without_a_hello_is_none(switch: EmulatedOpticalSwitch, greeting: bytes) -> None:
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{switch.port} {switch.host_public_key}\n")
    async with asyncssh.connect(
        "127.0.0.1", switch.port, config=None, username="bellhop", password=PASSWORD, client_keys=None, known_hosts=known
    ) as connection:
        process = await connection.create_process(subsystem="netconf", encoding=None)
        process.stdin.write(greeting + frame(GOOD.encode(), chunked=False) + frame(COMMIT.encode(), chunked=False))
        process.stdin.write_eof()
        heard = await asyncio.wait_for(process.stdout.read(), 10)
        assert heard.count(END_OF_MESSAGE) == 1  # its own hello, and no answer
    await untouched(switch)
