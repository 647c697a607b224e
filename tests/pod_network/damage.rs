//! What other processes may do to the pod network of a node.

/// One kind of damage.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    /// The modes that it concerns.
    pub(crate) modes: &'static [&'static str],
    /// The commands, executed on the node.
    pub(crate) commands: &'static [&'static str],
    /// Lines of `portcullis diff`; empty if a repair is not ours, or there is no difference.
    pub(crate) differences: &'static [&'static str],
}

const ALL: &[&str] = &["vxlan", "host-gw"];
const VXLAN: &[&str] = &["vxlan"];
const HOST_GW: &[&str] = &["host-gw"];

pub(crate) const DAMAGE: &[Damage] = &[
    Damage {
        name: "routes are flushed",
        modes: ALL,
        commands: &["ip route flush proto 80"],
        differences: &["@@ -0,0 +1 @@ routes"],
    },
    // systemd-networkd removes routes that it does not know with ManageForeignRoutes=yes.
    Damage {
        name: "IPv6 routes are flushed",
        modes: ALL,
        commands: &["ip -6 route flush proto 80"],
        differences: &["+unreachable fd00:244:1::/64 metric 4096"],
    },
    Damage {
        name: "a route is replaced",
        modes: ALL,
        commands: &["ip route replace 10.244.2.0/24 via 192.168.50.254"],
        differences: &[
            "-10.244.2.0/24 via 192.168.50.254 dev eth0 proto 3",
            "+++ wanted/pod network/node node-2",
        ],
    },
    Damage {
        name: "the VTEP is deleted",
        modes: VXLAN,
        commands: &["ip link del pc-vxlan"],
        differences: &["link pc-vxlan (is missing)", "+vxlan id 4097 dstport 4789 local 192.168.50.1"],
    },
    Damage {
        name: "the VTEP is set down",
        modes: VXLAN,
        commands: &["ip link set pc-vxlan down"],
        differences: &["-state down", "+state up"],
    },
    Damage {
        name: "the VTEP is renamed",
        modes: VXLAN,
        commands: &[
            "ip link set pc-vxlan down",
            "ip link set pc-vxlan name foreign0",
            "ip link set foreign0 up",
        ],
        differences: &["-name foreign0", "+name pc-vxlan"],
    },
    Damage {
        name: "udev assigns another MAC address",
        modes: VXLAN,
        commands: &["ip link set pc-vxlan address 02:00:00:00:00:01"],
        differences: &["-mac 02:00:00:00:00:01"],
    },
    Damage {
        name: "the MTU is changed",
        modes: VXLAN,
        commands: &["ip link set pc-vxlan mtu 1400"],
        differences: &["-mtu 1400", "+mtu 1450"],
    },
    Damage {
        name: "the addresses are flushed",
        modes: VXLAN,
        commands: &["ip addr flush dev pc-vxlan"],
        differences: &["+address 10.244.1.0/32"],
    },
    Damage {
        name: "the neighbours are deleted",
        modes: VXLAN,
        commands: &["ip neigh flush dev pc-vxlan nud permanent"],
        differences: &["@@ -0,0 +1,2 @@ neighbours"],
    },
    Damage {
        name: "a neighbour is changed",
        modes: VXLAN,
        commands: &["ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev pc-vxlan nud permanent"],
        differences: &["-10.244.2.0 lladdr 02:00:00:00:00:01 dev pc-vxlan"],
    },
    Damage {
        name: "flooding is turned on",
        modes: VXLAN,
        commands: &["bridge fdb append 00:00:00:00:00:00 dev pc-vxlan dst 192.168.50.9"],
        differences: &[
            "+++ wanted/pod network/objects of no node",
            "-00:00:00:00:00:00 dst 192.168.50.9 dev pc-vxlan",
        ],
    },
    Damage {
        name: "the uplink is set down and up",
        modes: HOST_GW,
        commands: &[
            "ip link set eth0 down",
            "ip link set eth0 up",
            "ip addr replace fd00:50::1/64 dev eth0 nodad",
        ],
        differences: &[],
    },
    Damage {
        name: "the uplink is renamed",
        modes: HOST_GW,
        commands: &[
            "ip link set eth0 down",
            "ip link set eth0 name uplink0",
            "ip link set uplink0 up",
            "ip addr replace fd00:50::1/64 dev uplink0 nodad",
        ],
        differences: &[],
    },
];
