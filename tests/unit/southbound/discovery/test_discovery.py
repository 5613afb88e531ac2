"""Discovery as a whole, over emulated pipelines that are wired as declared, or not."""

from __future__ import annotations

from host_frames import arp_frame, nd_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from wired import PORTS, Wired

from controller.southbound.discovery import lldp
from controller.southbound.discovery.discovery import Discovery
from controller.southbound.discovery.wiring import Disagreement

RING = [("s1:1", "s2:1"), ("s2:2", "s3:2"), ("s3:1", "s1:2")]
HOSTS = [("h1:1", "s1:3"), ("h2:1", "s2:3")]
S1_S2, S2_S3 = "ethernet:s1--s2", "ethernet:s2--s3"
M1, M9 = "02:00:00:00:00:01", "02:00:00:00:00:09"


def kinds(disagreements: frozenset[Disagreement]) -> list[tuple[str, str]]:
    return sorted((each.kind, each.subject) for each in disagreements)


def test_found_links_are_the_declared_ones_and_nothing_is_said_of_it() -> None:
    net = Wired(RING + HOSTS)
    assert net.run(20) == ["link.found"] * 3
    assert {data["link"] for data in net.told("link.found")} == {S1_S2, S2_S3, "ethernet:s3--s1"}
    assert net.discovery.links.links == {(("s1", 1), ("s2", 1)), (("s2", 2), ("s3", 2)), (("s1", 2), ("s3", 1))}
    assert net.discovery.disagreements == frozenset() and net.link_states == []
    counters = net.discovery.counters
    assert (counters.sent, counters.received) == (20 * 12, 20 * 6)
    assert counters.forged == counters.replayed == counters.malformed == 0


def test_a_link_that_dies_in_silence_is_reported_and_taken_back_when_it_is_mended() -> None:
    net = Wired(RING)
    net.run()
    net.wire(RING[1:])
    assert net.run() == ["link.lost", "link.missing"]
    assert net.link_states == [(S1_S2, False)]
    assert net.told("link.missing") == [{"link": S1_S2, "declared": "s1:1 - s2:1", "found": []}]
    net.wire(RING)
    assert net.run() == ["link.found", "link.mended"]
    assert net.link_states == [(S1_S2, False), (S1_S2, True)]
    assert net.told("link.mended") == [{"link": S1_S2, "was": "missing"}]
    assert net.discovery.disagreements == frozenset() and not net.discovery.lost


def test_a_port_without_signal_takes_its_link_down_at_once() -> None:
    net = Wired(RING)
    net.run()
    net.discovery.port_changed("s2", 1, False)
    assert net.link_states == [(S1_S2, False)]
    net.discovery.port_changed("s2", 1, True)
    net.run(2)
    assert net.link_states == [(S1_S2, False), (S1_S2, True)]


def test_a_link_that_carries_one_way_is_lost_and_says_which_way() -> None:
    net = Wired(RING)
    net.run()
    net.cut_off = {("s1", 1)}
    assert net.run() == ["link.lost", "link.unidirectional", "link.missing"]
    assert net.told("link.unidirectional") == [{"heard": "s2:1", "hears": "s1:1"}]
    assert net.link_states == [(S1_S2, False)]
    net.cut_off = set()
    assert net.run() == ["link.found", "link.unidirectional_cleared", "link.mended"]
    assert net.link_states[-1] == (S1_S2, True)


def test_a_cable_in_the_wrong_ports_is_miswired_and_carries_nothing() -> None:
    swapped = [("s1:1", "s2:2"), ("s2:1", "s3:2"), ("s3:1", "s1:2")]
    net = Wired(RING, swapped)
    assert net.run().count("link.miswired") == 2
    assert net.told("link.miswired") == [
        {"link": S1_S2, "declared": "s1:1 - s2:1", "found": ["s1:1 - s2:2", "s2:1 - s3:2"]},
        {"link": S2_S3, "declared": "s2:2 - s3:2", "found": ["s1:1 - s2:2", "s2:1 - s3:2"]},
    ]
    assert not net.told("link.missing") and not net.told("link.unexpected")
    assert dict(net.link_states) == {S1_S2: False, S2_S3: False}
    net.wire(RING)
    net.run(12)
    assert dict(net.link_states) == {S1_S2: True, S2_S3: True}
    assert {(data["link"], data["was"]) for data in net.told("link.mended")} == {(S1_S2, "miswired"), (S2_S3, "miswired")}
    assert net.discovery.disagreements == frozenset()


def test_a_cable_that_nobody_declared_is_unexpected() -> None:
    net = Wired(RING + HOSTS, [*RING, ("s1:3", "s2:4")])
    net.run()
    assert net.told("link.unexpected") == [{"link": "s1:3 - s2:4", "declared": "h1 at s1:3", "found": ["s1:3 - s2:4"]}]
    assert net.link_states == []
    net.wire(RING + HOSTS)
    assert net.run() == ["link.lost", "link.mended"]


