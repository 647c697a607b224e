//! What is set in the kernel: the modes, and connection tracking.

use crate::config::field_ref::FieldRef;
use crate::config::setting::Setting;

pub(super) const IPTABLES: &[Setting] = &[
    Setting::new(|s| FieldRef::Bool(&mut s.iptables.masquerade_all))
        .yaml("iptables.masqueradeAll")
        .toml("iptables.masquerade-all")
        .flag(
            "masquerade-all",
            "Give all traffic to cluster IPs the node's source address (some CNI plugins need it)",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.iptables.masquerade_bit))
        .yaml("iptables.masqueradeBit")
        .toml("iptables.masquerade-bit")
        .flag(
            "iptables-masquerade-bit",
            "In iptables and ipvs mode: the bit of the packet mark that asks for masquerading, 0 to 31",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.iptables.localhost_node_ports))
        .yaml("iptables.localhostNodePorts")
        .toml("iptables.localhost-nodeports")
        .flag(
            "iptables-localhost-nodeports",
            "In iptables mode: serve NodePorts on 127.0.0.1, too (IPv4 only)",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.iptables.sync_period))
        .yaml("iptables.syncPeriod")
        .toml("iptables.sync-period")
        .zero_is_default()
        .flag(
            "iptables-sync-period",
            "In iptables and nftables mode: how often the rules are looked after though nothing changed; \
             more than 0",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.iptables.min_sync_period))
        .yaml("iptables.minSyncPeriod")
        .toml("iptables.min-sync-period")
        .zero_is_default()
        .flag(
            "iptables-min-sync-period",
            "In iptables and nftables mode: the least time between two syncs; 0 for one at every change",
        ),
];

pub(super) const IPVS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.ipvs.scheduler))
        .yaml("ipvs.scheduler")
        .toml("ipvs.scheduler")
        .flag("ipvs-scheduler", "In ipvs mode: the scheduler, by the kernel's name for it; rr without it"),
    Setting::new(|s| FieldRef::List(&mut s.ipvs.exclude_cidrs))
        .yaml("ipvs.excludeCIDRs")
        .toml("ipvs.exclude-cidrs")
        .flag(
            "ipvs-exclude-cidrs",
            "In ipvs mode: virtual servers with addresses in these CIDRs belong to others and stay",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.ipvs.strict_arp)).yaml("ipvs.strictARP").toml("ipvs.strict-arp").flag(
        "ipvs-strict-arp",
        "In ipvs mode: answer ARP only for addresses of the asked interface (arp_ignore 1, arp_announce 2)",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.tcp_timeout))
        .yaml("ipvs.tcpTimeout")
        .toml("ipvs.tcp-timeout")
        .flag(
            "ipvs-tcp-timeout",
            "In ipvs mode: how long an idle TCP connection is kept; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.tcp_fin_timeout))
        .yaml("ipvs.tcpFinTimeout")
        .toml("ipvs.tcp-fin-timeout")
        .flag(
            "ipvs-tcpfin-timeout",
            "In ipvs mode: how long a TCP connection is kept after a FIN; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.udp_timeout))
        .yaml("ipvs.udpTimeout")
        .toml("ipvs.udp-timeout")
        .flag(
            "ipvs-udp-timeout",
            "In ipvs mode: how long an idle UDP flow is kept; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.sync_period))
        .yaml("ipvs.syncPeriod")
        .toml("ipvs.sync-period")
        .zero_is_default()
        .flag(
            "ipvs-sync-period",
            "In ipvs mode: how often the rules are looked after though nothing changed; more than 0",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.min_sync_period))
        .yaml("ipvs.minSyncPeriod")
        .toml("ipvs.min-sync-period")
        .flag(
            "ipvs-min-sync-period",
            "In ipvs mode: the least time between two syncs; 0 for one at every change",
        ),
];

pub(super) const NFTABLES: &[Setting] = &[
    Setting::new(|s| FieldRef::Bool(&mut s.nftables.masquerade_all))
        .yaml("nftables.masqueradeAll")
        .toml("nftables.masquerade-all")
        .flag("masquerade-all", ""),
    Setting::new(|s| FieldRef::Integer(&mut s.nftables.masquerade_bit))
        .yaml("nftables.masqueradeBit")
        .toml("nftables.masquerade-bit"),
    Setting::new(|s| FieldRef::Duration(&mut s.nftables.sync_period))
        .yaml("nftables.syncPeriod")
        .toml("nftables.sync-period")
        .zero_is_default()
        .flag("iptables-sync-period", ""),
    Setting::new(|s| FieldRef::Duration(&mut s.nftables.min_sync_period))
        .yaml("nftables.minSyncPeriod")
        .toml("nftables.min-sync-period")
        .zero_is_default()
        .flag("iptables-min-sync-period", ""),
];

pub(super) const CONNTRACK: &[Setting] = &[
    Setting::new(|s| FieldRef::Integer(&mut s.conntrack.max_per_core))
        .yaml("conntrack.maxPerCore")
        .toml("conntrack.max-per-core")
        .flag(
            "conntrack-max-per-core",
            "Connections that the kernel may track, for each core; 0 leaves the kernel's limit",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.conntrack.min))
        .yaml("conntrack.min")
        .toml("conntrack.min")
        .flag("conntrack-min", "Connections that the kernel may track at least, however few cores there are"),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.tcp_established_timeout))
        .yaml("conntrack.tcpEstablishedTimeout")
        .toml("conntrack.tcp-established-timeout")
        .flag(
            "conntrack-tcp-timeout-established",
            "How long an idle established TCP connection is tracked; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.tcp_close_wait_timeout))
        .yaml("conntrack.tcpCloseWaitTimeout")
        .toml("conntrack.tcp-close-wait-timeout")
        .flag(
            "conntrack-tcp-timeout-close-wait",
            "How long a TCP connection in CLOSE_WAIT is tracked; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.conntrack.tcp_be_liberal))
        .yaml("conntrack.tcpBeLiberal")
        .toml("conntrack.tcp-be-liberal")
        .flag(
            "conntrack-tcp-be-liberal",
            "Do not call TCP packets outside of the window invalid (nf_conntrack_tcp_be_liberal)",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.udp_timeout))
        .yaml("conntrack.udpTimeout")
        .toml("conntrack.udp-timeout")
        .flag(
            "conntrack-udp-timeout",
            "How long an unanswered UDP flow is tracked; 0 leaves the kernel's setting",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.udp_stream_timeout))
        .yaml("conntrack.udpStreamTimeout")
        .toml("conntrack.udp-stream-timeout")
        .flag(
            "conntrack-udp-timeout-stream",
            "How long an answered UDP flow is tracked; 0 leaves the kernel's setting",
        ),
];
