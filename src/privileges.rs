//! The capabilities of this process and of others.
//!
//! The daemon needs CAP_NET_ADMIN. As root, or with ambient capabilities (systemd), it has them as soon as it starts, and so
//! have the iptables tools that it runs. In a container of another user it has them only from the file capabilities of its
//! binary, which are permitted and not yet effective, and which tools do not inherit.

use std::fs;

use rustix::io;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_ambient_set, configure_capability_in_ambient_set,
    set_capabilities,
};

/// The capabilities that the daemon and the iptables tools use: all of netfilter, links and routes; raw sockets, through
/// which the legacy tools access their tables, and both variants the ipsets that rules of IPVS mode match.
const USED: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];

/// Makes the permitted ones of the used capabilities effective and ambient, so that the tools have them too. Does nothing
/// for root. Must be called before other threads start, as capabilities belong to threads.
pub(crate) fn use_permitted_capabilities() {
    if is_root() {
        return;
    }
    if let Err(error) = raise() {
        tracing::warn!(
            %error,
            "cannot make the capabilities of this process ambient; the iptables tools run without them"
        );
    }
}

fn raise() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    for used in USED {
        // Ambient ones are effective, too. A seccomp filter may forbid the system call that changes them.
        if !sets.permitted.contains(used) || capability_is_in_ambient_set(used)? {
            continue;
        }
        sets.effective |= used;
        sets.inheritable |= used;
        set_capabilities(None, sets)?;
        configure_capability_in_ambient_set(used, true)?;
    }
    Ok(())
}

/// Returns true if this process runs as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns the effective user id of this process.
pub(crate) fn user() -> u32 {
    geteuid().as_raw()
}

/// Returns true if this process may change netfilter, links and routes.
pub(crate) fn has_net_admin() -> bool {
    has(CapabilitySet::NET_ADMIN)
}

/// Returns true if this process may open raw sockets.
pub(crate) fn has_net_raw() -> bool {
    has(CapabilitySet::NET_RAW)
}

fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Returns true if a process has CAP_NET_ADMIN; false also if that cannot be read.
pub(crate) fn process_has_net_admin(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/status"))
        .ok()
        .and_then(|status| effective(&status))
        .is_some_and(|effective| effective.contains(CapabilitySet::NET_ADMIN))
}

/// Returns the effective capabilities in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<CapabilitySet> {
    let hexadecimal = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim();
    u64::from_str_radix(hexadecimal, 16).ok().map(CapabilitySet::from_bits_retain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read_from_the_status_of_a_process() {
        let status = |line: &str| format!("Name:\tx\nCapPrm:\tffffffffffffffff\n{line}\nCapBnd:\t0\n");
        let rows = [
            ("CapEff:\t0000000000001000", Some(true)),
            ("CapEff:\t000001ffffffffff", Some(true)),
            ("CapEff:\t0000000000002000", Some(false)),
            ("CapEff:\t0000000000000000", Some(false)),
            ("CapEff:\tnonsense", None),
            ("CapInh:\t0000000000001000", None),
        ];
        for (line, expected) in rows {
            let has = effective(&status(line)).map(|set| set.contains(CapabilitySet::NET_ADMIN));
            assert_eq!(has, expected, "{line}");
        }
    }
}
