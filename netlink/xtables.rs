//! Legacy iptables (`ip_tables`, `ip6_tables`): a cheap fingerprint of a table.

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

/// What the kernel says of a legacy table (`struct ipt_getinfo`), in constant time. Any insertion or deletion
/// moves `entries` and `size` or one of the offsets, unless another of the very same size undoes it: a rule
/// replaced by one of equal length goes unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableInfo {
    /// A bit for each hook that the table has a built-in chain for.
    pub valid_hooks: u32,
    /// Where each hook's chain begins, in bytes.
    pub hook_entry: [u32; HOOKS],
    /// Where each hook's policy is, in bytes.
    pub underflow: [u32; HOOKS],
    /// Rules, chain heads and chain ends.
    pub entries: u32,
    /// All of them, in bytes.
    pub size: u32,
}

impl TableInfo {
    /// Whether there is nothing in it but built-in chains: each is its policy, and the table ends with an entry of
    /// its own.
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

/// Reads the fingerprint of a legacy table in the calling thread's network namespace. `None` if the table is
/// not there, as on a node whose iptables is of the nft flavour.
///
/// The bare question would create the table: the kernel loads its module (`iptable_nat`, …) and registers its
/// hooks, and every packet of the namespace then passes an empty table. So the list of existing tables in
/// `/proc` is read first (it has a handful of lines), and the question is asked only for a table in it.
///
/// # Errors
/// [`Error::Io`]: `EPERM` without CAP_NET_ADMIN, `EACCES` if `/proc` hides the list (it is root's alone).
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
        // Unloaded between the two questions.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(Error::Io { action: ACTION, source }),
    }
}

/// The legacy tables that exist in the calling thread's network namespace, in the kernel's order. None on a
/// kernel without legacy iptables, or before anyone has used it.
///
/// # Errors
/// [`Error::Io`], as a rule `EACCES`: the list is root's alone.
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

fn get_info(family: Family, table: &str) -> io::Result<TableInfo> {
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let domain = libc::c_int::from(family.number());
    // SAFETY: no pointers; the result is checked before use. Any IP socket will do, and a datagram one needs
    // no privilege of its own.
    let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid GetInfo.
    let mut info: GetInfo = unsafe { mem::zeroed() };
    info.name[..table.len()].copy_from_slice(table.as_bytes());
    let mut length = size_of::<GetInfo>() as libc::socklen_t;
    // SAFETY: the kernel reads the name from and writes at most `length` bytes to `info`, which is that long
    // and consists of plain numbers.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, SO_GET_INFO, (&raw mut info).cast(), &mut length) };
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
