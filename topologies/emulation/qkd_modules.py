"""An emulated QKD link: two modules that hand the same random bytes to the KMEs at both ends, at a secret-key rate."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import secrets
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

log = logging.getLogger("bellhop.emulation")

BLOCK_S = 1.0
LEAST_BLOCK_BYTES = 64
"""Two 256-bit keys. Slower links make a block of this size less often than every second."""
MOST_BLOCK_BYTES = 1 << 16
TIMEOUT = aiohttp.ClientTimeout(total=5)
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class ModuleEnd:
    """The module at one end: the KME it feeds, by id and URL, and the TLS context with the certificate of its node's modules."""

    kme: str
    url: str
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Setting:
    live: bool
    rate_bps: float
    qber: float


class EmulatedQkdLink:
    """The QKD link `link` between two modules. `resync_s` is how long a link that goes live takes before key flows.

    A block that one of the KMEs does not take is lost, as on a real link; the KMEs agree on what both have.
    """

    def __init__(self, link: str, ends: tuple[ModuleEnd, ModuleEnd], setting: Setting, resync_s: float = 0.0) -> None:
        self.link = link
        self._ends = ends
        self._setting = setting
        self._resync_s = resync_s
        self._changed = asyncio.Event()

    @property
    def setting(self) -> Setting:
        return self._setting

    def set(self, live: bool, rate_bps: float, qber: float) -> None:
        """Change the link at once: the fibre was cut or joined, or somebody is listening. Both KMEs are told."""
        self._setting = Setting(live, rate_bps, qber)
        self._changed.set()

    async def run(self) -> None:
        """Make key and report, until cancelled."""
        synchronised = False
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            while True:
                self._changed.clear()
                setting = self._setting
                if not setting.live or setting.rate_bps <= 0:
                    synchronised = False
                    await self._report_down(session, setting)
                    await self._changed.wait()
                elif not synchronised:
                    await self._tell(session, self._ends, "links", _report(setting, up=False))
                    synchronised = not await _set_within(self._changed, self._resync_s)
                else:
                    await self._tell(session, self._ends, "links", _report(setting, up=True))
                    await self._make_blocks(session, setting)

    async def _report_down(self, session: aiohttp.ClientSession, setting: Setting) -> None:
        """Tell both KMEs, again and again until they know: no block will follow that tells them later."""
        untold: Sequence[ModuleEnd] = self._ends
        while untold := await self._tell(session, untold, "links", _report(setting, up=False)):
            if await _set_within(self._changed, RETRY_S):
                return

    async def _make_blocks(self, session: aiohttp.ClientSession, setting: Setting) -> None:
        """Make a block at a time until the setting changes."""
        interval_s = max(BLOCK_S, LEAST_BLOCK_BYTES * 8 / setting.rate_bps)
        made_bytes, intervals = 0, 0
        while not await _set_within(self._changed, interval_s):
            intervals += 1
            due_bytes = math.floor(setting.rate_bps * interval_s * intervals / 8) - made_bytes
            made_bytes += due_bytes
            for start in range(0, due_bytes, MOST_BLOCK_BYTES):
                key = base64.b64encode(secrets.token_bytes(min(MOST_BLOCK_BYTES, due_bytes - start))).decode()
                block = {"block": str(uuid.uuid4()), "key": key, "rate_bps": setting.rate_bps, "qber": setting.qber}
                await self._tell(session, self._ends, "blocks", block)

    async def _tell(self, session: aiohttp.ClientSession, ends: Sequence[ModuleEnd], what: str, body: dict[str, Any]) -> list[ModuleEnd]:
        """POST to the KMEs at `ends`; returns the ends where that failed."""

        async def tell(end: ModuleEnd) -> bool:
            peer = next(other.kme for other in self._ends if other is not end)
            message = {"link": self.link, "peer": peer, **body}
            try:
                async with session.post(f"{end.url}/qkd/v1/{what}", json=message, ssl=end.tls, server_hostname=end.kme) as response:
                    if response.status != 200:
                        log.warning("%s: %s refused %s: %s", self.link, end.kme, what, await response.text())
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s: %s not told: %s", self.link, end.kme, error)
                return False

        told = await asyncio.gather(*map(tell, ends))
        return [end for end, done in zip(ends, told, strict=True) if not done]


def _report(setting: Setting, *, up: bool) -> dict[str, Any]:
    return {"up": up, "rate_bps": setting.rate_bps if up else 0.0, "qber": setting.qber}


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
