"""The topology as arrays: per link kind a compressed sparse row graph, made in one pass over the links, once per structure.

Changed figures are written into the arrays; a changed structure compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from controller.network.model import Link, LinkKind, node_of
from controller.network.topology import Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
T = TypeVar("T")


class Kept(dict[Hashable, Any]):
    """What was computed from arrays, until somebody clears it because they are no longer the same."""

    def of(self, name: Hashable, compute: Callable[[], T]) -> T:
        if name not in self:
            self[name] = compute()
        found: T = self[name]
        return found


@dataclass(slots=True)
class Edges:
    """The links of one kind, as m undirected edges and as a CSR graph of their 2m directions over all n nodes.

    `ids` (m); `a`, `b` node numbers of the ends (m); `usable` (m); CSR: `indptr` (n + 1), `indices` (2m), `edge` (2m): the edge of each entry.
    """

    ids: list[str]
    number: dict[str, int]
    a: Ints
    b: Ints
    usable: Bools
    indptr: Ints
    indices: Ints
    edge: Ints
    figures: dict[str, Floats] = field(default_factory=dict)
    by_structure: Kept = field(default_factory=Kept)
    """What follows from the links themselves."""
    by_figures: Kept = field(default_factory=Kept)
    """What follows from the figures and the usability of these links too."""

    def per_entry(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of the edges (m) for the CSR entries (2m)."""
        return values.take(self.edge)


class Compiled:
    """The arrays of one topology. `names` (n) by node number, `number` the reverse."""

    def __init__(self, topology: Topology) -> None:
        self.structure = topology.structure
        self.revision = topology.revision
        self.names: list[str] = [name for name, _ in topology.nodes()]
        self.number: dict[str, int] = {name: number for number, name in enumerate(self.names)}
        self._edges: dict[LinkKind, Edges] = {}
        self.by_structure = Kept()
        self.by_revision = Kept()
        """What follows from anything in the topology."""

    def edges(self, topology: Topology, kind: LinkKind) -> Edges:
        """The links of a kind, usable or not."""
        if kind not in self._edges:
            self._edges[kind] = self._compile(topology, kind)
        return self._edges[kind]

    def figure(self, topology: Topology, kind: LinkKind, name: str) -> Floats:
        """A figure of every link of a kind (m); NaN where it cannot be known."""
        edges = self.edges(topology, kind)
        if name not in edges.figures:
            # nearly all are given: asking for each with its origin would take ten times as long
            values = np.array(list(map(attrgetter(name), topology.links(kind))), dtype=np.float64)
            for link_id, value in topology.measured(name).items():
                if link_id in edges.number:
                    values[edges.number[link_id]] = value
            for at in np.flatnonzero(np.isnan(values)).tolist():
                values[at] = _value(topology, topology.link(edges.ids[at]), name)
            edges.figures[name] = values
        return edges.figures[name]

    def catch_up(self, topology: Topology) -> bool:
        """Write what changed since into the arrays. False when the structure changed: compile anew."""
        if self.revision == topology.revision:
            return True
        changed = topology.changed_since(self.revision)
        if changed is None or self.structure != topology.structure:
            return False
        self.by_revision.clear()
        for link_id in changed:
            link = topology.link(link_id)
            edges = self._edges.get(link.kind)
            if edges is None:
                continue
            edges.by_figures.clear()
            at = edges.number[link_id]
            edges.usable[at] = topology.usable(link)
            for name, values in edges.figures.items():
                values[at] = _value(topology, link, name)
        self.revision = topology.revision
        return True

    def _compile(self, topology: Topology, kind: LinkKind) -> Edges:
        links = list(topology.links(kind))
        at, texts = self.number.get, chain.from_iterable(link.ends for link in links)
        numbers = [number if (number := at(text)) is not None else self.number[node_of(text)] for text in texts]
        ends = np.array(numbers, dtype=np.int32).reshape(-1, 2)
        a, b = ends[:, 0].copy(), ends[:, 1].copy()
        indptr, indices, edge = adjacency(len(self.names), a, b)
        ids = [link.id for link in links]
        edges = Edges(ids, dict(zip(ids, range(len(ids)), strict=True)), a, b, np.ones(len(ids), dtype=np.bool_), indptr, indices, edge)
        for link_id in topology.unusable() & edges.number.keys():
            edges.usable[edges.number[link_id]] = False
        return edges


def _value(topology: Topology, link: Link, name: str) -> float:
    figure = topology.figure(link, name)
    return np.nan if figure is None else figure.value


def adjacency(nodes: int, a: Ints, b: Ints) -> tuple[Ints, Ints, Ints]:
    """`indptr`, `indices` and `edge` of m undirected edges between the nodes of these numbers."""
    tails, heads = np.concatenate((a, b)), np.concatenate((b, a))
    order = np.argsort(tails, kind="stable")
    indptr = np.concatenate(([0], np.cumsum(np.bincount(tails, minlength=nodes)))).astype(np.int32)
    return indptr, heads[order].astype(np.int32), (order % max(1, a.size)).astype(np.int32)


def compiled(topology: Topology) -> Compiled:
    """The arrays of this topology, up to date; kept with it."""
    kept: Compiled | None = topology.derived.get(Compiled)
    if kept is None or not kept.catch_up(topology):
        kept = topology.derived[Compiled] = Compiled(topology)
    return kept
