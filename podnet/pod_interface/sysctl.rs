//! Settings of interfaces below `/proc/sys/net`, in the network namespace of the calling thread.

use std::fs::{self, File};
use std::io::{self, Read};

use super::error::{Error, Result};

/// A setting of IPv6 on an interface.
fn ipv6_path(interface: &str, name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/{name}")
}

/// Changes a setting of IPv6 on an interface. Returns false if the kernel has no IPv6.
pub(super) fn set_ipv6(interface: &str, name: &str, value: &str) -> Result<bool> {
    let path = ipv6_path(interface, name);
    // Without `O_CREAT`, which procfs rejects.
    match fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Sysctl { path, value: value.to_owned(), source }),
    }
}

/// Returns true if a setting is 1.
fn is_on(path: &str) -> io::Result<bool> {
    let mut first = [0];
    let length = File::open(path)?.read(&mut first)?;
    Ok(first[..length] == *b"1")
}

/// Compares a setting of an interface; `family` is `ipv4` or `ipv6`. Returns the damage if it has another value. A setting that does not
/// exist, as without IPv6 in the kernel, is none.
///
/// # Errors
/// The setting cannot be read.
pub(super) fn difference(family: &str, interface: &str, name: &str, value: &str) -> Result<Option<String>> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{name}");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == value => Ok(None),
        Ok(found) => Ok(Some(format!(
            "the kernel setting net.{family}.conf.{interface}.{name} on the node is {}; expected {value}",
            found.trim()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::ReadSysctl { path, source }),
    }
}

/// Enables IPv6 on interfaces on which it is disabled, as container runtimes and hardened hosts do by default.
pub(super) fn enable_ipv6(interfaces: &[&str]) -> Result<()> {
    for interface in interfaces {
        let path = ipv6_path(interface, "disable_ipv6");
        // Reading is cheaper than writing, which takes a lock of the kernel.
        if is_on(&path).is_ok_and(|is_disabled| is_disabled) {
            set_ipv6(interface, "disable_ipv6", "0")?;
        }
    }
    Ok(())
}

/// Passes packets that a bridge forwards through the rules of IPv4 and IPv6.
///
/// # Errors
/// The kernel module br_netfilter is not loaded.
pub(super) fn filter_bridged_packets() -> Result<()> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{name}");
        match is_on(&path) {
            Ok(true) => {}
            Ok(false) => fs::write(&path, "1").map_err(|source| Error::Sysctl {
                path,
                value: "1".to_owned(),
                source,
            })?,
            Err(source) => return Err(Error::NoBridgeFilter { path, source }),
        }
    }
    Ok(())
}
