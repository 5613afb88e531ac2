"""Our NETCONF client in exchanges recorded by hand, in the shapes of RFC 6241 (sections 4, 6 to 8), RFC 5277 and RFC 6242.

The other side is not ours: it compares what it is sent with what the RFC says it should be, as canonical XML, and answers as written here,
with prefixes, white space, chunks and an order of its own.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from lxml import etree
from netconf_peers import Process, scripted

from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import BASE, element, q
from controller.southbound.netconf.session import RpcRefusedError, Session, open_session
from controller.southbound.session import SessionError

pytestmark = pytest.mark.timeout(30)

ROUTER = "http://example.com/schema/1.2/config"
RFC_HELLO = b"""<?xml version="1.0" encoding="UTF-8"?>
<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">
  <capabilities>
    <capability>
      urn:ietf:params:netconf:base:1.%d
    </capability>
    <capability>
      urn:ietf:params:netconf:capability:startup:1.0
    </capability>
    <capability>http://example.net/router/2.3/myfeature</capability>
  </capabilities>
  <session-id>4</session-id>
</hello>
]]>]]>"""


def canonical(xml: bytes | str) -> bytes:
    """The same bytes for the same XML; prefixes do not count, nor white space between elements."""
    root = etree.fromstring(xml, etree.XMLParser(remove_blank_text=True))
    for node in root.iter():
        node.text = (node.text or "").strip()
    return b"".join(f"{node.tag}|{sorted(node.attrib.items())}|{node.text}|{len(node)};".encode() for node in root.iter())


def top(*path: str, **leaves: str) -> etree._Element:
    root = node = element(ROUTER, "top")
    for name in path:
        node = etree.SubElement(node, q(ROUTER, name))
    for name, value in leaves.items():
        etree.SubElement(node, q(ROUTER, name)).text = value or None
    return root


RPC = '<rpc message-id="1" xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">%s</rpc>'
EXCHANGES = {
    "get with a subtree filter": (
        rpc.get(top("users", "user", name="fred")),
        """<get><filter type="subtree"><t:top xmlns:t="http://example.com/schema/1.2/config">
             <t:users><t:user><t:name>fred</t:name></t:user></t:users></t:top></filter></get>""",
        """<data><top xmlns="http://example.com/schema/1.2/config"><users><user><name>fred</name><type>admin</type>
             <full-name>Fred Flintstone</full-name></user></users></top></data>""",
    ),
    "get-config of the running datastore": (
        rpc.get_config("running", top("users")),
        """<get-config><source><running/></source><filter type="subtree">
             <top xmlns="http://example.com/schema/1.2/config"><users/></top></filter></get-config>""",
        '<data><top xmlns="http://example.com/schema/1.2/config"><users/></top></data>',
    ),
    "edit-config": (
        rpc.edit_config("running", top("interface", name="Ethernet0/0", mtu="1500"), error_option="rollback-on-error"),
        """<edit-config><target><running/></target><default-operation>merge</default-operation>
             <error-option>rollback-on-error</error-option>
             <config><top xmlns="http://example.com/schema/1.2/config">
               <interface><name>Ethernet0/0</name><mtu>1500</mtu></interface></top></config></edit-config>""",
        "<ok/>",
    ),
    "lock": (rpc.lock("candidate"), "<lock><target><candidate/></target></lock>", "<ok/> <!-- lock succeeded -->"),
    "validate": (rpc.validate("candidate"), "<validate><source><candidate/></source></validate>", "<ok/>"),
    "commit": (rpc.commit(), "<commit/>", "<ok/>"),
    "discard-changes": (rpc.discard_changes(), "<discard-changes/>", "<ok/>"),
    "create-subscription": (
        rpc.create_subscription("NETCONF"),
        """<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><stream>NETCONF</stream></create-subscription>""",
        "<ok/>",
    ),
}


class Peer:
    """Answers one rpc after the other from a script of (request, reply); what it was sent otherwise is in `wrong`."""

    def __init__(self, minor: int, script: list[tuple[str, bytes]]) -> None:
        self.minor = minor
        self.script = script
        self.wrong: list[bytes] = []

    async def serve(self, process: Process) -> None:
        process.stdout.write(RFC_HELLO % self.minor)
        greeting = (await process.stdin.readuntil(b"]]>]]>")).removesuffix(b"]]>]]>")
        assert b"base:1.1" in greeting and b"session-id" not in greeting
        for wanted, reply in self.script:
            request = await self.request(process)
            if canonical(request) != canonical(wanted):
                self.wrong.append(request)
            for piece in (reply[:7], reply[7:]) if len(reply) > 7 else (reply,):
                process.stdout.write(piece)
                await asyncio.sleep(0)
        await process.stdin.read()

    async def request(self, process: Process) -> bytes:
        if not self.minor:
            return (await process.stdin.readuntil(b"]]>]]>")).removesuffix(b"]]>]]>")
        message = b""
        while (header := await process.stdin.readexactly(3)) != b"\n##":
            assert header.startswith(b"\n#")
            digits = header[2:]
            while not digits.endswith(b"\n"):
                digits += await process.stdin.readexactly(1)
            message += await process.stdin.readexactly(int(digits))
        assert await process.stdin.readexactly(1) == b"\n"
        return message


def framed(reply: str, minor: int) -> bytes:
    """In the chunks of RFC 6242's example: 4 bytes, 18 bytes, the rest; or up to the old delimiter, with a line feed after it."""
    message = reply.encode()
    if not minor:
        return message + b"]]>]]>\n"
    parts = [part for part in (message[:4], message[4:22], message[22:]) if part]
    return b"".join(b"\n#%d\n%b" % (len(part), part) for part in parts) + b"\n##\n"


