"""Header fields under their OpenFlow names, against os-ken's packet library, which computes lengths and checksums itself."""

from __future__ import annotations

from copy import deepcopy
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import arp, ethernet, icmp, icmpv6, ipv4, ipv6, packet, tcp, udp, vlan

from topologies.emulation.openflow.headers import VLAN_PRESENT, dec_ttl, headers, pop_vlan, push_vlan, set_field

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def number(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text.replace(":", "")) if "." not in text else bytes(map(int, text.split("."))))


def frame(*protocols: Any, ethertype: int, tag: int = 0) -> bytes:
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(B, A, 0x8100 if tag else ethertype))
    for each in [*([vlan.vlan(vid=tag, pcp=5, ethertype=ethertype)] if tag else []), *protocols]:
        made.add_protocol(deepcopy(each))  # one that has been serialized keeps its checksum
    made.serialize()
    return bytes(made.data)


def over_ipv4(*upper: Any, proto: int = 17, dst: str = "10.0.0.2", tag: int = 0, **more: Any) -> bytes:
    return frame(ipv4.ipv4(src="10.0.0.1", dst=dst, proto=proto, **more), *upper, ethertype=0x0800, tag=tag)


def over_ipv6(*upper: Any, nxt: int = 17, dst: str = "fe80::2", **more: Any) -> bytes:
    return frame(ipv6.ipv6(src="fe80::1", dst=dst, nxt=nxt, **more), *upper, ethertype=0x86DD)


UDP, TCP = udp.udp(src_port=1000, dst_port=53), tcp.tcp(src_port=1000, dst_port=53)


def solicitation(target: str = "fe80::9", link: str = A) -> Any:
    return icmpv6.icmpv6(type_=135, data=icmpv6.nd_neighbor(dst=target, option=icmpv6.nd_option_sla(hw_src=link)))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (over_ipv4(UDP, b"data"), {"eth_src": number(A), "vlan_vid": 0, "ip_proto": 17, "ipv4_src": number("10.0.0.1"), "udp_dst": 53}),
        (
            over_ipv4(TCP, proto=6, tos=0b101011, tag=7),
            {"vlan_vid": VLAN_PRESENT | 7, "vlan_pcp": 5, "ip_dscp": 10, "ip_ecn": 3, "tcp_src": 1000},
        ),
        (over_ipv4(icmp.icmp(type_=8, code=0), proto=1), {"icmpv4_type": 8, "icmpv4_code": 0}),
        (over_ipv4(UDP, b"data", flags=1), {"ip_proto": 17, "udp_dst": 0}),
        (over_ipv4(b"the rest", offset=5), {"ip_proto": 17, "udp_dst": 0}),
        (over_ipv6(UDP, b"data", traffic_class=0b101011, flow_label=7), {"ip_dscp": 10, "ip_ecn": 3, "ipv6_flabel": 7, "udp_src": 1000}),
        (over_ipv6(solicitation(), nxt=58), {"icmpv6_type": 135, "ipv6_nd_target": int(IPv6Address("fe80::9")), "ipv6_nd_sll": number(A)}),
        (
            frame(arp.arp_ip(2, A, "10.0.0.1", B, "10.0.0.2"), ethertype=0x0806),
            {"arp_op": 2, "arp_sha": number(A), "arp_tpa": number("10.0.0.2")},
        ),
        (frame(b"\x02\x07\x04" + bytes(43), ethertype=0x88CC), {"eth_type": 0x88CC}),
        (bytes(12) + b"\0\x26\x42\x42\x03" + bytes(43), {"eth_type": 0x05FF}),
    ],
    ids=range(10),
)
def test_what_a_match_sees(sent: bytes, expected: dict[str, int]) -> None:
    seen = headers(sent, 3, metadata=9)
    assert {name: seen.get(name) for name in expected} == expected
    assert (seen["in_port"], seen["metadata"]) == (3, 9)


def test_extension_headers_are_walked_over() -> None:
    padding = ipv6.hop_opts(nxt=17, data=[ipv6.option(type_=1, len_=4, data=bytes(4))])
    assert headers(over_ipv6(UDP, nxt=0, ext_hdrs=[padding]), 1)["udp_dst"] == 53


@pytest.mark.parametrize("upper", [(17, UDP), (6, TCP), (1, icmp.icmp(type_=8))], ids=["udp", "tcp", "icmp"])
@pytest.mark.parametrize("tag", [0, 7])
def test_a_rewritten_ipv4_address_has_its_checksums(upper: tuple[int, Any], tag: int) -> None:
    sent = over_ipv4(upper[1], b"odd", proto=upper[0], tag=tag)
    assert set_field(sent, "ipv4_dst", number("10.9.8.7")) == over_ipv4(upper[1], b"odd", proto=upper[0], tag=tag, dst="10.9.8.7")


