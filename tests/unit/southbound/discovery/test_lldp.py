"""The LLDP codec: ours against os-ken's, and against forgers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, lldp, packet

from controller.southbound.discovery.frames import MalformedFrame
from controller.southbound.discovery.lldp import Advertisement, Forged, Hello, decode, encode

KEY = b"a key of this controller's start"
HELLOS = st.builds(Hello, st.integers(0, 2**64 - 1), st.integers(1, 0xFFFFFF00), st.integers(0, 2**64 - 1))
MAC = "02:00:00:00:00:07"


@given(HELLOS, st.binary(min_size=1, max_size=64), st.integers(1, 65535))
def test_what_is_signed_is_read(hello: Hello, key: bytes, ttl_s: int) -> None:
    frame = encode(hello, key, source=MAC, ttl_s=ttl_s)
    assert decode(frame, key) == hello
    assert 60 <= len(frame) <= 100
    assert decode(frame[:12] + b"\x81\x00\x00\x07" + frame[12:], key) == hello  # tagged on the way


@given(HELLOS, st.integers(1, 65535))
def test_os_ken_reads_ours(hello: Hello, ttl_s: int) -> None:
    outer, inner = packet.Packet(encode(hello, KEY, source=MAC, ttl_s=ttl_s)).protocols[:2]
    assert isinstance(outer, ethernet.ethernet) and isinstance(inner, lldp.lldp)
    assert (outer.dst, outer.src) == (lldp.LLDP_MAC_NEAREST_BRIDGE, MAC)
    chassis, port, ttl, signed, end = inner.tlvs
    assert (chassis.subtype, chassis.chassis_id) == (lldp.ChassisID.SUB_LOCALLY_ASSIGNED, f"dpid:{hello.datapath_id:016x}".encode())
    assert (port.subtype, port.port_id) == (lldp.PortID.SUB_LOCALLY_ASSIGNED, str(hello.port).encode())
    assert ttl.ttl == ttl_s
    assert (signed.oui, signed.subtype) == (bytes.fromhex("be1109"), 1)
    assert signed.info[:8] == hello.nonce.to_bytes(8) and len(signed.info) == 24
    assert isinstance(end, lldp.End)


@given(
    st.binary(min_size=6, max_size=6),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    st.integers(0, 65535),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
)
def test_we_read_os_kens(mac: bytes, port: str, ttl_s: int, system: str) -> None:
    written = packet.Packet()
    written.add_protocol(ethernet.ethernet(lldp.LLDP_MAC_NEAREST_BRIDGE, MAC, 0x88CC))
    written.add_protocol(
        lldp.lldp(
            [
                lldp.ChassisID(subtype=lldp.ChassisID.SUB_MAC_ADDRESS, chassis_id=mac),
                lldp.PortID(subtype=lldp.PortID.SUB_INTERFACE_NAME, port_id=port.encode()),
                lldp.TTL(ttl=ttl_s),
                lldp.SystemName(system_name=system.encode()),
                lldp.OrganizationallySpecific(oui=b"\x00\x80\xc2", subtype=1, info=b"\x00\x01"),
                lldp.End(),
            ]
        )
    )
    written.serialize()
    assert decode(bytes(written.data), KEY) == Advertisement(mac.hex(":"), port, ttl_s, system)


@given(HELLOS, st.data())
def test_a_frame_that_was_changed_is_not_believed(hello: Hello, data: st.DataObject) -> None:
    frame = encode(hello, KEY, source=MAC, ttl_s=4)
    at = data.draw(st.integers(14, len(frame) - 1))
    changed = frame[:at] + bytes([frame[at] ^ data.draw(st.integers(1, 255))]) + frame[at + 1 :]
    try:
        said = decode(changed, KEY)
    except (Forged, MalformedFrame):
        return
    assert isinstance(said, Advertisement) or said == hello  # a stranger now, or changed in the padding alone


@given(HELLOS)
def test_another_key_signs_nothing(hello: Hello) -> None:
    frame = encode(hello, b"another", source=MAC, ttl_s=4)
    with pytest.raises(Forged):
        decode(frame, KEY)
    unsigned = frame[: frame.index(hello.nonce.to_bytes(8)) - 6] + b"\xfe\x04\xbe\x11\x09\x01"  # ours, with no nonce and no signature
    with pytest.raises(Forged):
        decode(unsigned, KEY)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    for frame in (data, b"\x01\x80\xc2\x00\x00\x0e" + bytes(6) + b"\x88\xcc" + data):
        try:
            said = decode(frame, KEY)
        except (Forged, MalformedFrame):
            continue
        assert isinstance(said, Advertisement)


@pytest.mark.parametrize(
    ("chassis", "told"),
    [
        (b"\x04\x02\x00\x00\x00\x00\x01", "02:00:00:00:00:01"),
        (b"\x05\x01\x0a\x00\x00\x01", "10.0.0.1"),
        (b"\x05\x02" + bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"),
        (b"\x07core-1", "core-1"),
        (b"\x07\x1b[2J", "1b5b324a"),
        (b"\x07\xff\xfe", "fffe"),
    ],
)
def test_names_of_strangers_are_told_in_their_usual_form(chassis: bytes, told: str) -> None:
    unit = bytes([2, len(chassis)]) + chassis + b"\x04\x02\x07x\x06\x02\x00\x78\x00\x00"
    said = decode(bytes(12) + b"\x88\xcc" + unit, KEY)
    assert said == Advertisement(told, "x", 120)
