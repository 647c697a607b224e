//! `portcullis man`: the manual, from the same table that parses the flags.

use std::io::{self, Write};

use clap_mangen::Man as Page;

use crate::config::{Man, command_line};

/// The date on the pages: that of the version, so that the same program prints the same page.
const WRITTEN: &str = "2026-11-26";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ManError {
    /// There is no such subcommand.
    #[error("there is no subcommand {asked:?} of {of:?} to print the manual of, expected one of {known}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The command that does not have it.
        of: String,
        /// Those that it has.
        known: String,
    },
    /// The page cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Prints a page in roff.
///
/// # Errors
/// There is no such subcommand, or the page cannot be written.
pub fn run(man: &Man, out: &mut impl Write) -> Result<(), ManError> {
    let mut command = command_line();
    for name in &man.command {
        command = match command.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(unknown(&command, name)),
        };
    }
    let title = command.get_display_name().unwrap_or("portcullis").to_owned();
    Page::new(command)
        .title(title)
        .manual("Portcullis")
        .source(concat!("Portcullis ", env!("CARGO_PKG_VERSION")))
        .date(WRITTEN)
        .render(out)?;
    Ok(())
}

fn unknown(command: &clap::Command, asked: &str) -> ManError {
    let shown = command.get_subcommands().filter(|of| !of.is_hide_set());
    ManError::Unknown {
        asked: asked.to_owned(),
        of: command.get_name().to_owned(),
        known: shown.map(clap::Command::get_name).collect::<Vec<_>>().join(", "),
    }
}
