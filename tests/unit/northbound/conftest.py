"""A controller on loopback with the emulated OpenFlow switches of the sandbox, and a client of its interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import topologies
from controller import daemon
from controller.config import Listen, OpenFlow, Settings
from controller.network import document
from controller.northbound.face import Face
from controller.services.planner import Planner
from topologies.emulation.classical import ClassicalNetwork

SANDBOX = Path(str(topologies.__file__)).parent / "sandbox.yaml"


@dataclass
class Controller:
    daemon: Face
    network: ClassicalNetwork
    http: aiohttp.ClientSession
    _stack: AsyncExitStack

    async def stop(self) -> None:
        """Stop the controller, and then its switches."""
        await self._stack.aclose()

    async def ask(self, method: str, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
        """The JSON answer, which must have this status; an error must be a whole problem."""
        async with self.http.request(method, path, **more) as response:
            assert response.status == status, await response.text()
            answer: dict[str, Any] = await response.json(content_type=None)
            if status >= 400 and path != "/readyz":
                assert response.content_type == "application/problem+json"
                assert answer.keys() >= {"type", "title", "status", "detail"}
                assert answer["status"] == status
                assert answer["type"].startswith("urn:bellhop:problem:") and " " not in answer["type"]
            return answer

    async def serving(self, name: str) -> dict[str, Any]:
        """The service, once it is ACTIVE."""
        async with asyncio.timeout(10):
            while True:
                service = await self.ask("GET", f"/api/v1/services/{name}")
                if service["state"] == "ACTIVE":
                    return service
                await asyncio.sleep(0.02)

    async def gone(self, name: str) -> None:
        """Wait until the service is gone."""
        async with asyncio.timeout(10), self.http.get("/api/v1/events?after=0") as stream:
            lines = aiter(stream.content)
            async for line in lines:
                if line == b"event: service.gone\n" and json.loads((await anext(lines))[6:])["service"] == name:
                    return


@pytest.fixture
async def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Controller]:
    monkeypatch.setattr(daemon, "Planner", lambda executor: Planner(ThreadPoolExecutor(1)))
    settings = Settings(network=SANDBOX, store=tmp_path / "bellhop.db", api=Listen(port=0), openflow=OpenFlow(port=0))
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(daemon.running(settings))
        network = ClassicalNetwork(document.load(SANDBOX), ("127.0.0.1", running.listener.port))
        await stack.enter_async_context(network.running())
        async with aiohttp.ClientSession(running.api) as http:
            while True:
                async with http.get("/readyz") as response:
                    if response.status == 200:
                        break
                await asyncio.sleep(0.02)
            yield Controller(running, network, http, stack)
