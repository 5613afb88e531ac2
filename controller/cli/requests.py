"""Many requests in one YAML file, checked as network documents are: every fault at once, with line and path."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from controller.cli.document import fail
from controller.network import faults
from controller.network.cross_checks import Complaint, Key
from controller.network.model import parse_end
from controller.network.topology import Topology, UnknownName

T = TypeVar("T")


def read(name: str, section: str, kind: type[T], network: Topology) -> list[T]:
    """The requests listed under `section` of a file, each a `kind`: a dataclass of the routing core, whose ends are in the network.

    A wrong file ends the program with every fault, exit code 2.
    """
    try:
        return _read(Path(name), section, kind, network)
    except faults.WrongDocument as wrong:
        fail(str(wrong), 2)
    except OSError as error:
        fail(f"{name}: {error.strerror or error}; give a YAML file that starts with {section}:", 2)


def _read(file: Path, section: str, kind: type[T], network: Topology) -> list[T]:
    adapter = TypeAdapter(kind)
    found: list[T] = []
    complaints: list[Complaint] = []
    named: dict[str, Key] = {}

    def take(key: Key, raw: Any) -> bool:
        if key[0] != section or not isinstance(key[1], int):
            return False
        before = len(complaints)
        complaints.extend(_misfits(kind, raw, key, network))
        name = raw.get("name") if isinstance(raw, dict) else None
        if isinstance(name, str) and (first := named.setdefault(name, key)) != key:
            complaints.append(((*key, "name"), f"{first[0]}[{first[1]}] is named {name} too", "give each its own name"))
        try:
            request = adapter.validate_python(raw)
        except ValidationError as wrong:
            names = _names(kind)
            told = (faults.told(names, error) for error in wrong.errors())
            complaints.extend(((*key, *place), what, remedy) for place, what, remedy in told)
        else:
            if len(complaints) == before:
                found.append(request)
        return True

    text = faults.text_of(file)
    data, unread = faults.read(text, str(file), [section], take)
    unread += [((key,), f"unknown field '{key}'", faults.did_you_mean(key, [section])) for key in data if key != section]
    if not isinstance(data.get(section), list) or (data[section] == [] and not found and not complaints):
        unread.append(((section,), f"no list of {section}", f"write {section}: and one entry per line, as in - {{src: alice, dst: bob}}"))
    faults.refuse(text, str(file), unread + complaints)
    return found


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _misfits(kind: Any, raw: Any, at: Key, network: Topology) -> Iterator[Complaint]:
    """Fields that the dataclass does not have, and names that the network does not."""
    if not isinstance(raw, dict):
        return
    known, parts = _names(kind), _parts(kind)
    for key, value in raw.items():
        if key not in known:
            yield (*at, key), f"unknown field '{key}'", faults.did_you_mean(key, known)
        elif key in ("src", "dst") and isinstance(value, str):
            try:
                end = parse_end(value)
                modules = network.node(end.node).modules
                if end.module is not None and end.module not in modules:
                    raise UnknownName("module", end.module, modules)
            except UnknownName as unknown:
                yield _unknown((*at, key), unknown)
        elif key == "avoid" and isinstance(value, list):
            for index, name in enumerate(value):
                try:
                    if isinstance(name, str):
                        network.must_know(name)
                except UnknownName as unknown:
                    yield _unknown((*at, key, index), unknown)
        elif key in parts and isinstance(value, list):
            for index, part in enumerate(value):
                yield from _misfits(parts[key], part, (*at, key, index), network)


def _unknown(at: Key, unknown: UnknownName) -> Complaint:
    what, _, hint = str(unknown).partition("; ")
    return at, what, hint or "name one of the network's"


def _parts(kind: Any) -> dict[str, Any]:
    """The fields that hold dataclasses, by name, with the dataclass."""
    inner = {name: get_args(hint)[:1] for name, hint in get_type_hints(kind).items()}
    return {name: each[0] for name, each in inner.items() if each and dataclasses.is_dataclass(each[0])}
