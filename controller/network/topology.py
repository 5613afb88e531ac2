"""The topology: one networkx multigraph whose nodes and edges carry the frozen models, plus what live devices said of them."""

from __future__ import annotations

import copy
import difflib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from controller.network import events, windows
from controller.network.model import Link, LinkKind, Node, NodeKind, Origin
from controller.physics import fibre, key_rates

FIGURES = {
    "length_km": "km",
    "loss_db": "dB",
    "rate_bps": "bit/s",
    "qber": "QBER",
    "rate_hz": "pairs/s",
    "fidelity": "fidelity",
    "latency_ms": "ms",
    "capacity_mbps": "Mbit/s",
}
"""The figures a link can have, with how their unit is told."""

VIEWS_KEPT = 8
"""How many views of other moments are kept for whoever asks for the like again."""
CHANGES_KEPT = 10_000
"""How many changes are remembered for those who keep something computed; who lags further behind computes anew."""


class UnknownName(LookupError):
    """A request names a node, link, port or SAE that the network does not have. Carries `subject`, `name` and a hint at close names."""

    def __init__(self, subject: str, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(subject, name, tuple(difflib.get_close_matches(name, list(known), n=3)))
        self.subject = subject
        self.name = name

    def __str__(self) -> str:
        close = self.args[2]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"no {self.subject} named '{self.name}' in this network{hint}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with where it comes from."""

    value: float
    origin: Origin
    source: str = ""


class Topology:
    """A network at one revision.

    `graph` is a `networkx.MultiGraph`: node data `node` is a `Node`, edge key is the link id, edge data `link` is a `Link`.
    `revision` counts every change, `structure` only those after which nodes or links are other than before. Windows of links count from the
    first LinkWindowChanged on; of another moment or interval `at` gives a view.
    """

    def __init__(self, name: str, nodes: Mapping[str, Node], links: Iterable[Link], description: str = "") -> None:
        self.name = name
        self.description = description
        self.revision = 1
        self.structure = 1
        self.graph: nx.MultiGraph[str] = nx.MultiGraph(name=name)
        self._links: dict[str, Link] = {}
        self._riders: dict[str, list[str]] = {}
        self._down: set[str] = set()
        self._windows: dict[str, tuple[windows.Interval, ...]] = {}
        self._shut: set[str] = set()
        self.out_of_service: set[str] = set()
        """Ids of links that are down, outside their windows or disabled, of those over such glass but for its administration, and names of
        disabled nodes: what carries nothing now, whereas what is draining still does. To be read only."""
        self._views: dict[frozenset[str], Topology] = {}
        self._measured: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
        self._changes: deque[tuple[int, events.NetworkEvent]] = deque(maxlen=CHANGES_KEPT)
        self.derived: dict[type, Any] = {}
        """What others computed from this topology and keep with it, by type; each catches up by `changed_since`. Not pickled."""
        for node_name, node in nodes.items():
            self._put_node(node_name, node)
        for link in links:
            self._put(link)

    def _put_node(self, name: str, node: Node) -> None:
        self.graph.add_node(name, node=node)
        (self.out_of_service.add if node.admin == "disabled" else self.out_of_service.discard)(name)

    def _put(self, link: Link) -> None:
        for name in link.nodes:
            self.node(name)
        if link.id not in self._links:
            for fibre_id in link.fibres:
                self._riders.setdefault(fibre_id, []).append(link.id)
        self._windows.pop(link.id, None)
        if link.windows:
            self._windows[link.id] = windows.merged(link.windows)
        self._links[link.id] = link
        self._look_at(link.id)
        self.graph.add_edge(*link.nodes, key=link.id, link=link)

    def _look_at(self, link_id: str) -> None:
        """Whether a link is in service may be other than before."""
        link = self._links[link_id]
        serves = self.up(link) and self.open(link) and link.admin != "disabled"
        (self.out_of_service.discard if serves else self.out_of_service.add)(link_id)

    def node(self, name: str) -> Node:
        """The node of that name; UnknownName when there is none."""
        if name not in self.graph:
            raise UnknownName("node", name, self.graph)
        node: Node = self.graph.nodes[name]["node"]
        return node

    def link(self, link_id: str) -> Link:
        """The link of that id; UnknownName when there is none."""
        try:
            return self._links[link_id]
        except KeyError:
            raise UnknownName("link", link_id, self._links) from None

    def nodes(self, *kinds: NodeKind) -> Iterator[tuple[str, Node]]:
        """Names and nodes, of these kinds or of all, in the document's order."""
        for name, data in self.graph.nodes(data=True):
            if not kinds or data["node"].kind in kinds:
                yield name, data["node"]

    def links(self, *kinds: LinkKind) -> Iterator[Link]:
        """Links, of these kinds or of all, in the document's order."""
        for link in self._links.values():
            if not kinds or link.kind in kinds:
                yield link

    def apply(self, event: events.NetworkEvent) -> bool:
        """Take one event into the topology. Returns whether anything changed; only then does `revision` grow."""
        structure = self.structure
        changed = self._apply(event)
        if changed:
            self.revision += 1
            if self.structure != structure:
                self._changes.clear()
            else:
                self._changes.append((self.revision, event))
        return changed

    def events_since(self, revision: int) -> tuple[events.NetworkEvent, ...] | None:
        """What led from `revision` to now; None when nodes or links came or went since, or it is too long ago."""
        oldest = self._changes[0][0] if self._changes else self.revision + 1
        if revision < oldest - 1:
            return None
        return tuple(event for at, event in self._changes if at > revision)

    def changed_since(self, revision: int) -> frozenset[str] | None:
        """Ids of links that may be other than at `revision`; None when nodes or links came or went since, or it is too long ago."""
        happened = self.events_since(revision)
        return None if happened is None else frozenset(link for event in happened for link in self._concerned(event))

    def _concerned(self, event: events.NetworkEvent) -> tuple[str, ...]:
        """The links whose figures or usability an event changes: those at a node, those over a fibre."""
        match event:
            case events.AdminChanged("node", name, _):
                ending = [link_id for _, _, link_id in self.graph.edges(name, keys=True)] if name in self.graph else []
                return (*ending, *(rider for link_id in ending for rider in self._riders.get(link_id, ())))
            case (
                events.LinkStateChanged(link, _)
                | events.LinkWindowChanged(link, _)
                | events.LinkMeasured(link, _, _)
                | events.AdminChanged(_, link, _)
            ):
                return (link, *self._riders.get(link, ()))
        return ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "derived": {}, "_views": {}}

    def _apply(self, event: events.NetworkEvent) -> bool:
        match event:
            case events.LinkStateChanged(link, up):
                return self._turn(self._down, link, up)
            case events.LinkWindowChanged(link, is_open):
                return self._turn(self._shut, link, is_open)
            case events.LinkMeasured(link, figure, value):
                self.link(link)
                if self._measured[figure].get(link) == value:
                    return False
                self._measured[figure][link] = value
            case events.AdminChanged("node", name, admin):
                node = self.node(name)
                if node.admin == admin:
                    return False
                self._put_node(name, replace(node, admin=admin))
            case events.AdminChanged(_, name, admin):
                link_model = self.link(name)
                if link_model.admin == admin:
                    return False
                self._put(replace(link_model, admin=admin))
            case events.NodeAdded(name, node):
                self._put_node(name, node)
                self.structure += 1
            case events.LinkAdded(link_model):
                self._put(link_model)
                self.structure += 1
            case events.LinkRemoved(link):
                gone = self._links[self.link(link).id]
                self.graph.remove_edge(*gone.nodes, key=link)
                for fibre_id in gone.fibres:
                    self._riders[fibre_id].remove(link)
                del self._links[link]
                self._windows.pop(link, None)
                for off in (self._down, self._shut, self.out_of_service):
                    off.discard(link)
                for measured in self._measured.values():
                    measured.pop(link, None)
                self.structure += 1
        return True

    def _turn(self, off: set[str], link: str, on: bool) -> bool:
        """Take a link off this list, or put it on. Returns whether it was there otherwise."""
        self.link(link)
        if (link not in off) == on:
            return False
        (off.discard if on else off.add)(link)
        for each in (link, *self._riders.get(link, ())):
            self._look_at(each)
        return True

    def up(self, link: Link) -> bool:
        """Whether the link carries its signal, as far as devices said; the fibres it rides on included."""
        return link.id not in self._down and all(fibre_id not in self._down for fibre_id in link.fibres)

    def at(self, start_s: float, end_s: float | None = None) -> Topology:
        """The network as it is from `start_s` until `end_s` (None: at that moment), in seconds since the epoch: a link is usable where one of
        its windows holds all that time. It is for reading, follows this topology until nodes or links change, and is this one where it has
        no windows.
        """
        if not self._windows:
            return self
        until_s = start_s if end_s is None else end_s
        shut = frozenset(link for link, each in self._windows.items() if windows.covering(each, start_s, until_s) is None)
        view = self._views.get(shut)
        if view is None:
            view = copy.copy(self)
            view.derived, view._views, view._shut = {}, {}, set(shut)
            if len(self._views) >= VIEWS_KEPT:
                del self._views[next(iter(self._views))]
            self._views[shut] = view
        view.revision, view.structure = self.revision, self.structure
        return view

    def window_events(self, now_s: float) -> list[events.LinkWindowChanged]:
        """What the windows of links come to at a moment, for those where it is other than before."""
        told = ((link, windows.covering(each, now_s, now_s) is not None) for link, each in self._windows.items())
        return [events.LinkWindowChanged(link, is_open) for link, is_open in told if is_open == (link in self._shut)]

    @property
    def has_windows(self) -> bool:
        """Whether any link has availability windows."""
        return bool(self._windows)

    def open_around(self, link: Link, moment_s: float) -> windows.Interval | None:
        """The longest interval around a moment in which the link and the glass it rides on are inside their windows.

        Infinite where they have none; None when the moment is outside.
        """
        low_s, high_s = -math.inf, math.inf
        for part in (link.id, *link.fibres):
            if part in self._windows:
                found = windows.covering(self._windows[part], moment_s, moment_s)
                if found is None:
                    return None
                low_s, high_s = max(low_s, found[0]), min(high_s, found[1])
        return low_s, high_s

    def openings(self, after_s: float) -> list[float]:
        """The moments after this one at which a window of any link begins."""
        return sorted({start_s for each in self._windows.values() for start_s, _ in each if start_s > after_s})

    def open(self, link: Link) -> bool:
        """Whether the link and the glass it rides on are inside their windows."""
        return link.id not in self._shut and not any(fibre_id in self._shut for fibre_id in link.fibres)

    def usable(self, link: Link) -> bool:
        """Whether new plans may use the link: up, inside its windows, enabled, between enabled nodes, and the glass it rides on likewise."""
        if not self.up(link) or not self.open(link):
            return False
        parts = (link, *map(self.link, link.fibres))
        return all(part.admin == "enabled" and all(self.node(name).admin == "enabled" for name in part.nodes) for part in parts)

    def unusable(self) -> frozenset[str]:
        """Ids of all links that are not usable."""
        barred = self._down | self._shut | {link.id for link in self._links.values() if link.admin != "enabled"}
        for name, node in self.nodes():
            if node.admin != "enabled":
                barred.update(link_id for _, _, link_id in self.graph.edges(name, keys=True))
        barred.update(rider for link_id in tuple(barred) for rider in self._riders.get(link_id, ()))
        return frozenset(barred)

    def known(self, name: str) -> bool:
        """Whether there is a node of that name or a link of that id."""
        return name in self.graph or name in self._links

    def must_know(self, name: str) -> None:
        """Raise UnknownName where there is neither a node of that name nor a link of that id."""
        if not self.known(name):
            raise UnknownName("node or link", name, [*self.graph, *self._links])

    def measured(self, field: str) -> Mapping[str, float]:
        """What devices measured of a figure, by link id."""
        return self._measured[field]

    def shared_risk(self, link: Link) -> frozenset[str]:
        """The link's shared-risk groups, those of the glass it rides on included; each fibre is a group of its own."""
        groups = set(link.shared_risk)
        for fibre_id in link.fibres:
            groups.add(fibre_id)
            groups.update(self.link(fibre_id).shared_risk)
        return frozenset(groups)

    def saes(self, name: str) -> tuple[str, ...]:
        """The SAE IDs served by the KME of a node; empty when the node holds no keys."""
        node = self.node(name)
        if not node.holds_keys:
            return ()
        return node.saes or (f"sae-{name}",)

    def figure(self, link: Link, field: str) -> Figure | None:
        """A figure of a link with its origin: measured, else given in the document, else computed; None when there is no way to know it.

        `field` is one of FIGURES.
        """
        measured = self._measured[field].get(link.id)
        if measured is not None:
            return Figure(measured, "measured")
        given = getattr(link, field, None)
        if given is not None:
            return Figure(float(given), link.origin(field), link.source or "")
        match link.kind, field:
            case ("fibre" | "free-space", "loss_db"):
                return _fibre_loss(link)
            case ("qkd", "rate_bps" | "qber" | "loss_db"):
                channel = self.channel_loss(link)
                if channel is None:
                    return None
                return channel if field == "loss_db" else qkd_figure(link, channel, field)
            case ("entanglement", "fidelity") if link.state is not None:
                return Figure(link.state[0], link.origin("state"), link.source or "")
            case ("ethernet", "latency_ms"):
                return Figure(0.0, "assumed", "no latency given")
        return None

    def figures(self, link: Link) -> dict[str, Figure]:
        """Every figure of a link that is known, by name, in the order of FIGURES."""
        return {name: figure for name in FIGURES if (figure := self.figure(link, name)) is not None}

    def channel_loss(self, link: Link) -> Figure | None:
        """Loss in dB of the glass a quantum link rides on; None for a switched link, whose loss follows from its lightpath."""
        if not link.fibres:
            return None
        figures = [self.figure(self.link(fibre_id), "loss_db") for fibre_id in link.fibres]
        known = [figure for figure in figures if figure is not None]
        if len(known) < len(figures):
            return None
        if len(known) == 1:
            return known[0]
        source = "; ".join(sorted({figure.source for figure in known if figure.source}))
        return Figure(sum(figure.value for figure in known), weakest_origin(figure.origin for figure in known), source)


