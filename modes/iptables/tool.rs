//! The iptables tools of this host: selection of the flavour, and running them.

use std::process::ExitStatus;

use portcullis_cluster::Family;
use portcullis_netlink::xtables;

use super::chain::Table;
use super::error::ToolError;
use super::kernel::{Flavour, IptablesKernel};
use super::nft_tables::NftTable;
use super::saved_rule::declared_chain;
use super::tool_kernel::ToolKernel;
use crate::external_program::{ExternalProgram, ProgramEnd, ProgramError, ProgramErrorKind};

/// Seconds for which a tool waits for the xtables lock, as in kube-proxy.
pub(super) const LOCK_SECONDS: &str = "5";

/// The exit status of a tool that did not get the lock, and of the nft tool for a rejection by the kernel
/// (`RESOURCE_PROBLEM`).
const RESOURCE_PROBLEM: i32 = 4;

/// The exit statuses of a tool whose input it or the kernel rejects: `OTHER_PROBLEM`, `PARAMETER_PROBLEM`, `RESOURCE_PROBLEM`.
/// A kernel without iptables (`VERSION_PROBLEM`, 3) and a shell that does not find the tool (126, 127) have other ones.
const REJECTED: [i32; 3] = [1, 2, RESOURCE_PROBLEM];

/// The tools of one flavour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Their flavour.
    pub flavour: Flavour,
    /// Their version, as in `1.8.9`.
    pub version: String,
    /// The text between `iptables` and `-restore` in their names: empty, `-nft` or `-legacy`.
    infix: &'static str,
}

/// Chains with which a kubelet marks the flavour that it uses.
const KUBELET_HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

impl Tools {
    /// Selects the tools: those of the flavour with the node's rules, or the host's default if there are no rules. A
    /// kubelet's hint chains count more than any rules.
    ///
    /// # Errors
    /// iptables is not installed.
    pub fn find() -> Result<Tools, ToolError> {
        let default = Tools::with_infix("")?;
        let Ok(other) = Tools::with_infix(default.flavour.other().infix()) else { return Ok(default) };
        let (here, there) = (default.evidence(), other.evidence());
        let choice = if there > here { other } else { default };
        tracing::info!(flavour = ?choice.flavour, version = choice.version, default = ?here, other = ?there,
            "selected iptables tools");
        Ok(choice)
    }

    /// Checks that the kernel has this family's NAT: a kernel without IPv6 has none for IPv6.
    ///
    /// # Errors
    /// It has none; the error has the message of the tool.
    pub fn supports(&self, family: Family) -> Result<(), ToolError> {
        let arguments = ["-w", LOCK_SECONDS, "-t", "nat", "-S", "POSTROUTING"];
        let (end, _) = program(&self.name(family, None), arguments).output()?;
        check(&self.name(family, None), end)
    }

    /// Returns the tools of a flavour.
    ///
    /// # Errors
    /// The host has no tools of that flavour.
    pub fn of_flavour(flavour: Flavour) -> Result<Tools, ToolError> {
        let default = Tools::with_infix("")?;
        if default.flavour == flavour { Ok(default) } else { Tools::with_infix(flavour.infix()) }
    }

    fn with_infix(infix: &'static str) -> Result<Tools, ToolError> {
        let tool = format!("iptables{infix}");
        let (end, version_line) = program(&tool, ["--version"]).output()?;
        check(&tool, end)?;
        let version = parse_version(&version_line).ok_or_else(|| ToolError::NoVersion {
            tool,
            printed: version_line.trim().chars().take(100).collect(),
        })?;
        let flavour = if version_line.contains("nf_tables") { Flavour::Nft } else { Flavour::Legacy };
        Ok(Tools { flavour, version, infix })
    }

