"""Topologies in Python, as for `mn --custom`, with quantum nodes and links beside Mininet's hosts, switches and links.

    class Pair(HybridTopo):
        def build(self):
            self.addEndNode("alice")
            self.addEndNode("bob")
            self.addFibre("alice", "bob", length_km=20)
            self.addQuantumLink("alice", "bob", protocol="bb84-decoy", over=["fibre:alice--bob"])

    topos = {"pair": Pair}

`bellhop up FILE.py` brings up all of it. What the methods take are the fields of the network document, which is what a topology becomes, with
the same checks. `mn --custom FILE.py --topo pair` runs the classical part: to `mn`, quantum nodes are hosts without an address, which
`pingall` counts as lost and whose names its command line cannot put an address for. `mn` knows neither light nor keys nor pairs: no QKD
link makes key there and no optical switch listens. The switches speak OpenFlow 1.3 with any controller.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from controller.network import document
from controller.network.cross_checks import Key
from controller.network.faults import Fault, WrongDocument, did_you_mean, text_of
from controller.network.model import LINK_NAMES, NODE_NAMES, given, node_of
from controller.network.topology import Topology

try:
    from mininet.topo import Topo
except ImportError as error:
    raise ImportError(
        f"topologies in Python need the Python package mininet ({error}): pip install 'bellhop-sdn[mininet]' "
        "(in a clone: .venv/bin/pip install -e '.[mininet]')"
    ) from error

_DELAY = re.compile(r"([0-9.]+)(us|ms|s)?")
_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, None: 1e-3}
"""Milliseconds per unit of a delay; what `tc` takes without a unit is microseconds."""


class HybridTopo(Topo):  # type: ignore[misc]
    """A Mininet topology that has quantum nodes and links, too. Override `build`, as for a Topo.

    Ends of quantum links and fibres are written as in a document: `node`, `node:port` or `node/module`.
    """

    description = ""

    def __init__(self, *args: Any, **params: Any) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._links: list[dict[str, Any]] = []
        self._places: dict[Key, tuple[str, int]] = {}
        super().__init__(*args, **params)

    # Mininet's own calls. What is a field of the document goes there, all else to Mininet.

    def addHost(self, name: str, **opts: Any) -> str:  # noqa: N802 - Mininet's name
        """A classical host. Unless told otherwise the first has 10.0.0.1 and 02:00:00:00:00:01, the second 10.0.0.2 and so on."""
        number = 1 + sum(entry["kind"] == "host" for entry in self._nodes.values())
        opts.setdefault("ip", ".".join(map(str, (10, *number.to_bytes(3, "big")))))
        opts.setdefault("mac", ":".join(f"{byte:02x}" for byte in (2, *number.to_bytes(5, "big"))))
        fields = {field: opts[field] for field in NODE_NAMES & opts.keys() if opts[field] is not None}
        if "ip" in fields:
            fields["ip"] = fields["ip"].partition("/")[0]
        self._note("host", name, fields)
        return str(super().addHost(name, **opts))

    def addSwitch(self, name: str, **opts: Any) -> str:  # noqa: N802 - Mininet's name
        """An OpenFlow switch; without `dpid`, a number in its name is its datapath id, as in Mininet."""
        digits = re.search(r"\d+", name)
        if opts.get("dpid") or digits:
            dpid = opts.get("dpid") or f"{int(digits[0]) if digits else 0:x}"
            opts["dpid"] = dpid.replace(":", "").lower().rjust(16, "0")
        opts.setdefault("protocols", "OpenFlow13")
        self._note("openflow-switch", name, {field: opts[field] for field in NODE_NAMES & opts.keys()})
        return str(super().addSwitch(name, **opts))

    def addLink(  # noqa: N802 - Mininet's name
        self, node1: str, node2: str, port1: int | None = None, port2: int | None = None, key: Any = None, **opts: Any
    ) -> Any:
        """A cable. `bw` in Mbit/s and `delay` ("2ms") as in Mininet, or the document's `capacity_mbps` and `latency_ms`."""
        if unknown := {node1, node2} - self._nodes.keys():
            raise ValueError(f"there is no node '{min(unknown)}': add it before its links")
        fields = {field: opts.pop(field) for field in LINK_NAMES & opts.keys()}
        if "delay" in opts:
            fields.setdefault("latency_ms", _milliseconds(opts["delay"]))
        if "bw" in opts:
            fields.setdefault("capacity_mbps", opts["bw"])
        opts |= {"delay": f"{fields['latency_ms']}ms"} if "latency_ms" in fields else {}
        opts |= {"bw": fields["capacity_mbps"]} if "capacity_mbps" in fields else {}
        key = super().addLink(node1, node2, port1, port2, key, **opts)
        info = self.linkInfo(node1, node2, key)
        ends = []
        for which, name, port in (("port1", node1, port1), ("port2", node2, port2)):
            ends.append(f"{name}:{info[which]}" if port is not None or self.isSwitch(name) else name)
        parallel = sum(entry["kind"] == "ethernet" and set(map(node_of, entry["ends"])) == {node1, node2} for entry in self._links)
        if parallel:
            fields.setdefault("id", f"ethernet:{node1}--{node2}-{parallel + 1}")
        self._join("ethernet", ends[0], ends[1], fields)
        return key

    # Quantum nodes, which are hosts to Mininet, with the fields of the document.

    def addEndNode(self, name: str, **fields: Any) -> str:  # noqa: N802 - beside Mininet's names
        """An end node: a quantum processor or a user of keys."""
        return self._quantum("end-node", name, fields)

    def addTrustedNode(self, name: str, **fields: Any) -> str:  # noqa: N802
        return self._quantum("trusted-node", name, fields)

    def addRepeater(self, name: str, **fields: Any) -> str:  # noqa: N802
        return self._quantum("repeater", name, fields)

    def addSource(self, name: str, **fields: Any) -> str:  # noqa: N802
        """A source of entangled pairs."""
        return self._quantum("source", name, fields)

    def addBellStation(self, name: str, **fields: Any) -> str:  # noqa: N802
        return self._quantum("bell-station", name, fields)

    def addOpticalSwitch(self, name: str, **fields: Any) -> str:  # noqa: N802
        return self._quantum("optical-switch", name, fields)

    def addPassive(self, name: str, **fields: Any) -> str:  # noqa: N802
        """A multiplexer, splitter or filter."""
        return self._quantum("passive", name, fields)

    def addFibre(self, end1: str, end2: str, **fields: Any) -> None:  # noqa: N802
        self._join("fibre", end1, end2, fields)

    def addFreeSpace(self, end1: str, end2: str, **fields: Any) -> None:  # noqa: N802
        self._join("free-space", end1, end2, fields)

    def addQuantumLink(self, end1: str, end2: str, kind: Literal["qkd", "entanglement"] = "qkd", **fields: Any) -> None:  # noqa: N802
        """A link that makes keys, or entangled pairs, between two nodes."""
        self._join(kind, end1, end2, fields)

    # To the document and back.

    def network(self, name: str, file: str = "topology") -> Topology:
        """The network that the topology is. WrongDocument says everything that is wrong, with the lines of `file` it was said on."""
        lines = {key: line for key, (where, line) in self._places.items() if where == file}
        return document.assemble(name, self._nodes, self._links, self.description, file=file, lines=lines)

    @classmethod
    def of(cls, network: Topology) -> Self:
        """The topology of a network; `network` of it is the same network again."""
        made = cls()
        made.description = network.description
        for name, node in network.nodes():
            fields = given(node)
            kind = fields.pop("kind")
            if kind == "host":
                made.addHost(name, **{"ip": None, "mac": None, **fields})
            elif kind == "openflow-switch":
                made.addSwitch(name, **fields)
            else:
                made._quantum(kind, name, fields)
        for link in network.links():
            fields = given(link)
            kind, ends = fields.pop("kind"), fields.pop("ends")
            if kind == "ethernet":
                ports = [int(end.port) if made.isSwitch(end.node) and end.port else None for end in (link.a, link.b)]
                made.addLink(link.a.node, link.b.node, *ports, **fields)
                made._links[-1]["ends"] = ends  # the ports at hosts, too, as they were written
            else:
                made._join(kind, ends[0], ends[1], fields)
        return made

    @classmethod
    def adopting(cls, topo: Topo) -> Self:
        """A plain Mininet topology as one of these."""
        made = cls()
        for name in topo.nodes():
            info = {option: value for option, value in topo.nodeInfo(name).items() if option in ("ip", "mac", "dpid")}
            (made.addSwitch if topo.isSwitch(name) else made.addHost)(name, **info)
        for node1, node2, info in topo.iterLinks(withInfo=True):
            figures = {option: info[option] for option in ("bw", "delay") if option in info}
            made.addLink(node1, node2, info["port1"], info["port2"], **figures)
        return made

    def _quantum(self, kind: str, name: str, fields: dict[str, Any]) -> str:
        self._note(kind, name, fields)
        return str(super().addHost(name, ip=None))

    def _note(self, kind: str, name: str, fields: dict[str, Any]) -> None:
        if name in self._nodes:
            raise ValueError(f"there is a node '{name}' already")
        self._nodes[name] = {"kind": kind, **fields}
        self._places["nodes", name] = _caller()

    def _join(self, kind: str, end1: str, end2: str, fields: dict[str, Any]) -> None:
        self._places["links", len(self._links)] = _caller()
        self._links.append({"kind": kind, "ends": [end1, end2], **fields})


