"""What the controller hears from a KME as it happens: server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from apps.kme.pad import Name

KEEP_ALIVE_S = 5.0
MAX_WAITING_EVENTS = 1000

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Qber = Annotated[float, Field(ge=0, le=1)]


class LinkReport(BaseModel):
    """A QKD module's word on its link to the KME `peer`: whether it makes key, at what rate, with what QBER."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    link: Name
    peer: Name
    up: bool
    rate_bps: Rate
    qber: Qber | None = None


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Mapping[str, Any]

    def encode(self) -> bytes:
        return f"event: {self.name}\ndata: {json.dumps(self.data)}\n\n".encode()


class Events:
    """The QKD links as last reported, and the listeners to what happens. A new listener first hears how every link stands."""

    def __init__(self) -> None:
        self.links: dict[str, LinkReport] = {}
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    def report(self, report: LinkReport) -> None:
        if self.links.get(report.link) != report:
            self.links[report.link] = report
            self.publish(Event("link", report.model_dump()))

    def publish(self, event: Event | None) -> None:
        """Tell all listeners; None ends their streams."""
        for queue in tuple(self._listeners):
            if queue.full():
                # A listener that lags this far is cut off; it reads the state anew when it comes back.
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer a request with all events from now on, and a sign of life while there are none."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_WAITING_EVENTS)
        self._listeners.add(queue)
        try:
            await response.prepare(request)
            for report in tuple(self.links.values()):
                await response.write(Event("link", report.model_dump()).encode())
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        event = await queue.get()
                except TimeoutError:
                    event = Event("alive", {})
                if event is None:
                    break
                await response.write(event.encode())
        except ConnectionError:
            pass
        finally:
            self._listeners.discard(queue)
        return response
