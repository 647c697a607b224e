//! Kernel settings (sysctl) that Services and policies need.

use std::path::Path;
use std::{fmt, fs, io};

use portcullis_modes::external_program::modprobe;

/// The first kernel on which `conn_reuse_mode` need not be changed (commit d752c3645717).
const CONN_REUSE_MODE_FIXED: (u32, u32) = (5, 9);

/// The first kernel that has `conn_reuse_mode`.
const HAS_CONN_REUSE_MODE: (u32, u32) = (4, 1);

/// Sets what IPVS mode needs, as kube-proxy does. `strict_arp`: reply to ARP requests only for addresses of the incoming
/// interface, so that not every node claims the load balancers' addresses.
pub fn for_ipvs(strict_arp: bool) {
    // Connection tracking of IPVS connections, so that rules can masquerade them.
    ensure("net/ipv4/vs/conntrack", "1");
    match kernel_version() {
        Some(version) if version < HAS_CONN_REUSE_MODE => tracing::warn!(
            "this kernel is older than 4.1 (no conn_reuse_mode): connections that reuse a client port may be refused"
        ),
        // On later kernels the default is right.
        Some(version) if version < CONN_REUSE_MODE_FIXED => ensure("net/ipv4/vs/conn_reuse_mode", "0"),
        _ => {}
    }
    // Connections to removed real servers end, and session affinity to them is dropped.
    ensure("net/ipv4/vs/expire_nodest_conn", "1");
    ensure("net/ipv4/vs/expire_quiescent_template", "1");
    ensure("net/ipv4/ip_forward", "1");
    if strict_arp {
        ensure("net/ipv4/conf/all/arp_ignore", "1");
        ensure("net/ipv4/conf/all/arp_announce", "2");
    }
}

/// Makes packets between two pods of one bridge pass through netfilter, where policies are enforced. Without br_netfilter
/// there is no such setting: policies between pods on the same bridge are then not enforced.
pub fn filter_bridged_packets() {
    let settings = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
    let exists = || settings.iter().all(|setting| Path::new("/proc/sys").join(setting).exists());
    if !exists() {
        load_module("br_netfilter");
    }
    if !exists() {
        tracing::warn!(
            "this kernel has no br_netfilter: if pods are connected by a bridge, NetworkPolicies are not enforced between \
             pods of this node; load it with modprobe br_netfilter"
        );
        return;
    }
    settings.iter().for_each(|setting| ensure(setting, "1"));
}

/// Returns the kernel's major and minor version.
fn kernel_version() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Sets a setting if it has another value. Errors are only logged.
fn ensure(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    if let Err(error) = change(&path, |current| Ok((current != value).then_some(value))) {
        tracing::warn!(
            setting = %name.replace('/', "."), value, %error,
            "cannot change kernel setting; set it on the node, or run `portcullis --init-only` as root beforehand"
        );
    }
}

/// Writes the value that `to_write` returns for the current one; `None` keeps it.
///
/// # Errors
/// There is no such setting, or it is read-only; or the error of `to_write`.
pub(crate) fn change<V: fmt::Display>(
    path: &Path,
    to_write: impl FnOnce(&str) -> io::Result<Option<V>>,
) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let current = text.trim();
    if let Some(value) = to_write(current)? {
        fs::write(path, value.to_string())?;
        let setting = path
            .strip_prefix("/proc/sys")
            .map_or_else(|_| path.display().to_string(), |name| name.display().to_string().replace('/', "."));
        tracing::info!(setting, was = current, %value, "kernel setting changed");
    }
    Ok(())
}

/// Tries to load a kernel module. The caller checks for its features.
pub(crate) fn load_module(module: &str) {
    if let Err(reason) = modprobe([module]) {
        tracing::info!(module, %reason, "cannot load kernel module");
    }
}
