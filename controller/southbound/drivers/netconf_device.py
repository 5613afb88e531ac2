"""A device that is configured over NETCONF; what its family's configuration looks like is a model's.

Items that carry no mark of their owner are nobody's to overwrite: additions are created, never merged over what is there, and removals are
compared with what the device holds once it is locked. A device is believed when it has been read back, not when it has said ok.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Protocol

from lxml import etree

from controller.southbound.device import Changed, DeviceEvent, Diff, Item, Refused, State
from controller.southbound.drivers.reconnection import Reconnection, host_and_port
from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import CAPABILITY, CONFIG_CHANGES, Datastore, q
from controller.southbound.netconf.session import Credentials, RpcRefusedError, Session, open_session

Element = etree._Element

log = logging.getLogger(__name__)


class Model(Protocol):
    """What the messages of one family of devices hold. Pure. Raises MessageError for data that do not read as the family's."""

    item: ClassVar[type[Item]]
    """What its devices hold."""

    def configuration(self) -> Element:
        """The subtree filter that selects every item."""
        ...

    def powers(self) -> Element:
        """The subtree filter that selects every power reading."""
        ...

    def items(self, data: Element) -> frozenset[Item]: ...

    def power_dbm(self, data: Element) -> dict[int, float]: ...

    def edit(self, held: frozenset[Item], diff: Diff) -> Element | None:
        """The edit that makes `diff` true on a device that holds `held`; None when it is true already. It takes nothing over."""
        ...

    def event(self, device: str, event: Element) -> DeviceEvent | None:
        """What a notification of the family's own says; None for those that say nothing here."""
        ...


