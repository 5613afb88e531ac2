"""The OpenFlow part of the metrics page: what the sessions counted, and what each switch and its controller sent each other."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from controller.northbound.face import Face
from controller.services.app import cookie
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.messages import Type
from controller.telemetry.histogram import Histogram

LABELS = ["device", "service"]
NOT_KEPT = (1 << 64) - 1
"""The value of a counter that a switch does not keep."""


def histogram(name: str, text: str, values: Histogram) -> HistogramMetricFamily:
    """A family of one histogram without labels."""
    family = HistogramMetricFamily(f"bellhop_{name}", text)
    family.add_metric([], buckets=values.buckets(), sum_value=values.total)
    return family


def openflow(face: Face) -> Iterator[Metric]:
    """Every figure of the OpenFlow sessions, computed when the page is read."""
    counted = face.listener.counters
    connected = GaugeMetricFamily("bellhop_openflow_connected_switches", "Switches that have a session now.")
    connected.add_metric([], face.listener.connected)
    yield connected
    for name, text, value in (
        ("sessions", "OpenFlow sessions that were given to a driver.", counted.sessions),
        (
            "refused",
            "OpenFlow sessions refused: unknown or taken datapath id, a wrong certificate for it, a newer master.",
            counted.refused,
        ),
        ("tls_refused", "Connections that ended before OpenFlow began: no certificate, or a wrong one.", counted.tls_refused),
        ("malformed", "OpenFlow sessions closed for a malformed message.", counted.malformed),
        ("undecodable", "OpenFlow messages of a known type that could not be decoded and were skipped.", counted.undecodable),
        ("stray_errors", "OpenFlow ERRORs that answered no open request.", counted.stray_errors),
        ("packet_ins", "PACKET_INs taken in.", counted.received[Type.PACKET_IN]),
        ("packet_ins_dropped", "PACKET_INs dropped because their switch was over its budget.", counted.packet_ins_dropped),
        ("packet_outs", "PACKET_OUTs sent.", counted.sent[Type.PACKET_OUT]),
        ("flow_mods", "FLOW_MODs sent.", counted.sent[Type.FLOW_MOD]),
        ("errors", "ERRORs that switches sent.", counted.received[Type.ERROR]),
    ):
        family = CounterMetricFamily(f"bellhop_openflow_{name}", text)
        family.add_metric([], value)
        yield family
    yield histogram("openflow_handshake_seconds", "From a connection to a session that is ready.", counted.handshake_s)
    yield histogram("openflow_echo_round_trip_seconds", "From an ECHO_REQUEST to its reply.", counted.echo_s)
    yield from _switches(face)


def _switches(face: Face) -> Iterator[Metric]:
    switches = [device for device in face.devices.values() if isinstance(device, OpenFlowSwitch)]
    for name, text in (
        ("sessions", "Sessions of the switch."),
        ("packet_ins", "PACKET_INs of the switch."),
        ("packet_outs", "Frames the controller sent out of a port of the switch."),
        ("packet_outs_dropped", "Frames left out because the switch had no session or did not keep up."),
    ):
        family = CounterMetricFamily(f"bellhop_switch_{name}", text, labels=["device"])
        for switch in switches:
            family.add_metric([switch.name], getattr(switch, name))
        yield family
    yield from _traffic(face, switches)
    yield from _ports(switches)


def _traffic(face: Face, switches: list[OpenFlowSwitch]) -> Iterator[Metric]:
    """By service what its rules met on each switch, when that was last read."""
    families = [
        CounterMetricFamily(f"bellhop_service_{unit}", f"{unit.capitalize()} that rules of the service met on the switch.", labels=LABELS)
        for unit in ("packets", "bytes")
    ]
    for switch in switches:
        traffic = switch.counters().traffic
        for service in sorted(face.desk.book.index.on.of(switch.name)) if traffic else ():
            for family, count in zip(families, traffic.get(cookie(service), ()), strict=False):
                family.add_metric([switch.name, service], count)
    yield from families


def _ports(switches: list[OpenFlowSwitch]) -> Iterator[Metric]:
    for name, text in (
        ("received_packets", "Packets received by a port of the switch."),
        ("sent_packets", "Packets sent by a port of the switch."),
        ("received_bytes", "Bytes received by a port of the switch."),
        ("sent_bytes", "Bytes sent by a port of the switch."),
        ("received_dropped", "Packets received by a port of the switch and dropped."),
        ("sent_dropped", "Packets for a port of the switch that were dropped."),
        ("received_errors", "Errors of a port of the switch in receiving."),
        ("sent_errors", "Errors of a port of the switch in sending."),
    ):
        family = CounterMetricFamily(f"bellhop_port_{name}", text, labels=["device", "port"])
        for switch in switches:
            for port in switch.counters().ports:
                if (count := getattr(port, name)) != NOT_KEPT:
                    family.add_metric([switch.name, str(port.port)], count)
        yield family
