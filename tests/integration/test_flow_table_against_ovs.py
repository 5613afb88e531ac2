"""The emulated switch's pipeline against Open vSwitch: the same requests and frames to both, in bytes.

Open vSwitch runs its user-space datapath on ports that are files and a socket (`netdev-dummy`), so that what comes out is seen to the
last checksum. Where the two disagree, `ofproto/trace` says what Open vSwitch thought.

They are known to differ, each within the standard, and the requests below keep clear of it:
- Open vSwitch takes outputs to ports it does not have, and drops there; here they are refused (BAD_OUT_PORT).
- Open vSwitch lets groups lead to groups that are not there, and in circles, and stops at a depth; here they are refused.
- Open vSwitch takes what is 20 bytes into a later fragment for a TCP checksum, and corrects it when an address is set.
- Open vSwitch takes masks on transport ports, MPLS, and fields set in SCTP headers; here they are refused, as OpenFlow 1.3 allows.
- A VLAN tag that is pushed on a tagged frame begins as 0 in Open vSwitch; here, as the standard says, as a copy of the outer tag.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from drawn_requests import PORTS, Requests
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.pipeline import PROTOCOL, Passage, Pipeline, to_bytes

TOOLS = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "unshare")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch (openvswitch-switch) and util-linux: no {', '.join(MISSING)}"),
]

MARKER = 9
"""A port whose frames come out everywhere: when they do, all that went in before has come out."""
Seen = Counter[tuple[int, bytes]]


class OpenVSwitch:
    """A private Open vSwitch with one bridge of the user-space datapath and ports in memory."""

    def __init__(self, run: Path, stack: ExitStack) -> None:
        self.run = run
        environment = {**os.environ, "OVS_RUNDIR": str(run), "OVS_DBDIR": str(run), "OVS_LOGDIR": str(run)}
        database, server, self._control = run / "conf.db", run / "db.sock", run / "control"
        subprocess.run(["ovsdb-tool", "create", str(database), SCHEMA], env=environment, check=True)
        for command in (
            ["ovsdb-server", str(database), f"--remote=punix:{server}"],
            ["unshare", "-n", "ovs-vswitchd", f"unix:{server}", "--disable-system", "--enable-dummy", f"--unixctl={self._control}"],
        ):
            with (run / "daemons.log").open("ab") as log:
                daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(daemon.wait, 10)
            stack.callback(daemon.send_signal, signal.SIGTERM)
            if daemon.args[0] == "ovsdb-server":  # type: ignore[index]
                until(server.exists)
        ports = [
            word
            for number in (*PORTS, MARKER)
            for word in (
                *("--", "add-port", "br0", f"p{number}", "--", "set", "interface", f"p{number}", "type=dummy"),
                *(f"ofport_request={number}", f"options:tx_pcap={run / f'p{number}.pcap'}"),
            )
        ]
        bridge = ("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "protocols=OpenFlow13", "fail_mode=secure")
        limit = ("--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=0")
        subprocess.run(
            ["ovs-vsctl", f"--db=unix:{server}", "--retry", "--timeout=20", *bridge, *ports, *limit], env=environment, check=True, timeout=30
        )
        self._connection = socket.socket(socket.AF_UNIX)
        stack.callback(self._connection.close)
        self._connection.settimeout(10)
        self._connection.connect(str(run / "br0.mgmt"))
        self._replies = self._connection.makefile("rb")
        stack.callback(self._replies.close)
        everything = struct.pack("!6I", 7, 7, 7, 7, 15, 15)
        for kind, body in ((ofp.OFPT_HELLO, b""), (ofp.OFPT_SET_CONFIG, struct.pack("!HH", 0, 0xFFFF)), (ofp.OFPT_SET_ASYNC, everything)):
            self.request(header(kind, body))
        self._read = dict.fromkeys((*PORTS, MARKER), 24)
        self._markers = 0

    def ask(self, method: str, *parameters: str) -> str:
        """What `ovs-appctl` does."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self._control))
            control.sendall(json.dumps({"method": method, "params": parameters, "id": 0}).encode())
            answer = b""
            while True:
                answer += control.recv(65536)
                try:
                    told = json.loads(answer)
                except ValueError:
                    continue
                assert told["error"] is None, told["error"]
                return str(told["result"])

    def request(self, data: bytes) -> tuple[int, int] | None:
        """Send a message, and give the type and code of the error that it earns."""
        error: tuple[int, int] | None = None
        self._connection.sendall(data + header(ofp.OFPT_BARRIER_REQUEST, b""))
        for kind, body in self._messages(until_kind=ofp.OFPT_BARRIER_REPLY):
            if kind == ofp.OFPT_ERROR:
                error = struct.unpack_from("!HH", body)
        return error

    def set_port(self, port: int, up: bool) -> None:
        self.ask("netdev-dummy/set-admin-state", f"p{port}", "up" if up else "down")
        for _ in self._messages(until_kind=ofp.OFPT_PORT_STATUS):
            pass

    def _messages(self, until_kind: int) -> Iterator[tuple[int, bytes]]:
        while True:
            _, kind, length, _ = struct.unpack("!BBHI", self._replies.read(8))
            body = self._replies.read(length - 8)
            yield kind, body
            if kind == until_kind:
                return

    def forward(self, frames: list[tuple[bytes, int]]) -> list[tuple[Seen, list[Any]]]:
        """What comes out, by port, and what PACKET_INs, for each frame. The frames' last four bytes are their numbers."""
        self.ask("revalidator/purge")
        for frame, in_port in frames:
            self.ask("netdev-dummy/receive", f"p{in_port}", frame.hex())
        self._markers += 1
        end = struct.pack("!I", 1 << 31 | self._markers)
        self.ask("netdev-dummy/receive", f"p{MARKER}", (bytes(12) + b"\x12\x34" + bytes(42) + end).hex())
        seen: list[tuple[Seen, list[Any]]] = [(Counter(), []) for _ in frames]
        while True:
            _, _, length, _ = head = struct.unpack("!BBHI", self._replies.read(8))
            data = struct.pack("!BBHI", *head) + self._replies.read(length - 8)
            if head[1] != ofp.OFPT_PACKET_IN:
                continue
            told = parser.OFPPacketIn.parser(PROTOCOL, *head[:2], length, 0, data)
            if told.data[-4:] == end:
                break
            seen[number(told.data)][1].append((told.data, told.match["in_port"], told.reason, told.table_id, told.cookie))
        for port in self._read:
            for frame in self._captured(port, end):
                seen[number(frame)][0][port, frame] += 1
        return seen

    def _captured(self, port: int, end: bytes) -> Iterator[bytes]:
        """The frames that a port has sent since the last time, up to the marker."""
        path = self.run / f"p{port}.pcap"
        until(lambda: end in path.read_bytes()[self._read[port] :])
        data, at = path.read_bytes(), self._read[port]
        while True:
            (length,) = struct.unpack_from("=I", data, at + 8)
            frame = data[at + 16 : at + 16 + length]
            at += 16 + length
            if frame[-4:] == end:
                self._read[port] = at
                return
            yield frame


