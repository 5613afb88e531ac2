"""A small metropolitan network in Python, as for Mininet; every figure is assumed.

bellhop up topologies/metro.py
sudo .venv/bin/mn --custom topologies/metro.py --topo metro --switch ovs,datapath=user --controller remote
"""

from topologies.emulation.hybrid_topo import HybridTopo


class Metro(HybridTopo):
    """Two users of keys with a trusted node between them, a switched QKD link, a repeater, and two hosts at two switches."""

    description = "A metropolitan network written in Python; every figure is assumed."

    def build(self, spare_fibres: int = 1) -> None:
        self.addEndNode("alice", modules={"q1": {"role": "tx", "max_loss_db": 14, "port": "ocs1:1"}})
        self.addEndNode("bob", modules={"q1": {"role": "rx", "max_loss_db": 14, "port": "ocs1:9"}})
        self.addTrustedNode("relay", operator="metro")
        self.addRepeater("rep", memories=8, t2_s=1.0, swap={"success": 0.9})
        self.addSource("pairs")
        self.addOpticalSwitch("ocs1", ports=16, insertion_loss_db=0.8, driver="netconf")
        for user in ("alice", "bob"):
            self.addFibre(user, "relay", length_km=8)
            self.addQuantumLink(user, "relay", protocol="bb84-decoy", over=[f"fibre:{user}--relay"])
            self.addQuantumLink(user, "rep", kind="entanglement", via="pairs", rate_hz=100, fidelity=0.97)
        self.addQuantumLink("alice/q1", "bob/q1", protocol="bb84-decoy", over="switched")

        h1, h2, s1, s2 = self.addHost("h1"), self.addHost("h2"), self.addSwitch("s1"), self.addSwitch("s2")
        self.addLink(h1, s1)
        self.addLink(h2, s2)
        for _ in range(1 + spare_fibres):
            self.addLink(s1, s2, bw=1000, delay="0.1ms")


topos = {"metro": Metro}
