"""The desired state of the devices, kept in the store: per device the items that services want there and those that are to be gone.

What is to be there follows from the services' plans. An item that no service wants any more is remembered as absent until it has been read
to be gone: so Bellhop removes what it put there, even after a crash, and never what somebody else did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from controller.services.app import Plan
from controller.services.index import Index
from controller.services.ledger import Ledger
from controller.services.service import SERVICE, Service, promised
from controller.southbound.device import Item
from controller.store.sqlite import Entry, Store


@dataclass(slots=True)
class Desired:
    """What one device is to hold: `present` by service, and what must go."""

    present: dict[str, tuple[Item, ...]] = field(default_factory=dict)
    left: dict[str, tuple[Item, ...]] = field(default_factory=dict)
    """What is to be gone, by the service that was the last to give it up."""
    wanted: dict[Item, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    """Every item that is present, and the services it is for."""
    absent: dict[Item, str] = field(default_factory=dict, compare=False, repr=False)
    """Every item that is to be gone, and the service that left it, in the order in which they were given up."""

    def items(self) -> frozenset[Item]:
        return frozenset(self.wanted)

    def copy(self) -> Desired:
        return Desired(self.present.copy(), self.left.copy(), self.wanted.copy(), self.absent.copy())

    def put(self, service: str, items: tuple[Item, ...]) -> set[str]:
        """Put these items in place of what the service had; what nobody wants any more is left. Returns the services whose `left` changed."""
        changed = set()
        before = self.present.pop(service, ())
        for item in before:
            if item in items:
                continue
            wants = self.wanted[item]
            if len(wants) > 1:
                self.wanted[item] = tuple(each for each in wants if each != service)
            else:
                del self.wanted[item]
                self.leave(item, service)
                changed.add(service)
        for item in items:
            if service not in (others := self.wanted.get(item, ())):
                self.wanted[item] = (*others, service)
                if item in self.absent:
                    changed.add(self.forget(item))
        if items:
            self.present[service] = items
        return changed

    def leave(self, item: Item, service: str) -> None:
        """The item is to be gone; the service was the last that wanted it."""
        self.absent[item] = service
        self.left[service] = (*self.left.get(service, ()), item)

    def forget(self, item: Item) -> str:
        """The item is not to be gone any more, or it is. Returns the service that had left it."""
        service = self.absent.pop(item)
        if rest := tuple(each for each in self.left[service] if each != item):
            self.left[service] = rest
        else:
            del self.left[service]
        return service


_ITEMS: TypeAdapter[tuple[Item, ...]] = TypeAdapter(tuple[Item, ...])
_NOTHING = Desired()
STANDING = "standing:"
"""Before a device's name: who wants what it is to hold whatever the services want. No service has such a name."""


