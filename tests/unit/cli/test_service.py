"""What `bellhop service create` asks of the controller."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from controller.cli import service


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("connectivity h1 h4", {}),
        (
            "connectivity h1 h4 --max-latency-ms 2.5 --rate-mbps 3 --max-rate-kbps 3000",
            {"max_latency_ms": 2.5, "rate_mbps": 3.0, "max_rate_kbps": 3000},
        ),
        ("connectivity h1 h4 --protection fast-failover --disjoint link", {"protection": "fast-failover", "disjoint": "link"}),
        (
            "key h1 h4 --rate 500 --shares 2 --avoid r1 --avoid r2 --max-trusted-nodes 3",
            {"rate_bps": 500.0, "shares": 2, "avoid": ["r1", "r2"], "max_trusted_nodes": 3},
        ),
        ("lightpath h1 h4 --max-loss 14", {"max_loss_db": 14.0}),
    ],
)
def test_options_are_what_is_asked_for_and_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch, words: str, request_: dict[str, Any]
) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def ask(server: str, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append((method, path, body))
        return {"id": "s", "state": "PROGRAMMING", "reason": ""}

    monkeypatch.setattr(service, "ask", ask)
    done = CliRunner().invoke(service.service, ["create", *words.split()])
    assert (done.exit_code, done.output) == (0, "s: PROGRAMMING\n")
    ((method, path, body),) = asked
    assert (method, path) == ("POST", "/api/v1/services")
    assert body == {"kind": words.split()[0], "request": {"ends": ["h1", "h4"], **request_}, "name": None, "priority": 0}
