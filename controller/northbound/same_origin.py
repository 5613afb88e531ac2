"""Keeps web pages out: a browser on this machine can reach loopback, so being local is not enough to be allowed."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web


@web.middleware
async def same_origin(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Refuse requests that name another host (DNS rebinding) or come from a page of another origin."""
    if not _loopback(request.host):
        raise web.HTTPForbidden(text=f"this interface serves loopback only, and the request is for host '{request.host}'")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise web.HTTPForbidden(text=f"the request comes from a page of {origin}; only pages of this interface may ask")
    return await handler(request)


def _loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
