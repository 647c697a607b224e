//! The sysctl `route_localnet`: while it is set, the kernel accepts packets to 127.0.0.0/8 from other hosts
//! (CVE-2020-8558).
//!
//! kube-proxy's iptables mode and ours set it for node ports on 127.0.0.1, and other software sets it for single
//! interfaces, as the CNI plugin portmap does. It outlives the process that set it, so the rule that drops such packets
//! depends on the sysctl and not on the configuration.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// One directory an interface, and `all` and `default`.
const DIRECTORY: &str = "/proc/sys/net/ipv4/conf";

/// The directory that counts for all interfaces.
const ALL: &str = "all";

/// The interfaces, `all` and `default` among them, on which `route_localnet` is set, sorted. `lo` does not count: no other
/// host sends by it. Empty where the kernel has no such sysctl.
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

/// Whether the kernel accepts packets to loopback addresses from other hosts, by any interface.
pub fn is_set() -> bool {
    is_set_on(ALL) || set_on().next().is_some()
}

/// Whether `route_localnet` is set for all interfaces.
pub(crate) fn is_set_for_all() -> bool {
    is_set_on(ALL)
}

/// Sets `route_localnet` for all interfaces to 0, the kernel's default.
///
/// # Errors
/// The sysctl is read-only, as it is in a container without privileges.
pub(crate) fn reset_for_all() -> io::Result<()> {
    fs::write(path(ALL), "0")
}

/// The sysctl's name on an interface.
pub(crate) fn name(interface: &str) -> String {
    format!("net.ipv4.conf.{interface}.route_localnet")
}

fn is_set_on(interface: &str) -> bool {
    fs::read_to_string(path(interface)).is_ok_and(|value| value.trim() != "0")
}

fn path(interface: &str) -> PathBuf {
    Path::new(DIRECTORY).join(interface).join("route_localnet")
}