def read(file: Path, name: str | None = None) -> Topology:
    """The network of a Python file that ends with `topos = {NAME: class}`; `name` says which, where there are several.

    The file is run. WrongDocument, with file and line, for what it raises and for what is wrong with its topology; OSError when it cannot
    be read.
    """
    text = text_of(file)
    namespace: dict[str, Any] = {"__name__": file.stem, "__file__": str(file)}

    def execute() -> None:
        exec(compile(text, str(file), "exec"), namespace)  # noqa: S102 - it is a program, as it is for `mn --custom`

    _told(file, file.name, execute)
    source = text.decode(errors="replace").splitlines()
    line = next((number for number, each in enumerate(source, 1) if re.match(r"topos\b", each)), max(1, len(source)))

    def refuse(what: str, remedy: str) -> WrongDocument:
        return WrongDocument(str(file), [Fault(line, "topos", what, remedy)])

    topos = namespace.get("topos")
    if not isinstance(topos, dict) or not topos:
        raise refuse("the file names no topology", 'end it with topos = {"name": MyTopo}')
    if name is None and len(topos) > 1:
        raise refuse(f"the file has several topologies: {', '.join(topos)}", f"say which, as in {file}:{next(iter(topos))}")
    name = name or str(next(iter(topos)))
    if name not in topos:
        raise refuse(f"the file has no topology '{name}'", did_you_mean(name, topos, remove=False) + f"there are {', '.join(topos)}")
    if not callable(topos[name]):
        raise refuse(f"'{name}' is {topos[name]!r}", "give a class, or a function that returns a topology")
    topo = _told(file, f"topos[{name}]", topos[name])
    if not isinstance(topo, Topo):
        raise refuse(f"'{name}' makes {topo!r}", "make a HybridTopo or a mininet.topo.Topo")
    if not isinstance(topo, HybridTopo):
        topo = HybridTopo.adopting(topo)
    return topo.network(name, str(file))


def _told(file: Path, path: str, work: Callable[[], Any]) -> Any:
    """What `work` makes; what it raises as a fault of the file, at the last of its lines that had a part in it."""
    try:
        return work()
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines.append(error.lineno)
        told = list(traceback.TracebackException.from_exception(error).format_exception_only())[-1].strip()
        raise WrongDocument(str(file), [Fault((lines[-1] if lines else None) or 1, path, told, "correct it")]) from error


def _caller() -> tuple[str, int]:
    """File and line of the call that came from outside this module."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _milliseconds(delay: object) -> float:
    """A delay as `tc` takes it: "10ms", "0.5s", "200us", or a number of microseconds."""
    match = _DELAY.fullmatch(str(delay).strip())
    if match is None:
        raise ValueError(f"the delay {delay!r} is not of the form 2ms, 0.5s or 200us")
    return float(match[1]) * _MS[match[2]]