class NetconfDevice:
    """The driver; `address` is `host:port`, `model` chooses the family's model by what the device's hello offers.

    A device without a candidate datastore is changed in its running one. Notifications are taken where the device lets them run beside
    operations (capability interleave); elsewhere only `read` shows changes.
    """

    def __init__(
        self,
        name: str,
        address: str,
        credentials: Credentials,
        model: Callable[[frozenset[str]], Model],
        *,
        timeout_s: float = 10.0,
        keepalive_s: float = 15.0,
        reconnect_min_s: float = 0.5,
        reconnect_max_s: float = 30.0,
    ) -> None:
        host, port = host_and_port(name, address)
        self.name = name
        self.capabilities = frozenset({"validate", "power", "atomic"})
        """What the family offers; after the first connection, what this device does."""
        self.operations = 0
        self.operations_refused = 0
        self.notifications = 0
        self.link = Reconnection(
            name,
            lambda: open_session(host, port, credentials, timeout_s=timeout_s, keepalive_s=keepalive_s),
            self._follow,
            min_s=reconnect_min_s,
            max_s=reconnect_max_s,
        )
        self._model = model(frozenset())
        self._choose_model = model
        self._target: Datastore = "candidate"
        self._changing = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self.link.connected

    def events(self) -> AsyncIterator[DeviceEvent]:
        return self.link.events()

    async def run(self) -> None:
        await self.link.run()

    async def read(self) -> State:
        """The items in effect and the power at each port, in dBm."""
        with self.link.session() as session:
            data = _data(*await self._call(session, rpc.get(self._model.configuration(), self._model.powers())))
            return State(items=self._model.items(data), power_dbm=self._model.power_dbm(data))

    async def check(self, diff: Diff) -> list[str]:
        """The device's own words on what it would refuse; nothing where it cannot validate."""
        if "validate" not in self.capabilities:
            return []
        try:
            await self._change(diff, keep=False)
        except Refused as refusal:
            return [refusal.what]
        return []

    async def apply(self, diff: Diff) -> None:
        """Lock, edit, validate, commit, read back, unlock. A session lost on the way leaves it open whether the change was made."""
        await self._change(diff, keep=True)

    async def _follow(self, session: Session) -> None:
        """Learn what the device offers, then pass on what it notifies."""
        self._learn(session.capabilities)
        if {CAPABILITY + "notification:1.0", CAPABILITY + "interleave:1.0"} <= session.capabilities:
            try:
                await self._call(session, rpc.create_subscription())
            except RpcRefusedError as refusal:
                log.warning("%s: no notifications, changes show only when it is read: %s", self.name, refusal)
        await self.link.opened(session)
        while (notification := await session.notifications.get()) is not None:
            self.notifications += 1
            event = self._event(notification.event, session.session_id)
            if event is not None:
                await self.link.emit(event)

    def _learn(self, offered: frozenset[str]) -> None:
        candidate = CAPABILITY + "candidate:1.0" in offered
        validate = CAPABILITY + "validate:1.1" in offered or (candidate and CAPABILITY + "validate:1.0" in offered)
        atomic = candidate or CAPABILITY + "rollback-on-error:1.0" in offered
        self._target = "candidate" if candidate else "running"
        self.capabilities = frozenset({"power"} | ({"validate"} if validate else set()) | ({"atomic"} if atomic else set()))
        self._model = self._choose_model(offered)

    def _event(self, event: Element, own_session_id: int) -> DeviceEvent | None:
        if event.tag != q(CONFIG_CHANGES, "netconf-config-change"):
            return self._model.event(self.name, event)
        changed_by = event.find(q(CONFIG_CHANGES, "changed-by"))
        by, user = ("" if changed_by is None else rpc.text(changed_by, CONFIG_CHANGES, leaf) for leaf in ("session-id", "username"))
        if by == str(own_session_id):
            return None
        return Changed(self.name, f"its configuration was changed by {user or 'somebody else'} (NETCONF session {by or 'unknown'})")

    async def _call(self, session: Session, *operations: Element) -> list[rpc.Reply]:
        """The replies to operations sent at once. Raises the first refusal."""
        return self._accepted(await session.pipeline(*operations))

    def _accepted(self, outcomes: list[rpc.Reply | RpcRefusedError]) -> list[rpc.Reply]:
        refusals = [outcome for outcome in outcomes if isinstance(outcome, RpcRefusedError)]
        self.operations += len(outcomes)
        self.operations_refused += len(refusals)
        if refusals:
            raise refusals[0]
        return [outcome for outcome in outcomes if isinstance(outcome, rpc.Reply)]

    async def _change(self, diff: Diff, keep: bool) -> None:
        """Lock, edit, validate; then commit and read back, or undo when it is not to be kept. Raises Unreachable and Refused."""
        for item in (*diff.add, *diff.remove):
            if not isinstance(item, self._model.item):
                raise Refused(self.name, f"it holds items of the kind {self._model.item.__name__}; the change has a {item.kind}")
        if diff.empty:
            return
        async with self._changing:
            with self.link.session() as session:
                held, locked = await self._lock(session)
                last: list[Element] = []
                try:
                    config = self._model.edit(held, diff)
                    if config is not None:
                        await self._call(session, *self._edit(config, keep))
                        if keep:
                            commit = [rpc.commit()] if self._target == "candidate" else []
                            last = [*commit, rpc.get_config("running", self._model.configuration())]
                finally:
                    outcomes = await self._release(session, last, locked)
                if last:
                    *_, seen = self._accepted(outcomes[: len(last)])
                    self._believe(seen, diff)

    async def _lock(self, session: Session) -> tuple[frozenset[Item], list[Datastore]]:
        """What the device holds while nobody else can change it. Both datastores are locked, as others may edit the running one."""
        targets: list[Datastore] = ["running", "candidate"] if self._target == "candidate" else ["running"]
        try:
            outcomes = await session.pipeline(*map(rpc.lock, targets), rpc.get_config("running", self._model.configuration()))
        except BaseException:
            session.end("the locks were not answered")
            raise
        locked = [target for target, outcome in zip(targets, outcomes, strict=False) if isinstance(outcome, rpc.Reply)]
        try:
            *_, read = self._accepted(outcomes)
            return self._model.items(_data(read)), locked
        except BaseException:
            await self._release(session, [], locked)
            raise

    def _edit(self, config: Element, keep: bool) -> list[Element]:
        if self._target == "candidate":
            # To validate an edit that was refused does no harm. To commit one that was half made would: that is sent when this is answered.
            return [rpc.edit_config("candidate", config), *([rpc.validate("candidate")] if "validate" in self.capabilities else [])]
        test_option: rpc.TestOption | None = None if keep else "test-only"
        error_option: rpc.ErrorOption | None = "rollback-on-error" if "atomic" in self.capabilities else None
        return [rpc.edit_config("running", config, test_option=test_option, error_option=error_option)]

    async def _release(self, session: Session, last: list[Element], locked: list[Datastore]) -> list[rpc.Reply | RpcRefusedError]:
        """Send `last`, and in the same go give up what was not committed (after a commit that is nothing) and the locks; all the answers."""
        discard = [rpc.discard_changes()] if "candidate" in locked else []
        try:
            outcomes = await session.pipeline(*last, *discard, *map(rpc.unlock, reversed(locked))) if locked else []
            self._accepted(outcomes[len(last) :])
        except Exception:  # to be cancelled does no harm: all of it is on its way
            session.end("the locks could not be given up")  # without a session the device gives them up itself
            raise
        return outcomes

    def _believe(self, seen: rpc.Reply, diff: Diff) -> None:
        """Raise Refused unless a device that confirmed the change was then seen to have made it."""
        held = self._model.items(_data(seen))
        wrong = [f"{item} is not there" for item in diff.add if item not in held]
        wrong += [f"{item} is still there" for item in diff.remove if item in held]
        if wrong:
            raise Refused(self.name, f"it confirmed the change, yet read back {'; '.join(wrong)}")


def _data(reply: rpc.Reply) -> Element:
    if reply.data is None:
        raise rpc.MessageError("the reply has no data")
    return reply.data
