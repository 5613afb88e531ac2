"""Server-sent events: from now on, resumed without loss, and over when the reader or the controller goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from controller.northbound import api


async def read(stream: aiohttp.ClientResponse, count: int) -> list[tuple[int, str, dict[str, Any]]]:
    """The next events as (number, kind, data)."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    fields: dict[str, str] = {}
    async with asyncio.timeout(5):
        async for line in stream.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            if name == "data":
                found.append((int(fields["id"]), fields["event"], json.loads(value)))
                if len(found) == count:
                    return found
    raise AssertionError(f"the stream ended after {found}")


async def test_from_now_on(controller: Any) -> None:
    events = controller.daemon.events
    events.publish("test.before")
    async with controller.http.get("/api/v1/events") as stream:
        assert stream.status == 200 and stream.content_type == "text/event-stream"
        events.publish("test.after", device="s1", ports=frozenset({2, 1}))
        ((number, kind, data),) = await read(stream, 1)
    assert (number, kind, data["device"], data["ports"]) == (events.number, "test.after", "s1", [1, 2])
    assert data["time_s"] > 1.7e9


async def test_what_happens_is_told(controller: Any) -> None:
    async with controller.http.get("/api/v1/events") as stream:
        await controller.ask("PATCH", "/api/v1/links/trunk-a", json={"admin": "draining"})
        ((_, kind, data),) = await read(stream, 1)
    assert kind == "link.draining" and data["name"] == "trunk-a"


@pytest.mark.parametrize("how", ["header", "query"])
async def test_resumed_without_loss(controller: Any, how: str) -> None:
    events = controller.daemon.events
    start = events.number
    for step in range(50):
        events.publish("test.step", step=step)
    async with controller.http.get(f"/api/v1/events?after={start}") as stream:
        first = await read(stream, 20)
    for step in range(50, 60):
        events.publish("test.step", step=step)
    last = str(first[-1][0])
    given: dict[str, Any] = {"headers": {"Last-Event-ID": last}} if how == "header" else {"params": {"after": last}}
    async with controller.http.get("/api/v1/events", **given) as stream:
        rest = await read(stream, 35)
        for step in range(60, 65):
            events.publish("test.step", step=step)
        rest += await read(stream, 10)
    assert [data["step"] for _, _, data in first + rest] == list(range(65))
    assert [number for number, _, _ in first + rest] == list(range(start + 1, start + 66))


async def test_a_number_of_an_earlier_run_begins_with_this_one(controller: Any) -> None:
    async with controller.http.get("/api/v1/events", headers={"Last-Event-ID": "1000000"}) as stream:
        ((number, kind, _),) = await read(stream, 1)
    assert (number, kind) == (1, "controller.started")


@pytest.mark.parametrize("number", ["x", "-1", "1.5", ""])
async def test_no_number(controller: Any, number: str) -> None:
    answer = await controller.ask("GET", "/api/v1/events", 422, headers={"Last-Event-ID": number})
    assert answer["faults"][0]["path"] == "Last-Event-ID"


async def test_a_reader_that_left_is_let_go(controller: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(api, "KEEP_ALIVE_S", 0.02)
    before = len(asyncio.all_tasks())
    stream = await controller.http.get("/api/v1/events")
    assert await stream.content.readline() == b": still here\n"
    stream.close()
    async with asyncio.timeout(5):
        while True:
            if len(asyncio.all_tasks()) <= before:
                break
            await asyncio.sleep(0.02)
    assert "failed" not in caplog.text


async def test_the_last_word_before_the_end(controller: Any) -> None:
    async with controller.http.get("/api/v1/events") as stream:
        controller.daemon.events.publish("test.last")
        assert [kind for _, kind, _ in await read(stream, 1)] == ["test.last"]
        async with asyncio.timeout(5):
            stopping = asyncio.create_task(controller.stop())
            rest = (await stream.content.read()).decode()  # to the end, which comes at once
            await stopping
    assert "event: controller.stopping" in rest
