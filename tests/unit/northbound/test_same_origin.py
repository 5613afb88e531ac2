"""A web page in a browser on this machine must not reach the interface."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from controller.northbound.same_origin import same_origin


async def asked(headers: dict[str, str]) -> int:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="done")

    app = web.Application(middlewares=[same_origin])
    app.router.add_post("/", answer)
    async with TestClient(TestServer(app)) as client:
        own = f"{client.host}:{client.port}"
        async with client.post("/", headers={name: value.replace("OWN", own) for name, value in headers.items()}) as response:
            return response.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8480"}, 200),
        ({"Host": "[::1]:8480"}, 200),
        ({"Origin": "http://OWN"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "10.0.0.1:8480"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
async def test_only_this_machine_and_its_own_pages(headers: dict[str, str], status: int) -> None:
    assert await asked(headers) == status
