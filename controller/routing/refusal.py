"""The one way a route is refused."""

from __future__ import annotations

from controller.network.topology import Figure


class NoRoute(Exception):
    """No path meets a request: what is wrong, the constraint that no path meets, and the best that could be had (None: there is no figure)."""

    def __init__(self, error: str, constraint: str, best: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.constraint = constraint
        self.best = best

    def __reduce__(self) -> tuple[type[NoRoute], tuple[str, str, float | None]]:
        # planning may run in a worker process: the refusal must come back whole
        return NoRoute, (self.error, self.constraint, self.best)

    def to_json(self) -> dict[str, object]:
        return {"error": self.error, "constraint": self.constraint, "best": self.best}


def told(figure: Figure, unit: str) -> str:
    """A figure for an explanation: value, unit, origin and source."""
    source = f", {figure.source}" if figure.source else ""
    return f"{figure.value:.6g}{' ' if unit else ''}{unit} ({figure.origin}{source})"
