//! `portcullis cleanup`: removes the rules of all proxy modes, Portcullis' and kube-proxy's, and the policy tables.

use std::io::{self, Write};

use portcullis_modes::cleanup;
use portcullis_policy::table::{EnforceError, Enforcer, TABLE};

use crate::config::Cleanup;
use crate::policy_lock::{PolicyLock, PolicyLockError};

/// Removes all rules, and prints which were removed and which could not be. Returns true if nothing is left. The policy table
/// of a running process is kept unless `force` is set.
///
/// # Errors
/// The output cannot be written.
pub fn run(options: Cleanup, out: &mut dyn Write) -> io::Result<bool> {
    let done = cleanup::remove_all_modes();
    let mut removed: Vec<String> = done.removed.iter().map(ToString::to_string).collect();
    let mut left: Vec<String> = done.not_removed.iter().map(ToString::to_string).collect();
    match PolicyLock::try_acquire() {
        Err(error @ PolicyLockError::Held(_)) if !options.force => {
            left.push(format!("table inet {TABLE}: {error}"));
        }
        // The lock is held until the table is removed.
        _lock => match Enforcer::remove() {
            Ok(families) => {
                removed
                    .extend(families.into_iter().map(|family| format!("table {} {TABLE}", family.as_str())));
            }
            Err(EnforceError::NoTables) => {}
            Err(error) => left.push(format!("table inet {TABLE}, table bridge {TABLE}: {error}")),
        },
    }
    for removed in &removed {
        writeln!(out, "removed {removed}")?;
    }
    for kept in &done.kept {
        writeln!(out, "kept {kept}")?;
    }
    for left in &left {
        writeln!(out, "left {left}")?;
    }
    if removed.is_empty() && left.is_empty() && done.kept.is_empty() {
        writeln!(out, "nothing to remove")?;
    }
    Ok(left.is_empty())
}
