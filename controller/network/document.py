"""The YAML document of a network: read, checked with every fault at once, and written.

Reading goes in three steps, each adding to one list of faults: the YAML itself, the models (pydantic), and what only the whole document can
tell (ends that do not exist, modules that do not fit). The lines of faults are looked up in a second reading, only when there are any.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from controller.network import yaml_reader
from controller.network.cross_checks import Complaint, Key, cross_check
from controller.network.model import LINK_FIELDS, NODE_FIELDS, Link, Name, Node
from controller.network.topology import Topology

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document. Its text is `line: path: what, remedy` after the file's name."""

    line: int
    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path}: {self.what}, {self.remedy}"


class WrongDocument(ValueError):
    """A document with faults; its text is one line per fault, `file:line: path: what, remedy`."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.path, fault.what))
        super().__init__("\n".join(f"{file}:{fault}" for fault in self.faults))


def load(file: Path, progress: Callable[[int], None] = lambda characters: None) -> Topology:
    """Read a network document. WrongDocument lists every fault; OSError when the file cannot be read.

    `progress` is told now and then how many characters have been read.
    """
    if file.stat().st_size > MAX_BYTES:
        raise WrongDocument(str(file), [Fault(1, "", "the file is larger than 256 MiB", "split the network")])
    return parse(file.read_bytes(), str(file), progress)


def parse(text: bytes | str, file: str = "document", progress: Callable[[int], None] = lambda characters: None) -> Topology:
    """Read a network document from text; `file` is what faults are reported under."""
    parts = _Parts()
    try:
        data, complaints, _ = yaml_reader.read(text, parts.take, progress=progress)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise WrongDocument(file, [Fault(mark.line + 1 if mark else 1, "", f"not YAML: {what}", "correct the syntax")]) from None
    if not isinstance(data, dict):
        raise WrongDocument(file, [Fault(1, "", "the document is not a mapping", "start with name:, nodes:, links:")])
    complaints += parts.complaints + _head(data) + cross_check(parts.nodes, parts.links, parts.names)
    if complaints:
        lines = yaml_reader.read(text, wanted={key[:depth] for key, _, _ in complaints for depth in range(len(key) + 1)})[2]
        raise WrongDocument(file, [Fault(_line(lines, key), _path(key), what, remedy) for key, what, remedy in complaints])
    return Topology(data["name"], parts.nodes, parts.links.values(), data.get("description") or "")


def dump(topology: Topology) -> str:
    """The document of a topology, which `parse` reads back to the same network. What was given is written, not what is computed."""
    head: dict[str, Any] = {"name": topology.name}
    if topology.description:
        head["description"] = topology.description
    nodes = {name: node.model_dump(mode="json", exclude_defaults=True) for name, node in topology.nodes()}
    links = [link.model_dump(mode="json", exclude_defaults=True) for link in topology.links()]
    return yaml.safe_dump({**head, "nodes": nodes, "links": links}, sort_keys=False, allow_unicode=True, width=140, default_flow_style=None)


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def _head(data: Mapping[str, Any]) -> list[Complaint]:
    """Complaints about the document outside its nodes and links."""
    known = ("name", "description", "nodes", "links")
    complaints: list[Complaint] = [((key,), f"unknown field '{key}'", _did_you_mean(key, known)) for key in data if key not in known]
    if not _proper(data.get("name")):
        what, example = "the network has no proper name", "give one of letters, digits, '-', '_' and '.', as in name: sandbox"
        complaints.append((("name",), what, example))
    if not isinstance(data.get("description") or "", str):
        complaints.append((("description",), "the description is not text", "put it in quotes"))
    if not isinstance(data.get("nodes") or {}, dict):
        complaints.append((("nodes",), "nodes is not a mapping", "write one entry per node, as in alice: {kind: end-node}"))
    if not isinstance(data.get("links") or [], list):
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
            node = _model(Node, raw, key, NODE_FIELDS, self.complaints)
            if node is not None:
                self.nodes[part] = node
            return True
        if section == "links" and isinstance(part, int):
            link = _model(Link, raw, key, LINK_FIELDS, self.complaints)
            if link is not None:
                self.links[part] = link
            return True
        return False


def _model(
    model: type[Model], raw: object, at: Key, fields_of_kind: Mapping[str, frozenset[str]], complaints: list[Complaint]
) -> Model | None:
    if not isinstance(raw, dict):
        complaints.append((at, "the entry is not a mapping", "write it as {kind: ..., ...}"))
        return None
    kind = str(raw.get("kind"))
    misplaced: list[str] = []
    if kind in fields_of_kind:
        allowed = model.model_fields.keys() - frozenset().union(*fields_of_kind.values()) | fields_of_kind[kind]
        misplaced = [key for key in raw if key in model.model_fields and key not in allowed]
        for key in misplaced:
            having = sorted(other for other, fields in fields_of_kind.items() if key in fields)
            complaints.append(((*at, key), f"a node or link of kind {kind} has no {key}", f"remove it (it belongs to {', '.join(having)})"))
    try:
        return model.model_validate(raw)
    except ValidationError as wrong:
        for error in wrong.errors():
            if not (error["loc"] and error["loc"][0] in misplaced):
                place, what, remedy = _told(model, error)
                complaints.append(((*at, *place), what, remedy))
        return None


def _told(model: type[BaseModel], error: ErrorDetails) -> Complaint:
    """A pydantic error in the words of the document: where, what, remedy."""
    loc: Key = tuple(
        part for part in error["loc"] if not (isinstance(part, str) and ("[" in part or part == "constrained-str" or part == "function"))
    )
    given, context = error.get("input"), error.get("ctx", {})
    leaf = str(loc[-1]) if loc else ""
    if loc[:1] == ("over",):
        return loc[:1], "over is neither a list of fibre ids nor switched", "write over: [fibre id, ...] or over: switched"
    match error["type"]:
        case "missing":
            return loc, f"{leaf} is missing", f"give {leaf}"
        case "extra_forbidden":
            return loc, f"unknown field '{leaf}'", _did_you_mean(leaf, model.model_fields)
        case "literal_error":
            expected = [word.strip("' ") for word in str(context.get("expected", "")).replace(" or ", ",").split(",")]
            return loc, f"{leaf} is '{given}'", f"{_did_you_mean(str(given), expected, remove=False)}use one of {', '.join(expected)}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
            return loc, f"{leaf} is {given}", "give a value " + " and ".join(f"{words[key]} {limit}" for key, limit in context.items())
        case "string_pattern_mismatch":
            return loc, f"{leaf} '{given}' is not of the right form", f"match {context.get('pattern')}"
        case "value_error":
            what, _, remedy = str(context.get("error", error["msg"])).partition("; ")
            return loc, what, remedy or "correct it"
        case _:
            return loc, f"{leaf or 'the value'} is {given!r}: {error['msg'][:1].lower()}{error['msg'][1:]}", "correct it"


def _did_you_mean(word: str, known: Any, *, remove: bool = True) -> str:
    close = difflib.get_close_matches(word, [str(each) for each in known], n=1)
    if close:
        return f"did you mean {close[0]}?" + ("" if remove else " ")
    return "remove it" if remove else ""


def _path(key: Key) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _line(lines: Mapping[Key, int], key: Key) -> int:
    """The line of the deepest part of the path that is in the document."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)
