//! Kernel settings that Services need.

use std::path::Path;
use std::{fs, io};

/// Lets packets to loopback addresses be routed, which node ports on 127.0.0.1 need. kube-proxy sets the same;
/// the rules of `KUBE-FIREWALL` keep strangers out.
pub fn allow_localhost_node_ports() {
    ensure("net/ipv4/conf/all/route_localnet", "1");
}

/// Sets a setting if it has another value. Failing is logged: the setting may be right though it is read-only.
fn ensure(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    let set = || -> io::Result<()> {
        if fs::read_to_string(&path)?.trim() == value {
            return Ok(());
        }
        fs::write(&path, value)?;
        tracing::info!(setting = %name.replace('/', "."), value, "kernel setting changed");
        Ok(())
    };
    if let Err(error) = set() {
        tracing::warn!(setting = %name.replace('/', "."), value, %error, "kernel setting cannot be changed");
    }
}
