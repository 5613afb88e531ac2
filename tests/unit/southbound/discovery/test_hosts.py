"""What ARP and neighbour discovery say of hosts, and the table of hosts."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from host_frames import arp_frame, frame, nd_frame
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet

from controller.southbound.discovery.frames import MalformedFrame, parse
from controller.southbound.discovery.hosts import Hosts, Limits, News, Sighting, sighting

M1, M2, M3 = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
P1, P2, P3 = ("s1", 1), ("s1", 2), ("s2", 1)
FE80 = "fe80::1"


def seen(data: bytes) -> Sighting | None:
    return sighting(parse(data))


def test_arp_and_neighbour_discovery_say_who_is_there() -> None:
    assert seen(arp_frame(1, M1, "10.0.0.1")) == Sighting(M1, ip_address("10.0.0.1"))
    assert seen(arp_frame(2, M1, "10.0.0.1")) == Sighting(M1, ip_address("10.0.0.1"))
    assert seen(arp_frame(1, M1, "0.0.0.0")) == Sighting(M1, None)  # noqa: S104 - a probe (RFC 5227): the address is not its own yet
    assert seen(nd_frame(135, M1, FE80, "fe80::2")) == Sighting(M1, ip_address(FE80))
    assert seen(nd_frame(135, M1, "::", "fe80::2", option="")) == Sighting(M1, None)  # duplicate address detection
    assert seen(nd_frame(136, M1, "fe80::9", FE80)) == Sighting(M1, ip_address(FE80))
    tagged = arp_frame(1, M1, "10.0.0.1")
    assert seen(tagged[:12] + b"\x81\x00\x00\x05" + tagged[12:]) == Sighting(M1, ip_address("10.0.0.1"))
    assert seen(frame(ethernet.ethernet(M2, M1, 0x0800)) + bytes(40)) is None


@pytest.mark.parametrize(
    "lie",
    [
        arp_frame(1, M1, "10.0.0.1", sender=M2),
        arp_frame(3, M1, "10.0.0.1"),
        arp_frame(1, "03:00:00:00:00:01", "10.0.0.1"),
        arp_frame(1, M1, "224.0.0.1"),
        arp_frame(1, M1, "127.0.0.1"),
        arp_frame(1, M1, "10.0.0.1")[:40],
        nd_frame(136, M1, FE80, FE80, option=M2),
        nd_frame(136, M1, FE80, FE80, hop_limit=254),
        nd_frame(136, M1, FE80, FE80)[:-1],
        nd_frame(136, M1, FE80, FE80)[:-1] + b"\x77",
        nd_frame(136, M1, FE80, "ff02::1"),
    ],
)
def test_what_cannot_be_true_is_refused(lie: bytes) -> None:
    with pytest.raises(MalformedFrame):
        seen(lie)


@given(st.binary(max_size=100), st.sampled_from([b"\x08\x06", b"\x86\xdd", b"\x81\x00"]))
def test_arbitrary_bytes_are_read_or_refused(data: bytes, ethertype: bytes) -> None:
    with suppress(MalformedFrame):
        assert isinstance(seen(bytes(6) + b"\x02\x00\x00\x00\x00\x01" + ethertype + data), Sighting | None)


@given(st.sampled_from([arp_frame(1, M1, "10.0.0.1"), nd_frame(136, M1, FE80, FE80)]), st.data())
def test_changed_bytes_are_read_or_refused(whole: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(12, len(whole) - 1))
    with suppress(MalformedFrame):
        seen(whole[:at] + data.draw(st.binary(min_size=1, max_size=2)) + whole[at + 1 :])


def kinds(news: list[News]) -> list[str]:
    return [kind for kind, _ in news]


def at(mac: str, ip: str | None = None) -> Sighting:
    return Sighting(mac, ip_address(ip) if ip else None)


def test_a_host_is_found_moves_and_is_forgotten() -> None:
    hosts = Hosts(Limits(age_s=100))
    assert hosts.learn(at(M1, "10.0.0.1"), P1, 0) == [("host.found", {"mac": M1, "switch": "s1", "port": 1, "ip": "10.0.0.1"})]
    assert hosts.learn(at(M1, "fe80::1"), P1, 1) == []
    assert hosts.learn(at(M1), P3, 50) == [("host.moved", {"mac": M1, "switch": "s2", "port": 1, "from": "s1:1"})]
    assert hosts.learn(at(M1), P1, 50.5) == [] and hosts.refused == 1  # back so soon: that is no move
    host = hosts.get(M1)
    assert host is not None and host.end == P3 and set(map(str, host.ips)) == {"10.0.0.1", "fe80::1"}
    assert hosts.expire(101) == [] and [str(ip) for ip in host.ips] == ["fe80::1"]
    assert kinds(hosts.expire(151)) == ["host.gone"]
    assert len(hosts) == 0 and hosts.get(M1) is None


def test_one_address_at_two_hosts_is_a_conflict_told_once() -> None:
    hosts = Hosts(Limits(handover_s=60))
    hosts.learn(at(M1, "10.0.0.1"), P1, 0)
    news = hosts.learn(at(M2, "10.0.0.1"), P2, 30)
    assert news[1] == ("host.conflict", {"ip": "10.0.0.1", "macs": [M1, M2], "switch": "s1", "port": 2})
    assert hosts.learn(at(M1, "10.0.0.1"), P1, 31) == hosts.learn(at(M2, "10.0.0.1"), P2, 32) == []
    assert kinds(hosts.learn(at(M3, "10.0.0.1"), P3, 200)) == ["host.found"]  # the others have not claimed it for long: handed over
    assert kinds(hosts.learn(at(M1, "10.0.0.1"), P1, 201)) == ["host.conflict"]


def test_tables_are_bounded_and_that_is_told_once() -> None:
    hosts = Hosts(Limits(hosts=3, per_port=2, ips=2, age_s=100))
    for last in range(5):
        news = hosts.learn(at(f"02:00:00:00:01:0{last}"), P1, 0)
        assert kinds(news) == (["host.found"] if last < 2 else ["hosts.full"] if last == 2 else [])
    assert kinds(hosts.learn(at(M1), P2, 0)) == ["host.found"]
    assert hosts.learn(at(M2), P2, 0) == [("hosts.full", {"most": 3})]
    assert len(hosts) == 3 and hosts.refused == 4
    for last in range(9):
        hosts.learn(at(M1, f"10.0.0.{last + 1}"), P2, last)
    host = hosts.get(M1)
    assert host is not None and list(map(str, host.ips)) == ["10.0.0.8", "10.0.0.9"]
    assert hosts.learn(at(M1), P1, 50) == []  # nor by moving there
    assert len(hosts.forget(P1)) == 2
    assert kinds(hosts.learn(at(M1), P1, 60)) == ["host.moved"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from([P1, P2, P3]), st.one_of(st.none(), st.integers(1, 4)), st.floats(0, 40), st.integers(0, 9)
        ),
        max_size=80,
    )
)
def test_the_events_tell_the_table(steps: list[tuple[int, tuple[str, int], int | None, float, int]]) -> None:
    """Whoever follows the events knows where every host is; and no table is larger than its limit."""
    limits = Limits(hosts=4, per_port=3, ips=2, age_s=60)
    hosts, followed, now_s = Hosts(limits), dict[str, tuple[str, int]](), 0.0
    for number, end, ip, passed_s, what in steps:
        now_s += passed_s
        news = hosts.expire(now_s) if what == 0 else hosts.forget(end) if what == 1 else []
        if what > 1:
            news = hosts.learn(at(f"02:00:00:00:00:0{number}", f"10.0.0.{ip}" if ip else None), end, now_s)
        for kind, data in news:
            if kind == "host.gone":
                del followed[data["mac"]]
            elif kind in ("host.found", "host.moved"):
                assert (data["mac"] in followed) == (kind == "host.moved")
                followed[data["mac"]] = (data["switch"], data["port"])
        assert followed == {host.mac: host.end for host in hosts}
        assert len(hosts) <= limits.hosts
        assert all(len(host.ips) <= limits.ips for host in hosts)
        assert all(sum(host.end == each for host in hosts) <= limits.per_port for each in (P1, P2, P3))
