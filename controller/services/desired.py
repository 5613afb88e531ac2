"""The desired state of the devices, kept in the store: per device the items that services want there and those that are to be gone.

An item that no service wants any more is remembered as absent until it has been read to be gone: so Bellhop removes what it put there, even
after a crash, and never what somebody else did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from controller.services.service import SERVICE, Service
from controller.southbound.device import Item
from controller.store.sqlite import Store


@dataclass(frozen=True)
class Desired:
    """What one device is to hold: `present` by service, and what must go."""

    present: dict[str, tuple[Item, ...]]
    absent: tuple[Item, ...] = ()

    def items(self) -> frozenset[Item]:
        return frozenset(item for items in self.present.values() for item in items)

    def replace(self, service: str, items: tuple[Item, ...]) -> Desired:
        """The desired state with this service's items in place of what it had; what nobody wants any more becomes absent."""
        present = {name: each for name, each in self.present.items() if name != service}
        if items:
            present[service] = items
        wanted = {item for each in present.values() for item in each}
        gone = dict.fromkeys([*self.absent, *self.present.get(service, ())])
        return Desired(present, tuple(item for item in gone if item not in wanted))


_DESIRED: TypeAdapter[Desired] = TypeAdapter(Desired)


class Book:
    """Services and desired state in the store, with a copy in memory. Every change is one compare-and-set of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revisions: dict[str, int] = {}
        self.services: dict[str, Service] = {}
        self.desired: dict[str, Desired] = {}
        for key, entry in store.read().items():
            kind, _, name = key.partition("/")
            if kind == "service":
                self.services[name] = SERVICE.validate_python(entry.value)
            elif kind == "desired":
                self.desired[name] = _DESIRED.validate_python(entry.value)
            self._revisions[key] = entry.revision

    @property
    def revision(self) -> int:
        return max(self._revisions.values(), default=0)

    def of(self, device: str) -> Desired:
        return self.desired.get(device, Desired({}))

    def commit(self, changed: Iterable[Service], gone: Iterable[str] = ()) -> frozenset[str]:
        """Keep `changed` services, make their plans the desired state (no items for those not to be delivered) and drop `gone` ones: one change.

        Returns the devices of which something else is desired now. Raises Conflict when the store has moved on.
        """
        changed = list(changed)
        desired: dict[str, Desired] = {}
        services: dict[str, Service | None] = {f"service/{service.id}": service for service in changed}
        services |= {f"service/{name}": None for name in gone}
        items: dict[str, Mapping[str, tuple[Item, ...]]] = {name: {} for name in gone}
        items |= {service.id: service.plan.desired if service.plan and service.delivered else {} for service in changed}
        for name, per_device in items.items():
            holding = {device for device, each in self.desired.items() if name in each.present}
            for device in sorted(holding | per_device.keys()):
                before = desired.get(device, self.of(device))
                desired[device] = before.replace(name, tuple(per_device.get(device, ())))
        desired = {device: each for device, each in desired.items() if each != self.of(device)}
        self._commit(services, desired)
        return frozenset(desired)

    def forget_absent(self, held: Mapping[str, frozenset[Item]]) -> None:
        """By device, all that it was read to hold: what was to be gone and is not among it is gone."""
        left = {
            device: Desired(before.present, tuple(item for item in before.absent if item in items))
            for device, items in held.items()
            if not items.issuperset((before := self.of(device)).absent)
        }
        if left:
            self._commit({}, left)

    def _commit(self, services: Mapping[str, Service | None], desired: Mapping[str, Desired]) -> None:
        changes: dict[str, Any] = {
            key: None if service is None else SERVICE.dump_python(service, mode="json") for key, service in services.items()
        }
        changes |= {f"desired/{device}": _DESIRED.dump_python(each, mode="json") for device, each in desired.items()}
        revision = self._store.commit(changes, {key: self._revisions.get(key, 0) for key in changes})
        for key, service in services.items():
            name = key.partition("/")[2]
            if service is None:
                self.services.pop(name, None)
                self._revisions.pop(key, None)
            else:
                self.services[name] = service
                self._revisions[key] = revision
        for device, each in desired.items():
            self.desired[device] = each
            self._revisions[f"desired/{device}"] = revision
