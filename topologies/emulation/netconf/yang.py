"""The data tree a set of YANG modules describes (RFC 7950), as far as editing by NETCONF needs it: names, keys, what is state.

libyang checks data against the same modules, but its Python binding does not show a list's keys. Read here is the part of YANG that
the modules beside this package use; anything else that could shape the data tree is refused, not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["container", "list", "leaf", "leaf-list"]

_TOKEN = re.compile(r"""\s+|//[^\n]*|/\*.*?\*/|(?P<string>"(?:\\.|[^"\\])*"|'[^']*')|(?P<mark>[{};])|(?P<word>[^\s{};"']+)""", re.DOTALL)
_SHAPES = frozenset({"choice", "case", "anydata", "anyxml", "include", "submodule", "deviation"})


@dataclass(frozen=True, slots=True)
class Statement:
    keyword: str
    argument: str
    inner: tuple[Statement, ...] = ()

    def all(self, keyword: str) -> Iterator[Statement]:
        return (statement for statement in self.inner if statement.keyword == keyword)

    def get(self, keyword: str, default: str = "") -> str:
        """The argument of the first substatement of that keyword."""
        return next((statement.argument for statement in self.all(keyword)), default)


@dataclass(slots=True)
class Node:
    """A node of the data tree; `children` by their names in lxml's notation. The root has no name."""

    kind: Kind
    name: str
    namespace: str
    prefix: str
    config: bool = True
    keys: tuple[str, ...] = ()
    presence: bool = False
    type: str = ""
    """Of a leaf: the built-in type its own is derived from."""
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return f"{{{self.namespace}}}{self.name}"


def parse(text: str) -> Statement:
    """A module's text as statements. Raises ValueError."""
    tokens = _tokens(text)
    (module,) = _statements(tokens, nested=False)
    return module


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"this is no YANG: {text[position : position + 40]!r}")
        position = found.end()
        if found.lastgroup is not None:
            yield found.lastgroup, found.group()


def _statements(tokens: Iterator[tuple[str, str]], nested: bool) -> tuple[Statement, ...]:
    statements: list[Statement] = []
    for kind, keyword in tokens:
        if keyword == "}" and nested:
            return tuple(statements)
        if kind != "word":
            raise ValueError(f"a statement begins with {keyword!r}")
        argument, text = "", ""
        for kind, text in tokens:
            if kind == "mark":
                break
            if kind == "string":
                argument += text[1:-1]
            elif text != "+":
                argument += text
        if text not in ("{", ";"):
            raise ValueError(f"the statement {keyword} {argument} does not end")
        statements.append(Statement(keyword, argument, _statements(tokens, nested=True) if text == "{" else ()))
    if nested:
        raise ValueError("a brace is not closed")
    return tuple(statements)


def data_tree(modules: Iterable[Statement]) -> Node:
    """The tree of all modules together. Raises ValueError for a module that is not there, or uses what is not read here."""
    by_name = {module.argument: module for module in modules}
    root = Node("container", "", "", "")
    for module in by_name.values():
        _Reader(by_name, module).add(root, module.inner, config=True)
    for module in by_name.values():
        for augment in module.all("augment"):
            reader = _Reader(by_name, module)
            target = root
            for step in augment.argument.strip("/").split("/"):
                prefix, _, name = step.rpartition(":")
                target = target.children[f"{{{reader.module_of(prefix).get('namespace')}}}{name}"]
            reader.add(target, augment.inner, target.config)
    return root


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads statements written in `module`; what they define belongs to `owner`, the module that uses them."""

    modules: Mapping[str, Statement]
    module: Statement
    owner: Statement | None = None

    def module_of(self, prefix: str) -> Statement:
        if prefix in ("", self.module.get("prefix")):
            return self.module
        for imported in self.module.all("import"):
            if imported.get("prefix") == prefix and imported.argument in self.modules:
                return self.modules[imported.argument]
        raise ValueError(f"{self.module.argument}: no module with the prefix {prefix}")

    def add(self, parent: Node, statements: Iterable[Statement], config: bool) -> None:
        owner = self.owner or self.module
        for statement in statements:
            match statement.keyword:
                case "container" | "list" | "leaf" | "leaf-list" as kind:
                    node = Node(
                        kind,
                        statement.argument,
                        owner.get("namespace"),
                        owner.get("prefix"),
                        config=config and statement.get("config", "true") == "true",
                        keys=tuple(statement.get("key").split()),
                        presence=any(statement.all("presence")),
                        type=self.built_in(statement.get("type")),
                    )
                    parent.children[node.tag] = node
                    self.add(node, statement.inner, node.config)
                case "uses":
                    prefix, _, name = statement.argument.rpartition(":")
                    home = self.module_of(prefix)
                    grouping = next((found for found in home.all("grouping") if found.argument == name), None)
                    if grouping is None or statement.inner:
                        raise ValueError(f"{self.module.argument}: uses {statement.argument}: no plain grouping of the module's top level")
                    _Reader(self.modules, home, owner).add(parent, grouping.inner, config)
                case keyword if keyword in _SHAPES:
                    raise ValueError(f"{self.module.argument}: {keyword} is not read here")

    def built_in(self, type_name: str) -> str:
        prefix, _, name = type_name.rpartition(":")
        home = self.module_of(prefix)
        derived = next((found for found in home.all("typedef") if found.argument == name), None)
        return name if derived is None else _Reader(self.modules, home).built_in(derived.get("type"))