def test_what_was_never_found_is_missing_and_is_not_taken_down() -> None:
    """A switch may not send LLDP up, or nothing is known yet: the port's own word counts until there is better."""
    net = Wired(RING, RING[1:])
    assert net.run(4).count("link.missing") == 0  # too early to say
    assert net.run(2) == ["link.missing"]
    assert net.link_states == [] and not net.discovery.lost


def test_nothing_is_concluded_about_switches_that_are_away() -> None:
    net = Wired(RING)
    net.run()
    net.discovery.disconnected("s2")
    switch = net.pipelines.pop("s2")
    net.wire(RING[2:])
    assert net.run(20) == [] and net.link_states == []
    net.pipelines["s2"] = switch
    net.discovery.connected("s2")
    net.wire(RING[1:])
    assert net.run(4) == ["link.lost"]
    net.discovery.disconnected("s2")
    del net.pipelines["s2"]
    net.wire(RING[2:])
    assert net.run(20) == []  # what it was before it left, it is
    net.pipelines["s2"] = switch
    net.discovery.connected("s2")
    net.wire(RING[1:])
    assert net.run() == ["link.missing"]
    net.discovery.disconnected("s2")
    net.wire(RING[2:])
    net.run(20)
    assert kinds(net.discovery.disagreements) == [("missing", S1_S2)]  # nor is it mended by leaving


def test_hellos_that_could_not_leave_are_not_missed() -> None:
    net = Wired(RING)
    net.run()
    for _ in range(20):
        for end in [(name, port) for name in net.pipelines for port in PORTS]:
            net.discovery.greet(*end, "02:ff:00:00:00:01", lambda frame: False)
    assert net.run(3) == [] and net.link_states == []


def test_a_hello_under_way_when_its_port_or_switch_went_is_left_aside() -> None:
    for going in (lambda discovery: discovery.port_changed("s2", 1, False), lambda discovery: discovery.disconnected("s2")):
        net = Wired(RING)
        net.run()
        recorded: list[bytes] = []
        net.discovery.greet("s2", 1, "02:ff:00:00:00:01", lambda frame, kept=recorded: not kept.append(frame))
        going(net.discovery)
        for _ in range(3):
            assert net.discovery.packet_in("s1", 1, recorded[0], net.now_s)
        assert net.discovery.counters.replayed == 0, "nobody waits for it, so nobody can be deceived by it"


def test_loops_are_told_and_are_no_links() -> None:
    net = Wired(RING + HOSTS, [*RING, ("s1:3", "s1:4"), ("s3:3", "s3:3")])
    events = net.run()
    assert events.count("loop.found") == 2 and events.count("link.found") == 3 and len(events) == 5
    assert net.told("loop.found") == [{"ports": "s1:3 - s1:4"}, {"ports": "s3:3 - s3:3"}]
    net.wire(RING)
    assert sorted(net.run()) == ["loop.cleared", "loop.cleared"]


def test_forged_and_replayed_hellos_are_counted_told_once_and_not_believed() -> None:
    net = Wired(RING + HOSTS)
    recorded: list[bytes] = []
    net.discovery.greet("s2", 4, "02:ff:00:00:00:01", lambda frame: not recorded.append(frame))
    net.run()
    forged = lldp.encode(lldp.Hello(2, 4, 7), b"guessed", source=M9, ttl_s=4)
    for _ in range(9):
        assert net.send(forged, "h1:1")  # it came up to the controller, and to nobody else
        assert net.send(recorded[0], "h1:1")
    assert net.told("lldp.forged") == net.told("lldp.replayed") == [{"switch": "s1", "port": 3}]
    assert (net.discovery.counters.forged, net.discovery.counters.replayed) == (9, 9)
    net.now_s += 100
    net.send(forged, "h1:1")
    assert len(net.told("lldp.forged")) == 2
    assert len(net.discovery.links.links) == 3 and not net.discovery.links.joined(("s1", 3))


def test_hellos_of_an_earlier_start_are_not_believed() -> None:
    """Not even when the key is kept in the settings: the nonces are others."""
    net = Wired(RING)
    recorded: list[bytes] = []
    net.discovery.greet("s2", 4, "02:ff:00:00:00:01", lambda frame: not recorded.append(frame))
    later = Discovery(net.discovery.wiring, net.discovery.key, net.discovery.publish, net.discovery.link_changed, first_nonce=1 << 40)
    later.connected("s2")
    later.greet("s2", 4, "02:ff:00:00:00:01", lambda frame: True)
    assert later.packet_in("s1", 3, recorded[0], 0.0)
    assert later.counters.replayed == 1 and later.counters.received == 0


