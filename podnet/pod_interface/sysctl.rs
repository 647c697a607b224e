//! Settings of interfaces below `/proc/sys/net`, in the network namespace of the calling thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{Error, Result};

/// The settings of IPv6 on an interface: the folder below `/proc/sys/net/ipv6/conf`.
///
/// The kernel compares the name of the interface with those of all network namespaces, so it is looked up once and not for each setting.
#[derive(Debug)]
pub(super) struct Ipv6Settings {
    interface: String,
    folder: OwnedFd,
}

impl Ipv6Settings {
    /// Opens the settings of an interface in the network namespace of the calling thread; `None` if the kernel has no IPv6, or the
    /// interface does not exist.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(super) fn open(interface: &str) -> Result<Option<Self>> {
        let path = folder(interface);
        match rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => Ok(Some(Ipv6Settings { interface: interface.to_owned(), folder })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::ReadSysctl { path, source: error.into() }),
        }
    }

    /// Changes a setting. One that this kernel does not have stays as it is.
    ///
    /// # Errors
    /// The setting cannot be written.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<()> {
        // Without `O_CREAT`, which procfs rejects.
        let written = self.file(name, OFlags::WRONLY).and_then(|mut file| file.write_all(value.as_bytes()));
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(|source| Error::Sysctl {
                path: format!("{}/{name}", folder(&self.interface)),
                value: value.to_owned(),
                source,
            }),
        }
    }

    /// Enables IPv6 on the interface if it is disabled, as container runtimes and hardened hosts do by default.
    ///
    /// # Errors
    /// The setting cannot be written.
    pub(super) fn enable(&self) -> Result<()> {
        // Reading is cheaper than writing, which takes a lock of the kernel.
        let is_disabled = self.file("disable_ipv6", OFlags::RDONLY).and_then(|mut file| {
            let mut first = [0];
            let length = file.read(&mut first)?;
            Ok(first[..length] == *b"1")
        });
        if is_disabled.is_ok_and(|is_disabled| is_disabled) { self.set("disable_ipv6", "0") } else { Ok(()) }
    }

    fn file(&self, name: &str, access: OFlags) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.folder, name, access | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

fn folder(interface: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}")
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
