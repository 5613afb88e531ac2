"""Emulated QKD pairs: when they have to find each other again, and that a rate that changes all the time still makes key."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from topologies.emulation.qkd_modules import EmulatedQkdLink, ModuleEnd, Setting

NEVER_S = 3600.0


@asynccontextmanager
async def running(**how: Any) -> AsyncIterator[tuple[EmulatedQkdLink, asyncio.Queue[dict[str, Any]], asyncio.Queue[dict[str, Any]]]]:
    """A link between two ends that take everything, and what the first of them was told: reports and blocks."""
    reports, blocks = asyncio.Queue[dict[str, Any]](), asyncio.Queue[dict[str, Any]]()

    async def told(request: web.Request) -> web.Response:
        body = await request.json()
        if body["peer"] == "b":
            (reports if request.path.endswith("links") else blocks).put_nowait(body)
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.post("/qkd/v1/{what}", told)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url, tls = "http://127.0.0.1:{1}".format(*runner.addresses[0]), ssl.create_default_context()
    link = EmulatedQkdLink("l", (ModuleEnd("a", url, tls), ModuleEnd("b", url, tls)), Setting(True, 8000.0, 0.03), **how)
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            yield link, reports, blocks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def ups(reports: asyncio.Queue[dict[str, Any]], *expected: bool) -> None:
    assert [(await reports.get())["up"] for _ in expected] == list(expected)


async def test_the_shortest_interruption_parts_the_modules() -> None:
    async with running(resync_s=0.01, synchronised=True) as (link, reports, _):
        await ups(reports, True)
        link.set(False, 0.0, None)
        link.set(True, 8000.0, 0.03)
        await ups(reports, False, True)


async def test_light_on_another_way_parts_the_modules_and_another_rate_does_not() -> None:
    async with running(resync_s=0.01, synchronised=True) as (link, reports, _):
        await ups(reports, True)
        link.set(True, 7000.0, 0.03)
        await ups(reports, True)
        link.set(True, 8000.0, 0.03, interrupted=True)
        await ups(reports, False, True)


async def test_an_eavesdropper_who_leaves_no_key_does_not_part_them() -> None:
    async with running(resync_s=NEVER_S, synchronised=True) as (link, reports, _):
        await ups(reports, True)
        link.set(True, 0.0, 0.28)
        told = await reports.get()
        assert (told["up"], told["rate_bps"], told["qber"]) == (False, 0.0, 0.28)
        link.set(True, 8000.0, 0.03)
        await ups(reports, True)


async def test_a_rate_that_changes_all_the_time_still_makes_key() -> None:
    async with running(synchronised=True) as (link, _, blocks):
        rate_bps = 8000.0
        while blocks.empty():
            rate_bps -= 1
            link.set(True, rate_bps, 0.03)
            await asyncio.sleep(0.05)
        assert len(base64.b64decode(blocks.get_nowait()["key"])) >= 900, "what was made before the changes is in it"
