"""The KME as a program: one HTTPS port with four faces, the vault behind them and the relaying between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import BaseModel

from apps.kme import delivery, faces
from apps.kme.events import Events
from apps.kme.relay import Refusal, Relay
from apps.kme.settings import KmeSettings, client_tls, server_tls
from apps.kme.vault import Vault, key_encryption_key

CALL_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
HANDSHAKE_S = 0.1
MAX_BODY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Kme:
    """A running KME. `work` is its relaying, which ends only by failing."""

    id: str
    url: str
    work: asyncio.Task[None]


@asynccontextmanager
async def running(settings: KmeSettings, listener: socket.socket | None = None) -> AsyncIterator[Kme]:
    """Run one KME while the context lasts. `listener` is a bound socket to use in place of the settings' host and port."""
    async with AsyncExitStack() as stack:
        vault = Vault(settings.store, key_encryption_key(settings.kek), settings.id, settings.pool_max_bytes)
        stack.callback(vault.close)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls(settings)), timeout=CALL_TIMEOUT)
        await stack.enter_async_context(session)

        async def call(kme: str, what: str, body: BaseModel) -> Any:
            return await _ask(session, kme, f"{settings.peers[kme]}/peer/v1/{what}", body)

        relay = Relay(settings, vault, call)
        stack.callback(relay.close)
        events = Events()
        app = web.Application(middlewares=[faces.guard(settings)], client_max_size=MAX_BODY_BYTES)
        app.add_routes(delivery.routes(relay, vault))
        app.add_routes(faces.control_routes(relay, vault, events))
        app.add_routes(faces.peer_routes(relay))
        app.add_routes(faces.module_routes(relay, vault, events))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(events.publish, None)
        listener = listener or socket.create_server((settings.host, settings.port))
        site = web.SockSite(runner, listener, ssl_context=server_tls(settings))
        await site.start()
        stack.push_async_callback(_stop_listening, site)
        work = asyncio.create_task(relay.run(), name=f"relay of {settings.id}")
        stack.push_async_callback(_stop, work)
        host, port = listener.getsockname()[:2]
        yield Kme(settings.id, f"https://{host}:{port}", work)


async def serve(settings: Sequence[KmeSettings]) -> None:
    """Run KMEs in this process until cancelled, or until one of them fails."""
    async with AsyncExitStack() as stack:
        kmes = [await stack.enter_async_context(running(one)) for one in settings]
        await asyncio.gather(*(kme.work for kme in kmes))


async def _stop_listening(site: web.BaseSite) -> None:
    await site.stop()
    # Connections still in their TLS handshake are unknown to the runner: let them become known, to be closed with the others.
    await asyncio.sleep(HANDSHAKE_S)


async def _stop(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error


async def _ask(session: aiohttp.ClientSession, kme: str, url: str, body: BaseModel) -> Any:
    """POST to another KME; what it refuses, and its silence, are refusals."""
    headers = {"Content-Type": "application/json"}
    try:
        # The server must prove to be that KME, not just any holder of a certificate at that address.
        async with session.post(url, data=body.model_dump_json(), headers=headers, server_hostname=kme) as response:
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Refusal(502, f"{kme} at {url} does not answer: {error or type(error).__name__}") from error
    if response.status != 200:
        detail = answer.get("detail") if isinstance(answer, dict) else None
        raise Refusal(503 if response.status == 503 else 502, str(detail or f"{kme} answered {response.status}"))
    return answer
