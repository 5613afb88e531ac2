"""What is wrong with a document, told with line, path and remedy, whatever the document describes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import ErrorDetails

from controller.network import yaml_reader
from controller.network.cross_checks import Complaint, Key

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


def text_of(file: Path) -> bytes:
    """The bytes of a document. Raises WrongDocument when it is too large, OSError when it cannot be read."""
    if file.stat().st_size > MAX_BYTES:
        raise WrongDocument(str(file), [Fault(1, "", "the file is larger than 256 MiB", "split it")])
    return file.read_bytes()


def read(
    text: bytes | str,
    file: str,
    sections: Sequence[str],
    take: yaml_reader.Take = lambda key, value: False,
    progress: Callable[[int], None] = lambda characters: None,
) -> tuple[dict[str, Any], list[Complaint]]:
    """A document's mapping of `sections`, and what its YAML leaves to complain of. Raises WrongDocument for text that is no mapping in YAML."""
    try:
        data, complaints, _ = yaml_reader.read(text, take, progress=progress)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise WrongDocument(file, [Fault(mark.line + 1 if mark else 1, "", f"not YAML: {what}", "correct the syntax")]) from None
    if not isinstance(data, dict):
        raise WrongDocument(
            file, [Fault(1, "", "the document is not a mapping", f"start with {', '.join(f'{each}:' for each in sections)}")]
        )
    return data, complaints


def refuse(text: bytes | str, file: str, complaints: Collection[Complaint]) -> None:
    """Raise WrongDocument if there are complaints. Their lines are looked up in a second reading."""
    if complaints:
        lines = yaml_reader.read(text, wanted={key[:depth] for key, _, _ in complaints for depth in range(len(key) + 1)})[2]
        refuse_at(lines, file, complaints)


def refuse_at(lines: Mapping[Key, int], file: str, complaints: Collection[Complaint]) -> None:
    """Raise WrongDocument if there are complaints, with the lines that are known."""
    if complaints:
        raise WrongDocument(file, [Fault(_line(lines, key), _path(key), what, remedy) for key, what, remedy in complaints])


def told(fields: Collection[str], error: ErrorDetails) -> Complaint:
    """A pydantic error in the words of the document: where, what, remedy. `fields` are those that there are."""
    loc: Key = tuple(
        part for part in error["loc"] if not (isinstance(part, str) and ("[" in part or part == "constrained-str" or part == "function"))
    )
    given, context = error.get("input"), error.get("ctx", {})
    leaf = _path(loc[-2:] if loc and isinstance(loc[-1], int) else loc[-1:])
    if loc[:1] == ("over",):
        return loc[:1], "over is neither a list of fibre ids nor switched", "write over: [fibre id, ...] or over: switched"
    match error["type"]:
        case "missing":
            return loc, f"{leaf} is missing", f"give {leaf}"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return loc, f"unknown field '{leaf}'", did_you_mean(leaf, fields)
        case "literal_error":
            expected = [word.strip("' ") for word in str(context.get("expected", "")).replace(" or ", ",").split(",")]
            return loc, f"{leaf} is '{given}'", f"{did_you_mean(str(given), expected, remove=False)}use one of {', '.join(expected)}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
            return loc, f"{leaf} is {given}", "give a value " + " and ".join(f"{words[key]} {limit}" for key, limit in context.items())
        case "string_pattern_mismatch":
            return loc, f"{leaf} '{given}' is not of the right form", f"match {context.get('pattern')}"
        case "dataclass_type":
            return loc, f"{leaf or 'the entry'} is not a mapping", "write it as {...: ..., ...}"
        case "string_type" if isinstance(given, int | float):
            return loc, f"{leaf} is a number where text belongs", f'put it in quotes, as in "{given}"'
        case "value_error":
            what, _, remedy = str(context.get("error", error["msg"])).partition("; ")
            return loc, what, remedy or "correct it"
        case _:
            return loc, f"{leaf or 'the value'} is {given!r}: {error['msg'][:1].lower()}{error['msg'][1:]}", "correct it"


def did_you_mean(word: str, known: Any, *, remove: bool = True) -> str:
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
