"""The controller's side of a key management entity: relay entries, pool levels and link reports over HTTPS. No key byte passes here."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
from pydantic import TypeAdapter, ValidationError

from controller.southbound.device import (
    Changed,
    Connected,
    DeviceEvent,
    Diff,
    Disconnected,
    KeyRelay,
    QkdLinkReport,
    Refused,
    State,
    Unreachable,
)
from controller.southbound.drivers.reconnection import drained

log = logging.getLogger("bellhop.kme")

RELAYS: TypeAdapter[list[KeyRelay]] = TypeAdapter(list[KeyRelay])
COUNTS: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, int])
STOCK: TypeAdapter[dict[str, dict[str, int]]] = TypeAdapter(dict[str, dict[str, int]])
CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
SILENCE_S = 15.0
"""A KME says something at least every 5 s; after this long without, it is gone."""
BACKOFF_S = (0.2, 10.0)


class Kme:
    """Driver for the KME `name` at `url` (`https://host:port`).

    The TLS context brings the controller's certificate and verifies the KME's, which must carry `kme_id` (by default `name`) as a
    DNS name. `State.stock_keys` is the smaller of the two directions, for services that end at this KME.
    """

    capabilities = frozenset({"atomic", "validate"})

    def __init__(self, name: str, url: str, tls: ssl.SSLContext, kme_id: str | None = None) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._tls = tls
        self._kme_id = kme_id or name
        self._session: aiohttp.ClientSession | None = None
        self._connected = False
        self._listener: asyncio.Queue[DeviceEvent] | None = None
        self._own_changes: set[str] = set()

    @property
    def connected(self) -> bool:
        return self._connected

    async def read(self) -> State:
        state = await self._ask("GET", "state")
        try:
            stock = STOCK.validate_python(state["stock_keys"])
            return State(
                items=frozenset(RELAYS.validate_python(state["relays"])),
                pool_bytes=COUNTS.validate_python(state["pool_bytes"]),
                stock_keys={service: min(ready["master"], ready["slave"]) for service, ready in stock.items()},
            )
        except (ValidationError, KeyError, TypeError) as error:
            raise Refused(
                self.name, f"its state does not read as a KME's ({error}); is {self._url} a Bellhop KME of this version?"
            ) from error

    async def check(self, diff: Diff) -> list[str]:
        answer = await self._ask("POST", "relays", {**_change(diff), "only_check": True})
        return [str(fault) for fault in answer.get("faults", ())]

    async def apply(self, diff: Diff) -> None:
        change = str(uuid.uuid4())
        self._own_changes.add(change)
        try:
            await self._ask("POST", "relays", {**_change(diff), "change": change})
        except Refused:
            self._own_changes.discard(change)
            raise

    def events(self) -> AsyncIterator[DeviceEvent]:
        self._listener = asyncio.Queue()
        return drained(self._listener)

    async def run(self) -> None:
        backoff_s = BACKOFF_S[0]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), timeout=CALL_TIMEOUT) as session:
            self._session = session
            try:
                while True:
                    reason = "the KME closed the event stream"
                    try:
                        await self._follow(session)
                        backoff_s = BACKOFF_S[0]
                    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
                        reason = str(error) or type(error).__name__
                    if self._connected:
                        self._connected, backoff_s = False, BACKOFF_S[0]
                        self._publish(Disconnected(self.name, reason))
                    log.debug("%s: no session: %s", self.name, reason)
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, BACKOFF_S[1])
            finally:
                self._session, self._connected = None, False

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """Read the event stream until it ends."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
        url = f"{self._url}/control/v1/events"
        async with session.get(url, server_hostname=self._kme_id, timeout=timeout, raise_for_status=True) as response:
            self._connected = True
            self._own_changes.clear()
            self._publish(Connected(self.name))
            event = ""
            async for raw in response.content:
                field, _, value = raw.decode().rstrip("\n").partition(": ")
                if field == "event":
                    event = value
                elif field == "data":
                    self._heard(event, json.loads(value))

    def _heard(self, event: str, data: dict[str, Any]) -> None:
        if event == "link":
            qber = data["qber"]
            rate_bps = float(data["rate_bps"])
            self._publish(QkdLinkReport(self.name, str(data["link"]), bool(data["up"]), rate_bps, None if qber is None else float(qber)))
        elif event == "relays":
            if data["change"] in self._own_changes:
                self._own_changes.discard(data["change"])
            else:
                self._publish(Changed(self.name, f"relay entries were changed by {data['by']}"))

    def _publish(self, event: DeviceEvent) -> None:
        if self._listener is not None:
            self._listener.put_nowait(event)

    async def _ask(self, method: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._session is None:
            raise Unreachable(self.name, "the driver is not running")
        url = f"{self._url}/control/v1/{what}"
        try:
            async with self._session.request(method, url, json=body, server_hostname=self._kme_id) as response:
                answer: Any = None
                with suppress(ValueError):
                    answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(self.name, f"{url} does not answer: {error or type(error).__name__}") from error
        if response.status != 200 or not isinstance(answer, dict):
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise Refused(self.name, str(detail or f"{url} answered {response.status}"))
        return answer


def _change(diff: Diff) -> dict[str, Any]:
    return {
        "add": [item._asdict() for item in diff.add if isinstance(item, KeyRelay)],
        "remove": [item._asdict() for item in diff.remove if isinstance(item, KeyRelay)],
    }
