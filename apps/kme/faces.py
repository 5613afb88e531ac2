"""The KME's faces to the controller, to other KMEs and to the QKD modules of its node, and the guard before all of them.

No key byte leaves by the controller's or the modules' face.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from apps.kme import delivery
from apps.kme.events import Event, Events, LinkReport, Qber, Rate
from apps.kme.identity import Identity, identify
from apps.kme.pad import Name, RelayMessage, wipe
from apps.kme.relay import Blocks, Refusal, Relay, Room
from apps.kme.settings import KmeSettings
from apps.kme.vault import Vault
from controller.southbound.device import KeyRelay

log = logging.getLogger("bellhop.kme")

Model = TypeVar("Model", bound=BaseModel)


class RelayChange(BaseModel):
    """Relay entries to add and to remove, all or none. `change` is the caller's name for it, repeated in the event that tells of it."""

    model_config = ConfigDict(extra="forbid")

    add: list[KeyRelay] = []
    remove: list[KeyRelay] = []
    only_check: bool = False
    change: str = Field(default="", max_length=64)


class Block(BaseModel):
    """Random bytes that the QKD link made: the same at both of its ends."""

    model_config = ConfigDict(extra="forbid")

    link: Name
    peer: Name
    block: Name
    key: Base64Bytes = Field(min_length=32)
    rate_bps: Rate
    qber: Qber | None = None


def problem(status: int, detail: str, **more: Any) -> web.Response:
    """An error as RFC 9457 has it."""
    return web.json_response({"status": status, "detail": detail, **more}, status=status, content_type="application/problem+json")


def guard(settings: KmeSettings) -> Middleware:
    """Middleware: each face is for one role, by the client certificate; and every refusal has the form its face promises."""

    def allowed(path: str, identity: Identity) -> bool:
        match path.split("/")[1]:
            case "api":
                return identity.role == "sae" and identity.name in settings.saes
            case "control":
                return identity.role == "controller"
            case "peer":
                return identity.role == "kme" and identity.name in settings.peers
            case "qkd":
                return identity.role == "qkd" and identity.name == settings.modules_node
        return False

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        identity = identify(certificate)
        application = request.path.startswith(delivery.PREFIX)
        if identity is None or not allowed(request.path, identity):
            log.warning("%s: %s refused to %s", settings.id, request.path, identity or "a certificate without a name")
            return web.Response(status=401) if application else problem(403, f"{request.path} is not for this certificate")
        request["identity"] = identity
        try:
            return await handler(request)
        except delivery.BadRequest as fault:
            return delivery.error(400, str(fault), fault.details)
        except Refusal as refusal:
            return problem(refusal.status, str(refusal))
        except web.HTTPException as error:
            return delivery.error(error.status, error.reason) if application else problem(error.status, error.reason)
        except Exception:
            # The traceback names no values, so no key reaches the log.
            log.exception("%s: %s failed", settings.id, request.path)
            return delivery.error(503, "Error of server side") if application else problem(500, "internal error; see the KME's log")

    return check


async def _parse(request: web.Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False))
        raise Refusal(400, f"not a {model.__name__}: {where}") from None


def control_routes(relay: Relay, vault: Vault, events: Events) -> list[web.RouteDef]:
    async def state(_: web.Request) -> web.Response:
        stock = await relay.store(vault.stock)
        pools = await relay.store(vault.levels)
        return web.json_response(
            {
                "kme": relay.settings.id,
                "relays": [entry._asdict() for entry in relay.entries.values()],
                "pool_bytes": dict.fromkeys(relay.settings.peers, 0) | pools,
                "pool_max_bytes": relay.settings.pool_max_bytes,
                "stock_keys": {
                    service: stock.get(service, {"master": 0, "slave": 0})
                    for service in sorted({service for service, _ in relay.entries})
                    if relay.ends_here(service)
                },
                "links": [report.model_dump() for report in events.links.values()],
            }
        )

    async def relays(request: web.Request) -> web.Response:
        change = await _parse(request, RelayChange)
        faults = await relay.change(change.add, change.remove, only_check=change.only_check)
        if faults and not change.only_check:
            return problem(409, "; ".join(faults), faults=faults)
        if not change.only_check:
            events.publish(Event("relays", {"change": change.change, "by": request["identity"].name}))
        return web.json_response({"faults": faults})

    return [
        web.get("/control/v1/state", state),
        web.post("/control/v1/relays", relays),
        web.get("/control/v1/events", events.stream),
    ]


def peer_routes(relay: Relay) -> list[web.RouteDef]:
    async def room(request: web.Request) -> web.Response:
        answer = await relay.room(request["identity"].name, await _parse(request, Room))
        return web.json_response(answer.model_dump())

    async def receive(request: web.Request) -> web.Response:
        await relay.receive(request["identity"].name, await _parse(request, RelayMessage))
        return web.json_response({})

    async def blocks(request: web.Request) -> web.Response:
        asked = await _parse(request, Blocks)
        return web.json_response({"blocks": await relay.held_by_peer(request["identity"].name, asked.blocks)})

    return [web.post("/peer/v1/room", room), web.post("/peer/v1/relay", receive), web.post("/peer/v1/blocks", blocks)]


def module_routes(relay: Relay, vault: Vault, events: Events) -> list[web.RouteDef]:
    def known(peer: str) -> None:
        if peer not in relay.settings.peers:
            raise Refusal(404, f"{peer} is not a neighbour of {relay.settings.id}; its neighbours are {sorted(relay.settings.peers)}")

    async def blocks(request: web.Request) -> web.Response:
        block = await _parse(request, Block)
        known(block.peer)
        key = bytearray(block.key)
        try:
            new = await relay.store(vault.add_block, block.peer, block.block, key)
        except ValueError as error:
            raise Refusal(413, str(error)) from error
        finally:
            wipe(key)
        events.report(LinkReport(link=block.link, peer=block.peer, up=True, rate_bps=block.rate_bps, qber=block.qber))
        relay.block_arrived(block.peer)
        return web.json_response({"new": new})

    async def links(request: web.Request) -> web.Response:
        report = await _parse(request, LinkReport)
        known(report.peer)
        events.report(report)
        return web.json_response({})

    return [web.post("/qkd/v1/blocks", blocks), web.post("/qkd/v1/links", links)]