def weakest_origin(origins: Iterable[Origin]) -> Origin:
    """The origin of a figure made of several: as good as the weakest of them, from assumed over computed and declared to measured."""
    ranking: tuple[Origin, ...] = ("assumed", "computed", "declared", "measured")
    return min(origins, key=ranking.index, default="assumed")


def _fibre_loss(link: Link) -> Figure | None:
    if link.length_km is None:
        return None
    if link.loss_db_per_km is not None:
        return Figure(fibre.fibre_loss_db(link.length_km, link.loss_db_per_km), "computed", "length times loss per km")
    if link.kind == "free-space":
        return None
    return Figure(fibre.fibre_loss_db(link.length_km), "computed", f"{link.length_km:g} km at {fibre.FIBRE_LOSS_DB_PER_KM} dB/km (assumed)")


_GYS = key_rates.DecoyBb84()


def qkd_figure(link: Link, channel_loss: Figure, field: str) -> Figure | None:
    """`rate_bps` or `qber` of a QKD link whose channel has that loss.

    Decoy-state BB84 with the published GYS parameters (Ma, Qi, Zhao, Lo, PRA 72, 012326, 2005). For other protocols it stands in for
    the vendor's unpublished model, and the source says so; None for the QBER of a continuous-variable link, which has none.
    """
    stands_in = "" if link.protocol in (None, "bb84-decoy") else f", standing in for {link.protocol}"
    source = f"decoy BB84, Ma et al. 2005, GYS parameters{stands_in}, {channel_loss.value:.1f} dB ({channel_loss.origin})"
    if field == "qber":
        if link.protocol == "cv":
            return None
        return Figure(_GYS.qber(channel_loss.value), "computed", source)
    return Figure(_GYS.rate_bps(channel_loss.value), "computed", source)
