"""What a large network costs: reading its document, compiling its arrays, and the memory of both; and what windows add.

Each size is measured in a process of its own, in seconds of the processor. Times are printed, never asserted; memory is held to its bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEASURE = """
import json, sys, time
from pathlib import Path
from controller.network import document
from controller.routing.compiled import compiled

def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}

def took(run):
    begun = time.process_time()
    result = run()
    return result, time.process_time() - begun

def arrays(topology):
    found = compiled(topology)
    for name in ("rate_hz", "fidelity"):
        found.figure(topology, "entanglement", name)
    return found

told = {"before": memory()["VmRSS"]}
topology, told["load"] = took(lambda: document.load(Path(sys.argv[1])))
told["model"] = memory()["VmRSS"]
_, told["compile"] = took(lambda: arrays(topology))
view, told["first view"] = took(lambda: topology.at(1.0))
_, told["view's arrays"] = took(lambda: arrays(view))
_, told["view again"] = took(lambda: arrays(topology.at(2.0)))
told["in all"], told["peak"] = memory().values()
print(json.dumps(told))
"""
GIB = 1024.0


def write(file: Path, nodes: int, links: int) -> None:
    """Random links between near nodes, each with figures of its own; one in a hundred has a window."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, nodes, links)
    b = (a + rng.integers(1, 50, links)) % nodes
    rate, fidelity = rng.random(links) * 1e4, 0.9 + 0.09 * rng.random(links)
    window = ", windows: [{start: 2026-03-01T12:00:00Z, end: 2026-03-01T12:07:00Z}]"
    with file.open("w") as out:
        out.write("name: large\nnodes:\n")
        for node in range(nodes):
            out.write(f"  n{node}: {{kind: repeater, memories: 32, t2_s: 1.0, swap: {{success: 0.9, fidelity: 0.99}}}}\n")
        out.write("links:\n")
        for number, (one, other) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            out.write(
                f"  - {{kind: entanglement, id: e{number}, ends: [n{one}, n{other}], rate_hz: {rate[number]:.3f},"
                f" fidelity: {fidelity[number]:.4f}{'' if number % 100 else window}}}\n"
            )


@pytest.mark.parametrize(("nodes", "links"), [(10_000, 40_000), (100_000, 400_000)])
@pytest.mark.timeout(600)
def test_a_large_network(tmp_path: Path, nodes: int, links: int) -> None:
    file = tmp_path / "large.yaml"
    write(file, nodes, links)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    print(f"\n{nodes} nodes, {links} entanglement links, {file.stat().st_size / 1e6:.0f} MB of YAML")
    for name in ("load", "compile", "first view", "view's arrays", "view again"):
        print(f"  {name:<16}{told[name]:10.3f} s")
    print(f"  memory: {told['before']:.0f} MiB before, {told['model']:.0f} with the model, {told['in all']:.0f} with arrays of two moments")
    print(f"  at the peak {told['peak']:.0f} MiB")
    assert told["peak"] < 1.5 * GIB
