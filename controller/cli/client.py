"""The command line's side of the HTTP interfaces: of a running controller, and of an emulator."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, NoReturn
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
    except (OSError, http.client.HTTPException) as error:
        _silent(url, error)
    finally:
        connection.close()
    return _answer(url, response, data)


def peek(url: str, path: str) -> dict[str, Any] | None:
    """The JSON answer to a GET, or None while nobody answers."""
    connection = _connection(url, timeout_s=5)
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _answer(url: str, response: http.client.HTTPResponse, data: bytes) -> Any:
    try:
        answer = json.loads(data)
    except ValueError:
        fail(f"{url} answers with {response.status} and no JSON; is it a Bellhop?")
    if response.status >= 400:
        best = answer.get("best")
        fail(
            f"{answer.get('detail', response.reason)}" + (f" (best: {best:.6g})" if isinstance(best, float | int) else ""),
            3 if "constraint" in answer else 2 if response.status in (400, 404, 422) else 1,
        )
    return answer


def _silent(url: str, error: Exception) -> NoReturn:
    why = (
        "what answers there does not speak HTTP"
        if isinstance(error, http.client.BadStatusLine)
        else getattr(error, "strerror", None) or error
    )
    fail(f"no Bellhop answers at {url} ({why}); start a network with `bellhop up sandbox`, or say where one runs: --help names the option")


def follow(url: str, path: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Server-sent events as (number, kind, data), until the other side ends."""
    connection = _connection(url, timeout_s=None)
    try:
        connection.request("GET", path)
        number, kind = 0, ""
        response = connection.getresponse()
        if response.status != 200:
            _answer(url, response, response.read())
        while line := response.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            match field:
                case "id":
                    number = int(value)
                case "event":
                    kind = value
                case "data":
                    yield number, kind, json.loads(value)
    except (OSError, http.client.HTTPException) as error:
        _silent(url, error)
    finally:
        connection.close()


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _connection(url: str, timeout_s: float | None = TIMEOUT_S) -> http.client.HTTPConnection:
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:  # a port that is no number
        host = None
    if parts.scheme != "http" or host is None:
        fail(f"'{url}' is no URL of a Bellhop; write it as http://127.0.0.1:8480", 2)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)
