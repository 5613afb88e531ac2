"""YAML as plain data, read as a stream: large documents are taken part by part and never held whole.

Beside the data come complaints (a key given twice, a value that contains itself) and, when asked for, the lines of given paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import yaml

from controller.network.cross_checks import Complaint, Key

MAX_DEPTH = 32
TAKEN_DEPTH = 2
REPORT_EVERY = 1 << 16

Take = Callable[[Key, Any], bool]
"""Called with every finished value whose path has TAKEN_DEPTH parts; True when it has been taken, so that it need not be kept in its
container."""


def read(
    text: bytes | str,
    take: Take = lambda key, value: False,
    wanted: Collection[Key] = (),
    progress: Callable[[int], None] = lambda characters: None,
) -> tuple[Any, list[Complaint], dict[Key, int]]:
    """The data (None for an empty document), complaints, and the line of every path in `wanted` that is there.

    A mapping keeps its keys when a value is taken, with None; a sequence leaves a taken item out. `progress` is told how many characters
    have been read. Anchors, aliases and merge keys are fine. Raises yaml.YAMLError for text that is no YAML.
    """
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    reader = _Reader(loader(text), take, frozenset(wanted), progress)
    return reader.document(), reader.complaints, reader.lines


class _Reader:
    def __init__(self, parser: Any, take: Take, wanted: frozenset[Key], progress: Callable[[int], None]) -> None:
        self.complaints: list[Complaint] = []
        self.lines: dict[Key, int] = {}
        self._parser = parser
        self._take = take
        self._wanted = wanted
        self._progress = progress
        self._reported = 0
        self._next = parser.get_event
        self._anchors: dict[str, Any] = {}
        self._open: set[str] = set()

    def document(self) -> Any:
        self._next()  # the start of the stream
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        data = self._value(self._next(), ())
        self._next()  # the end of the document
        if not isinstance(self._next(), yaml.StreamEndEvent):
            self.complaints.append(((), "a second document follows", "write one network per file"))
        return data

    def _taken(self, path: Key, value: Any, event: Any) -> bool:
        """Offer a value to who may take it, and tell how far reading is; `event` began the value."""
        if len(path) != TAKEN_DEPTH:
            return False
        index = event.start_mark.index
        if index - self._reported >= REPORT_EVERY:
            self._reported = index
            self._progress(index)
        return self._take(path, value)

    def _value(self, event: Any, key: Key) -> Any:
        """The value that begins with this event."""
        value: Any
        if self._wanted and key in self._wanted:
            self.lines.setdefault(key, _line(event))
        kind = type(event)
        if kind is yaml.AliasEvent:
            if event.anchor in self._open:
                self.complaints.append((key, "the value contains itself", "write it out"))
            return self._anchors.get(str(event.anchor))
        if kind is yaml.ScalarEvent:
            value = self._scalar(event, key)
        elif len(key) > MAX_DEPTH:
            self.complaints.append((key, "the value nests too deep", "write it flatter"))
            self._skip()
            value = None
        else:
            if event.anchor:
                self._open.add(event.anchor)
            value = self._mapping(key) if kind is yaml.MappingStartEvent else self._sequence(key)
            self._open.discard(event.anchor)
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Any] = []
        position = -1
        while type(event := self._next()) is not yaml.MappingEndEvent:
            position += 1
            if type(event) is not yaml.ScalarEvent:
                path = (*key, position)  # it has no name to be told by
                self.complaints.append((path, "the key is not plain text", "use a name as key"))
                if path in self._wanted:
                    self.lines[path] = _line(event)
                if not isinstance(event, yaml.AliasEvent):
                    self._skip()
                self._value(self._next(), path)
                continue
            name: str = event.value
            path = (*key, name)
            if name in found:
                self.complaints.append((path, "the key is given twice", "keep one and rename or remove the other"))
            if path in self._wanted:
                self.lines[path] = _line(event)
            value = self._value(following := self._next(), path)
            if name == "<<" and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            else:
                found[name] = None if self._taken(path, value, following) else value
        for each in merged:
            if isinstance(each, dict):
                found = {**each, **found}
        return found

    def _sequence(self, key: Key) -> list[Any]:
        found = []
        index = 0
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            path = (*key, index)
            value = self._value(event, path)
            if not self._taken(path, value, event):
                found.append(value)
            index += 1
        return found

    def _skip(self) -> None:
        """Past the collection that has just begun."""
        depth = 1
        while depth:
            event = self._next()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)

    def _scalar(self, event: Any, key: Key) -> Any:
        if event.tag is not None and event.tag != "!" and not event.tag.startswith("tag:yaml.org,2002:"):
            self.complaints.append((key, f"the tag {event.tag} means nothing here", "remove it"))
        return _plain(event.value) if event.implicit[0] else event.value


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


_DECIMAL = re.compile(r"[-+]?[0-9]+\.[0-9]+")
_IMPLICIT = yaml.SafeLoader.yaml_implicit_resolvers
_EVERYWHERE = tuple(_IMPLICIT.get(None, ()))


@lru_cache(maxsize=1 << 14)
def _plain(text: str) -> Any:
    """What a scalar without quotes means: a number, null, a date, or the text itself.

    The words for true and false are text, since nothing here is answered with yes or no, and so are numbers to the base of sixty (1:30).
    """
    # most are decimals or plain words: PyYAML's own way takes ten times as long
    if _DECIMAL.fullmatch(text):
        return float(text)
    if not any(pattern.match(text) for _, pattern in (*_IMPLICIT.get(text[:1], ()), *_EVERYWHERE)):
        return text
    loader: Any = yaml.SafeLoader("")
    try:
        value = loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
        return text if isinstance(value, bool) or (isinstance(value, int | float) and ":" in text) else value
    except (ValueError, yaml.YAMLError):
        return text
    finally:
        loader.dispose()
