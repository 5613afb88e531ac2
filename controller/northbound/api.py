"""THE FACE: the REST interface under /api/v1, server-sent events, health and metrics. Loopback only."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.network.model import Instant, given
from controller.network.topology import Topology, UnknownName
from controller.northbound import metrics
from controller.northbound.discovered import as_found
from controller.northbound.face import Face
from controller.northbound.problems import as_problems
from controller.northbound.same_origin import same_origin
from controller.routing.classical import classical
from controller.routing.entanglement import entanglement
from controller.routing.holding import answer_at
from controller.routing.key_relay import Preference, key
from controller.routing.lightpath import light
from controller.services.desk import UnknownService
from controller.services.planner import WrongRequest
from controller.services.service import Service, ServiceId
from controller.southbound.device import Diff, State, fields_of

KEEP_ALIVE_S = 10.0


STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Asked(BaseModel):
    """The body of POST /services."""

    model_config = STRICT

    kind: str
    request: dict[str, Any]
    name: ServiceId | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    start_s: float | None = None
    end_s: float | None = None


class Administered(BaseModel):
    """The body of PATCH /nodes/{name} and /links/{id}."""

    model_config = STRICT

    admin: Literal["enabled", "draining", "disabled"]


class NoQuery(BaseModel):
    """The query of requests that take none: what somebody hoped to say there, as dry_run, must not be passed over."""

    model_config = STRICT


class CreateQuery(BaseModel):
    """The query of POST /services."""

    model_config = STRICT

    dry_run: bool = False


class RouteQuery(BaseModel):
    """The query of GET /routes/{kind}; which parameters count depends on the kind."""

    model_config = STRICT

    src: str
    dst: str
    min_fidelity: Annotated[float, Field(ge=0.25, le=1)] | None = None
    min_rate_hz: Annotated[float, Field(ge=0)] | None = None
    model: Literal["buffered", "on-demand"] = "buffered"
    rate_bps: Annotated[float, Field(ge=0)] = 0.0
    prefer: Preference = "widest"
    shares: Annotated[int, Field(ge=1, le=16)] = 1
    split: Annotated[int, Field(ge=1, le=16)] = 1
    horizon_s: Annotated[float, Field(gt=0)] | None = None
    """How long the rate is needed: the pools of the KMEs, as last read, are spent over that time. None: for ever."""
    max_trusted_nodes: Annotated[int, Field(ge=0)] | None = None
    avoid: tuple[str, ...] = ()
    max_loss_db: Annotated[float, Field(ge=0)] | None = None
    at: Instant | None = None
    """The moment the route is for; None: now."""


FACE: web.AppKey[Face] = web.AppKey("face", Face)


@asynccontextmanager
async def serve(face: Face, host: str, port: int) -> AsyncIterator[str]:
    """Serve while the context lasts; yields the URL. Raises OSError naming a port that is taken and what to do."""
    app = web.Application(middlewares=[as_problems, same_origin], client_max_size=1 << 20)
    app[FACE] = face
    app.add_routes(ROUTES)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        face.stopping = True
        face.events.publish("controller.stopping")
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        what = f"port {port} on {host} is taken: stop the program that holds it (`ss -ltnp 'sport = :{port}'` names it) or choose another API port in the settings"
        raise OSError(errno.EADDRINUSE, what) from None


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.json_response(answer, status=status, dumps=lambda value: json.dumps(value, default=_plain, allow_nan=False))


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


async def _body(request: web.Request, model: type[BaseModel]) -> Any:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        raise WrongRequest.of(error) from None


def _query(request: web.Request, model: type[BaseModel], lists: Collection[str] = ()) -> Any:
    """The query as the model has it; only what is in `lists` may be given again."""
    given = {name: request.query.getall(name) for name in request.query}
    if again := [name for name, values in given.items() if len(values) > 1 and name not in lists]:
        raise WrongRequest([(name, "is given more than once") for name in again])
    try:
        return model.model_validate({name: values if name in lists else values[0] for name, values in given.items()})
    except ValidationError as error:
        raise WrongRequest.of(error) from None


# the network


async def get_topology(request: web.Request) -> web.Response:
    topology = request.app[FACE].topology
    nodes = {name: given(node) for name, node in topology.nodes()}
    return _json(
        {
            "name": topology.name,
            "revision": topology.revision,
            "nodes": nodes,
            "links": [_link(topology, link.id) for link in topology.links()],
        }
    )


def _link(topology: Topology, link_id: str) -> dict[str, Any]:
    link = topology.link(link_id)
    figures = {name: asdict(figure) for name, figure in topology.figures(link).items()}
    return given(link) | {
        "up": topology.up(link),
        "usable": topology.usable(link),
        "figures": figures,
    }


async def get_discovery(request: web.Request) -> web.Response:
    return _json(as_found(request.app[FACE].discovery))


async def patch_admin(request: web.Request) -> web.Response:
    subject = "node" if request.path.startswith("/api/v1/nodes/") else "link"
    _query(request, NoQuery)
    wanted: Administered = await _body(request, Administered)
    moved, stuck = await request.app[FACE].desk.administer(subject, request.match_info["name"], wanted.admin)
    return _json({subject: request.match_info["name"], "admin": wanted.admin, "moved": moved, "cannot_move": stuck})


async def get_route(request: web.Request) -> web.Response:
    face, kind = request.app[FACE], request.match_info["kind"]
    query: RouteQuery = _query(request, RouteQuery, lists=("avoid",))
    at_s = time.time() if query.at is None else query.at.timestamp()
    pools = {} if query.horizon_s is None else _pools(face)
    promised = dict(face.desk.ledger().reserved_of("key")) if kind == "key" else {}
    return _json(await face.desk.planner.compute(face.topology, _route_at, at_s, kind, query, pools, promised))


def _pools(face: Face) -> dict[tuple[str, str], float]:
    """What every two KMEs say that they hold in common, in bytes; the lesser where they differ."""
    pools: dict[tuple[str, str], float] = {}
    for name, view in face.reconciler.views.items():
        for peer, held in (view.state.pool_bytes if view.state is not None else {}).items():
            if peer in face.topology.graph:
                pair = min(name, peer), max(name, peer)
                pools[pair] = min(held, pools.get(pair, math.inf))
    return pools


def _route_at(
    topology: Topology, at_s: float, kind: str, query: RouteQuery, pools: dict[tuple[str, str], float], promised: dict[str, float]
) -> dict[str, Any]:
    """Runs in the planner's worker."""
    return answer_at(topology, at_s, lambda then: _route(then, kind, query, pools, promised))


