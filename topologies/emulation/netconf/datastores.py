"""The running and candidate datastores of a device, their locks, and commits that wait for confirmation (RFC 6241 sections 7 and 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lxml import etree

from topologies.emulation.netconf.edit_config import edit_config
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import Schema

Element = etree._Element


@dataclass(slots=True)
class _Trial:
    """A commit that is undone unless it is confirmed."""

    before: Element
    session_id: int
    persist: str
    """The token by which any session may confirm it; empty when only its own may, whose end undoes it."""
    expiry: asyncio.Task[None]


class Datastores:
    """Operations that change something run one at a time; reads never wait for them. A configuration is replaced, never changed in place.

    `check` is the device's own, beyond YANG; `activate` makes a configuration work; `changed` is told who changed the running one;
    `trial` is told how a confirmed commit goes on: who, what (an event of RFC 6470), and its time.
    """

    def __init__(
        self,
        schema: Schema,
        running: Element,
        check: Callable[[Element], None],
        activate: Callable[[Element], Awaitable[None]],
        changed: Callable[[int], None],
        trial: Callable[[int, str, float], None],
    ) -> None:
        self.running = running
        self.locks: dict[str, int] = {}
        """The session that holds each locked datastore."""
        self._schema = schema
        self._check = check
        self._activate = activate
        self._changed = changed
        self._told_trial = trial
        self._candidate: Element | None = None
        self._candidate_editor = 0
        self._checked = running
        self._trial: _Trial | None = None
        self._changing = asyncio.Lock()

    def read(self, name: str) -> Element:
        return self.running if name == "running" or self._candidate is None else self._candidate

    def validate(self, config: Element) -> None:
        """Raise FaultError for a configuration that cannot be. What was found good is not looked at again."""
        if config is not self._checked:
            self._schema.check(config)
            self._check(config)
            self._checked = config

    async def edit(self, session_id: int, target: str, edit: Element, default_operation: str, test_option: str) -> None:
        async with self._changing:
            self._refuse_locked(session_id, target)
            config = edit_config(self._schema, self.read(target), edit, default_operation)
            if test_option == "set" and target == "candidate":
                self._schema.check(config, whole=False)
            else:
                self.validate(config)
            if test_option != "test-only":
                await self._store(session_id, target, config)

    async def copy(self, session_id: int, target: str, config: Element) -> None:
        """Let `config` be all that the target holds."""
        async with self._changing:
            self._refuse_locked(session_id, target)
            self.validate(config)
            await self._store(session_id, target, config)

    async def commit(self, session_id: int, *, timeout_s: float | None = None, persist: str = "", persist_id: str = "") -> None:
        """With `timeout_s` the commit is undone after that time, unless a further one confirms it or gives it a new time."""
        async with self._changing:
            self._refuse_locked(session_id, "candidate")
            self._refuse_locked(session_id, "running")
            self._refuse_strange(session_id, persist_id)
            config, before, earlier = self.read("candidate"), self.running, self._trial
            self.validate(config)
            await self._run(session_id, config)
            self._candidate, self._candidate_editor = None, 0
            self._end_trial()
            if timeout_s is not None:
                before = before if earlier is None else earlier.before
                expiry = asyncio.create_task(self._expire(timeout_s), name="undo a commit nobody confirmed")
                self._trial = _Trial(before, session_id, persist, expiry)
                self._told_trial(session_id, "start" if earlier is None else "extend", timeout_s)
            elif earlier is not None:
                self._told_trial(session_id, "complete", 0)

    async def cancel_commit(self, session_id: int, persist_id: str) -> None:
        async with self._changing:
            if self._trial is None:
                raise FaultError("operation-failed", "no confirmed commit is under way", type="protocol")
            self._refuse_strange(session_id, persist_id)
            await self._undo(session_id, "cancel")

    async def discard(self, session_id: int) -> None:
        async with self._changing:
            self._refuse_locked(session_id, "candidate")
            self._candidate, self._candidate_editor = None, 0

    async def lock(self, session_id: int, target: str) -> None:
        async with self._changing:
            holder = self.locks.get(target, 0)
            if not holder and target == "candidate" and self._candidate_editor != session_id:
                holder = self._candidate_editor  # RFC 6241 8.3.5.2: uncommitted changes of a session hinder the others
            if not holder and target == "running" and self._trial is not None and self._trial.session_id != session_id:
                holder = self._trial.session_id  # section 7.5: and so does its confirmed commit
            if holder:
                raise FaultError("lock-denied", f"session {holder} holds the {target} datastore", type="protocol", session_id=str(holder))
            self.locks[target] = session_id

    async def unlock(self, session_id: int, target: str) -> None:
        async with self._changing:
            if self.locks.get(target) != session_id:
                raise FaultError("operation-failed", f"this session does not hold the lock of the {target} datastore", type="protocol")
            del self.locks[target]  # an uncommitted edit stays until it is discarded: devices differ, this is the harder case for a client

    async def release(self, session_id: int) -> None:
        """Give up what a session held that ended: locks, an uncommitted edit, a commit that only it could have confirmed."""
        async with self._changing:
            if session_id in (self.locks.get("candidate"), self._candidate_editor):
                self._candidate, self._candidate_editor = None, 0
            self.locks = {name: holder for name, holder in self.locks.items() if holder != session_id}
            if self._trial is not None and not self._trial.persist and self._trial.session_id == session_id:
                await self._undo(session_id, "cancel")

    async def close(self) -> None:
        """Undo a commit that nobody confirmed, as a restart of the device does."""
        async with self._changing:
            trial = self._trial
            if trial is not None:
                await self._undo(trial.session_id, "cancel")
        if trial is not None:
            await asyncio.wait((trial.expiry,))

    def _refuse_locked(self, session_id: int, target: str) -> None:
        holder = self.locks.get(target, session_id)
        if holder != session_id:
            raise FaultError("in-use", f"session {holder} holds the lock of the {target} datastore", type="protocol")

    def _refuse_strange(self, session_id: int, persist_id: str) -> None:
        """Refuse a session that may not go on with the confirmed commit under way."""
        persist = "" if self._trial is None else self._trial.persist
        if persist_id != persist:
            message = "persist-id names no confirmed commit" if persist_id else "the confirmed commit under way needs its persist-id"
            raise FaultError("invalid-value", message, type="protocol", bad_element="persist-id")
        if self._trial is not None and not persist and self._trial.session_id != session_id:
            raise FaultError("in-use", f"session {self._trial.session_id} has a confirmed commit under way", type="protocol")

    async def _store(self, session_id: int, target: str, config: Element) -> None:
        if target == "running":
            await self._run(session_id, config)
        else:
            self._candidate, self._candidate_editor = config, session_id

    async def _run(self, session_id: int, config: Element) -> None:
        if config is not self.running and etree.tostring(config, method="c14n") != etree.tostring(self.running, method="c14n"):
            await self._activate(config)
            self.running = config
            self._changed(session_id)

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.expiry.cancel()
            self._trial = None

    async def _undo(self, session_id: int, event: str) -> None:
        assert self._trial is not None
        before = self._trial.before
        if event != "timeout":
            self._trial.expiry.cancel()
        self._trial = None
        await self._run(session_id, before)
        self._told_trial(session_id, event, 0)

    async def _expire(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)
        async with self._changing:
            if self._trial is not None and self._trial.expiry is asyncio.current_task():
                await self._undo(self._trial.session_id, "timeout")
