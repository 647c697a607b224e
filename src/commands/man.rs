//! `portcullis man`: manual pages, generated from the definitions that parse the flags.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::exit_statuses::{self, ExitStatuses};
use crate::config::{Man, command_line};

/// Files of the daemon, for its page.
const FILES: [(&str, &str); 7] = [
    (
        "/etc/portcullis/config.yaml",
        "configuration of the systemd unit: a KubeProxyConfiguration, or Portcullis TOML (--config)",
    ),
    ("/etc/default/portcullis", "PORTCULLIS_ARGS: more flags of the systemd unit"),
    ("/run/xtables.lock", "lock of the iptables tools, which pods must share with the host"),
    ("/proc/sys/net", "kernel settings that the daemon reads and sets"),
    ("/var/run/secrets/kubernetes.io/serviceaccount", "credentials of a pod, without --kubeconfig"),
    ("/usr/share/doc/portcullis", "documentation: operating.md, settings.md, metrics.md and others"),
    ("/lib/modules", "kernel modules that the daemon loads with modprobe(8)"),
];

/// Pages that the page of the daemon refers to.
const SUBCOMMANDS: &[&str] = &[
    "portcullis-render",
    "portcullis-diff",
    "portcullis-explain",
    "portcullis-services",
    "portcullis-status",
    "portcullis-observe",
    "portcullis-policy-matrix",
    "portcullis-migrate",
    "portcullis-cleanup",
    "portcullis-bundle",
    "portcullis-lab",
];

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
        .render(out)?;
    closing_sections(&title(&command)).to_writer(out)
}

/// Returns the sections that are not about the command line.
fn closing_sections(title: &str) -> Roff {
    let mut roff = Roff::new();
    let name = title.trim_start_matches("portcullis").trim_start_matches('-');
    let commands: &[&str] = match name {
        "" => &["", "--once"],
        "policy-matrix" => &["policy matrix"],
        _ => &[name],
    };
    let known: Vec<&ExitStatuses> =
        commands.iter().filter_map(|command| exit_statuses::of_command(command)).collect();
    if !known.is_empty() {
        roff.control("SH", ["EXIT STATUS"]);
    }
    for ExitStatuses { command, success, failure, error } in known {
        if command.starts_with("--") {
            roff.text([roman("With "), bold(*command), roman(":")]);
        }
        let rows = [("0", Some(*success)), ("1", *failure), ("2", Some(*error))];
        for (status, meaning) in rows.into_iter().filter_map(|(status, meaning)| Some((status, meaning?))) {
            roff.control("TP", []);
            roff.text([bold(status)]);
            roff.text([roman(meaning)]);
        }
    }
    if name.is_empty() {
        roff.control("SH", ["FILES"]);
        for (path, meaning) in FILES {
            roff.control("TP", []);
            roff.text([italic(path)]);
            roff.text([roman(meaning)]);
        }
    }
    let own = match name {
        "" => SUBCOMMANDS,
        _ => &["portcullis"],
    };
    let others: &[&str] = match name {
        "" | "render" | "diff" | "cleanup" | "migrate" => {
            &["nft(8)", "iptables(8)", "ipvsadm(8)", "ipset(8)", "conntrack(8)"]
        }
        "bundle" => &["journalctl(1)", "tar(1)"],
        _ => &[],
    };
    roff.control("SH", ["SEE ALSO"]);
    let own = own.iter().map(|page| format!("{page}(1)"));
    let pages: Vec<String> = own.chain(others.iter().map(|page| (*page).to_owned())).collect();
    roff.text([roman(pages.join(", "))]);
    roff
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
