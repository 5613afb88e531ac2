"""The peer of the OpenFlow benchmark: a learning switch as a user of os-ken writes one. `python osken_learning_switch.py PORT`.

os-ken has two hubs, `OSKEN_HUB_TYPE=native` (threads, its default) and `eventlet`. Every packet to a known host is answered by one FLOW_MOD
that matches port, source and destination, as the example app of Bellhop does; nothing is logged per packet.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from os_ken.lib import hub

hub.patch(thread=False)

from os_ken import cfg  # noqa: E402
from os_ken.base.app_manager import AppManager, OSKenApp  # noqa: E402
from os_ken.controller import ofp_event  # noqa: E402
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from os_ken.lib.packet import ethernet, packet  # noqa: E402
from os_ken.ofproto import ofproto_v1_3 as ofp  # noqa: E402
from os_ken.ofproto import ofproto_v1_3_parser as osken  # noqa: E402


class LearningSwitch(OSKenApp):
    OFP_VERSIONS = [ofp.OFP_VERSION]  # noqa: RUF012 - os-ken's form

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.hosts: dict[int, dict[str, int]] = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_features(self, event: Any) -> None:
        self.hosts[event.msg.datapath.id] = {}
        install(event.msg.datapath, 0, osken.OFPMatch(), ofp.OFPP_CONTROLLER, ofp.OFP_NO_BUFFER)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet_in(self, event: Any) -> None:
        message = event.msg
        in_port = message.match["in_port"]
        frame = packet.Packet(message.data).get_protocol(ethernet.ethernet)
        hosts = self.hosts[message.datapath.id]
        hosts[frame.src] = in_port
        out = hosts.get(frame.dst, ofp.OFPP_FLOOD)
        if out != ofp.OFPP_FLOOD:
            match = osken.OFPMatch(in_port=in_port, eth_src=frame.src, eth_dst=frame.dst)
            install(message.datapath, 1, match, out, message.buffer_id)
            if message.buffer_id != ofp.OFP_NO_BUFFER:
                return
        data = message.data if message.buffer_id == ofp.OFP_NO_BUFFER else None
        sending = [osken.OFPActionOutput(out)]
        message.datapath.send_msg(osken.OFPPacketOut(message.datapath, message.buffer_id, in_port, sending, data))


def install(datapath: Any, priority: int, match: Any, port: int, buffer_id: int) -> None:
    apply = [osken.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [osken.OFPActionOutput(port, ofp.OFPCML_NO_BUFFER)])]
    idle_s = 60 if priority else 0
    datapath.send_msg(
        osken.OFPFlowMod(datapath, priority=priority, match=match, instructions=apply, buffer_id=buffer_id, idle_timeout=idle_s)
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    arguments = ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1]]
    cfg.CONF(args=arguments, project="os_ken", version="peer", default_config_files=[])
    manager = AppManager.get_instance()
    manager.load_apps([Path(__file__).stem])
    hub.joinall(manager.instantiate_apps(**manager.create_contexts()))
