"""Emulated hosts over IPv6, joined by a wire; what they say is read by os-ken's codec."""

from __future__ import annotations

import pytest
from os_ken.lib.packet import ethernet, icmpv6, ipv6
from os_ken.lib.packet.packet import Packet

from topologies.emulation.frames import EmulatedHost, wire

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def joined() -> tuple[EmulatedHost, EmulatedHost, list[bytes]]:
    """Two hosts on one cable, and what has gone over it."""
    a, b = EmulatedHost("a", A, "10.0.0.1", "fd00::1:2:a"), EmulatedHost("b", B, None, "fd00::b")
    said: list[bytes] = []
    for near, far in ((a, b), (b, a)):
        into = wire(far.receive)
        near.attach(lambda frame, into=into: (said.append(frame), into(frame)))  # type: ignore[misc]
    return a, b, said


def told(frame: bytes) -> tuple[str, str, str, str, int]:
    packet = Packet(frame)
    link, network, message = packet.get_protocol(ethernet.ethernet), packet.get_protocol(ipv6.ipv6), packet.get_protocol(icmpv6.icmpv6)
    return link.src, link.dst, network.src, network.dst, message.type_


async def test_a_neighbour_is_solicited_once_and_pinged() -> None:
    a, b, said = joined()
    assert (await a.ping("fd00::b", count=2)).received == 2
    assert (await b.ping("fd00:0::1:2:a")).received == 1, "who asked is known"
    here, there = "fd00::1:2:a", "fd00::b"
    assert [told(frame) for frame in said] == [
        (A, "33:33:ff:00:00:0b", here, "ff02::1:ff00:b", 135),
        (B, A, there, here, 136),
        *[(A, B, here, there, 128), (B, A, there, here, 129)] * 2,
        (B, A, there, here, 128),
        (A, B, here, there, 129),
    ]
    question, answer = (Packet(frame).get_protocol(icmpv6.icmpv6).data for frame in said[:2])
    assert (question.dst, question.option.hw_src) == (there, A)
    assert (answer.dst, answer.option.hw_src, answer.res) == (there, B, 3), "solicited, and it overrides"
    for frame in said:
        packet = Packet(frame)
        network, message = packet.get_protocol(ipv6.ipv6), packet.get_protocol(icmpv6.icmpv6)
        claimed, message.csum = message.csum, 0
        assert message.serialize(b"", network)[2:4] == claimed.to_bytes(2)
        assert network.hop_limit == 255


async def test_a_question_from_beyond_the_link_is_not_answered() -> None:
    a, b, said = joined()
    await a.ping("fd00::b")
    question, before = said[0], len(said)
    b.receive(question[:21] + b"\xfe" + question[22:])
    assert len(said) == before, "a router has lowered its hop limit (RFC 4861, 7.1.1)"
    b.receive(question)
    assert len(said) == before + 1


@pytest.mark.parametrize("at", [15, 22, 30, 40, 54, 57, 62, 80])
async def test_what_is_damaged_or_for_another_is_not_answered(at: int) -> None:
    a, b, said = joined()
    await a.ping("fd00::b")
    question, request = said[0], said[2]
    for good in (question, request):
        before = len(said)
        b.receive(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        b.receive(good[:at])
        if at > 15:  # the flow label says nothing to a host
            assert len(said) == before
        b.receive(good)
        assert len(said) > before


async def test_nobody_answers_over_a_family_that_is_not_there() -> None:
    a, b, _ = joined()
    with pytest.raises(ValueError, match=r"b has no address to ping 10\.0\.0\.1 from"):
        await b.ping("10.0.0.1")
    assert (await a.ping("10.0.0.2", timeout_s=0.05)).received == 0
    assert (await a.ping("fd00::c", timeout_s=0.05)).received == 0