def header(kind: int, body: bytes) -> bytes:
    return struct.pack("!BBHI", ofp.OFP_VERSION, kind, 8 + len(body), 1) + body


def number(frame: bytes) -> int:
    return int.from_bytes(frame[-4:])


def until(condition: Any) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "Open vSwitch does not answer"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVSwitch]:
    with ExitStack() as stack:
        yield OpenVSwitch(tmp_path_factory.mktemp("ovs"), stack)


MARKER_RULE = parser.OFPFlowMod(
    PROTOCOL,
    priority=0xFFFF,
    cookie=1 << 63,
    match=parser.OFPMatch(in_port=MARKER),
    instructions=[
        parser.OFPInstructionActions(
            ofp.OFPIT_APPLY_ACTIONS,
            [parser.OFPActionOutput(port) for port in (*PORTS, ofp.OFPP_IN_PORT)]
            + [parser.OFPActionOutput(ofp.OFPP_CONTROLLER, ofp.OFPCML_NO_BUFFER)],
        )
    ],
)
CLEARING = [
    parser.OFPFlowMod(PROTOCOL, table_id=ofp.OFPTT_ALL, command=ofp.OFPFC_DELETE, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY),
    parser.OFPGroupMod(PROTOCOL, ofp.OFPGC_DELETE, ofp.OFPGT_ALL, ofp.OFPG_ALL, []),
    parser.OFPMeterMod(PROTOCOL, ofp.OFPMC_DELETE, ofp.OFPMF_KBPS, ofp.OFPM_ALL, []),
]


class Choices:
    """Every way in which select groups could pick, one after the other."""

    def __init__(self) -> None:
        self.picks: list[int] = []
        self._met = 0
        self._limits: list[int] = []

    def __call__(self, frame: bytes, weights: list[int]) -> int:
        self._met += 1
        if self._met > len(self.picks):
            self.picks.append(0)
            self._limits.append(0)
        self._limits[self._met - 1] = len(weights)
        return self.picks[self._met - 1]

    def restart(self) -> None:
        self.picks, self._limits, self._met = [], [], 0

    def another(self) -> bool:
        self._met = 0
        while self.picks:
            self.picks[-1] += 1
            if self.picks[-1] < self._limits[-1]:
                return True
            self.picks.pop()
            self._limits.pop()
        return False


