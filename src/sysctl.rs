//! Kernel settings that Services need.

use std::path::Path;
use std::{fmt, fs, io};

/// Sets `route_localnet`, which node ports on 127.0.0.1 need, as kube-proxy does. Packets to loopback addresses from other
/// hosts must be dropped by a rule from then on.
pub fn allow_localhost_node_ports() {
    ensure("net/ipv4/conf/all/route_localnet", "1");
}

/// The first kernel on which a port that is used again soon may stay with a real server that is still there without
/// harm (commit d752c3645717).
const REUSES_PORTS_WELL: (u32, u32) = (5, 9);

/// The first kernel that has `conn_reuse_mode`.
const HAS_REUSE_MODE: (u32, u32) = (4, 1);

/// Sets what IPVS mode needs, as kube-proxy does. `strict_arp`: answer ARP only for addresses of the asked
/// interface, so that not every node claims the load balancers' addresses.
pub fn for_ipvs(strict_arp: bool) {
    // Connections of IPVS are tracked, so that rules can replace their source addresses.
    ensure("net/ipv4/vs/conntrack", "1");
    match kernel_version() {
        Some(version) if version < HAS_REUSE_MODE => tracing::warn!(
            "this kernel is older than 4.1: connections from ports that are used again soon may be refused"
        ),
        // From there on the kernel's own setting is right.
        Some(version) if version < REUSES_PORTS_WELL => ensure("net/ipv4/vs/conn_reuse_mode", "0"),
        _ => {}
    }
    // Connections to what is gone end, and clients that would stay with it are led elsewhere.
    ensure("net/ipv4/vs/expire_nodest_conn", "1");
    ensure("net/ipv4/vs/expire_quiescent_template", "1");
    ensure("net/ipv4/ip_forward", "1");
    if strict_arp {
        ensure("net/ipv4/conf/all/arp_ignore", "1");
        ensure("net/ipv4/conf/all/arp_announce", "2");
    }
}

/// Has packets between two pods of one bridge pass through netfilter, where policies judge them. Without br_netfilter
/// there is nothing to set: if pods are joined by a bridge, policies between those of one node are then void.
pub fn filter_bridged_packets() {
    let settings = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
    let there = || settings.iter().all(|setting| Path::new("/proc/sys").join(setting).exists());
    if !there() {
        load_module("br_netfilter");
    }
    if !there() {
        tracing::warn!(
            "this kernel has no br_netfilter: if pods are joined by a bridge, NetworkPolicies do not hold between \
             pods of this node; load it with modprobe br_netfilter"
        );
        return;
    }
    settings.iter().for_each(|setting| ensure(setting, "1"));
}

/// The kernel's version, as far as it counts here.
fn kernel_version() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Sets a setting if it has another value. Failing is logged: the setting may be right though it is read-only.
fn ensure(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    if let Err(error) = change(&path, |now| Ok((now != value).then_some(value))) {
        tracing::warn!(setting = %name.replace('/', "."), value, %error, "kernel setting cannot be changed");
    }
}

/// Writes what a setting is to be, given what it is now; nothing where it may stay.
///
/// # Errors
/// There is no such setting, or it is read-only; or the one of `to_write`.
pub(crate) fn change<V: fmt::Display>(
    path: &Path,
    to_write: impl FnOnce(&str) -> io::Result<Option<V>>,
) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let now = text.trim();
    if let Some(value) = to_write(now)? {
        fs::write(path, value.to_string())?;
        let setting = path
            .strip_prefix("/proc/sys")
            .map_or_else(|_| path.display().to_string(), |name| name.display().to_string().replace('/', "."));
        tracing::info!(setting, was = now, %value, "kernel setting changed");
    }
    Ok(())
}

/// Has a module loaded where that can be done. Whether it was shows by what it brings.
pub(crate) fn load_module(module: &str) {
    let loaded = std::process::Command::new("modprobe").arg(module).output();
    tracing::debug!(?loaded, "asked for {module}");
}