def _route(
    topology: Topology, kind: str, query: RouteQuery, pools: dict[tuple[str, str], float], promised: dict[str, float]
) -> dict[str, Any]:
    src, dst = query.src, query.dst
    match kind:
        case "entanglement":
            return entanglement(
                topology, src, dst, min_fidelity=query.min_fidelity, min_rate_hz=query.min_rate_hz, model=query.model
            ).to_json()
        case "key":
            return key(
                topology,
                src,
                dst,
                rate_bps=query.rate_bps,
                prefer=query.prefer,
                shares=query.shares,
                split=query.split,
                max_trusted_nodes=query.max_trusted_nodes,
                avoid=query.avoid,
                reserved=promised,
                pool_bytes=pools,
                horizon_s=query.horizon_s or math.inf,
            ).to_json()
        case "light":
            return light(topology, src, dst, max_loss_db=query.max_loss_db).to_json()
        case "classical":
            return classical(topology, src, dst).to_json()
    raise UnknownName("kind of route", kind, ("entanglement", "key", "light", "classical"))


# services


def _service(face: Face, service: Service, *, whole: bool = True) -> dict[str, Any]:
    told = service.model_dump(mode="json", exclude={"plan"})
    survives_s = face.desk.survives_for_s(service)
    if survives_s is not None:
        told["survives_for_s"] = None if math.isinf(survives_s) else survives_s
    if service.plan is not None:
        told["route"] = service.plan.route
        if whole:
            told["devices"] = {device: [fields_of(item) for item in items] for device, items in service.plan.desired.items()}
            told["explanation"] = list(service.plan.explanation)
            if (setup := face.desk.setup_s(service)) is not None:
                told["setup_s"] = setup[0]
                told["explanation"].append(f"set-up: {setup[0]:.3g} s expected, the median of the last {setup[1]} on this path")
    return told


async def list_services(request: web.Request) -> web.Response:
    face = request.app[FACE]
    return _json({"services": [_service(face, service, whole=False) for service in face.desk.book.services.values()]})


async def create_service(request: web.Request) -> web.Response:
    face = request.app[FACE]
    query: CreateQuery = _query(request, CreateQuery)
    asked: Asked = await _body(request, Asked)
    options: dict[str, Any] = {"name": asked.name, "priority": asked.priority, "start_s": asked.start_s, "end_s": asked.end_s}
    if query.dry_run:
        service, diffs = await face.desk.dry_run(asked.kind, asked.request, **options)
        return _json({"service": _service(face, service), "diff": [_diff(each) for each in diffs]})
    service = await face.desk.create(asked.kind, asked.request, **options)
    return _json(_service(face, service), status=201)


async def get_service(request: web.Request) -> web.Response:
    face, name = request.app[FACE], request.match_info["name"]
    if name not in face.desk.book.services:
        raise UnknownService(name)
    return _json(_service(face, face.desk.book.services[name]))


