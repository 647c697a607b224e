//! The exit statuses of all commands, for the manual pages and docs/operating.md.

/// The exit statuses of a command. `None`: it does not end with this status.
pub(crate) struct ExitStatuses {
    /// The command as on the command line; empty for the daemon.
    pub(crate) command: &'static str,
    pub(crate) success: &'static str,
    pub(crate) failure: Option<&'static str>,
    pub(crate) error: &'static str,
}

const fn statuses(
    command: &'static str,
    success: &'static str,
    failure: Option<&'static str>,
    error: &'static str,
) -> ExitStatuses {
    ExitStatuses { command, success, failure, error }
}

const NOT_PRINTED: &str = "nothing could be printed, or the command line is invalid";
const UNKNOWN: &str = "unknown: the cluster's objects, the kernel or the configuration could not be read";

/// Every command with its exit statuses.
pub(crate) const EXIT_STATUSES: [ExitStatuses; 16] = [
    statuses(
        "",
        "a signal ended the daemon",
        Some("the configuration file changed, so that a supervisor starts the daemon again"),
        "the daemon could not start: the configuration, the node or another process prevents it",
    ),
    statuses(
        "--once",
        "all Services are served",
        Some("some Services are not served, or a signal came before the end"),
        "the configuration is invalid, or objects could not be read",
    ),
    statuses(
        "status",
        "the daemon is healthy; with --watch, the output was closed",
        Some("the daemon is not healthy"),
        "unknown: the daemon does not run or respond, or has not synced yet",
    ),
    statuses(
        "services",
        "the Services were printed; with --problems, there are none",
        Some("with --problems, Services have problems"),
        "unknown: an argument names no object, or the cluster's objects could not be read",
    ),
    statuses(
        "observe",
        "the requested events were printed, or the output was closed",
        None,
        "unknown: the daemon does not run or respond, or an argument names no object",
    ),
    statuses("render", "the rules were printed", None, UNKNOWN),
    statuses("diff", "the kernel has the wanted rules", Some("there are differences"), UNKNOWN),
    statuses(
        "explain",
        "the connection reaches an endpoint; with --probe, the packet did what was predicted",
        Some("it does not; with --probe, the packet did something else"),
        "unknown: an argument names no object, the cluster's objects could not be read, or the probe does not show it",
    ),
    statuses("policy matrix", "the matrix was printed", None, UNKNOWN),
    statuses(
        "migrate",
        "nothing prevents the switch; with --apply, it is complete",
        Some("something prevents the switch, or part of it failed"),
        UNKNOWN,
    ),
    statuses(
        "cleanup",
        "nothing is left that should be removed; with --dry-run, nothing would be left",
        Some("something could not be removed"),
        NOT_PRINTED,
    ),
    statuses(
        "bundle",
        "the archive is complete",
        Some("parts are missing, which its index lists with the reasons"),
        "there is no archive",
    ),
    statuses("man", "the page was printed", None, NOT_PRINTED),
    statuses("completions", "the script was printed", None, NOT_PRINTED),
    statuses("pause", "SIGTERM or SIGINT was received", None, "signals cannot be received"),
    statuses("version", "the version was printed", None, NOT_PRINTED),
];

/// Returns the exit statuses of a command.
pub(crate) fn of_command(command: &str) -> Option<&'static ExitStatuses> {
    EXIT_STATUSES.iter().find(|statuses| statuses.command == command)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::config::command_line;

    fn table() -> String {
        let mut table = String::from("| command | 0 | 1 | 2 |\n| --- | --- | --- | --- |\n");
        for ExitStatuses { command, success, failure, error } in &EXIT_STATUSES {
            let name = if command.is_empty() { "(daemon)".to_owned() } else { format!("`{command}`") };
            writeln!(table, "| {name} | {success} | {} | {error} |", failure.unwrap_or("–")).expect("a text");
        }
        table
    }

    #[test]
    fn docs_have_the_exit_statuses_of_every_command() {
        let page = include_str!("../../docs/operating.md");
        assert!(page.contains(&table()), "docs/operating.md should have this table:\n{}", table());
    }

    #[test]
    fn every_command_has_exit_statuses() {
        let line = command_line();
        for command in line.get_subcommands().filter(|command| !command.is_hide_set()) {
            // portcullis-lab documents its own.
            let is_known = ["help", "lab", "policy"].contains(&command.get_name());
            assert!(is_known || of_command(command.get_name()).is_some(), "{}", command.get_name());
        }
    }
}