def test_other_systems_are_neighbours_and_no_links() -> None:
    net = Wired(RING)
    said = b"\x02\x07\x04\x02\x00\x00\x00\x00\x99\x04\x05\x05eth7\x06\x02\x00\x78\x0a\x04core\x00\x00"
    unit = bytes.fromhex("0180c200000e020000000099") + b"\x88\xcc" + said
    assert net.discovery.packet_in("s1", 4, unit, 0.0)
    assert net.discovery.packet_in("s1", 4, unit, 60.0)
    about = {"switch": "s1", "port": 4, "chassis": "02:00:00:00:00:99", "neighbour_port": "eth7", "system": "core"}
    assert net.told("neighbour.found") == [about] and net.run(6).count("link.found") == 3
    net.discovery.judge(179.0)
    assert not net.told("neighbour.gone")
    net.discovery.judge(181.0)
    assert net.told("neighbour.gone") == [about] and not net.discovery.strangers
    assert net.discovery.packet_in("s1", 4, unit, 200.0)
    assert net.discovery.packet_in("s1", 4, unit.replace(b"\x06\x02\x00\x78", b"\x06\x02\x00\x00"), 201.0)  # it says good-bye
    assert len(net.told("neighbour.gone")) == 2
    for number in range(50):
        net.discovery.packet_in("s1", 4, unit.replace(b"eth7", f"et{number:02}".encode()), 202.0)
    assert len(net.discovery.strangers["s1", 4]) == 8
    net.discovery.port_changed("s1", 4, False)
    assert not net.discovery.strangers


def test_hosts_are_learned_at_edge_ports_only() -> None:
    net = Wired(RING + HOSTS)
    net.run()
    assert not net.send(arp_frame(1, M1, "10.0.0.1"), "h1:1")  # others may answer it
    net.send(nd_frame(136, M1, "fe80::1", "fe80::1"), "h1:1")
    net.discovery.packet_in("s2", 1, arp_frame(1, M1, "10.0.0.1"), net.now_s)  # where a declared link ends
    assert net.told("host.found") == [{"mac": M1, "switch": "s1", "port": 3, "ip": "10.0.0.1"}]
    (host,) = net.discovery.hosts
    assert sorted(map(str, host.ips)) == ["10.0.0.1", "fe80::1"] and not net.told("host.moved")
    net.discovery.packet_in("s2", 4, arp_frame(1, M9, "10.0.0.9"), net.now_s)
    net.wire([*RING, *HOSTS, ("s2:4", "s3:4")])
    net.run(2)
    assert [data["mac"] for data in net.told("host.gone")] == [M9]  # no edge, as it turns out
    net.discovery.packet_in("s2", 4, arp_frame(1, M9, "10.0.0.9"), net.now_s)
    assert len(net.discovery.hosts) == 1


def test_a_declared_host_that_is_elsewhere_is_told_until_it_is_back() -> None:
    net = Wired(RING + HOSTS)
    net.send(arp_frame(1, M1, "10.0.0.1"), "h1:1")
    assert not net.discovery.elsewhere
    net.run()
    for _ in range(3):
        net.send(arp_frame(1, M1, "10.0.0.1"), "h2:1")
    assert net.told("host.elsewhere") == [{"host": "h1", "declared": "s1:3", "found": "s2:3"}]
    net.run()
    net.send(arp_frame(1, M1, "10.0.0.1"), "h1:1")
    assert net.told("host.returned") == [{"host": "h1", "switch": "s1", "port": 3}]
    assert len(net.told("host.moved")) == 2 and not net.discovery.elsewhere


def test_packets_of_others_are_left_to_others() -> None:
    net = Wired(RING)
    for frame in (b"", bytes(13), bytes(64), bytes(12) + b"\x08\x00" + bytes(50), bytes(12) + b"\x81\x00\x00\x01", bytes(12) + b"\x08\x06"):
        assert not net.discovery.packet_in("s1", 3, frame, 0.0)
    assert net.discovery.packet_in("s1", 3, bytes(12) + b"\x88\xcc", 0.0)
    assert net.discovery.counters.malformed == 3 and not net.events


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_comparison_names_every_difference_and_no_other(data: st.DataObject) -> None:
    """However the cables are plugged: what is told is what differs from the document, and it is taken back when the cables are right."""
    ends = [f"s{switch}:{port}" for switch in (1, 2, 3) for port in PORTS[:3]]

    def cables() -> list[tuple[str, str]]:
        order = data.draw(st.permutations(ends))
        pairs = [(order[2 * index], order[2 * index + 1]) for index in range(data.draw(st.integers(0, 4)))]
        return [pair for pair in pairs if pair[0][:2] != pair[1][:2]]

    plugged, links = cables(), cables()
    unique = {tuple(sorted((a[:2], b[:2]))): (a, b) for a, b in links}  # parallel links would need ids
    net = Wired(unique.values(), plugged)
    net.run(8)
    wanted, there = {frozenset(pair) for pair in unique.values()}, {frozenset(pair) for pair in plugged}
    names = {frozenset(pair): f"ethernet:{pair[0][:2]}--{pair[1][:2]}" for pair in unique.values()}
    touched = {pair for pair in wanted - there if any(pair & other for other in there)}
    expected = [("miswired" if pair in touched else "missing", names[pair]) for pair in wanted - there]
    expected += [("unexpected", " - ".join(sorted(pair))) for pair in there - wanted if not any(pair & other for other in wanted - there)]
    assert kinds(net.discovery.disagreements) == sorted(expected)
    assert net.discovery.lost == {names[pair] for pair in touched}
    net.wire(unique.values())
    net.run(12)
    assert net.discovery.disagreements == frozenset() and not net.discovery.lost
    assert {link for link, _ in net.link_states} == {names[pair] for pair in touched}
    assert len(net.told("link.mended")) == len(expected)