async def delete_service(request: web.Request) -> web.Response:
    face = request.app[FACE]
    _query(request, NoQuery)
    return _json(_service(face, await face.desk.remove(request.match_info["name"])), status=202)


# devices


def _diff(each: Diff) -> dict[str, Any]:
    return {
        "device": each.device,
        "add": [fields_of(item) for item in each.add],
        "remove": [fields_of(item) for item in each.remove],
        "foreign": [fields_of(item) for item in each.foreign],
    }


def _device(face: Face, name: str) -> dict[str, Any]:
    view, device = face.reconciler.views[name], face.devices[name]
    difference = view.diff or Diff(name)
    return {
        "name": name,
        "kind": face.topology.node(name).kind,
        "connected": device.connected,
        "items": len(view.state.items) if view.state else None,
        "to_add": len(difference.add),
        "to_remove": len(difference.remove),
        "foreign": len(difference.foreign),
        "trouble": view.trouble,
    }


async def list_devices(request: web.Request) -> web.Response:
    face = request.app[FACE]
    return _json({"devices": [_device(face, name) for name in face.devices]})


async def get_device(request: web.Request) -> web.Response:
    """Read the device now and show what it holds, what it should hold, and the difference."""
    face, name = request.app[FACE], request.match_info["name"]
    if name not in face.devices:
        raise UnknownName("device", name, face.devices)
    await face.reconciler.read([name])
    view = face.reconciler.views[name]
    state, desired = view.state or State(), face.desk.book.of(name)
    return _json(
        _device(face, name)
        | {
            "actual": {
                "items": [fields_of(item) for item in sorted(state.items, key=repr)],
                "power_dbm": dict(state.power_dbm),
                "pool_bytes": dict(state.pool_bytes),
                "stock_keys": dict(state.stock_keys),
            },
            "desired": {service: [fields_of(item) for item in items] for service, items in desired.present.items()},
            "diff": _diff(view.diff or Diff(name)),
        }
    )


# events, health, metrics


async def get_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events; `Last-Event-ID` (or `?after=`) resumes, without it the stream begins with what comes next.

    A number this controller has not reached is one of an earlier run: the stream then begins with the first event of this run.
    """
    face = request.app[FACE]
    resume = request.headers.get("Last-Event-ID", request.query.get("after", str(face.events.number)))
    if not resume.isdecimal():
        raise WrongRequest([("Last-Event-ID", f"'{resume}' is no event number")])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    after = int(resume) if int(resume) <= face.events.number else 0
    writing = [asyncio.create_task(_send_events(face, response, after)), asyncio.create_task(_keep_alive(response))]
    try:
        await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    return response


async def _send_events(face: Face, response: web.StreamResponse, after: int) -> None:
    with suppress(ConnectionResetError):  # the reader has gone
        async for event in face.events.follow(after):
            data = json.dumps({"time_s": event.time_s, **event.data}, default=_plain)
            await response.write(f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode())
            if face.stopping:
                break


async def _keep_alive(response: web.StreamResponse) -> None:
    """A comment now and then: the reader sees that we live, and we see when it has gone."""
    with suppress(ConnectionResetError):
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(KEEP_ALIVE_S)


async def healthz(request: web.Request) -> web.Response:
    return _json({"status": "alive", "uptime_s": round(time.time() - request.app[FACE].started_s, 3)})


async def readyz(request: web.Request) -> web.Response:
    """Ready when every device has been read once and the planner answers, or says what does not."""
    face = request.app[FACE]
    waiting_for = [name for name, view in face.reconciler.views.items() if view.reads == 0]
    if face.desk.planner.late:
        waiting_for.append("the planner")
    return _json({"ready": not waiting_for, "waiting_for": waiting_for}, status=503 if waiting_for else 200)


async def get_metrics(request: web.Request) -> web.Response:
    face = request.app[FACE]
    body, content_type = await metrics.exposition(face, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


ROUTES = [
    web.get("/api/v1/topology", get_topology),
    web.get("/api/v1/discovery", get_discovery),
    web.patch("/api/v1/nodes/{name}", patch_admin),
    web.patch("/api/v1/links/{name:.+}", patch_admin),
    web.get("/api/v1/routes/{kind}", get_route),
    web.get("/api/v1/services", list_services),
    web.post("/api/v1/services", create_service),
    web.get("/api/v1/services/{name}", get_service),
    web.delete("/api/v1/services/{name}", delete_service),
    web.get("/api/v1/devices", list_devices),
    web.get("/api/v1/devices/{name}", get_device),
    web.get("/api/v1/events", get_events),
    web.get("/healthz", healthz),
    web.get("/readyz", readyz),
    web.get("/metrics", get_metrics),
]
