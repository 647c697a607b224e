//! `portcullis cleanup`: removes what any mode, ours or kube-proxy's, left in the kernel.

use std::io::{self, Write};

use portcullis_modes::cleanup;

/// Removes it, and prints what was removed and what could not be. Says whether nothing is left.
///
/// # Errors
/// The output cannot be written.
pub fn run(out: &mut dyn Write) -> io::Result<bool> {
    let done = cleanup::everything();
    for removed in &done.removed {
        writeln!(out, "removed {removed}")?;
    }
    for left in &done.left {
        writeln!(out, "left {left}")?;
    }
    if done.removed.is_empty() && done.left.is_empty() {
        writeln!(out, "nothing to remove")?;
    }
    Ok(done.is_complete())
}