def replied(content: str, minor: int, message_id: int = 1) -> bytes:
    head = f'<nc:rpc-reply xmlns:nc="{BASE}" message-id="{message_id}" xmlns:ex="http://example.net/content/1.0" ex:user-id="fred">'
    return framed(head + re.sub(r"(</?)(ok|data|rpc-error|error-[a-z]+)\b", r"\1nc:\2", content) + "</nc:rpc-reply>", minor)


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("name", EXCHANGES)
async def test_operations_are_sent_and_replies_read_as_the_rfc_has_them(tmp_path: Path, name: str, minor: int) -> None:
    operation, request, answer = EXCHANGES[name]
    peer = Peer(minor, [(RPC % request, replied(answer, minor))])
    async with scripted(tmp_path, peer.serve) as (port, login), open_session("127.0.0.1", port, login, timeout_s=5.0) as session:
        assert session.session_id == 4 and "http://example.net/router/2.3/myfeature" in session.capabilities
        reply = await session.call(operation)
        assert peer.wrong == []
        assert reply.ok == answer.startswith("<ok/>")
        if not reply.ok:
            assert reply.data is not None and canonical(etree.tostring(reply.data[0])) == canonical(answer[len("<data>") : -len("</data>")])
        session.end("done")


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        (
            """<rpc-error><error-type>protocol</error-type><error-tag>lock-denied</error-tag><error-severity>error</error-severity>
                 <error-message>Lock failed, lock is already held</error-message><error-info><session-id>454</session-id></error-info></rpc-error>""",
            "lock-denied (session-id 454): Lock failed, lock is already held",
        ),
        (
            """<rpc-error><error-type>application</error-type><error-tag>invalid-value</error-tag><error-severity>error</error-severity>
                 <error-path xmlns:t="http://example.com/schema/1.2/config">/t:top/t:interface[t:name="Ethernet0/0"]/t:mtu</error-path>
                 <error-message xml:lang="en">MTU value 25000 is not within range 256..9192</error-message></rpc-error>
               <rpc-error><error-type>application</error-type><error-tag>invalid-value</error-tag><error-severity>error</error-severity>
                 <error-path xmlns:t="http://example.com/schema/1.2/config">/t:top/t:interface[t:name="Ethernet1/0"]/t:address/t:name</error-path>
                 <error-message xml:lang="en">Invalid IP address for interface Ethernet1/0</error-message></rpc-error>""",
            'invalid-value at /t:top/t:interface[t:name="Ethernet0/0"]/t:mtu: MTU value 25000 is not within range 256..9192; '
            'invalid-value at /t:top/t:interface[t:name="Ethernet1/0"]/t:address/t:name: Invalid IP address for interface Ethernet1/0',
        ),
        ("<rpc-error/>", "operation-failed: no message"),
    ],
)
async def test_errors_carry_tag_path_and_message(tmp_path: Path, errors: str, told: str) -> None:
    peer = Peer(1, [(RPC % "<commit/>", replied(errors, 1))])
    async with scripted(tmp_path, peer.serve) as (port, login), open_session("127.0.0.1", port, login, timeout_s=5.0) as session:
        with pytest.raises(RpcRefusedError) as refusal:
            await session.call(rpc.commit())
        assert str(refusal.value) == told and peer.wrong == []
        session.end("done")