    /// Returns true if the tools support `--random-fully` (since 1.6.2).
    pub fn random_fully(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next()) >= (1, 6, 2)
    }

    /// Returns the kernel of one family, accessed through these tools.
    pub fn kernel(&self, family: Family) -> Box<dyn IptablesKernel> {
        Box::new(ToolKernel { tools: self.clone(), family })
    }

    pub(super) fn name(&self, family: Family, action: Option<&str>) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let action = action.map(|action| format!("-{action}")).unwrap_or_default();
        format!("{base}{}{action}", self.infix)
    }

    /// Calls `line` with each line of a dump of one table, as `iptables-save` prints it.
    pub(crate) fn dump(
        &self,
        family: Family,
        table: Table,
        mut line: impl FnMut(&str),
    ) -> Result<(), ToolError> {
        if self.flavour == Flavour::Nft {
            // iptables-nft-save 1.8.9 reads the rules of all tables, whichever it prints, and the kernel takes
            // quadratic time for the rules of one chain.
            let tool = self.name(family, None);
            let mut printed = false;
            let list = program(&tool, ["-w", LOCK_SECONDS, "-t", table.as_str(), "-S"])
                .with_more_time(NftTable { tools: self, family, table }.listing_time());
            let end = list.read_lines(&mut |text| {
                printed = true;
                in_save_format(text, &mut line);
            })?;
            if end.status.success() || printed {
                return check(&tool, end);
            }
            // It rejects a table with rules that only nft can print; iptables-save leaves such a table out.
        }
        let tool = self.name(family, Some("save"));
        let (mut began, mut is_committed) = (false, false);
        let end = program(&tool, ["-t", table.as_str()]).read_lines(&mut |text| {
            began |= text.starts_with('*');
            is_committed |= text == "COMMIT";
            line(text);
        })?;
        check(&tool, end)?;
        if began && !is_committed {
            return Err(ToolError::Incomplete { tool, table: table.as_str() });
        }
        Ok(())
    }

    /// Calls `line` with each line about one chain, as `iptables -S` prints it.
    pub(super) fn list_chain(
        &self,
        family: Family,
        table: Table,
        chain: &str,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        let tool = self.name(family, None);
        let list = program(&tool, ["-w", LOCK_SECONDS, "-t", table.as_str(), "-S", chain]);
        check(&tool, list.read_lines(line)?)
    }

    /// Returns the evidence that this flavour is in use: the number of the kubelet's hint chains, then the number of
    /// rules.
    fn evidence(&self) -> (usize, usize) {
        let (mut hints, mut rules) = (0, 0);
        // The hint chains are in mangle, and proxies and firewalls have rules in filter; nat may have hundreds of
        // thousands, which take seconds to print.
        let places = [Table::Mangle, Table::Filter].map(|table| Family::BOTH.map(|family| (table, family)));
        for (table, family) in places.into_iter().flatten() {
            // The legacy tools create a table that does not exist when asked for it.
            if self.flavour == Flavour::Legacy
                && !legacy_tables(family).iter().any(|name| name == table.as_str())
            {
                continue;
            }
            let count = |line: &str| {
                hints += usize::from(declared_chain(line).is_some_and(|name| KUBELET_HINTS.contains(&name)));
                rules += usize::from(line.starts_with("-A "));
            };
            if let Err(error) = self.dump(family, table, count) {
                tracing::debug!(%error, "no rules of this flavour");
                if error.is_unfinished() {
                    // It would hang again.
                    tracing::warn!(%error, flavour = ?self.flavour, "cannot determine the rules of this flavour");
                    break;
                }
            }
        }
        (hints, rules)
    }
}

impl Flavour {
    fn other(self) -> Flavour {
        match self {
            Flavour::Nft => Flavour::Legacy,
            Flavour::Legacy => Flavour::Nft,
        }
    }

    fn infix(self) -> &'static str {
        match self {
            Flavour::Nft => "-nft",
            Flavour::Legacy => "-legacy",
        }
    }
}

/// Returns the version in the output of `iptables --version`, such as `iptables v1.8.9 (nf_tables)`.
fn parse_version(output: &str) -> Option<String> {
    let is_version = |text: &&str| text.starts_with(|first: char| first.is_ascii_digit());
    output.split_whitespace().find_map(|word| word.strip_prefix('v').filter(is_version)).map(str::to_owned)
}

