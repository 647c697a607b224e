//! Pages of the manual and completion scripts, generated from the command line's definition.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::aot::{Shell, generate};
use clap_mangen::roff::{Roff, bold, roman};
use portcullis_lab::Error;

use super::arguments::{CompletionShell, Man, command_line};

/// The date on the pages: a constant, so that builds are reproducible.
const DATE: &str = "2026-11-30";

/// Writes a page, or all pages into a folder.
///
/// # Errors
/// No such verb, or a page cannot be written.
pub(crate) fn print_page(man: &Man, out: &mut impl Write) -> Result<(), Error> {
    let command = command_line();
    if let Some(folder) = &man.all_to {
        return write_all(&command, folder);
    }
    let page = match &man.command {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| unknown_page(&command, name))?,
    };
    render(&page, out).map_err(|source| Error::System { action: "cannot write the page".into(), source })
}

fn write_all(command: &clap::Command, folder: &Path) -> Result<(), Error> {
    let pages = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    for page in pages.chain([command]) {
        let path = folder.join(format!("{}.1", title(page)));
        let written = File::create(&path).and_then(|mut file| render(page, &mut file));
        written.map_err(|source| Error::File { action: "cannot write", path, source })?;
    }
    Ok(())
}

fn render(command: &clap::Command, out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(command.clone())
        .title(title(command))
        .manual("Portcullis")
        .source(concat!("Portcullis ", env!("CARGO_PKG_VERSION")))
        .date(DATE)
        .render(out)?;
    closing_sections(command.get_name()).to_writer(out)
}

/// Returns the sections that are not about the command line.
fn closing_sections(verb: &str) -> Roff {
    let statuses: &[(&str, &str)] = match verb {
        "run" => &[
            ("0", "all expectations are met"),
            ("1", "an expectation is not met, or there was nothing to connect to"),
            ("2", "the cluster could not be built, or the results could not be written"),
        ],
        "exec" | "explain" | "observe" => &[
            ("126, 127", "the program cannot be executed, or does not exist"),
            ("other", "the status of the command; 128 plus the number of the signal that ended it"),
            ("2", "no such lab, pod or node"),
        ],
        _ => &[("0", "success"), ("2", "failure, with a message")],
    };
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in statuses {
        roff.control("TP", []);
        roff.text([bold(*status)]);
        roff.text([roman(*meaning)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let pages = match verb {
        "explain" => "portcullis-explain(1), ",
        "observe" => "portcullis-observe(1), ",
        _ => "",
    };
    roff.text([roman(format!("{pages}portcullis-lab(1), portcullis(1), ip-netns(8)"))]);
    roff
}

fn title(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or("portcullis-lab").to_owned()
}

fn unknown_page(command: &clap::Command, name: &str) -> Error {
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
    let existing = format!("expected one of {}", names.join(", "));
    Error::NotFound { kind: "page", name: name.to_owned(), existing }
}

/// Writes the completion script for a shell.
///
/// # Errors
/// The script cannot be written.
pub(crate) fn print_completions(shell: CompletionShell, out: &mut impl Write) -> Result<(), Error> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    // The generator panics on write errors, so it writes to memory first.
    let mut script = Vec::new();
    generate(shell, &mut command_line(), "portcullis-lab", &mut script);
    out.write_all(&script)
        .map_err(|source| Error::System { action: "cannot write the script".into(), source })
}