async def piped(tmp_path: Path, *messages: bytes) -> tuple[Session, list[rpc.Reply | RpcRefusedError] | SessionError]:
    """What becomes of three operations sent at once when the peer reads them all, and then writes these messages."""

    commit = RPC % "<commit/>"
    script = [(commit, b""), (commit.replace('"1"', '"2"'), b""), (RPC.replace('"1"', '"3"') % "<discard-changes/>", b"".join(messages))]
    peer = Peer(1, script)
    async with scripted(tmp_path, peer.serve) as (port, login), open_session("127.0.0.1", port, login, timeout_s=5.0) as session:
        try:
            return session, await session.pipeline(rpc.commit(), rpc.commit(), rpc.discard_changes())
        except SessionError as lost:
            return session, lost
        finally:
            assert peer.wrong == []
            session.end("done")


async def test_replies_find_their_rpc_whatever_their_order_and_whatever_comes_between(tmp_path: Path) -> None:
    notification = framed(
        """<notification xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><eventTime>2007-07-08T00:01:00Z</eventTime>
             <event xmlns="http://example.com/event/1.0"><eventClass>fault</eventClass></event></notification>""",
        1,
    )
    denied = "<rpc-error><error-tag>in-use</error-tag></rpc-error>"
    warning = "<rpc-error><error-tag>partial-operation</error-tag><error-severity>warning</error-severity></rpc-error><ok/>"
    session, outcomes = await piped(
        tmp_path, replied("<ok/>", 1, 3), notification, replied(denied, 1, 1), notification, replied(warning, 1, 2)
    )
    assert isinstance(outcomes, list)
    refused, warned, done = outcomes
    assert isinstance(refused, RpcRefusedError) and refused.errors[0].tag == "in-use"
    assert isinstance(warned, rpc.Reply) and warned.ok and warned.errors[0].severity == "warning"
    assert isinstance(done, rpc.Reply) and done.ok
    event = session.notifications.get_nowait()
    assert event is not None and event.event.tag == "{http://example.com/event/1.0}event" and session.notifications.qsize() == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (f'<rpc-reply xmlns="{BASE}"><rpc-error><error-tag>malformed-message</error-tag></rpc-error></rpc-reply>', "malformed-message"),
        (f'<rpc-reply xmlns="{BASE}" message-id="1"/>', "neither ok nor data nor errors"),
        (f'<rpc-reply xmlns="{BASE}" message-id="4"><ok/></rpc-reply>', "which was not asked"),
    ],
)
async def test_a_reply_that_answers_nothing_ends_the_session(tmp_path: Path, answer: str, why: str) -> None:
    session, lost = await piped(tmp_path, framed(answer, 1))
    assert isinstance(lost, SessionError) and why in str(lost) and session.lost == str(lost)


async def test_a_reply_is_for_one_rpc_only(tmp_path: Path) -> None:
    _, lost = await piped(tmp_path, replied("<ok/>", 1, 1), replied("<ok/>", 1, 1))
    assert isinstance(lost, SessionError) and "message-id '1', which was not asked" in str(lost)
