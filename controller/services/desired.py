"""The desired state of the devices, kept in the store: per device the items that services want there and those that are to be gone.

What is to be there follows from the services' plans. An item that no service wants any more is remembered as absent until it has been read
to be gone: so Bellhop removes what it put there, even after a crash, and never what somebody else did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import to_json

from controller.services.index import Index
from controller.services.ledger import Ledger
from controller.services.service import SERVICE, Service, promised
from controller.southbound.device import Item
from controller.store.sqlite import Store


@dataclass(frozen=True, slots=True)
class Desired:
    """What one device is to hold: `present` by service, and what must go."""

    present: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    absent: tuple[Item, ...] = ()
    wanted: Mapping[Item, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    """Every item that is present, and the services it is for."""

    def items(self) -> frozenset[Item]:
        return frozenset(self.wanted)

    def replace(self, changes: Mapping[str, tuple[Item, ...]]) -> Desired:
        """The desired state with these services' items in place of what they had; what nobody wants any more becomes absent."""
        present, wanted = {**self.present}, {**self.wanted}
        gone = dict.fromkeys(self.absent)
        for service, items in changes.items():
            before = present.pop(service, ())
            gone.update(dict.fromkeys(before))
            for item in dict.fromkeys(before):
                if others := tuple(each for each in wanted[item] if each != service):
                    wanted[item] = others
                else:
                    del wanted[item]
            for item in dict.fromkeys(items):
                wanted[item] = (*wanted.get(item, ()), service)
            if items:
                present[service] = items
        return Desired(present, tuple(item for item in gone if item not in wanted), wanted)


@pydantic_dataclass(frozen=True)
class _Left:
    """What of a desired state no service says: the store keeps the rest with the services."""

    absent: tuple[Item, ...] = ()


_LEFT: TypeAdapter[_Left] = TypeAdapter(_Left)
_NOTHING = Desired()


class Book:
    """Services and desired state in the store, with a copy in memory, an index, and the ledger of what the services' plans reserve.

    Every change is one compare-and-set of the store, which writes it soon: who acts on it outside waits until the store is `durable`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.services: dict[str, Service] = {}
        self.desired: dict[str, Desired] = {}
        self.leaving: set[str] = set()
        """Devices on which something is to be gone."""
        self.index = Index()
        self.ledger = Ledger()
        held: dict[str, dict[str, tuple[Item, ...]]] = {}
        entries = store.read()
        self._revisions: dict[str, int] = {key: entry.revision for key, entry in entries.items()}
        for key, entry in entries.items():
            kind, _, name = key.partition("/")
            if kind == "service":
                plan = entries.get(f"plan/{name}")
                service = SERVICE.validate_python(entry.value if plan is None else {**entry.value, "plan": plan.value})
                self._keep(name, service)
                for device, items in _items(service).items():
                    if items:
                        held.setdefault(device, {})[name] = tuple(items)
            elif kind == "desired":
                self._hold(name, Desired(absent=_LEFT.validate_python(entry.value).absent))
        for device, present in held.items():
            self._hold(device, self.of(device).replace(present))
        self.revision = store.revision

    def of(self, device: str) -> Desired:
        return self.desired.get(device, _NOTHING)

    def commit(self, changed: Iterable[Service], gone: Iterable[str] = ()) -> frozenset[str]:
        """Keep `changed` services, make their plans the desired state (no items for those not to be delivered) and drop `gone` ones: one change.

        Returns the devices of which something else is desired now. Raises Conflict when the store has moved on.
        """
        services: dict[str, Service | None] = {service.id: service for service in changed}
        services |= dict.fromkeys(gone)
        changes: dict[str, dict[str, tuple[Item, ...]]] = {}
        for name, service in services.items():
            before, after = _items(self.services.get(name)), _items(service)
            for device in before.keys() | after.keys():
                if tuple(before.get(device, ())) != (items := tuple(after.get(device, ()))):
                    changes.setdefault(device, {})[name] = items
        desired = {device: self.of(device).replace(changes[device]) for device in sorted(changes)}
        self._commit(services, desired)
        return frozenset(desired)

    def forget_absent(self, device: str, held: frozenset[Item]) -> None:
        """The device was read to hold this: what was to be gone and is not among it is gone."""
        before = self.of(device)
        if not held.issuperset(before.absent):
            self._commit({}, {device: replace(before, absent=tuple(item for item in before.absent if item in held))})

    def _commit(self, services: Mapping[str, Service | None], desired: Mapping[str, Desired]) -> None:
        changes: dict[str, Any] = {}
        for name, service in services.items():
            changes[f"service/{name}"] = None if service is None else to_json(service, exclude={"plan"}, inf_nan_mode="constants")
            before, after = (None if each is None else each.plan for each in (self.services.get(name), service))
            if after is not before or (
                after is not None and f"plan/{name}" not in self._revisions
            ):  # long, and the same through many states
                changes[f"plan/{name}"] = None if after is None else to_json(after, inf_nan_mode="constants")
        for device, each in desired.items():
            if each.absent != self.of(device).absent:
                changes[f"desired/{device}"] = to_json(_Left(each.absent), inf_nan_mode="constants") if each.absent else None
        if changes:
            self.revision = self.store.commit(changes, {key: self._revisions.get(key, 0) for key in changes})
        for key, value in changes.items():
            if value is None:
                self._revisions.pop(key, None)
            else:
                self._revisions[key] = self.revision
        for name, service in services.items():
            self._keep(name, service)
        for device, each in desired.items():
            self._hold(device, each)

    def _hold(self, device: str, desired: Desired) -> None:
        if desired == _NOTHING:
            self.desired.pop(device, None)
        else:
            self.desired[device] = desired
        (self.leaving.add if desired.absent else self.leaving.discard)(device)

    def _keep(self, name: str, service: Service | None) -> None:
        self.index.replace(self.services.get(name), service)
        if service is None:
            self.services.pop(name, None)
        else:
            self.services[name] = service
        if service is None or service.plan is None or service.state == "FAILED":
            self.ledger.put(name, None)
        else:
            self.ledger.put(name, promised(service.plan, service.interval_s))


def _items(service: Service | None) -> Mapping[str, tuple[Item, ...]]:
    """What the devices are to hold for a service now."""
    return service.plan.desired if service is not None and service.plan is not None and service.delivered else {}