@pytest.mark.parametrize("upper", [(17, UDP), (6, TCP), (58, solicitation())], ids=["udp", "tcp", "icmpv6"])
def test_a_rewritten_ipv6_address_has_its_checksums(upper: tuple[int, Any]) -> None:
    assert set_field(over_ipv6(upper[1], nxt=upper[0]), "ipv6_dst", int(IPv6Address("ff02::1"))) == over_ipv6(
        upper[1], nxt=upper[0], dst="ff02::1"
    )


def test_other_rewritten_fields_have_their_checksums() -> None:
    assert set_field(over_ipv4(UDP, b"data"), "udp_dst", 99) == over_ipv4(udp.udp(1000, 99), b"data")
    assert set_field(over_ipv4(TCP, b"data", proto=6), "tcp_src", 99) == over_ipv4(tcp.tcp(99, 53), b"data", proto=6)
    source = frame(ipv4.ipv4(src="10.9.8.7", dst="10.0.0.2", proto=17), UDP, b"data", ethertype=0x0800)
    assert set_field(over_ipv4(UDP, b"data"), "ipv4_src", number("10.9.8.7")) == source
    assert set_field(over_ipv4(UDP), "ip_dscp", 10) == over_ipv4(UDP, tos=40)
    assert set_field(over_ipv6(solicitation(), nxt=58), "ipv6_nd_target", int(IPv6Address("fe80::7"))) == over_ipv6(
        solicitation("fe80::7"), nxt=58
    )
    assert set_field(over_ipv6(solicitation(), nxt=58), "ipv6_nd_sll", number(B)) == over_ipv6(solicitation(link=B), nxt=58)


def test_a_wrong_checksum_stays_wrong_and_none_stays_none() -> None:
    sent = over_ipv4(UDP, b"data")
    wrong, none = (sent[:40] + checksum + sent[42:] for checksum in (b"\x12\x34", bytes(2)))
    assert set_field(none, "udp_dst", 99)[40:42] == bytes(2)
    rewritten = set_field(wrong, "udp_dst", 99)
    assert rewritten[40:42] not in (b"\x12\x34", over_ipv4(udp.udp(1000, 99), b"data")[40:42])
    assert set_field(rewritten, "udp_dst", 53) == wrong


def test_the_rest_of_a_fragment_is_left_alone() -> None:
    sent = over_ipv4(bytes(range(40)), proto=6, offset=5)
    assert set_field(sent, "ipv4_dst", number("10.9.8.7"))[34:] == sent[34:]


def test_ttl_and_hop_limit() -> None:
    assert dec_ttl(over_ipv4(UDP, ttl=9)) == over_ipv4(UDP, ttl=8)
    assert dec_ttl(over_ipv6(UDP, hop_limit=9)) == over_ipv6(UDP, hop_limit=8)
    assert [dec_ttl(over_ipv4(UDP, ttl=left)) for left in (0, 1)] == [None, None]
    assert dec_ttl(bytes(60)) == bytes(60)


def test_what_is_not_there_is_not_set() -> None:
    sent = over_ipv4(UDP)
    for name in ("tcp_dst", "ipv6_src", "arp_op", "vlan_pcp", "ip_proto"):
        assert set_field(sent, name, 1) == sent
    assert pop_vlan(sent) == sent
    assert set_field(sent, "vlan_vid", 42) == set_field(push_vlan(sent, 0x8100), "vlan_vid", 42)


NAMES = ["eth_dst", "vlan_pcp", "ipv4_src", "arp_tpa", "udp_src", "tcp_dst", "ipv6_dst", "ip_dscp", "icmpv6_type", "ipv6_nd_sll", "ip_ttl"]
SEEDS = [over_ipv4(UDP, b"data"), over_ipv4(TCP, proto=6, tag=7), over_ipv6(UDP), over_ipv6(solicitation(), nxt=58)]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
    st.integers(14, 90),
    st.sampled_from(NAMES),
)
def test_no_frame_upsets_it(seed: bytes, changes: list[tuple[int, int]], length: int, name: str) -> None:
    data = bytearray(seed)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    sent = bytes(data[:length])
    value = headers(sent, 1).get(name, 0)
    assert len(set_field(sent, name, value)) == len(sent)
    if name != "ip_ttl" and name in headers(sent, 1) and set_field(sent, name, 1) != sent:
        assert headers(set_field(sent, name, 1), 1)[name] in (1, 0)
    assert (dec_ttl(sent) or sent)[:14] == sent[:14]
