"""What the OpenFlow switches show of how they are wired: links, loops, hosts and strangers, beside what the document declares.

Fed with sessions, ports and packets; tells what changes as events, and of declared links whether they live. It knows no clock and no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.southbound.device import BELLHOP_COOKIE_PREFIX, FlowRule
from controller.southbound.discovery import lldp
from controller.southbound.discovery.frames import VLAN_TAGS, MalformedFrame, parse
from controller.southbound.discovery.hosts import ADVERTISEMENT, ARP, ICMPV6, IPV6, SOLICITATION, Host, Hosts, News, sighting
from controller.southbound.discovery.links import Change, End, Links, Pair
from controller.southbound.discovery.liveness import Timing
from controller.southbound.discovery.wiring import Disagreement, Wiring, compare, text
from controller.southbound.openflow.messages import Port13

COOKIES = BELLHOP_COOKIE_PREFIX << 48 | 0xD15C << 32
"""The cookies of discovery's rules: these upper 32 bits."""
_TRAP = (("output", int(Port13.CONTROLLER)),)
LLDP_RULE = FlowRule(0xFFFF, (("eth_type", lldp.ETHERTYPE),), _TRAP, COOKIES | 1)
HOST_RULES = (
    FlowRule(1, (("eth_type", ARP),), _TRAP, COOKIES | 2),
    FlowRule(1, (("eth_type", IPV6), ("icmpv6_type", SOLICITATION), ("ip_proto", ICMPV6)), _TRAP, COOKIES | 3),
    FlowRule(1, (("eth_type", IPV6), ("icmpv6_type", ADVERTISEMENT), ("ip_proto", ICMPV6)), _TRAP, COOKIES | 4),
)
"""Below every service's rules: they take what nobody has asked to be carried."""

_LLDP = lldp.ETHERTYPE.to_bytes(2)
_OF_INTEREST = frozenset({_LLDP, ARP.to_bytes(2), IPV6.to_bytes(2), *(tag.to_bytes(2) for tag in VLAN_TAGS)})
"""The first EtherTypes of frames from which something is learned; the others are looked at no further."""
_TOLD_AGAIN_S = 60.0
_MOST_TOLD = 10_000
_MOST_STRANGERS = 8

Publish = Callable[..., None]
"""As `EventLog.publish`."""


@dataclass(slots=True)
class Counters:
    """Hellos that left and arrived, and frames that were not believed."""

    sent: int = 0
    received: int = 0
    forged: int = 0
    replayed: int = 0
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class Stranger:
    """Another system that says who it is by LLDP, and until when that holds."""

    who: lldp.Advertisement
    until_s: float


