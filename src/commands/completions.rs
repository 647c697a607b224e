//! `portcullis completions`: shell completion scripts.

use std::io::{self, Write};

use clap_complete::aot::{Shell, generate};

use crate::config::{CompletionShell, Completions, completed_command_line};

/// Prints the completion script of a shell.
///
/// # Errors
/// The script cannot be written.
pub fn run(completions: &Completions, out: &mut impl Write) -> io::Result<()> {
    let shell = match completions.shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    // The generator panics on a write error, so it writes to memory.
    let mut script = Vec::new();
    generate(shell, &mut completed_command_line(), "portcullis", &mut script);
    out.write_all(&script)
}
