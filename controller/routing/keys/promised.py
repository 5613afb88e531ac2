"""What is promised, with what of it changed: so that arrays kept from it follow a change at the cost of that change."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import Any

CHANGES_KEPT = 10_000
"""So many changes are listed before a new list is begun; who follows the old one reads everything anew, once."""


class Promised(UserDict[str, float]):
    """Amounts by name. `changes` names what was set or deleted, in that order; it is another list once the old one was too long."""

    def __init__(self, amounts: Mapping[str, float] | None = None) -> None:
        self.changes: list[str] = []
        super().__init__(amounts)

    def __setitem__(self, name: str, amount: float) -> None:
        self.data[name] = amount
        changes = self.changes
        if len(changes) >= CHANGES_KEPT:
            self.changes = changes = []
        changes.append(name)

    def __delitem__(self, name: str) -> None:
        self[name] = self.data[name]  # noted as any other change
        del self.data[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Told here because routing asks for every link of every path, and a UserDict takes three calls for it."""
        return self.data.get(name, default)
