"""An emulated QKD link: two modules that hand the same random bytes to the KMEs at both ends, at a secret-key rate."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import secrets
import ssl
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp

log = logging.getLogger("bellhop.emulation")

BLOCK_S = 1.0
LEAST_BLOCK_BYTES = 64
"""Two 256-bit keys. Slower links make a block of this size less often than every second."""
MOST_BLOCK_BYTES = 1 << 16
TIMEOUT = aiohttp.ClientTimeout(total=5)
REPORT_S = 2.0
"""A link whose blocks are further apart, or that is down, repeats its report: a KME that restarted knows nothing of it."""


@dataclass(frozen=True, slots=True)
class ModuleEnd:
    """The module at one end: the KME it feeds, by id and URL, and the TLS context with the certificate of its node's modules."""

    kme: str
    url: str
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Setting:
    """`live`: the light arrives. `qber` is None where nothing is measured."""

    live: bool
    rate_bps: float
    qber: float | None


class EmulatedQkdLink:
    """The QKD link `link` between two modules. `resync_s` is how long the modules take to find each other before key flows: after an
    interruption of their light, however short, and at the beginning unless they are `synchronised`. Errors and loss that leave no key do
    not part them.

    A block that one of the KMEs does not take is lost, as on a real link; the KMEs agree on what both have.
    """

    def __init__(
        self, link: str, ends: tuple[ModuleEnd, ModuleEnd], setting: Setting, resync_s: float = 0.0, *, synchronised: bool = False
    ) -> None:
        self.link = link
        self._ends = ends
        self._setting = setting
        self._resync_s = resync_s
        self._synchronised = synchronised and setting.live
        self._changed = asyncio.Event()
        self._made_bytes = 0.0
        """What was made and is in no block yet: a change of rate does not lose it, an interruption does."""

    @property
    def setting(self) -> Setting:
        return self._setting

    def set(self, live: bool, rate_bps: float, qber: float | None, *, interrupted: bool = False) -> None:
        """Change the link at once: the fibre was cut or joined, or somebody is listening. Both KMEs are told. `interrupted`: the light takes
        another way than before."""
        if interrupted or not live:
            self._synchronised = False
        self._setting = Setting(live, rate_bps, qber)
        self._changed.set()

    async def run(self) -> None:
        """Make key and report, until cancelled."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            while True:
                self._changed.clear()
                setting = self._setting
                if setting.live and not self._synchronised:
                    self._made_bytes = 0.0
                    await self._tell(session, "links", _report(setting, up=False))
                    if self._changed.is_set() or await _set_within(self._changed, self._resync_s):
                        continue
                    self._synchronised = True
                await self._work(session, setting, up=setting.live and setting.rate_bps > 0)

    async def _work(self, session: aiohttp.ClientSession, setting: Setting, *, up: bool) -> None:
        """Until the setting changes: make a block whenever one is due, and report between blocks that are far apart."""
        loop = asyncio.get_running_loop()
        bytes_per_s = setting.rate_bps / 8 if up else 0.0
        block_bytes = max(LEAST_BLOCK_BYTES, bytes_per_s * BLOCK_S)
        counted_at = loop.time()
        await self._tell(session, "links", _report(setting, up=up))
        while True:
            due_s = (block_bytes - self._made_bytes) / bytes_per_s - (loop.time() - counted_at) if up else math.inf
            changed = await _set_within(self._changed, min(REPORT_S, max(0.0, due_s)))
            now = loop.time()
            self._made_bytes, counted_at = self._made_bytes + bytes_per_s * (now - counted_at), now
            if changed:
                return
            if not up or self._made_bytes < block_bytes:
                await self._tell(session, "links", _report(setting, up=up))
                continue
            due_bytes = math.floor(self._made_bytes)
            self._made_bytes -= due_bytes
            for start in range(0, due_bytes, MOST_BLOCK_BYTES):
                # At least the size of the smallest block, so that no remainder is too small for a KME to take.
                size = max(LEAST_BLOCK_BYTES, min(MOST_BLOCK_BYTES, due_bytes - start))
                key = base64.b64encode(secrets.token_bytes(size)).decode()
                block = {"block": str(uuid.uuid4()), "key": key, "rate_bps": setting.rate_bps, "qber": setting.qber}
                await self._tell(session, "blocks", block)

    async def _tell(self, session: aiohttp.ClientSession, what: str, body: dict[str, Any]) -> None:
        """POST to both KMEs; one that does not take it misses it."""

        async def tell(end: ModuleEnd) -> None:
            peer = next(other.kme for other in self._ends if other is not end)
            message = {"link": self.link, "peer": peer, **body}
            try:
                async with session.post(f"{end.url}/qkd/v1/{what}", json=message, ssl=end.tls, server_hostname=end.kme) as response:
                    if response.status != 200:
                        log.warning("%s: %s refused %s: %s", self.link, end.kme, what, await response.text())
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s: %s not told: %s", self.link, end.kme, error)

        await asyncio.gather(*map(tell, self._ends))


def _report(setting: Setting, *, up: bool) -> dict[str, Any]:
    return {"up": up, "rate_bps": setting.rate_bps if up else 0.0, "qber": setting.qber}


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
