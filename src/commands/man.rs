//! `portcullis man`: manual pages, generated from the definitions that parse the flags.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap_mangen::Man as Page;

use crate::config::{Man, command_line};

/// The date on the pages. Constant, so that the output is reproducible.
const DATE: &str = "2026-11-26";

/// An error that prevents printing a manual page.
#[derive(Debug, thiserror::Error)]
pub enum ManError {
    /// There is no such subcommand.
    #[error("{command:?} has no subcommand {name:?}, expected one of {known}")]
    Unknown {
        /// The subcommand named on the command line.
        name: String,
        /// The command that lacks it.
        command: String,
        /// The subcommands that exist.
        known: String,
    },
    /// The page cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// A page cannot be written to the directory.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file of the page.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Prints a page in roff, or writes all pages to a directory.
///
/// # Errors
/// There is no such subcommand, or a page cannot be written.
pub fn run(man: &Man, out: &mut impl Write) -> Result<(), ManError> {
    let mut command = command_line();
    if let Some(folder) = &man.all_to {
        return write_all(command, folder);
    }
    for name in &man.command {
        command = match command.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(unknown(&command, name)),
        };
    }
    render(command, out)?;
    Ok(())
}

fn render(command: clap::Command, out: &mut impl Write) -> io::Result<()> {
    Page::new(command.clone())
        .title(title(&command))
        .manual("Portcullis")
        .source(concat!("Portcullis ", env!("CARGO_PKG_VERSION")))
        .date(DATE)
        .render(out)
}

fn title(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or("portcullis").to_owned()
}

/// Writes the pages of a command and its subcommands.
fn write_all(command: clap::Command, folder: &Path) -> Result<(), ManError> {
    // The pages of lab are those of portcullis-lab, which writes them itself.
    let is_own = |of: &&clap::Command| !of.is_hide_set() && !["help", "lab"].contains(&of.get_name());
    for below in command.get_subcommands().filter(is_own) {
        write_all(below.clone(), folder)?;
    }
    let path = folder.join(format!("{}.1", title(&command)));
    let written = File::create(&path).and_then(|mut file| render(command, &mut file));
    written.map_err(|source| ManError::Write { path, source })
}

fn unknown(command: &clap::Command, name: &str) -> ManError {
    let shown = command.get_subcommands().filter(|of| !of.is_hide_set());
    ManError::Unknown {
        name: name.to_owned(),
        command: command.get_name().to_owned(),
        known: shown.map(clap::Command::get_name).collect::<Vec<_>>().join(", "),
    }
}
