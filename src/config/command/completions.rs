//! Arguments of `portcullis completions`.

use clap::{Args, ValueEnum};

/// Print a shell completion script.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completions {
    /// Shell to generate the script for
    #[arg(value_name = "SHELL")]
    pub shell: CompletionShell,
}

/// A supported shell.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionShell {
    /// For /usr/share/bash-completion/completions
    Bash,
    /// For a folder of $fpath, as _portcullis
    Zsh,
    /// For ~/.config/fish/completions
    Fish,
}
