//! `portcullis completions`.

use clap::{Args, ValueEnum};

/// Print a script that completes command lines.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: CompletionShell,
}

/// A shell for which there is such a script.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionShell {
    /// For /usr/share/bash-completion/completions
    Bash,
    /// For a folder of $fpath, as _portcullis
    Zsh,
    /// For ~/.config/fish/completions
    Fish,
}
