//! Settings of the proxy modes and of connection tracking.

use crate::config::field_ref::FieldRef;
use crate::config::setting::Setting;

pub(super) const IPTABLES: &[Setting] = &[
    Setting::new(|s| FieldRef::Bool(&mut s.iptables.masquerade_all))
        .yaml("iptables.masqueradeAll")
        .toml("iptables.masquerade-all")
        .flag("masquerade-all", "Masquerade all traffic to cluster IPs (needed by some CNI plugins)"),
    Setting::new(|s| FieldRef::Integer(&mut s.iptables.masquerade_bit))
        .yaml("iptables.masqueradeBit")
        .toml("iptables.masquerade-bit")
        .flag(
            "iptables-masquerade-bit",
            "iptables and ipvs mode: bit of the packet mark that requests masquerading, 0 to 31",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.iptables.localhost_node_ports))
        .yaml("iptables.localhostNodePorts")
        .toml("iptables.localhost-nodeports")
        .flag("iptables-localhost-nodeports", "iptables mode: also serve NodePorts on 127.0.0.1 (IPv4 only)"),
    Setting::new(|s| FieldRef::Duration(&mut s.iptables.sync_period))
        .yaml("iptables.syncPeriod")
        .toml("iptables.sync-period")
        .zero_is_default()
        .flag(
            "iptables-sync-period",
            "iptables and nftables mode: interval of the periodic sync, even if nothing changed; must be \
             greater than 0",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.iptables.min_sync_period))
        .yaml("iptables.minSyncPeriod")
        .toml("iptables.min-sync-period")
        .zero_is_default()
        .flag(
            "iptables-min-sync-period",
            "iptables and nftables mode: minimum interval between two syncs; 0 syncs on every change",
        ),
];

pub(super) const IPVS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.ipvs.scheduler))
        .yaml("ipvs.scheduler")
        .toml("ipvs.scheduler")
        .flag("ipvs-scheduler", "ipvs mode: name of the IPVS scheduler; defaults to rr"),
    Setting::new(|s| FieldRef::List(&mut s.ipvs.exclude_cidrs))
        .yaml("ipvs.excludeCIDRs")
        .toml("ipvs.exclude-cidrs")
        .flag(
            "ipvs-exclude-cidrs",
            "ipvs mode: virtual servers with addresses in these CIDRs are not managed by the proxy",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.ipvs.strict_arp)).yaml("ipvs.strictARP").toml("ipvs.strict-arp").flag(
        "ipvs-strict-arp",
        "ipvs mode: answer ARP requests only on the interface that has the address (arp_ignore=1, arp_announce=2)",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.tcp_timeout))
        .yaml("ipvs.tcpTimeout")
        .toml("ipvs.tcp-timeout")
        .flag(
            "ipvs-tcp-timeout",
            "ipvs mode: timeout of idle TCP connections; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.tcp_fin_timeout))
        .yaml("ipvs.tcpFinTimeout")
        .toml("ipvs.tcp-fin-timeout")
        .flag(
            "ipvs-tcpfin-timeout",
            "ipvs mode: timeout of TCP connections after a FIN; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.udp_timeout))
        .yaml("ipvs.udpTimeout")
        .toml("ipvs.udp-timeout")
        .flag(
            "ipvs-udp-timeout",
            "ipvs mode: timeout of idle UDP flows; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.sync_period))
        .yaml("ipvs.syncPeriod")
        .toml("ipvs.sync-period")
        .zero_is_default()
        .flag(
            "ipvs-sync-period",
            "ipvs mode: interval of the periodic sync, even if nothing changed; must be greater than 0",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.ipvs.min_sync_period))
        .yaml("ipvs.minSyncPeriod")
        .toml("ipvs.min-sync-period")
        .flag(
            "ipvs-min-sync-period",
            "ipvs mode: minimum interval between two syncs; 0 syncs on every change",
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
    Setting::new(|s| FieldRef::Bool(&mut s.nftables.service_counters))
        .toml("nftables.service-counters")
        .override_flag(
            "nftables-service-counters",
            "nftables mode: count connections, packets and bytes of each Service, for /metrics/services; adds two lookups to each \
             packet",
        ),
];

pub(super) const CONNTRACK: &[Setting] = &[
    Setting::new(|s| FieldRef::Integer(&mut s.conntrack.max_per_core))
        .yaml("conntrack.maxPerCore")
        .toml("conntrack.max-per-core")
        .flag(
            "conntrack-max-per-core",
            "Maximum number of tracked connections per CPU core; 0 keeps the kernel's limit",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.conntrack.min))
        .yaml("conntrack.min")
        .toml("conntrack.min")
        .flag(
            "conntrack-min",
            "Lower bound of the limit on tracked connections, regardless of the number of CPU cores",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.tcp_established_timeout))
        .yaml("conntrack.tcpEstablishedTimeout")
        .toml("conntrack.tcp-established-timeout")
        .flag(
            "conntrack-tcp-timeout-established",
            "conntrack timeout of idle established TCP connections; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.tcp_close_wait_timeout))
        .yaml("conntrack.tcpCloseWaitTimeout")
        .toml("conntrack.tcp-close-wait-timeout")
        .flag(
            "conntrack-tcp-timeout-close-wait",
            "conntrack timeout of TCP connections in CLOSE_WAIT; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.conntrack.tcp_be_liberal))
        .yaml("conntrack.tcpBeLiberal")
        .toml("conntrack.tcp-be-liberal")
        .flag(
            "conntrack-tcp-be-liberal",
            "Do not mark out-of-window TCP packets as invalid (nf_conntrack_tcp_be_liberal)",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.udp_timeout))
        .yaml("conntrack.udpTimeout")
        .toml("conntrack.udp-timeout")
        .flag(
            "conntrack-udp-timeout",
            "conntrack timeout of unreplied UDP flows; 0 keeps the kernel's value",
        ),
    Setting::new(|s| FieldRef::Duration(&mut s.conntrack.udp_stream_timeout))
        .yaml("conntrack.udpStreamTimeout")
        .toml("conntrack.udp-stream-timeout")
        .flag(
            "conntrack-udp-timeout-stream",
            "conntrack timeout of replied UDP flows; 0 keeps the kernel's value",
        ),
];
