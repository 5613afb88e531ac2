"""The codec against two that were written by others: os-ken, and Ryu 4.34 where it can be had.

Ryu has not been installable with current tools since 2022, so it is no dependency; these tests skip without it. To run them with it:

    python3.11 -m venv /tmp/ryu && /tmp/ryu/bin/pip install 'setuptools<58' wheel pbr
    /tmp/ryu/bin/pip install --no-build-isolation --no-deps ryu==4.34
    BELLHOP_RYU_SITE=/tmp/ryu/lib/python3.11/site-packages .venv/bin/pytest tests/unit/southbound/openflow/test_codec_beside_others.py

BELLHOP_RYU_SITE is appended to `sys.path`; what Ryu itself imports (netaddr, oslo.config) comes from os-ken's dependencies.
"""

from __future__ import annotations

import pytest
from drawn_messages import by_class, u32
from hypothesis import given, settings
from hypothesis import strategies as st
from other_codecs import OtherCodec

from controller.southbound.openflow import groups as g
from controller.southbound.openflow import messages as m
from controller.southbound.openflow import statistics as s
from controller.southbound.openflow.codec import Framer, decode, encode

SENT_BY_CONTROLLERS = [
    *(m.Hello, m.Error, m.EchoRequest, m.EchoReply, m.FeaturesRequest, m.GetConfigRequest, m.SetConfig, m.PacketOut, m.FlowMod),
    *(g.GroupMod, g.MeterMod, m.BarrierRequest, m.RoleRequest, s.DescRequest, m.PortDescRequest, s.PortStatsRequest),
    *(m.FlowStatsRequest, s.AggregateStatsRequest, s.TableStatsRequest, g.GroupStatsRequest, g.GroupDescRequest),
    *(g.MeterStatsRequest, g.MeterConfigRequest),
]
READ_BY_CONTROLLERS = [
    *(m.Hello, m.Error, m.EchoRequest, m.EchoReply, m.FeaturesReply, m.GetConfigReply, m.PacketIn, m.FlowMod, m.FlowRemoved),
    *(m.PortStatus, m.BarrierReply, m.RoleReply, s.DescReply, m.PortDescReply, s.PortStatsReply, m.FlowStatsReply),
    *(s.AggregateStatsReply, s.TableStatsReply, g.GroupStatsReply, g.GroupDescReply, g.MeterStatsReply, g.MeterConfigReply),
]


@pytest.fixture(scope="module", params=["os_ken", "ryu"])
def other(request: pytest.FixtureRequest) -> OtherCodec:
    return OtherCodec(request.param)


def test_every_message_but_raw_is_held_against_others() -> None:
    assert {*SENT_BY_CONTROLLERS, *READ_BY_CONTROLLERS} == {*by_class} - {m.Raw}


@pytest.mark.parametrize("kind", SENT_BY_CONTROLLERS, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data(), xid=u32)
def test_our_bytes_are_theirs(other: OtherCodec, kind: type, data: st.DataObject, xid: int) -> None:
    message = data.draw(by_class[kind])
    theirs = other.sends(message, xid)
    if theirs is None:
        assert isinstance(message, m.Hello | m.PacketOut)
        return
    assert encode(message, xid) == theirs
    (frame,) = Framer().feed(theirs)
    assert (frame.xid, decode(frame)) == (xid, message)


@pytest.mark.parametrize("kind", READ_BY_CONTROLLERS, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_they_read_what_we_read(other: OtherCodec, kind: type, data: st.DataObject) -> None:
    message = data.draw(by_class[kind])
    sent = encode(message, 5)
    (frame,) = Framer().feed(sent)
    assert other.reads(sent) == decode(frame) == message