def passages(pipeline: Pipeline, choices: Choices, frame: bytes, in_port: int) -> Iterator[Passage]:
    """The ways a frame may take through our switch."""
    choices.restart()
    while True:
        yield pipeline.process(frame, in_port)
        if not choices.another():
            return


def agrees(passage: Passage, outputs: Seen, packet_ins: list[Any]) -> bool:
    """Whether Open vSwitch saw the same come out."""
    told = sorted(packet_ins)
    for each in sorted(passage.packet_ins, key=lambda each: (each.frame, each.reason, each.table, each.cookie)):
        # What the action set sends has, in Open vSwitch, the table and cookie of the first entry or of one with a group, not of the last.
        places = [(each.table, each.cookie), *((entry.table, entry.cookie) for entry in passage.entries)]
        options = [(each.frame, each.in_port, each.reason, *place) for place in places]
        match = next((option for option in options if option in told), None)
        if match is None:
            return False
        told.remove(match)
    return not told and Counter(passage.outputs) == outputs


def campaign(ovs: OpenVSwitch, seed: int, changes: int, frames: int) -> tuple[int, Counter[str]]:
    """One random configuration: how many frames came out somewhere, and which errors were met."""
    requests, choices = Requests(seed), Choices()
    pipeline = Pipeline((*PORTS, MARKER), choose=choices)
    refused: Counter[str] = Counter()
    for message in [*CLEARING, MARKER_RULE]:
        assert ovs.request(to_bytes(message)) is None
    pipeline.apply(MARKER_RULE)
    for _ in range(changes):
        groups, meters = [group.number for group in pipeline.groups], sorted(pipeline.meters)
        taken = [entry.priority for entry in pipeline.tables if entry.priority != MARKER_RULE.priority]
        kind = requests.rng.choice(["flow"] * 10 + ["group"] * 3 + ["meter"])
        if kind == "flow":
            message = requests.flow_mod(groups, meters, taken)
        else:
            message = requests.group_mod(groups) if kind == "group" else requests.meter_mod()
        data, error = to_bytes(message), None
        try:
            pipeline.apply(data)
        except OpenFlowError as refusal:
            error = refusal.kind, refusal.code
            refused[str(refusal)] += 1
        answer = ovs.request(data)
        assert answer == error, f"seed {seed}: Open vSwitch answers {answer}, ours {error} to {message}"
    assert ovs.request(to_bytes(MARKER_RULE)) is None
    pipeline.apply(MARKER_RULE)
    down = requests.rng.choice([*PORTS, None, None])
    if down:
        ovs.set_port(down, False)
        pipeline.set_port(down, False)
    sent = [(requests.frame(index), requests.rng.choice([port for port in PORTS if port != down])) for index in range(frames)]
    received = ovs.forward(sent)
    if down:
        ovs.set_port(down, True)
    came_out = 0
    for (frame, in_port), (outputs, packet_ins) in zip(sent, received, strict=True):
        possible = list(passages(pipeline, choices, frame, in_port))
        outputs = Counter(
            {out: times for out, times in outputs.items() if out[0] != down}
        )  # a device of memory sends without a signal, too
        came_out += bool(outputs or packet_ins)
        if not any(agrees(passage, outputs, packet_ins) for passage in possible):
            trace = ovs.ask("ofproto/trace", "br0", f"in_port={in_port}", frame.hex())
            pytest.fail(
                f"seed {seed}, {frame.hex()} into {in_port}:\nOpen vSwitch {outputs} {packet_ins}\nours {[(Counter(each.outputs), each.packet_ins) for each in possible]}\n{trace}"
            )
    return came_out, refused


def campaigns(ovs: OpenVSwitch, seeds: range) -> None:
    came_out, refused = 0, Counter[str]()
    for seed in seeds:
        out, errors = campaign(ovs, seed, changes=25, frames=20)
        came_out += out
        refused += errors
    assert came_out > 5 * len(seeds), "hardly any frame comes out, so that little is compared"
    assert len(refused) > 8, refused


def test_requests_and_frames(ovs: OpenVSwitch) -> None:
    campaigns(ovs, range(200))


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 6000, 100))
def test_many_requests_and_frames(tmp_path: Path, first: int) -> None:
    with ExitStack() as stack:
        try:
            campaigns(OpenVSwitch(tmp_path, stack), range(first, first + 100))
        except ConnectionError:
            assert "assertion state->action_set_len <= state->ofpacts_len failed" in (tmp_path / "daemons.log").read_text()
            pytest.skip("Open vSwitch 3.1 aborts at a frame that meets a select group with an action set about it")
