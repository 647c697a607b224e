//! Legacy iptables tables (`ip_tables`, `ip6_tables`): fingerprints, and policies of chains.

mod policies;

pub use policies::{DroppingChain, dropping_chains};

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::Family;
use crate::error::{Error, Result};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`, which are the same number at different levels.
const SO_GET_INFO: libc::c_int = 64;
/// `XT_TABLE_MAXNAMELEN` with the NUL.
const NAME_BYTES: usize = 32;
/// `NF_INET_NUMHOOKS`: prerouting, input, forward, output, postrouting.
const HOOKS: usize = 5;

/// Size and offsets of a legacy table (`struct ipt_getinfo`), which the kernel returns in constant time. Any insertion
/// or deletion changes `entries` and `size` or one of the offsets. A rule that is replaced by one of the same size is
/// not detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableInfo {
    /// Bit mask of the hooks with a built-in chain.
    pub valid_hooks: u32,
    /// Offset of each hook's chain, in bytes.
    pub hook_entry: [u32; HOOKS],
    /// Offset of each hook's policy, in bytes.
    pub underflow: [u32; HOOKS],
    /// The number of entries: rules, chain heads and chain ends.
    pub entries: u32,
    /// The size of all entries, in bytes.
    pub size: u32,
}

impl TableInfo {
    /// Returns true if the table has nothing but empty built-in chains: one entry for each policy, and one for the end
    /// of the table.
    pub fn is_bare(&self) -> bool {
        self.entries == self.valid_hooks.count_ones() + 1
    }
}

/// `struct ipt_getinfo` and `struct ip6t_getinfo`.
#[repr(C)]
struct GetInfo {
    name: [u8; NAME_BYTES],
    valid_hooks: u32,
    hook_entry: [u32; HOOKS],
    underflow: [u32; HOOKS],
    entries: u32,
    size: u32,
}

/// Reads the fingerprint of a legacy table in the calling thread's network namespace. `None` if the table does not
/// exist, as on a node with iptables-nft.
///
/// `getsockopt` alone would create the table: the kernel loads its module (`iptable_nat`, …) and registers its hooks,
/// and then every packet of the namespace passes an empty table. So this reads the short list of existing tables in
/// `/proc` first.
///
/// # Errors
/// [`Error::Io`]: `EPERM` without CAP_NET_ADMIN, `EACCES` without permission to read the list, which is root's.
/// [`Error::BadName`] for names outside 1 to 31 bytes.
pub fn table_info(family: Family, table: &str) -> Result<Option<TableInfo>> {
    const ACTION: &str = "read the state of a legacy iptables table";
    if table.is_empty() || table.len() >= NAME_BYTES || table.contains('\0') {
        return Err(Error::BadName { action: ACTION, name: table.to_owned(), most: NAME_BYTES - 1 });
    }
    let present = tables(family)?.iter().any(|name| name == table);
    if !present {
        return Ok(None);
    }
    match get_info(family, table) {
        Ok(info) => Ok(Some(info)),
        // The module was unloaded between the two calls.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(Error::Io { action: ACTION, source }),
    }
}

/// Returns the names of the legacy tables in the calling thread's network namespace, in the kernel's order. Empty on a
/// kernel without legacy iptables, or before its first use.
///
/// # Errors
/// [`Error::Io`], usually `EACCES`: only root may read the list.
pub fn tables(family: Family) -> Result<Vec<String>> {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Io { action: "list the legacy iptables tables", source }),
    }
}

fn level(family: Family) -> libc::c_int {
    match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    }
}

/// Opens a socket of a family. Any IP socket works, and a datagram one needs no privilege.
fn socket(family: Family) -> io::Result<OwnedFd> {
    let domain = libc::c_int::from(family.number());
    // SAFETY: no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn get_info(family: Family, table: &str) -> io::Result<TableInfo> {
    let fd = socket(family)?;
    // SAFETY: all zeros is a valid GetInfo.
    let mut info: GetInfo = unsafe { mem::zeroed() };
    info.name[..table.len()].copy_from_slice(table.as_bytes());
    let mut length = size_of::<GetInfo>() as libc::socklen_t;
    // SAFETY: the kernel reads the name from `info` and writes at most `length` bytes to it, which is its size; it
    // consists of plain numbers.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level(family), SO_GET_INFO, (&raw mut info).cast(), &mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TableInfo {
        valid_hooks: info.valid_hooks,
        hook_entry: info.hook_entry,
        underflow: info.underflow,
        entries: info.entries,
        size: info.size,
    })
}
