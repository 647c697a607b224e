//! What other processes may do to the pod network of a node.

/// One kind of damage.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    /// The modes that it concerns.
    pub(crate) modes: &'static [&'static str],
    /// The commands, executed on the node.
    pub(crate) commands: &'static [&'static str],
}

const ALL: &[&str] = &["vxlan", "host-gw"];
const VXLAN: &[&str] = &["vxlan"];
const HOST_GW: &[&str] = &["host-gw"];

pub(crate) const DAMAGE: &[Damage] = &[
    Damage { name: "routes are flushed", modes: ALL, commands: &["ip route flush proto 80"] },
    // systemd-networkd removes routes that it does not know with ManageForeignRoutes=yes.
    Damage { name: "IPv6 routes are flushed", modes: ALL, commands: &["ip -6 route flush proto 80"] },
    Damage {
        name: "a route is replaced",
        modes: ALL,
        commands: &["ip route replace 10.244.2.0/24 via 192.168.50.254"],
    },
    Damage { name: "the VTEP is deleted", modes: VXLAN, commands: &["ip link del pc-vxlan"] },
    Damage { name: "the VTEP is set down", modes: VXLAN, commands: &["ip link set pc-vxlan down"] },
    Damage {
        name: "the VTEP is renamed",
        modes: VXLAN,
        commands: &[
            "ip link set pc-vxlan down",
            "ip link set pc-vxlan name foreign0",
            "ip link set foreign0 up",
        ],
    },
    Damage {
        name: "udev assigns another MAC address",
        modes: VXLAN,
        commands: &["ip link set pc-vxlan address 02:00:00:00:00:01"],
    },
    Damage { name: "the MTU is changed", modes: VXLAN, commands: &["ip link set pc-vxlan mtu 1400"] },
    Damage { name: "the addresses are flushed", modes: VXLAN, commands: &["ip addr flush dev pc-vxlan"] },
    Damage {
        name: "the neighbours are deleted",
        modes: VXLAN,
        commands: &["ip neigh flush dev pc-vxlan nud permanent"],
    },
    Damage {
        name: "a neighbour is changed",
        modes: VXLAN,
        commands: &["ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev pc-vxlan nud permanent"],
    },
    Damage {
        name: "flooding is turned on",
        modes: VXLAN,
        commands: &["bridge fdb append 00:00:00:00:00:00 dev pc-vxlan dst 192.168.50.9"],
    },
    Damage {
        name: "the uplink is set down and up",
        modes: HOST_GW,
        commands: &[
            "ip link set eth0 down",
            "ip link set eth0 up",
            "ip addr replace fd00:50::1/64 dev eth0 nodad",
        ],
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
    },
];
