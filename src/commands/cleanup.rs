//! `portcullis cleanup`: removes what any mode, ours or kube-proxy's, left in the kernel, and what enforced policies.

use std::io::{self, Write};

use portcullis_modes::cleanup;
use portcullis_policy::table::{EnforceError, Enforcer, TABLE};

use crate::config::Cleanup;
use crate::policy_lock::{PolicyLock, PolicyLockError};

/// Removes it, and prints what was removed and what could not be. Says whether nothing is left. The table of a process that
/// enforces policies is left, unless that is forced.
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
        // Held until the table is gone, if it could be had.
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
