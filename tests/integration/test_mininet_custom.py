"""The example topology under plain `mn --custom`: its classical part runs, and quantum nodes are hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
METRO = TREE / "topologies" / "metro.py"
MN = Path(sys.executable).with_name("mn")

SCRIPT = r"""
set -e
mount -t tmpfs none /mnt && mkdir /mnt/tree && mount --bind "$TREE" /mnt/tree
mount -t tmpfs none /tmp  # when Mininet fails, it removes files there by pattern
mkdir -p "$TREE" && mount --bind /mnt/tree "$TREE"  # the tree may be below /tmp
ip link set lo up
export HOME=/tmp OVS_RUNDIR=/tmp OVS_DBDIR=/tmp OVS_LOGDIR=/tmp
ovsdb-tool create /tmp/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /tmp/conf.db --remote=punix:/tmp/db.sock --pidfile --detach 2> /dev/null
ovs-vswitchd unix:/tmp/db.sock --disable-system --pidfile --detach 2> /dev/null
for switch in s1 s2; do
  echo "sh ovs-ofctl -O OpenFlow13 add-flow $switch in_port=1,actions=output:2"
  echo "sh ovs-ofctl -O OpenFlow13 add-flow $switch in_port=2,actions=output:1"
done > /tmp/commands
echo "relay echo hello from there" >> /tmp/commands
echo "h1 ping -c 2 h2" >> /tmp/commands
"$@" --switch ovs,datapath=user --controller none --post /tmp/commands --test none
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")
@pytest.mark.skipif(
    not MN.exists() or not all(map(shutil.which, ("ovs-vswitchd", "mnexec"))), reason="needs mininet and openvswitch-switch"
)
def test_mn_runs_the_classical_part() -> None:
    namespaces = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    mn = (str(MN), "--custom", str(METRO), "--topo", "metro")
    done = subprocess.run(
        [*namespaces, "bash", "-c", SCRIPT, "bash", *mn],
        env={**os.environ, "TREE": str(TREE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "2 packets transmitted, 2 received" in said, said
    assert re.search(r"alice bob h1 h2 ocs1 pairs relay rep", said), said
    assert "hello from there" in said and "Caught exception" not in said
