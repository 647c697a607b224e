//! The sysctl `route_localnet`: while it is set, the kernel accepts packets to 127.0.0.0/8 from other hosts
//! (CVE-2020-8558).
//!
//! kube-proxy's iptables mode and ours set it for node ports on 127.0.0.1, and other software sets it for single
//! interfaces, for example the CNI plugin portmap. The value outlives the process that set it, so the rule that drops
//! such packets depends on the sysctl and not on the configuration.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::options::Options;

/// One directory per interface, and `all` and `default`.
const DIRECTORY: &str = "/proc/sys/net/ipv4/conf";

/// The directory that applies to all interfaces.
pub(crate) const ALL: &str = "all";

/// Returns the interfaces with `route_localnet` set, including `all` and `default`, sorted. `lo` is left out: no other
/// host sends through it. Empty if the kernel has no such sysctl.
pub fn interfaces() -> Vec<String> {
    let mut set: Vec<String> = set_on().collect();
    set.sort_unstable();
    set
}

fn set_on() -> impl Iterator<Item = String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name != "lo" && is_set_on(name))
}

/// Returns true if the kernel accepts packets to loopback addresses from other hosts, on any interface.
pub fn is_set() -> bool {
    is_set_on(ALL) || set_on().next().is_some()
}

/// Returns true if `route_localnet` is set for all interfaces.
pub(crate) fn is_set_for_all() -> bool {
    is_set_on(ALL)
}

/// Returns true if the kernel accepts packets to loopback addresses from other hosts and the rules depend on it: with node
/// ports on localhost they always drop such packets.
pub fn needs_guard(options: &Options) -> bool {
    !options.serves_localhost_node_ports() && is_set()
}

/// Sets `route_localnet` for all interfaces, which node ports on 127.0.0.1 need, as kube-proxy does. From then on, a rule
/// must drop packets to loopback addresses from other hosts. An error is only logged.
pub fn enable() {
    let current = value(ALL).unwrap_or_default();
    let (setting, current) = (name(ALL), current.trim());
    if current == "1" {
        return;
    }
    match fs::write(path(ALL), "1") {
        Ok(()) => tracing::info!(setting, was = current, value = "1", "kernel setting changed"),
        Err(error) => tracing::warn!(setting, value = "1", %error, "cannot change kernel setting"),
    }
}

/// Resets `route_localnet` of all interfaces to 0, the kernel's default.
///
/// # Errors
/// The sysctl is read-only, as it is in a container without privileges.
pub(crate) fn reset_for_all() -> io::Result<()> {
    fs::write(path(ALL), "0")
}

/// Returns the sysctl's name for an interface.
pub(crate) fn name(interface: &str) -> String {
    format!("net.ipv4.conf.{interface}.route_localnet")
}

fn is_set_on(interface: &str) -> bool {
    value(interface).is_ok_and(|value| value.trim() != "0")
}

fn value(interface: &str) -> io::Result<String> {
    fs::read_to_string(path(interface))
}

fn path(interface: &str) -> PathBuf {
    Path::new(DIRECTORY).join(interface).join("route_localnet")
}