class Book:
    """Services and desired state in the store, with a copy in memory, an index, and the ledger of what the services' plans reserve.

    Every change is one compare-and-set of the store, which writes it soon: who acts on it outside waits until the store is `durable`.
    """

    def __init__(self, store: Store, standing: Mapping[str, tuple[Item, ...]] = MappingProxyType({})) -> None:
        """`standing` is what devices are to hold whatever the services want, by device. Of it the store remembers what does not carry
        Bellhop's mark, so that it can be taken away when it is no longer to stand."""
        self.store = store
        self.services: dict[str, Service] = {}
        self.desired: dict[str, Desired] = {}
        self.leaving: set[str] = set()
        """Devices on which something is to be gone."""
        self._lent: set[str] = set()
        """Devices whose desired state is in somebody's hands, who is not to see it change."""
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
                device, _, service_id = name.partition("/")
                for item in _ITEMS.validate_python(entry.value):
                    self._own(device).leave(item, service_id)
                self.leaving.add(device)
        for device, present in held.items():
            for service_id, items in present.items():
                self._own(device).put(service_id, items)
        for device, items in standing.items():
            self._stand(device, items, entries)
        self.revision = store.revision

    def _stand(self, device: str, items: tuple[Item, ...], entries: Mapping[str, Entry]) -> None:
        """Have the device hold these items whatever the services want."""
        key, owner = f"standing/{device}", f"{STANDING}{device}"
        before = _ITEMS.validate_python(entries[key].value) if key in entries else ()
        unmarked = tuple(item for item in items if not item.ours)
        if items or before:
            desired = self._own(device)
            changed = desired.put(owner, before) | desired.put(owner, items)
            self._commit({}, {(device, each) for each in changed})
            self._clear(device)
        if unmarked != before:
            self.store.commit({key: to_json(unmarked, inf_nan_mode="constants") if unmarked else None})

    def of(self, device: str) -> Desired:
        """What the device is to hold. To be read before the book changes."""
        return self.desired.get(device, _NOTHING)

    def lend(self, device: str) -> Desired:
        """What the device is to hold now, which stays as it is when the book changes."""
        self._lent.add(device)
        return self.of(device)

    def commit(self, changed: Iterable[Service], gone: Iterable[str] = ()) -> frozenset[str]:
        """Keep `changed` services, make their plans the desired state (no items for those not to be delivered) and drop `gone` ones: one change.

        Returns the devices of which something else is desired now. Raises Conflict when the store has moved on.
        """
        services: dict[str, Service | None] = {service.id: service for service in changed}
        services |= dict.fromkeys(gone)
        changes: dict[str, dict[str, tuple[Item, ...]]] = {}
        for name, service in services.items():
            before, after = _items(self.services.get(name)), _items(service)
            if before is after:
                continue
            for device in before.keys() | after.keys():
                if tuple(before.get(device, ())) != (items := tuple(after.get(device, ()))):
                    changes.setdefault(device, {})[name] = items
        # before anything changes here; nothing of a service changes in the store without the service
        self.store.check({key: self._revisions.get(key, 0) for key in map("service/{}".format, services)})
        left = []
        for device in sorted(changes):
            desired = self._own(device)
            for name, items in changes[device].items():
                left += [(device, each) for each in desired.put(name, items)]
        self._commit(services, left)
        for device in changes:
            self._clear(device)
        return frozenset(changes)

    def forget_absent(self, device: str, held: frozenset[Item]) -> None:
        """The device was read to hold this: what was to be gone and is not among it is gone."""
        if gone := [item for item in self.of(device).absent if item not in held]:
            desired = self._own(device)
            self._commit({}, {(device, desired.forget(item)) for item in gone})
            self._clear(device)

    def _commit(self, services: Mapping[str, Service | None], left: Iterable[tuple[str, str]]) -> None:
        """Write the services, and for these devices and services what is to be gone."""
        changes: dict[str, Any] = {}
        for name, service in services.items():
            changes[f"service/{name}"] = None if service is None else to_json(service, exclude={"plan"}, inf_nan_mode="constants")
            before, after = (None if each is None else each.plan for each in (self.services.get(name), service))
            if after is not before or (
                after is not None and f"plan/{name}" not in self._revisions
            ):  # long, and the same through many states
                changes[f"plan/{name}"] = None if after is None else to_json(after, inf_nan_mode="constants")
        for device, name in left:
            items = self.of(device).left.get(name)
            changes[f"desired/{device}/{name}"] = to_json(items, inf_nan_mode="constants") if items else None
        if changes:
            self.revision = self.store.commit(changes)
        for key, value in changes.items():
            if value is None:
                self._revisions.pop(key, None)
            else:
                self._revisions[key] = self.revision
        for name, service in services.items():
            self._keep(name, service)

    def _own(self, device: str) -> Desired:
        """The desired state of a device, to be changed."""
        if device in self._lent or device not in self.desired:
            self._lent.discard(device)
            self.desired[device] = self.of(device).copy()
        return self.desired[device]

    def _clear(self, device: str) -> None:
        desired = self.desired[device]
        (self.leaving.add if desired.left else self.leaving.discard)(device)
        if not desired.present and not desired.left:
            del self.desired[device]

    def _keep(self, name: str, service: Service | None) -> None:
        before = self.services.get(name)
        self.index.replace(before, service)
        if service is None:
            self.services.pop(name, None)
        else:
            self.services[name] = service
        if (now := _promised(service)) != _promised(before):
            self.ledger.put(name, None if now is None else promised(*now))


_NO_ITEMS: Mapping[str, tuple[Item, ...]] = MappingProxyType({})


def _items(service: Service | None) -> Mapping[str, tuple[Item, ...]]:
    """What the devices are to hold for a service now."""
    return service.plan.desired if service is not None and service.plan is not None and service.delivered else _NO_ITEMS


def _promised(service: Service | None) -> tuple[Plan, tuple[float, float]] | None:
    """What the ledger's entry for a service follows from; None for none."""
    return None if service is None or service.plan is None or service.state == "FAILED" else (service.plan, service.interval_s)
