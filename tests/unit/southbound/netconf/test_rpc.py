from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import BASE, NOTIFICATION, MessageError, q

HELLO = f"""<?xml version="1.0" encoding="UTF-8"?>
<nc:hello xmlns:nc="{BASE}"><nc:capabilities>
  <nc:capability>urn:ietf:params:netconf:base:1.1</nc:capability>
  <nc:capability>
    http://www.polatis.com/yang/optical-switch?module=optical-switch&amp;revision=2018-03-22
  </nc:capability>
</nc:capabilities><nc:session-id>4294967295</nc:session-id></nc:hello>""".encode()

REFUSAL = f"""<rpc-reply message-id="7" xmlns="{BASE}">
  <rpc-error><error-type>application</error-type><error-tag>bad-element</error-tag><error-severity>error</error-severity>
    <error-path xmlns:t="urn:t">/t:top/t:port[t:id='3']</error-path><error-message xml:lang="en"> port 3 is broken </error-message>
    <error-info><bad-element>port</bad-element></error-info></rpc-error>
  <rpc-error><error-type>protocol</error-type><error-tag>partial-operation</error-tag><error-severity>warning</error-severity></rpc-error>
</rpc-reply>""".encode()


def test_hello() -> None:
    hello = rpc.parse(HELLO)
    assert isinstance(hello, rpc.Hello)
    assert hello.session_id == 4294967295
    assert hello.capabilities == {rpc.BASE_1_1, "http://www.polatis.com/yang/optical-switch?module=optical-switch&revision=2018-03-22"}


def test_our_hello_is_read_as_sent() -> None:
    assert rpc.parse(rpc.hello(["a?b&c", rpc.BASE_1_0])) == rpc.Hello(frozenset({"a?b&c", rpc.BASE_1_0}), None)
    assert rpc.parse(rpc.hello([rpc.BASE_1_0], 12)) == rpc.Hello(frozenset({rpc.BASE_1_0}), 12)


@pytest.mark.parametrize("session_id", ["0", "-1", "one", "4294967296", "²", "1" * 5000])
def test_a_session_id_out_of_range(session_id: str) -> None:
    with pytest.raises(MessageError, match="session-id"):
        rpc.parse(f'<hello xmlns="{BASE}"><session-id>{session_id}</session-id></hello>'.encode())


def test_ok() -> None:
    reply = rpc.parse(f'<rpc-reply message-id="101" xmlns="{BASE}"><ok/></rpc-reply>'.encode())
    assert reply == rpc.Reply("101", True, None, ())


def test_data() -> None:
    reply = rpc.parse(f'<rpc-reply message-id="101" xmlns="{BASE}"><data><top xmlns="urn:t"/></data></rpc-reply>'.encode())
    assert isinstance(reply, rpc.Reply) and reply.data is not None
    assert [child.tag for child in reply.data] == ["{urn:t}top"] and not reply.ok


def test_every_error_of_a_reply_is_told() -> None:
    reply = rpc.parse(REFUSAL)
    assert isinstance(reply, rpc.Reply)
    first, second = reply.errors
    assert first == rpc.RpcError("bad-element", "port 3 is broken", "/t:top/t:port[t:id='3']", info=(("bad-element", "port"),))
    assert str(first) == "bad-element at /t:top/t:port[t:id='3'] (bad-element port): port 3 is broken"
    assert (second.tag, second.severity, second.type) == ("partial-operation", "warning", "protocol")


def test_notification() -> None:
    notification = rpc.parse(
        f'<notification xmlns="{NOTIFICATION}"><eventTime>2026-01-01T00:00:00Z</eventTime><alarm xmlns="urn:t"/></notification>'.encode()
    )
    assert isinstance(notification, rpc.Notification)
    assert (notification.event_time, notification.event.tag) == ("2026-01-01T00:00:00Z", "{urn:t}alarm")


BILLION_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY l0 "ha">'
    + b"".join(b'<!ENTITY l%d "%b">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
    + b"]><l a='&l9;'>&l9;</l>"
)


@pytest.mark.parametrize(
    "attack",
    [
        BILLION_LAUGHS,
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/hostname">]><a>&f;</a>',
        b"<!-- <a> --><!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        BILLION_LAUGHS.decode().encode("utf-16"),
        b"<?xml version='1.0' encoding='utf-7'?>+ADwAIQ-DOCTYPE a><a/>",
    ],
)
def test_document_types_are_refused(attack: bytes) -> None:
    with pytest.raises(MessageError):
        rpc.parse_xml(attack)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\0", b"<a>", b"<a/><b/>", b"<a>&undefined;</a>", b"\xff\xfe<a/>", b"<a>" * 300 + b"</a>" * 300, b"<x:a/>", b"<a b='1' b='2'/>"],
)
def test_what_is_not_xml_is_refused(nonsense: bytes) -> None:
    with pytest.raises(MessageError, match="not well-formed"):
        rpc.parse_xml(nonsense)


@pytest.mark.parametrize(
    "stranger",
    [
        b"<hello/>",
        b'<rpc-reply xmlns="urn:other"/>',
        f'<notification xmlns="{NOTIFICATION}"/>'.encode(),
        f'<notification xmlns="{NOTIFICATION}"><a/><b/></notification>'.encode(),
    ],
)
def test_xml_that_is_no_message_of_a_server(stranger: bytes) -> None:
    with pytest.raises(MessageError):
        rpc.parse(stranger)


@given(st.sampled_from([HELLO, REFUSAL]), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_raises_nothing_but_a_message_error(message: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(message)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    try:
        assert isinstance(rpc.parse(bytes(damaged)), rpc.Hello | rpc.Reply | rpc.Notification)
    except MessageError as fault:
        assert str(fault)


def test_operations_are_those_of_the_rfc() -> None:
    subtree = rpc.element("urn:t", "top")
    edit = etree.fromstring(rpc.rpc(5, rpc.edit_config("candidate", subtree, default_operation="none", test_option="set")))
    assert (edit.tag, edit.get("message-id")) == (q(BASE, "rpc"), "5")
    assert [etree.QName(child).localname for child in edit[0]] == ["target", "default-operation", "test-option", "config"]
    assert [child.tag for child in edit[0].iterfind(f"{q(BASE, 'config')}/*")] == ["{urn:t}top"]
    read = rpc.get_config("running", rpc.element("urn:t", "top"))
    assert read.find(f"{q(BASE, 'source')}/{q(BASE, 'running')}") is not None
    assert [child.get("type") for child in read.iterfind(q(BASE, "filter"))] == ["subtree"]
    assert len(rpc.get()) == 0
    subscription = rpc.create_subscription("NETCONF")
    assert (subscription.tag, rpc.text(subscription, NOTIFICATION, "stream")) == (q(NOTIFICATION, "create-subscription"), "NETCONF")
    for operation, name in (
        (rpc.lock("candidate"), "lock"),
        (rpc.unlock("candidate"), "unlock"),
        (rpc.validate("candidate"), "validate"),
        (rpc.commit(), "commit"),
        (rpc.discard_changes(), "discard-changes"),
        (rpc.close_session(), "close-session"),
    ):
        assert operation.tag == q(BASE, name)
