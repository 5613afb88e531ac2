"""Every error of the API as an RFC 9457 problem: what is wrong, where, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from controller.network.topology import UnknownName
from controller.routing.refusal import NoRoute
from controller.services.desk import NameTaken, Observing, UnknownService
from controller.services.planner import WrongRequest

log = logging.getLogger(__name__)


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """An `application/problem+json` response; `more` are extension members."""
    kind = f"urn:bellhop:problem:{title.lower().replace(' ', '-')}"
    body = {"type": kind, "title": title, "status": status, "detail": detail, **more}
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


@web.middleware
async def as_problems(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Map what handlers raise to problems; an unforeseen error is logged and answered 500 without its inside."""
    try:
        return await handler(request)
    except UnknownName as unknown:
        return problem(404, f"Unknown {unknown.subject}", str(unknown), name=unknown.name)
    except UnknownService as unknown_service:
        return problem(404, "Unknown service", str(unknown_service), name=unknown_service.name)
    except NoRoute as none:
        return problem(409, "No route", none.error, constraint=none.constraint, best=none.best)
    except (NameTaken, Observing) as conflict:
        return problem(409, "Conflict", str(conflict))
    except WrongRequest as wrong:
        return problem(422, "Wrong request", str(wrong), faults=[{"path": path, "what": what} for path, what in wrong.faults])
    except web.HTTPNotFound:
        return problem(
            404, "Not Found", f"there is nothing at {request.path}; the interface is under /api/v1, /metrics, /healthz and /readyz"
        )
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem(405, error.reason, f"{request.path} does not take {request.method}; it takes {allowed}", {"Allow": allowed})
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem(error.status, error.reason, error.text or error.reason)
    except ValueError as error:
        return problem(422, "Wrong request", str(error))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "Internal error", "the controller could not answer; its log says why")
