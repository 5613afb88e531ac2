"""Answers in a host's name, judged by the host that asked: it pings on with what it was told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.southbound.discovery.answers import answer
from tests.unit.apps.forwarded import advertisement, arp, echo, frame, mac, packed, packet, solicitation
from topologies.emulation.frames import EmulatedHost

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
HOSTS = {"10.0.0.2": B, "fd00::b": B}


def known(asker: str, address: str) -> str | None:
    return HOSTS.get(address) if asker == A else None


@pytest.mark.parametrize("address", HOSTS)
async def test_a_host_believes_what_it_is_told(address: str) -> None:
    host, said = EmulatedHost("a", A, "10.0.0.1", "fd00::a"), list[bytes]()
    host.attach(said.append)
    async with asyncio.TaskGroup() as tasks:
        pinging = tasks.create_task(host.ping(address, timeout_s=0.05))
        await asyncio.sleep(0)
        told = answer(said[0], known)
        assert told is not None
        assert len(told) >= 60
        if ":" in address:
            assert told[78:86] == b"\x02\x01" + packed(B), "the target's link-layer address, as an option"
        host.receive(told)
        await pinging
    assert len(said) == 2
    assert said[1][:12] == packed(B) + packed(A), "the ping itself, to the one that was asked for"


@pytest.mark.parametrize("address", ["10.0.0.3", "fd00::c"])
async def test_who_is_not_to_be_told_is_not(address: str) -> None:
    host, said = EmulatedHost("a", A, "10.0.0.1", "fd00::a"), list[bytes]()
    host.attach(said.append)
    await host.ping(address, timeout_s=0.01)
    assert len(said) == 1
    assert answer(said[0], known) is None


def test_only_questions_are_answered() -> None:
    def all_known(asker: str, address: str) -> str:
        assert (asker, address) in ((mac("h1"), "10.0.0.2"), (mac("h1"), "fd00::2"))
        return mac("h2")

    for question in (arp("h1", "h2"), solicitation("h1", "h2")):
        assert answer(question, all_known) is not None
        assert answer(question[:12] + bytes.fromhex("81000007") + question[12:], all_known) is None, "a tag"
        assert answer(question[:40], all_known) is None
        assert answer(question[:6] + packed(mac("h3")) + question[12:], all_known) is None, "one who speaks for another"
    for other in (arp("h1", "h2", reply=True), advertisement("h1", "h2"), packet("h1", "h2"), echo("h1", "h2"), frame(A, B, 0x88B5, b"")):
        assert answer(other, all_known) is None


@given(st.sampled_from([arp("h1", "h2"), solicitation("h1", "h2")]), st.data())
def test_no_bytes_upset_it(question: bytes, data: st.DataObject) -> None:
    damaged = bytearray(question[: data.draw(st.integers(0, len(question)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=4)):
        if damaged:
            damaged[at] = data.draw(st.integers(0, 255))
    told = answer(bytes(damaged), lambda asker, address: mac("h2"))
    assert told is None or (told[:6] == damaged[6:12] and told[6:12] == packed(mac("h2")))
