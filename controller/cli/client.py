"""The command line's side of the HTTP interfaces: of a running controller, and of an emulator."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import click

from controller.cli.document import fail

SERVER = click.option("--server", envvar="BELLHOP_SERVER", default="http://127.0.0.1:8480", show_default=True, help="The controller's URL.")
EMULATOR = click.option(
    "--emulator", envvar="BELLHOP_EMULATOR", default="http://127.0.0.1:8481", show_default=True, help="The emulator's URL."
)
TIMEOUT_S = 60.0


def ask(url: str, method: str, path: str, body: object = None) -> Any:
    """The JSON answer to a request. What the other side refuses, and its silence, end the program with what to do about it."""
    connection = _connection(url)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
    except OSError as error:
        fail(
            f"nobody answers at {url} ({error.strerror or error}); start a network with `bellhop up sandbox`, or name another with --server"
        )
    finally:
        connection.close()
    try:
        answer = json.loads(data)
    except ValueError:
        fail(f"{url} answers {method} {path} with {response.status} and no JSON; is it a Bellhop?")
    if response.status >= 400:
        best = answer.get("best")
        fail(
            f"{answer.get('detail', response.reason)}" + (f" (best: {best:.6g})" if isinstance(best, float | int) else ""),
            3 if "constraint" in answer else 2 if response.status in (400, 404, 422) else 1,
        )
    return answer


def follow(url: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as (kind, data), until the other side ends."""
    connection = _connection(url, timeout_s=None)
    try:
        connection.request("GET", path)
        kind = ""
        response = connection.getresponse()
        while line := response.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                yield kind, json.loads(value)
    except OSError as error:
        fail(f"nobody answers at {url} ({error.strerror or error}); start a network with `bellhop up sandbox`")
    finally:
        connection.close()


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _connection(url: str, timeout_s: float | None = TIMEOUT_S) -> http.client.HTTPConnection:
    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.hostname is None:
        fail(f"'{url}' is no URL; write it as http://127.0.0.1:8480", 2)
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