@dataclass(slots=True)
class Discovery:
    """`link_changed(id, up)` is called when a declared link is lost, or joins other ports than declared, and when it is found again.

    A declared link that has not been found yet is not lost: nothing is known of it.
    """

    wiring: Wiring
    key: bytes
    publish: Publish
    link_changed: Callable[[str, bool], None] = lambda link, up: None
    timing: Timing = field(default_factory=Timing)
    first_nonce: int = 0
    links: Links = field(init=False)
    hosts: Hosts = field(default_factory=Hosts)
    strangers: dict[End, dict[tuple[str, str], Stranger]] = field(default_factory=dict)
    elsewhere: dict[str, End] = field(default_factory=dict)
    """Declared hosts that were found at another port than the declared one, and where."""
    disagreements: frozenset[Disagreement] = frozenset()
    lost: set[str] = field(default_factory=set)
    """Ids of declared links that are known not to join their ports."""
    counters: Counters = field(default_factory=Counters)
    _sessions: dict[str, int] = field(default_factory=dict)
    """The switches that are connected, and how often they have been judged since."""
    _datapaths: dict[str, int] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    """Declared links that were found once."""
    _undeclared: set[Pair] = field(default_factory=set)
    """Links that were found and are not declared; and, below, declared ones that are not found."""
    _absent: set[Pair] = field(default_factory=set)
    _told: dict[tuple[str, End], float] = field(default_factory=dict)
    _stale: bool = True
    """Whether the comparison with the document is older than what is known."""

    def __post_init__(self) -> None:
        self.links = Links(self.timing, self.first_nonce)
        self._absent = set(self.wiring.links)
        self._datapaths = {name: datapath for datapath, name in self.wiring.datapaths.items()}

    def connected(self, switch: str) -> None:
        """A session with the switch has begun."""
        self._sessions[switch] = 0

    def disconnected(self, switch: str) -> None:
        """The session is over: what was found stays, and is not judged until it is back."""
        self._sessions.pop(switch, None)
        self.links.pauses(switch)

    def port_changed(self, switch: str, port: int, up: bool) -> None:
        """A port has lost its signal, or has it again."""
        if not up:
            self._take(self.links.goes_down((switch, port)))
            for who in [stranger.who for stranger in self.strangers.pop((switch, port), {}).values()]:
                self._publish_stranger("neighbour.gone", (switch, port), who)

    def greet(self, switch: str, port: int, mac: str, send: Callable[[bytes], bool]) -> None:
        """Send the hello that is due at a port. One that `send` says did not leave is not waited for."""
        nonce, changes = self.links.leaves((switch, port), self._sessions.keys())
        hello = lldp.Hello(self._datapaths[switch], port, nonce)
        if send(lldp.encode(hello, self.key, source=mac, ttl_s=self.timing.ttl_s)):
            self.counters.sent += 1
        else:
            self.links.withdraws((switch, port))
        self._take(changes)

    def packet_in(self, switch: str, port: int, frame: bytes, now_s: float) -> bool:
        """Learn from a frame that a switch has sent up. Whether it was LLDP, which is nobody else's business."""
        if frame[12:14] not in _OF_INTEREST:
            return False
        end = (switch, port)
        try:
            ethernet = parse(frame)
            if ethernet.ethertype == lldp.ETHERTYPE:
                self._heard(end, frame, now_s)
                return True
            if self.edge(end) and (seen := sighting(ethernet)):
                self._announce(self.hosts.learn(seen, end, now_s))
                self._place(seen.mac, str(seen.ip))
        except MalformedFrame:
            self.counters.malformed += 1
            return frame[12:14] == _LLDP
        return False

    def edge(self, end: End) -> bool:
        """Whether hosts may be at this port: no switch is, neither found nor declared."""
        return end not in self.wiring.at and not self.links.joined(end)

    def declared_host(self, host: Host) -> str | None:
        """The name that the document has for a host."""
        names = (self.wiring.addresses.get(text) for text in (host.mac, *map(str, host.ips)))
        return next((name for name in names if name), None)

    def judge(self, now_s: float) -> None:
        """Once per interval, after every port had its hello: compare with the document, and forget what is old."""
        for switch in self._sessions:
            self._sessions[switch] += 1
            self._stale |= self._sessions[switch] == self.timing.settled_hellos
        if self._stale:
            self._stale = False
            self._compare()
        self._announce(self.hosts.expire(now_s))
        for end, known in list(self.strangers.items()):
            for name in [name for name, stranger in known.items() if stranger.until_s < now_s]:
                self._publish_stranger("neighbour.gone", end, known.pop(name).who)
            if not known:
                del self.strangers[end]

    def _heard(self, end: End, frame: bytes, now_s: float) -> None:
        try:
            said = lldp.decode(frame, self.key)
        except lldp.Forged:
            self.counters.forged += 1
            self._warn("lldp.forged", end, now_s)
            return
        if isinstance(said, lldp.Advertisement):
            self._meet(end, said, now_s)
            return
        origin = self.wiring.datapaths.get(said.datapath_id)
        changes = self.links.arrives((origin, said.port), end, said.nonce) if origin else None
        if changes is None:
            self.counters.replayed += 1
            self._warn("lldp.replayed", end, now_s)
            return
        self.counters.received += 1
        self._take(changes)

    def _warn(self, kind: str, end: End, now_s: float) -> None:
        """Tell it, but not again and again: whoever sends such frames sends many."""
        if now_s - self._told.get((kind, end), float("-inf")) < _TOLD_AGAIN_S:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[kind, end] = now_s
        self.publish(kind, switch=end[0], port=end[1])

    def _meet(self, end: End, who: lldp.Advertisement, now_s: float) -> None:
        known, name = self.strangers.setdefault(end, {}), (who.chassis, who.port)
        if not who.ttl_s:
            if known.pop(name, None):
                self._publish_stranger("neighbour.gone", end, who)
        elif name in known or len(known) < _MOST_STRANGERS:
            if name not in known:
                self._publish_stranger("neighbour.found", end, who)
            known[name] = Stranger(who, now_s + who.ttl_s)
        if not known:
            del self.strangers[end]

    def _publish_stranger(self, kind: str, end: End, who: lldp.Advertisement) -> None:
        self.publish(kind, switch=end[0], port=end[1], chassis=who.chassis, neighbour_port=who.port, system=who.system)

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            self._stale = True
            match change.kind:
                case "link":
                    self._link(change.pair, change.found)
                case "one-way":
                    heard, hears = change.pair
                    kind = "link.unidirectional" if change.found else "link.unidirectional_cleared"
                    self.publish(kind, heard=f"{heard[0]}:{heard[1]}", hears=f"{hears[0]}:{hears[1]}")
                case "loop":
                    self.publish("loop.found" if change.found else "loop.cleared", ports=text(change.pair))
            if change.found:
                for end in change.pair:
                    self._announce(self.hosts.forget(end))

    def _link(self, pair: Pair, found: bool) -> None:
        link = self.wiring.links.get(pair)
        self.publish("link.found" if found else "link.lost", ports=text(pair), **({"link": link} if link else {}))
        (self._absent if link else self._undeclared).symmetric_difference_update({pair})
        if link and found:
            self._seen.add(link)
        for each in {link, *(self.wiring.at.get(end) for end in pair)} - {None}:
            assert each is not None
            self._judge_link(each)

    def _judge_link(self, link: str) -> None:
        """Whether a declared link lives, as far as is known: it is lost when it was found and is no more, or its ports join others."""
        pair = self.wiring.cables[link]
        lives = pair in self.links.links or not (link in self._seen or any(True for end in pair for _ in self.links.at(end)))
        if lives == (link in self.lost):
            (self.lost.discard if lives else self.lost.add)(link)
            self.link_changed(link, lives)

    def _compare(self) -> None:
        known = {switch for switch, judged in self._sessions.items() if judged >= self.timing.settled_hellos}
        found = compare(self.wiring, self._undeclared, self._absent, known)
        # Of a switch that is away, or has only just come, nothing new is known.
        told = {each.subject for each in found}
        found |= {
            each
            for each in self.disagreements - found
            if each.kind == "missing"
            and each.subject not in told
            and self.wiring.cables[each.subject] in self._absent
            and not known.issuperset(switch for switch, _ in self.wiring.cables[each.subject])
        }
        told = {each.subject for each in found}
        for each in sorted(self.disagreements - found):
            if each.subject not in told:
                self.publish("link.mended", link=each.subject, was=each.kind)
        for each in sorted(found - self.disagreements):
            self.publish(f"link.{each.kind}", link=each.subject, declared=each.declared, found=list(each.found))
        self.disagreements = found

    def _announce(self, news: list[News]) -> None:
        for kind, data in news:
            if kind == "host.gone":
                self.elsewhere.pop(self.wiring.addresses.get(data["mac"], ""), None)
            self.publish(kind, **data)

    def _place(self, mac: str, ip: str) -> None:
        """Compare where a host was seen with where the document has it."""
        host, name = self.hosts.get(mac), self.wiring.addresses.get(mac) or self.wiring.addresses.get(ip)
        if host is None or name is None:
            return
        declared = self.wiring.hosts[name]
        if host.end == declared:
            if self.elsewhere.pop(name, None):
                self.publish("host.returned", host=name, switch=declared[0], port=declared[1])
        elif self.elsewhere.get(name) != host.end:
            self.elsewhere[name] = host.end
            self.publish("host.elsewhere", host=name, declared=f"{declared[0]}:{declared[1]}", found=f"{host.end[0]}:{host.end[1]}")
