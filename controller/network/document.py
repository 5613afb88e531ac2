"""The YAML document of a network: read, checked with every fault at once, and written.

Reading goes in three steps, each adding to one list of faults: the YAML itself, the models (pydantic), and what only the whole document can
tell (ends that do not exist, modules that do not fit). The lines of faults are looked up in a second reading, only when there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from controller.network import faults
from controller.network.cross_checks import Complaint, Key, cross_check
from controller.network.faults import WrongDocument, did_you_mean, told
from controller.network.model import LINK, LINK_FIELDS, LINK_NAMES, NODE, NODE_FIELDS, NODE_NAMES, Link, Name, Node, default_id, given
from controller.network.topology import Topology

__all__ = ["WrongDocument", "assemble", "dump", "load", "parse"]

Part = TypeVar("Part")


def load(file: Path, progress: Callable[[int], None] = lambda characters: None) -> Topology:
    """Read a network document. WrongDocument lists every fault; OSError when the file cannot be read.

    `progress` is told now and then how many characters have been read.
    """
    return parse(faults.text_of(file), str(file), progress)


def parse(text: bytes | str, file: str = "document", progress: Callable[[int], None] = lambda characters: None) -> Topology:
    """Read a network document from text; `file` is what faults are reported under."""
    parts = _Parts()
    data, complaints = faults.read(text, file, ("name", "nodes", "links"), parts.take, progress)
    faults.refuse(
        text, file, complaints + parts.complaints + _head(data) + cross_check(parts.nodes, parts.links, parts.names, parts.faulty)
    )
    return Topology(data["name"], parts.nodes, parts.links.values(), data.get("description") or "")


def assemble(
    name: str, nodes: Mapping[str, Any], links: Sequence[Any], description: str = "", *, file: str = "network", lines: Mapping[Key, int]
) -> Topology:
    """The topology of entries that a program made, as a document would have them. WrongDocument lists every fault.

    `file` is what faults are reported under, and `lines` says where a part of the network, as ("links", 3), was told.
    """
    parts = _Parts()
    for node, raw in nodes.items():
        parts.take(("nodes", node), raw)
    for index, raw in enumerate(links):
        parts.take(("links", index), raw)
    head = _head({"name": name, "description": description})
    faults.refuse_at(lines, file, parts.complaints + head + cross_check(parts.nodes, parts.links, parts.names))
    return Topology(name, parts.nodes, parts.links.values(), description)


def dump(topology: Topology) -> str:
    """The document of a topology, which `parse` reads back to the same network. What was given is written, not what is computed."""
    head: dict[str, Any] = {"name": topology.name}
    if topology.description:
        head["description"] = topology.description
    nodes = {name: given(node) for name, node in topology.nodes()}
    links = [given(link) for link in topology.links()]
    return yaml.safe_dump({**head, "nodes": nodes, "links": links}, sort_keys=False, allow_unicode=True, width=140, default_flow_style=None)


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def _head(data: Mapping[str, Any]) -> list[Complaint]:
    """Complaints about the document outside its nodes and links."""
    known = ("name", "description", "nodes", "links")
    complaints: list[Complaint] = [((key,), f"unknown field '{key}'", did_you_mean(key, known)) for key in data if key not in known]
    if not _proper(data.get("name")):
        what, example = "the network has no proper name", "give one of letters, digits, '-', '_' and '.', as in name: sandbox"
        complaints.append((("name",), what, example))
    if not isinstance(data.get("description") or "", str):
        complaints.append((("description",), "the description is not text", "put it in quotes"))
    if not isinstance(data.get("nodes"), dict | None):
        complaints.append((("nodes",), "nodes is not a mapping", "write one entry per node, as in alice: {kind: end-node}"))
    if not isinstance(data.get("links"), list | None):
        example = "write one entry per link, as in - {kind: fibre, ends: [a, b], length_km: 1}"
        complaints.append((("links",), "links is not a list", example))
    return complaints


def _proper(name: object) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


class _Parts:
    """Takes nodes and links as they are read: `names` of all nodes, and those nodes and links that are right by themselves."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.nodes: dict[str, Node] = {}
        self.links: dict[int, Link] = {}
        self.faulty: set[str] = set()
        """Ids of links that are not right by themselves, as far as they can be told."""
        self.complaints: list[Complaint] = []

    def take(self, key: Key, raw: Any) -> bool:
        if len(key) != 2:
            return False
        section, part = key
        if section == "nodes" and isinstance(part, str):
            self.names.add(part)
            if not _proper(part):
                remedy = "use letters, digits, '-', '_' and '.', starting with a letter or digit"
                self.complaints.append((key, f"'{part}' is no proper name", remedy))
            node = _NODES.read(raw, key, self.complaints)
            if node is not None:
                self.nodes[part] = node
            return True
        if section == "links" and isinstance(part, int):
            link = _LINKS.read(raw, key, self.complaints)
            if link is not None:
                self.links[part] = link
            elif isinstance(raw, dict):
                ends = raw.get("ends")
                told = isinstance(ends, list) and len(ends) == 2 and default_id(str(raw.get("kind")), *map(str, ends))
                self.faulty.add(str(raw.get("id") or told))
            return True
        return False


class _Kinds(Generic[Part]):
    """How the entries of a section are read: a model some of whose fields belong to certain kinds only."""

    def __init__(self, adapter: TypeAdapter[Part], fields: frozenset[str], of_kind: Mapping[str, frozenset[str]]) -> None:
        common = fields - frozenset().union(*of_kind.values())
        self._adapter, self._fields, self._of_kind = adapter, fields, of_kind
        self._misplaced = {kind: fields - common - own for kind, own in of_kind.items()}

    def read(self, raw: object, at: Key, complaints: list[Complaint]) -> Part | None:
        """The part that the entry describes; None, with complaints, when it is wrong."""
        if not isinstance(raw, dict):
            complaints.append((at, "the entry is not a mapping", "write it as {kind: ..., ...}"))
            return None
        kind = str(raw.get("kind"))
        misplaced = self._misplaced.get(kind, frozenset()) & raw.keys()
        for key in sorted(misplaced):
            having = sorted(other for other, fields in self._of_kind.items() if key in fields)
            complaints.append(((*at, key), f"a node or link of kind {kind} has no {key}", f"remove it (it belongs to {', '.join(having)})"))
        try:
            part = self._adapter.validate_python(raw)
        except ValidationError as wrong:
            for error in wrong.errors():
                if not (error["loc"] and error["loc"][0] in misplaced):
                    place, what, remedy = told(self._fields, error)
                    complaints.append(((*at, *place), what, remedy))
            return None
        return part


_NODES = _Kinds(NODE, NODE_NAMES, NODE_FIELDS)
_LINKS = _Kinds(LINK, LINK_NAMES, LINK_FIELDS)
