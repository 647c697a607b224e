//! Policies of the built-in chains of legacy iptables tables.

use std::io;
use std::os::fd::AsRawFd;

use super::{HOOKS, NAME_BYTES, TableInfo, level, socket, table_info, tables};
use crate::Family;
use crate::error::{Error, Result};

/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`, which are the same number at different levels.
const SO_GET_ENTRIES: libc::c_int = 65;

/// The bytes before the entries in `struct ipt_get_entries`: the name, the size, and the padding for 64-bit counters.
const HEAD_BYTES: usize = NAME_BYTES + 8;

/// The bytes of `struct xt_entry_target` before the verdict of a standard target.
const TARGET_BYTES: usize = 32;

/// The verdict of a chain with the policy `DROP`: `-NF_DROP - 1`.
const DROP: i32 = -1;

/// The largest table that is read. The kernel only returns all rules of a table.
const MAX_BYTES: u32 = 64 << 20;

/// The names of the hooks' built-in chains.
const CHAINS: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A built-in chain of a legacy table with the policy `DROP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// The IP family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain, such as `FORWARD`.
    pub chain: &'static str,
}

/// Returns the built-in chains with the policy `DROP` in the calling thread's network namespace. No table is created for it.
/// The table `nat` is not read: the tools reject this policy there, and it is large on a node with many Services.
///
/// # Errors
/// As [`table_info`]; a table is larger than 64 MiB or malformed, or another process changed it several times meanwhile.
pub fn dropping_chains(family: Family) -> Result<Vec<DroppingChain>> {
    let mut found = Vec::new();
    for table in tables(family)?.into_iter().filter(|table| table != "nat") {
        // Another process may change the table between the two calls.
        let mut attempts = (0..5).map(|_| read_policies(family, &table));
        let again = |read: &Result<_>| matches!(read, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EAGAIN));
        let read =
            attempts.by_ref().find(|read| !again(read)).unwrap_or_else(|| read_policies(family, &table));
        let chains = read?.into_iter().map(|chain| DroppingChain { family, table: table.clone(), chain });
        found.extend(chains);
    }
    Ok(found)
}

/// Returns the chains of a table with the policy `DROP`. None if the table no longer exists.
fn read_policies(family: Family, table: &str) -> Result<Vec<&'static str>> {
    const ACTION: &str = "read the policies of a legacy iptables table";
    let Some(info) = table_info(family, table)? else { return Ok(Vec::new()) };
    let failed = |source| Error::Io { action: ACTION, source };
    if info.size > MAX_BYTES {
        return Err(failed(io::Error::other(format!("table {table} has {} bytes of rules", info.size))));
    }
    let entries = entries(family, table, &info).map_err(failed)?;
    let malformed = || failed(io::Error::other(format!("table {table} is malformed")));
    let mut chains = Vec::new();
    for (hook, chain) in CHAINS.into_iter().enumerate() {
        if info.valid_hooks & (1 << hook) != 0
            && verdict(family, &entries, info.underflow[hook]).ok_or_else(malformed)? == DROP
        {
            chains.push(chain);
        }
    }
    Ok(chains)
}

/// Reads the entries of a table.
fn entries(family: Family, table: &str, info: &TableInfo) -> io::Result<Vec<u8>> {
    let socket = socket(family)?;
    let mut request = vec![0; HEAD_BYTES + info.size as usize];
    request[..table.len()].copy_from_slice(table.as_bytes());
    request[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&info.size.to_ne_bytes());
    let mut length = libc::socklen_t::try_from(request.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads the head of the request and writes at most `length` bytes to it, which is its size.
    let result = unsafe {
        let option = request.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), level(family), SO_GET_ENTRIES, option, &mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request.split_off(HEAD_BYTES))
}

/// Returns the verdict of the standard target of an entry at an offset.
fn verdict(family: Family, entries: &[u8], entry: u32) -> Option<i32> {
    // `target_offset` follows `struct ipt_ip` or `struct ip6t_ip6`, and `nfcache`.
    let at = entry as usize
        + match family {
            Family::V4 => 84 + 4,
            Family::V6 => 136 + 4,
        };
    let target = u16::from_ne_bytes(entries.get(at..at + 2)?.try_into().ok()?);
    let at = entry as usize + usize::from(target) + TARGET_BYTES;
    Some(i32::from_ne_bytes(entries.get(at..at + 4)?.try_into().ok()?))
}
