"""Where services stand: judged from what their devices were read to hold, the network, and what their app says. Changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.network.topology import Topology, UnknownName
from controller.services.app import Plan, State
from controller.services.desired import Book
from controller.services.device_view import UNREAD
from controller.services.planner import apps
from controller.services.reconciler import Reconciler
from controller.services.service import Service

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Judge:
    topology: Topology
    book: Book
    reconciler: Reconciler

    def verdict(self, service: Service, refusal: str = "") -> Service:
        """The service as it stands; `refusal` is what a device that refused its items said."""
        assert service.plan is not None
        if refusal and service.state in ("PROGRAMMING", "REPAIRING"):
            return service.moved("FAILED", refusal)
        missing = refusal or self.missing(service)
        if not missing or self._buffered(service):
            unmet = self.unmet(service)
            if not unmet:
                return service.moved("ACTIVE", missing and f"serving from its stock, {missing}")
            missing = missing or unmet
        return service.moved("DEGRADED" if service.state == "ACTIVE" else service.state, missing)

    def missing(self, service: Service) -> str:
        """What is not in place for the service: devices, companions, links; empty when everything is."""
        assert service.plan is not None
        if lacking := [device for device in service.plan.desired if self.lacks(device, service.plan)]:
            if service.reports_drift and (drifted := [device for device in lacking if self._lost(device, service.plan)]):
                return f"drifted: {', '.join(sorted(drifted))} lost what was set for it, and on_drift is report: it is left so"
            return f"waiting for {'; '.join(f'{device}: {self.trouble(device)}' for device in sorted(lacking))}"
        for name in service.companions:
            companion = self.book.services.get(name)
            if companion is None or companion.state != "ACTIVE":
                return f"waiting for {name}: {(companion.reason or companion.state) if companion else 'it was removed'}"
        if broken := self.broken(service.plan):
            # the planner's own words say more, if it has looked for another way already
            return service.reason if service.state == "DEGRADED" and service.reason else f"{' and '.join(broken)} down, disabled or outside its window"
        return ""

    def unmet(self, service: Service) -> str:
        """What the app still misses, given what the devices were read to hold."""
        app = apps().get(service.kind)
        if app is None or service.plan is None:
            return f"no app plans '{service.kind}' any more; install it again or remove the service"
        try:
            return app.serving(service.id, service.plan, self.states(service.plan))
        except Exception as error:
            log.exception("the app of kind %s failed on %s", service.kind, service.id)
            return f"its app failed: {error!r}"

    def suspects(self, service: Service) -> list[str]:
        """The links that the app blames for what is unmet."""
        app = apps().get(service.kind)
        if app is None or service.plan is None:
            return []
        try:
            return sorted(link for link in app.suspects(service.plan, self.states(service.plan)) if link in service.plan.touches)
        except Exception:
            log.exception("the app of kind %s failed on %s", service.kind, service.id)
            return []

    def serves_from_stock(self, service: Service) -> bool:
        return service.served and self._buffered(service) and not self.unmet(service)

    def states(self, plan: Plan) -> Mapping[str, State]:
        views = self.reconciler.views
        return {device: (views[device].state if device in views else None) or UNREAD for device in plan.desired}

    def lacks(self, device: str, plan: Plan) -> bool:
        """Whether the device was not read to hold all that the plan has for it."""
        view = self.reconciler.views.get(device)
        return view is None or view.state is None or not view.state.items.issuperset(plan.desired[device])

    def _lost(self, device: str, plan: Plan) -> bool:
        return device in self.reconciler.views and not self.reconciler.views[device].lost.isdisjoint(plan.desired[device])

    def left_behind(self, service: Service) -> list[str]:
        """Devices that still have to be read without the service's items."""
        plan = service.plan
        if plan is None:
            return []
        return [name for name, items in plan.desired.items() if (absent := self.book.of(name).absent) and any(item in absent for item in items)]

    def trouble(self, device: str) -> str:
        if device not in self.reconciler.devices:
            return "no driver for this device; give it an address or a dpid in the document"
        if not self.reconciler.devices[device].connected:
            return "no session"
        return self.reconciler.views[device].trouble or "being programmed"

    def broken(self, plan: Plan) -> list[str]:
        """The nodes and links of the plan that do not serve: links down, anything disabled or no longer in the network."""
        silent = self.topology.out_of_service
        return sorted(name for name in plan.touches if name in silent or not self.topology.known(name))

    def touching(self, subjects: Iterable[str]) -> list[str]:
        """Services, delivered or planned, that depend on one of these nodes or links."""
        found = {name for subject in subjects for name in self.book.index.touching.of(subject)}
        return sorted(name for name in found if (each := self.book.services[name]).delivered or each.state == "PLANNED")

    def waiting(self) -> list[Service]:
        """Services without a way, though some may still serve from stock: a change for the better may give them one."""
        services, index = self.book.services, self.book.index
        found = index.states("DEGRADED", "FAILED")
        for companion, users in index.needing.items():
            if (each := services.get(str(companion))) is None or each.state in ("REMOVING", "FAILED"):
                found |= users
        for silent in self.topology.out_of_service:
            found.update(index.touching.of(silent))
        for subject, users in index.touching.items():
            if not self.topology.known(str(subject)):
                found |= users
        return [services[name] for name in sorted(found) if services[name].state != "REMOVING"]

    def usable(self, name: str) -> bool:
        """Whether new plans may use this node or link."""
        try:
            if name in self.topology.graph:
                return self.topology.node(name).admin == "enabled"
            return self.topology.usable(self.topology.link(name))
        except UnknownName:
            return False

    def _buffered(self, service: Service) -> bool:
        app = apps().get(service.kind)
        return app is not None and app.buffered