/// Returns the existing legacy tables of a family.
fn legacy_tables(family: Family) -> Vec<String> {
    xtables::tables(in_netlink(family)).unwrap_or_default()
}

pub(crate) fn in_netlink(family: Family) -> portcullis_netlink::Family {
    match family {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    }
}

/// Returns a tool with its arguments.
pub(super) fn program<'a>(tool: &str, arguments: impl IntoIterator<Item = &'a str>) -> ExternalProgram {
    ExternalProgram::new(tool).with_arguments(arguments)
}

/// Converts a line of `iptables -S` to the form of `iptables-save`.
fn in_save_format(text: &str, line: &mut dyn FnMut(&str)) {
    match text.split_once(' ') {
        Some(("-N", chain)) => line(&format!(":{chain} - [0:0]")),
        Some(("-P", policy)) => line(&format!(":{policy} [0:0]")),
        _ => line(text),
    }
}

/// Returns the error of a tool that ended with this status, if it failed.
pub(super) fn check(tool: &str, end: ProgramEnd) -> Result<(), ToolError> {
    if end.status.success() { Ok(()) } else { Err(tool_failed(tool.to_owned(), end.status, &end.message)) }
}

fn tool_failed(tool: String, status: ExitStatus, message: &str) -> ToolError {
    if status.code() == Some(RESOURCE_PROBLEM) && message.contains("xtables lock") {
        return ToolError::Locked { tool };
    }
    let line = reported_line(message);
    let message =
        message.lines().filter(|l| !l.is_empty() && !l.starts_with("Try `")).collect::<Vec<_>>().join("; ");
    let is_rejected = status.code().is_some_and(|code| REJECTED.contains(&code));
    let status = status.to_string();
    match is_rejected {
        true => ToolError::Failed { tool, status, message, line },
        false => ToolError::Unusable { tool, status, message },
    }
}

impl From<ProgramError> for ToolError {
    fn from(error: ProgramError) -> Self {
        match error.kind {
            ProgramErrorKind::CannotStart(source) => ToolError::CannotRun { tool: error.command, source },
            _ => ToolError::Unfinished(error),
        }
    }
}

/// Returns the line that an error message names. The legacy tool names the COMMIT line for a rejection by the kernel,
/// which belongs to no Service.
fn reported_line(message: &str) -> Option<usize> {
    message.lines().find_map(|text| {
        let (_, rest) = text.split_once("line: ").or_else(|| text.split_once("line "))?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_output_is_converted_to_dumps() {
        for (listed, dumped) in [
            ("-P INPUT ACCEPT", ":INPUT ACCEPT [0:0]"),
            ("-N KUBE-SERVICES", ":KUBE-SERVICES - [0:0]"),
            ("-A INPUT -j KUBE-NODEPORTS", "-A INPUT -j KUBE-NODEPORTS"),
        ] {
            let mut lines = Vec::new();
            in_save_format(listed, &mut |line| lines.push(line.to_owned()));
            assert_eq!(lines, [dumped]);
        }
    }

    #[test]
    fn version_is_read_or_missing() {
        for (output, version) in [
            ("iptables v1.8.9 (nf_tables)\n", Some("1.8.9")),
            ("iptables v1.4.21\n", Some("1.4.21")),
            ("iptables v1.8.11 (legacy)\n", Some("1.8.11")),
            ("", None),
            ("iptables version unknown\n", None),
        ] {
            assert_eq!(parse_version(output).as_deref(), version, "{output:?}");
        }
    }

    #[test]
    fn an_error_message_names_its_line() {
        for (message, line) in [
            ("iptables-restore v1.8.9 (legacy): bad\n\nError occurred at line: 12\nTry `x'", Some(12)),
            ("iptables-restore: line 7 failed", Some(7)),
            ("x: \nline 5: RULE_APPEND failed (No such file or directory): rule in chain Y", Some(5)),
            ("something else", None),
        ] {
            assert_eq!(reported_line(message), line, "{message}");
        }
    }
}
