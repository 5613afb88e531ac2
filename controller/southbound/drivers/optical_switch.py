"""An optical circuit switch with Polatis's YANG modules, over NETCONF.

Cross-connects carry no mark of their owner, so nothing is ever changed that is not named in the diff: additions are created, never merged
over what is there, and removals are compared with what the device holds once it is locked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from lxml import etree

from controller.southbound.device import (
    Changed,
    Connected,
    CrossConnect,
    DeviceEvent,
    Diff,
    Disconnected,
    Item,
    PortChanged,
    Refused,
    State,
    Unreachable,
)
from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import BASE, CAPABILITY, CONFIG_CHANGES, Datastore, element, q
from controller.southbound.netconf.session import Credentials, RpcRefusedError, Session, SessionError, open_session

OPTICAL_SWITCH = "http://www.polatis.com/yang/optical-switch"
POLATIS_SWITCH = "http://www.polatis.com/yang/polatis-switch"
_MAX_WAITING_EVENTS = 10_000

log = logging.getLogger(__name__)


class OpticalSwitch:
    """The driver; `address` is `host:port`. A device without a candidate datastore is changed in its running one.

    Notifications are taken where the device lets them run beside operations (capability interleave); elsewhere only `read` shows changes.
    """

    def __init__(
        self,
        name: str,
        address: str,
        credentials: Credentials,
        *,
        timeout_s: float = 10.0,
        keepalive_s: float = 15.0,
        reconnect_min_s: float = 0.5,
        reconnect_max_s: float = 30.0,
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{name}: the address {address!r} is not host:port")
        self.name = name
        self.capabilities = frozenset({"validate", "power", "atomic"})
        """What the family offers; after the first connection, what this device does."""
        self.sessions_opened = 0
        self.sessions_lost = 0
        self.operations = 0
        self.operations_refused = 0
        self.notifications = 0
        self._host, self._port = host.strip("[]"), int(port)
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._keepalive_s = keepalive_s
        self._reconnect_min_s = reconnect_min_s
        self._reconnect_max_s = reconnect_max_s
        self._target: Datastore = "candidate"
        self._session: Session | None = None
        self._why_down = "not connected yet"
        self._changing = asyncio.Lock()
        self._events: asyncio.Queue[DeviceEvent] | None = None

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.lost is None

    async def read(self) -> State:
        """The cross-connects in effect and the power at each port, in dBm."""
        wanted = (element(OPTICAL_SWITCH, "cross-connects"), element(OPTICAL_SWITCH, "opm-power"))
        with self._open_session() as session:
            reply = await self._call(session, rpc.get(*wanted))
            return State(items=_cross_connects(reply), power_dbm=_powers(reply))

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
        """Lock, edit, validate, commit, unlock. A session lost on the way leaves it open whether the change was made: read again."""
        await self._change(diff, keep=True)

    def events(self) -> AsyncIterator[DeviceEvent]:
        self._events = asyncio.Queue(_MAX_WAITING_EVENTS)
        return _drain(self._events)

    async def run(self) -> None:
        delay_s = self._reconnect_min_s
        clock = asyncio.get_running_loop().time
        while True:
            opened = clock()
            reason = await self._hold_session()
            if reason != self._why_down:
                log.warning("%s: %s", self.name, reason)
            self._why_down = reason
            if clock() - opened > self._reconnect_max_s:
                delay_s = self._reconnect_min_s
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))
            delay_s = min(2 * delay_s, self._reconnect_max_s)

    async def _hold_session(self) -> str:
        """Connect and pass on what the device notifies; why it ended."""
        was_open = False
        try:
            async with open_session(
                self._host, self._port, self._credentials, timeout_s=self._timeout_s, keepalive_s=self._keepalive_s
            ) as session:
                self._learn(session.capabilities)
                if {CAPABILITY + "notification:1.0", CAPABILITY + "interleave:1.0"} <= session.capabilities:
                    try:
                        await self._call(session, rpc.create_subscription())
                    except RpcRefusedError as refusal:
                        log.warning("%s: no notifications, changes show only when it is read: %s", self.name, refusal)
                self._session = session
                self.sessions_opened += 1
                was_open = True
                await self._emit(Connected(self.name))
                try:
                    while (notification := await session.notifications.get()) is not None:
                        self.notifications += 1
                        event = self._event(notification.event, session.session_id)
                        if event is not None:
                            await self._emit(event)
                except rpc.MessageError as fault:
                    session.end(f"the device broke the protocol: {fault}")
                reason = session.lost or "the session ended"
                self.sessions_lost += 1
        except SessionError as lost:
            reason = str(lost)
        finally:
            self._session = None
        if was_open or reason != self._why_down:
            await self._emit(Disconnected(self.name, reason))
        return reason

    async def _emit(self, event: DeviceEvent) -> None:
        if self._events is not None:
            await self._events.put(event)

    def _learn(self, offered: frozenset[str]) -> None:
        candidate = CAPABILITY + "candidate:1.0" in offered
        validate = CAPABILITY + "validate:1.1" in offered or (candidate and CAPABILITY + "validate:1.0" in offered)
        atomic = candidate or CAPABILITY + "rollback-on-error:1.0" in offered
        self._target = "candidate" if candidate else "running"
        self.capabilities = frozenset({"power"} | ({"validate"} if validate else set()) | ({"atomic"} if atomic else set()))

    def _event(self, event: etree._Element, own_session_id: int) -> DeviceEvent | None:
        if event.tag == q(POLATIS_SWITCH, "port-power-alarm"):
            return PortChanged(self.name, _number(event, "port-id"), up=False)
        if event.tag == q(POLATIS_SWITCH, "port-power-clear"):
            return PortChanged(self.name, _number(event, "port-id"), up=True)
        if event.tag == q(CONFIG_CHANGES, "netconf-config-change"):
            changed_by = event.find(q(CONFIG_CHANGES, "changed-by"))
            by, user = ("" if changed_by is None else rpc.text(changed_by, CONFIG_CHANGES, leaf) for leaf in ("session-id", "username"))
            if by != str(own_session_id):
                return Changed(self.name, f"its configuration was changed by {user or 'somebody else'} (NETCONF session {by or 'unknown'})")
        return None

    @contextmanager
    def _open_session(self) -> Iterator[Session]:
        """The session, for operations whose failures become those of the driver protocol."""
        session = self._session
        if session is None or session.lost is not None:
            raise Unreachable(self.name, (session and session.lost) or self._why_down)
        try:
            yield session
        except RpcRefusedError as refusal:
            raise Refused(self.name, str(refusal)) from None
        except rpc.MessageError as fault:
            session.end(f"the device broke the protocol: {fault}")
            raise Unreachable(self.name, str(fault)) from None
        except SessionError as lost:
            raise Unreachable(self.name, str(lost)) from None

    async def _call(self, session: Session, operation: etree._Element) -> rpc.Reply:
        self.operations += 1
        try:
            return await session.call(operation)
        except RpcRefusedError:
            self.operations_refused += 1
            raise

    async def _change(self, diff: Diff, keep: bool) -> None:
        """Lock, edit, validate; then commit, or undo when it is not to be kept. Raises Unreachable and Refused."""
        for item in (*diff.add, *diff.remove):
            if not isinstance(item, CrossConnect):
                raise Refused(self.name, f"an optical switch holds cross-connects; the change has a {item.kind}")
        if diff.empty:
            return
        async with self._changing, AsyncExitStack() as opened:
            session = opened.enter_context(self._open_session())
            targets: tuple[Datastore, ...] = ("running", self._target)
            for target in dict.fromkeys(targets):  # both: others may edit the running one directly
                await opened.enter_async_context(self._lock(session, target))
            held = _cross_connects(await self._call(session, rpc.get_config("running", element(OPTICAL_SWITCH, "cross-connects"))))
            config = cross_connect_edit(held, diff)
            if config is not None:
                await self._edit(session, config, keep)

    @asynccontextmanager
    async def _lock(self, session: Session, target: Datastore) -> AsyncIterator[None]:
        await self._call(session, rpc.lock(target))
        try:
            yield
        finally:
            await self._undo(session, rpc.unlock(target))

    async def _edit(self, session: Session, config: etree._Element, keep: bool) -> None:
        if self._target == "running":
            test_option: rpc.TestOption | None = None if keep else "test-only"
            error_option: rpc.ErrorOption | None = "rollback-on-error" if "atomic" in self.capabilities else None
            await self._call(session, rpc.edit_config("running", config, test_option=test_option, error_option=error_option))
            return
        committed = False
        try:
            await self._call(session, rpc.edit_config("candidate", config))
            if "validate" in self.capabilities:
                await self._call(session, rpc.validate("candidate"))
            if keep:
                await self._call(session, rpc.commit())
                committed = True
        finally:
            if not committed:
                await self._undo(session, rpc.discard_changes())

    async def _undo(self, session: Session, operation: etree._Element) -> None:
        try:
            await self._call(session, operation)
        except BaseException:
            # Without a session the device itself gives up the locks and what was not committed.
            session.end(f"{etree.QName(operation).localname} failed")
            raise


def cross_connect_edit(held: frozenset[Item], diff: Diff) -> etree._Element | None:
    """The edit that makes `diff` true on a device that holds `held`; None when it is true already. Deletes come before additions.

    An addition at an ingress that is not free by this same diff is a `create`, so that the device refuses to take it from its owner.
    """
    remove = {item.ingress: item for item in diff.remove if item in held and isinstance(item, CrossConnect)}
    add = [item for item in diff.add if item not in held and isinstance(item, CrossConnect)]
    moved = {item.ingress for item in add}
    root = element(OPTICAL_SWITCH, "cross-connects")
    for ingress in sorted(remove.keys() - moved):
        _add_pair(root, "delete", ingress, None)
    for item in add:
        _add_pair(root, "replace" if item.ingress in remove else "create", item.ingress, item.egress)
    return root if len(root) else None


def _add_pair(root: etree._Element, operation: str, ingress: int, egress: int | None) -> None:
    pair = etree.SubElement(root, q(OPTICAL_SWITCH, "pair"), {q(BASE, "operation"): operation}, nsmap={"nc": BASE})
    etree.SubElement(pair, q(OPTICAL_SWITCH, "ingress")).text = str(ingress)
    if egress is not None:
        etree.SubElement(pair, q(OPTICAL_SWITCH, "egress")).text = str(egress)


def _cross_connects(reply: rpc.Reply) -> frozenset[Item]:
    if reply.data is None:
        raise rpc.MessageError("the reply has no data")
    pairs = reply.data.iterfind(f"{q(OPTICAL_SWITCH, 'cross-connects')}/{q(OPTICAL_SWITCH, 'pair')}")
    return frozenset(CrossConnect(_number(pair, "ingress"), _number(pair, "egress")) for pair in pairs)


def _powers(reply: rpc.Reply) -> dict[int, float]:
    if reply.data is None:
        raise rpc.MessageError("the reply has no data")
    ports = reply.data.iterfind(f"{q(OPTICAL_SWITCH, 'opm-power')}/{q(OPTICAL_SWITCH, 'port')}")
    return {_number(port, "port-id"): _decimal(port, "power") for port in ports}


def _number(parent: etree._Element, leaf: str) -> int:
    """A port number, in the namespace of its parent. Raises MessageError."""
    text = rpc.text(parent, etree.QName(parent).namespace or "", leaf)
    number = rpc.unsigned(text)
    if number is None:
        raise rpc.MessageError(f"{leaf} is {text[:40]!r}, not a port number")
    return number


def _decimal(parent: etree._Element, leaf: str) -> float:
    text = rpc.text(parent, etree.QName(parent).namespace or "", leaf)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise rpc.MessageError(f"{leaf} is {text[:40]!r}, not a number of dBm")
    return value


async def _drain(events: asyncio.Queue[DeviceEvent]) -> AsyncIterator[DeviceEvent]:
    while True:
        yield await events.get()
