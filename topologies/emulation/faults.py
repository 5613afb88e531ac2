"""What can go wrong with a fibre of the emulated network, as asked for and as it stands now. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from controller.network.model import STRICT, LinkId

Decibel = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Cut:
    """Nothing passes a fibre or a cable any more."""

    kind: Literal["cut"] = "cut"
    link: LinkId


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Bend:
    """A fibre is bent, which adds loss at its far end."""

    kind: Literal["bend"] = "bend"
    link: LinkId
    loss_db: Decibel


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Drift:
    """Alignment at a fibre or telescope drifts: loss grows until a maximum."""

    kind: Literal["drift"] = "drift"
    link: LinkId
    db_per_s: Decibel
    max_db: Decibel


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Eavesdropper:
    """Somebody measures a share of the quantum signals in a fibre and sends them anew."""

    kind: Literal["eavesdropper"] = "eavesdropper"
    link: LinkId
    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


Fault = Cut | Bend | Drift | Eavesdropper
_FAULT: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="kind")])


class WrongFault(ValueError):
    """A fault that cannot be; `errors` pairs each wrong field with what is wrong."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {wrong}" for field, wrong in errors))
        self.errors = errors


def parse(asked: object) -> Fault:
    """The fault a JSON object asks for; WrongFault with every fault of the request."""
    try:
        return _FAULT.validate_python(asked)
    except ValidationError as wrong:
        # The first part of a place is the kind by which the union was told apart, not a field.
        raise WrongFault(*(("/".join(map(str, each["loc"][1:])) or "kind", each["msg"]) for each in wrong.errors())) from None


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A fault that stands since a moment, in seconds since the epoch."""

    id: str
    fault: Fault
    since_s: float

    def loss_db(self, now_s: float) -> float:
        """What it adds to its fibre's loss now."""
        match self.fault:
            case Bend(loss_db=loss_db):
                return loss_db
            case Drift(db_per_s=db_per_s, max_db=max_db):
                return min(max_db, db_per_s * max(0.0, now_s - self.since_s))
        return 0.0

    def told(self, now_s: float) -> dict[str, Any]:
        """As the interface lists it."""
        return {"id": self.id, **dataclasses.asdict(self.fault), "since_s": self.since_s, "loss_now_db": self.loss_db(now_s)}


class Faults:
    """The faults that stand, by id in the order they came."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self._count = 0

    def add(self, fault: Fault, now_s: float) -> Held:
        self._count += 1
        held = Held(f"f{self._count}", fault, now_s)
        self.held[held.id] = held
        return held

    def cut_of(self, link: str) -> Held | None:
        """The cut of a link, if it is cut."""
        return next((each for each in self.held.values() if each.fault == Cut(link=link)), None)

    def cuts(self) -> set[str]:
        return {each.fault.link for each in self.held.values() if isinstance(each.fault, Cut)}

    def extra_loss_db(self, now_s: float) -> dict[str, float]:
        """What bends and drifts add now, by fibre."""
        return self._summed(lambda held: held.loss_db(now_s))

    def intercepted(self) -> dict[str, float]:
        """The share of signals that eavesdroppers measure, by fibre; at most all."""
        shares = self._summed(lambda held: held.fault.fraction if isinstance(held.fault, Eavesdropper) else 0.0)
        return {link: min(1.0, share) for link, share in shares.items()}

    def drifting(self, now_s: float) -> bool:
        """Whether the loss of any fibre is still growing."""
        return any(isinstance(each.fault, Drift) and each.loss_db(now_s) < each.fault.max_db for each in self.held.values())

    def _summed(self, part: Callable[[Held], float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for each in self.held.values():
            if amount := part(each):
                found[each.fault.link] = found.get(each.fault.link, 0.0) + amount
        return found
