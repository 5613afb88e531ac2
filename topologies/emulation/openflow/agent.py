"""What an emulated switch says to its controllers, without sockets: requests in, replies, PACKET_INs and other news out."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as messages

from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.match import encode_match
from topologies.emulation.openflow.pipeline import PacketIn, Passage, Pipeline
from topologies.emulation.openflow.requests import fields
from topologies.emulation.openflow.statistics import Statistics, split
from topologies.emulation.openflow.tables import Entry, serialized

log = logging.getLogger(__name__)

_REPLY_BYTES = 32768
"""A multipart reply is cut into parts of about this size."""
_WRITES = frozenset({ofp.OFPT_FLOW_MOD, ofp.OFPT_GROUP_MOD, ofp.OFPT_METER_MOD, ofp.OFPT_PORT_MOD, ofp.OFPT_TABLE_MOD, ofp.OFPT_PACKET_OUT})
"""What a slave may not ask for."""
_PORT_CONFIG = ofp.OFPPC_PORT_DOWN | ofp.OFPPC_NO_RECV | ofp.OFPPC_NO_FWD | ofp.OFPPC_NO_PACKET_IN
_ASYNC_DEFAULTS = (
    *(1 << ofp.OFPR_NO_MATCH | 1 << ofp.OFPR_ACTION, 0),
    *(0b111, 0b111),
    *(0b1111, 0),
)
"""For PACKET_IN, PORT_STATUS and FLOW_REMOVED: the reasons that a master or equal, and that a slave is told of, as bits."""
_PACKET_IN, _PORT_STATUS, _FLOW_REMOVED = 0, 2, 4


@dataclass(eq=False)
class Controller:
    """One controller, as the switch sees it. `write` sends bytes; while `congested` says so, it gets no PACKET_INs."""

    write: Callable[[bytes], None]
    congested: Callable[[], bool] = lambda: False
    role: int = ofp.OFPCR_ROLE_EQUAL
    reasons: tuple[int, ...] = _ASYNC_DEFAULTS
    config: tuple[int, int] = field(default=(ofp.OFPC_FRAG_NORMAL, 128))

    def wants(self, news: int, reason: int) -> bool:
        return bool(self.reasons[news + (self.role == ofp.OFPCR_ROLE_SLAVE)] >> reason & 1)

    def send(self, kind: int, body: bytes, xid: int = 0) -> None:
        self.write(struct.pack(ofp.OFP_HEADER_PACK_STR, ofp.OFP_VERSION, kind, ofp.OFP_HEADER_SIZE + len(body), xid) + body)


class Agent:
    """A switch with its controllers. `transmit` sends a frame out of a port; `clock` gives seconds."""

    def __init__(
        self, name: str, dpid: int, pipeline: Pipeline, transmit: Callable[[int, bytes], None], clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.dpid = dpid
        self.controllers: list[Controller] = []
        self._pipeline = pipeline
        self._transmit = transmit
        self._clock = clock
        self._statistics = Statistics(name, dpid, pipeline)
        self._generation: int | None = None
        self._handlers: dict[int, Callable[[Controller, int, bytes], None]] = {
            ofp.OFPT_HELLO: lambda controller, xid, data: None,
            ofp.OFPT_ERROR: self._on_error,
            ofp.OFPT_ECHO_REQUEST: lambda controller, xid, data: controller.send(ofp.OFPT_ECHO_REPLY, data[8:], xid),
            ofp.OFPT_ECHO_REPLY: lambda controller, xid, data: None,
            ofp.OFPT_FEATURES_REQUEST: self._on_features,
            ofp.OFPT_GET_CONFIG_REQUEST: self._on_get_config,
            ofp.OFPT_SET_CONFIG: self._on_set_config,
            ofp.OFPT_GET_ASYNC_REQUEST: self._on_get_async,
            ofp.OFPT_SET_ASYNC: self._on_set_async,
            ofp.OFPT_ROLE_REQUEST: self._on_role,
            ofp.OFPT_BARRIER_REQUEST: lambda controller, xid, data: controller.send(ofp.OFPT_BARRIER_REPLY, b"", xid),
            ofp.OFPT_PACKET_OUT: lambda controller, xid, data: self._emit(pipeline.packet_out(data, clock())),
            ofp.OFPT_FLOW_MOD: self._on_change,
            ofp.OFPT_GROUP_MOD: self._on_change,
            ofp.OFPT_METER_MOD: self._on_change,
            ofp.OFPT_PORT_MOD: self._on_port_mod,
            ofp.OFPT_MULTIPART_REQUEST: self._on_multipart,
        }

    def handle(self, controller: Controller, data: bytes) -> None:
        """Take one whole message of a controller. Requests are done one after the other, so that a barrier has nothing to wait for."""
        version, kind, _, xid = struct.unpack_from(ofp.OFP_HEADER_PACK_STR, data)
        try:
            if version != ofp.OFP_VERSION and kind != ofp.OFPT_HELLO:
                raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_VERSION)
            handler = self._handlers.get(kind)
            if handler is None:
                raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TYPE)
            if kind in _WRITES and controller.role == ofp.OFPCR_ROLE_SLAVE:
                raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_IS_SLAVE)
            handler(controller, xid, data)
        except OpenFlowError as error:
            controller.send(ofp.OFPT_ERROR, struct.pack("!HH", error.kind, error.code) + data[:64], xid)
        except Exception:  # os-ken raises all kinds of exceptions on what it cannot parse
            log.exception("%s: cannot parse a request of type %d", self.name, kind)
            controller.send(ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_LEN) + data[:64], xid)

    def receive(self, port: int, frame: bytes) -> None:
        """A frame comes in by a port."""
        self._emit(self._pipeline.process(frame, port, self._clock()))

    def set_port(self, port: int, up: bool) -> None:
        """Take a port's signal away, or give it back; the controllers are told. KeyError when there is no such port."""
        self._pipeline.set_port(port, up)
        self._tell_port(port)

    def expire(self) -> None:
        """Remove the entries whose time is up; the controllers are told of those that asked for it."""
        self._tell_removed(self._pipeline.expire(self._clock()))

    def _emit(self, passage: Passage) -> None:
        for port, frame in passage.outputs:
            self._transmit(port, frame)
        for packet_in in passage.packet_ins:
            self._tell_packet_in(packet_in)

    def _tell_packet_in(self, told: PacketIn) -> None:
        head = struct.pack(ofp.OFP_PACKET_IN_PACK_STR, ofp.OFP_NO_BUFFER, len(told.frame), told.reason, told.table, told.cookie)
        metadata = {"metadata": told.metadata} if told.metadata else {}
        body = head + serialized([messages.OFPMatch(in_port=told.in_port, **metadata)]) + bytes(2) + told.frame
        for controller in self.controllers:
            if controller.wants(_PACKET_IN, told.reason) and not controller.congested():
                controller.send(ofp.OFPT_PACKET_IN, body)

    def _tell_port(self, port: int) -> None:
        for controller in self.controllers:
            if controller.wants(_PORT_STATUS, ofp.OFPPR_MODIFY):
                controller.send(ofp.OFPT_PORT_STATUS, struct.pack("!B7x", ofp.OFPPR_MODIFY) + self._statistics.port(port))

    def _tell_removed(self, removed: Iterable[tuple[Entry, int]]) -> None:
        for entry, reason in removed:
            if not entry.flags & ofp.OFPFF_SEND_FLOW_REM:
                continue
            timeouts = entry.idle_timeout_s, entry.hard_timeout_s
            age = split(self._clock() - entry.added_s)
            numbers = (entry.cookie, entry.priority, reason, entry.table, *age, *timeouts, entry.packets, entry.bytes)
            body = struct.pack(ofp.OFP_FLOW_REMOVED_PACK_STR0, *numbers) + encode_match(entry.match)
            for controller in self.controllers:
                if controller.wants(_FLOW_REMOVED, reason):
                    controller.send(ofp.OFPT_FLOW_REMOVED, body)

    def _on_error(self, controller: Controller, xid: int, data: bytes) -> None:
        kind, code = fields("!HH", data)
        log.warning("%s: the controller reports error %d/%d %r", self.name, kind, code, data[12:])

    def _on_features(self, controller: Controller, xid: int, data: bytes) -> None:
        capabilities = ofp.OFPC_FLOW_STATS | ofp.OFPC_TABLE_STATS | ofp.OFPC_PORT_STATS | ofp.OFPC_GROUP_STATS
        numbers = (self.dpid, 0, self._pipeline.tables.count, 0, capabilities, 0)
        controller.send(ofp.OFPT_FEATURES_REPLY, struct.pack(ofp.OFP_SWITCH_FEATURES_PACK_STR, *numbers), xid)

    def _on_get_config(self, controller: Controller, xid: int, data: bytes) -> None:
        controller.send(ofp.OFPT_GET_CONFIG_REPLY, struct.pack(ofp.OFP_SWITCH_CONFIG_PACK_STR, *controller.config), xid)

    def _on_set_config(self, controller: Controller, xid: int, data: bytes) -> None:
        flags, miss_send_len = fields(ofp.OFP_SWITCH_CONFIG_PACK_STR, data)
        if flags != ofp.OFPC_FRAG_NORMAL:
            raise OpenFlowError(ofp.OFPET_SWITCH_CONFIG_FAILED, ofp.OFPSCFC_BAD_FLAGS)
        controller.config = flags, miss_send_len

    def _on_get_async(self, controller: Controller, xid: int, data: bytes) -> None:
        controller.send(ofp.OFPT_GET_ASYNC_REPLY, struct.pack("!6I", *controller.reasons), xid)

    def _on_set_async(self, controller: Controller, xid: int, data: bytes) -> None:
        controller.reasons = fields("!6I", data)

    def _on_role(self, controller: Controller, xid: int, data: bytes) -> None:
        role, generation = fields(ofp.OFP_ROLE_REQUEST_PACK_STR, data)
        if role not in (ofp.OFPCR_ROLE_NOCHANGE, ofp.OFPCR_ROLE_EQUAL, ofp.OFPCR_ROLE_MASTER, ofp.OFPCR_ROLE_SLAVE):
            raise OpenFlowError(ofp.OFPET_ROLE_REQUEST_FAILED, ofp.OFPRRFC_BAD_ROLE)
        if role in (ofp.OFPCR_ROLE_MASTER, ofp.OFPCR_ROLE_SLAVE):
            # The numbers go round: one is older when it lies in the half of the circle behind the newest.
            if self._generation is not None and (generation - self._generation) % (1 << 64) >> 63:
                raise OpenFlowError(ofp.OFPET_ROLE_REQUEST_FAILED, ofp.OFPRRFC_STALE)
            self._generation = generation
        if role == ofp.OFPCR_ROLE_MASTER:
            for other in self.controllers:
                if other.role == ofp.OFPCR_ROLE_MASTER:
                    other.role = ofp.OFPCR_ROLE_SLAVE
        if role != ofp.OFPCR_ROLE_NOCHANGE:
            controller.role = role
        newest = (1 << 64) - 1 if self._generation is None else self._generation
        controller.send(ofp.OFPT_ROLE_REPLY, struct.pack(ofp.OFP_ROLE_REQUEST_PACK_STR, controller.role, newest), xid)

    def _on_change(self, controller: Controller, xid: int, data: bytes) -> None:
        self._tell_removed(self._pipeline.apply(data, self._clock()))

    def _on_port_mod(self, controller: Controller, xid: int, data: bytes) -> None:
        number, _, config, mask, _ = fields(ofp.OFP_PORT_MOD_PACK_STR, data)
        port = self._pipeline.ports.get(number)
        if port is None:
            raise OpenFlowError(ofp.OFPET_PORT_MOD_FAILED, ofp.OFPPMFC_BAD_PORT)
        if mask & ~_PORT_CONFIG:
            raise OpenFlowError(ofp.OFPET_PORT_MOD_FAILED, ofp.OFPPMFC_BAD_CONFIG)
        port.config = port.config & ~mask | config & mask
        self._tell_port(number)

    def _on_multipart(self, controller: Controller, xid: int, data: bytes) -> None:
        kind, records = self._statistics.answer(data, self._clock())
        part: list[bytes] = []
        size = 0
        for record in records:
            if size + len(record) > _REPLY_BYTES:
                more = struct.pack("!HH4x", kind, ofp.OFPMPF_REPLY_MORE)
                controller.send(ofp.OFPT_MULTIPART_REPLY, more + b"".join(part), xid)
                part, size = [], 0
            part.append(record)
            size += len(record)
        controller.send(ofp.OFPT_MULTIPART_REPLY, struct.pack("!HH4x", kind, 0) + b"".join(part), xid)
