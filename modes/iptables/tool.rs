//! The iptables tools of the host: which flavour the node's rules live in, and how they are run.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use portcullis_netlink::{nf_tables, xtables};

use super::chain::Table;
use super::kernel::{Fingerprint, Flavour, IptablesKernel};
use super::saved_rule::declared_chain;
use crate::mode::SyncError;

/// How long a tool waits for the xtables lock, in seconds, as kube-proxy has it.
const LOCK_SECONDS: &str = "5";

/// The exit status of a tool that did not get the lock (`RESOURCE_PROBLEM`).
const LOCKED: i32 = 4;

/// As many lines of a tool's complaints are kept.
const COMPLAINT_LINES: usize = 20;

/// The tools of one flavour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Their flavour.
    pub flavour: Flavour,
    /// Their version, as in `1.8.9`.
    pub version: String,
    /// What stands between `iptables` and `-restore` in their names: nothing, or `-nft` or `-legacy`.
    infix: &'static str,
}

/// Names that a kubelet leaves so that others find the flavour in which it works.
const KUBELET_HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

impl Tools {
    /// Finds the tools: those of the flavour in which the node's rules live, or the host's default where there
    /// are none. A kubelet's hint counts before rules of others.
    ///
    /// # Errors
    /// There is no iptables.
    pub fn find() -> Result<Tools, SyncError> {
        let default = Tools::of("")?;
        let Ok(other) = Tools::of(default.flavour.other().infix()) else { return Ok(default) };
        let (here, there) = (default.traces(), other.traces());
        let choice = if there > here { other } else { default };
        tracing::info!(flavour = ?choice.flavour, version = choice.version, default = ?here, other = ?there,
            "iptables tools chosen");
        Ok(choice)
    }

    /// Whether the kernel has this family's NAT: a kernel without IPv6 has none for it.
    ///
    /// # Errors
    /// Why not, in the words of the tool.
    pub fn supports(&self, family: Family) -> Result<(), SyncError> {
        let tool = self.name(family, None);
        output(Command::new(&tool).args(["-w", LOCK_SECONDS, "-t", "nat", "-S", "POSTROUTING"]), &tool)
            .map(drop)
    }

    /// The tools of a flavour.
    ///
    /// # Errors
    /// The host has none of that flavour.
    pub fn of_flavour(flavour: Flavour) -> Result<Tools, SyncError> {
        let default = Tools::of("")?;
        if default.flavour == flavour { Ok(default) } else { Tools::of(flavour.infix()) }
    }

    fn of(infix: &'static str) -> Result<Tools, SyncError> {
        let tool = format!("iptables{infix}");
        let said = output(Command::new(&tool).arg("--version"), &tool)?;
        // As in: iptables v1.8.9 (nf_tables)
        let version =
            said.split_whitespace().find_map(|word| word.strip_prefix('v')).unwrap_or("0").to_owned();
        let flavour = if said.contains("nf_tables") { Flavour::Nft } else { Flavour::Legacy };
        Ok(Tools { flavour, version, infix })
    }

    /// Whether they can masquerade with `--random-fully` (since 1.6.2).
    pub fn random_fully(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next()) >= (1, 6, 2)
    }

    /// The kernel of one family, spoken to by these tools.
    pub fn kernel(&self, family: Family) -> Box<dyn IptablesKernel> {
        Box::new(ToolKernel { tools: self.clone(), family })
    }

    fn name(&self, family: Family, action: Option<&str>) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let action = action.map(|action| format!("-{action}")).unwrap_or_default();
        format!("{base}{}{action}", self.infix)
    }

    /// Hands over every line of a dump of one table, as `iptables-save` prints it.
    fn dump(&self, family: Family, table: Table, mut line: impl FnMut(&str)) -> Result<(), SyncError> {
        if self.flavour == Flavour::Nft {
            // Whichever table it prints, iptables-nft-save 1.8.9 reads the rules of all, and the kernel takes quadratic
            // time for the rules of one chain.
            let tool = self.name(family, None);
            let mut command = Command::new(&tool);
            command.args(["-w", LOCK_SECONDS, "-t", table.as_str(), "-S"]);
            let mut printed = false;
            let listed = lines(command, &tool, &mut |text| {
                printed = true;
                in_save_format(text, &mut line);
            });
            if listed.is_ok() || printed {
                return listed;
            }
            // It rejects a table that has rules which only nft can print; iptables-save leaves such a table out.
        }
        dump(&self.name(family, Some("save")), Some(table), line)
    }

    /// How much speaks for this flavour: the kubelet's hints, then the number of rules.
    fn traces(&self) -> (usize, usize) {
        let (mut hints, mut rules) = (0, 0);
        // The kubelet's hints are in mangle, and whoever serves or guards a node has rules in filter; nat may
        // have hundreds of thousands, which take seconds to print.
        let looked_at =
            [Table::Mangle, Table::Filter].map(|table| Family::BOTH.map(|family| (table, family)));
        for (table, family) in looked_at.into_iter().flatten() {
            // To ask the legacy tools for a table that is not there would create it.
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

/// The legacy tables of a family that exist here.
fn legacy_tables(family: Family) -> Vec<String> {
    xtables::tables(in_netlink(family)).unwrap_or_default()
}

pub(crate) fn in_netlink(family: Family) -> portcullis_netlink::Family {
    match family {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    }
}

struct ToolKernel {
    tools: Tools,
    family: Family,
}

impl ToolKernel {
    fn generation(&self) -> portcullis_netlink::Result<u32> {
        nf_tables::generation(&mut Socket::open(NetlinkProtocol::Netfilter)?)
    }
}

impl IptablesKernel for ToolKernel {
    fn flavour(&self) -> Flavour {
        self.tools.flavour
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), SyncError> {
        let tool = self.tools.name(self.family, Some("restore"));
        let mut command = Command::new(&tool);
        command.args(["-w", LOCK_SECONDS, "--noflush"]);
        let mut child =
            spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()), &tool)?;
        let complaints = collect_complaints(&mut child);
        let input = child.stdin.take().expect("stdin is piped");
        let mut input = BufWriter::with_capacity(64 * 1024, input);
        // A tool that refuses a line stops reading; what it says then matters more than the broken pipe.
        let written = write(&mut input).and_then(|()| input.flush());
        drop(input);
        let status = child.wait().map_err(|e| cannot_run(&tool, &e))?;
        let message = complaints.join().unwrap_or_default();
        if !status.success() {
            return Err(refused(tool, status, message));
        }
        written.map_err(|e| cannot_run(&tool, &e))
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), SyncError> {
        // To ask the legacy tools for a table that is not there would create it. One without rules is as good as
        // that, and the tool takes its time to say so.
        let bare = || {
            xtables::table_info(in_netlink(self.family), table.as_str())
                .map(|i| i.is_none_or(|i| i.is_bare()))
        };
        if self.tools.flavour == Flavour::Legacy && bare().unwrap_or(false) {
            return Ok(());
        }
        self.tools.dump(self.family, table, line)
    }

    fn counted(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), SyncError> {
        let tool = self.tools.name(self.family, None);
        let mut command = Command::new(&tool);
        command.args(["-w", LOCK_SECONDS, "-t", Table::Nat.as_str(), "-v", "-S", chain]);
        lines(command, &tool, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        match self.tools.flavour {
            Flavour::Nft => self.generation().ok().map(|generation| vec![u64::from(generation)]),
            Flavour::Legacy => {
                let mut fingerprint = Vec::new();
                for table in Table::ALL {
                    let info = xtables::table_info(in_netlink(self.family), table.as_str()).ok()?;
                    fingerprint.extend(info.map(|i| u64::from(i.entries) << 32 | u64::from(i.size)));
                    fingerprint.extend(info.iter().flat_map(|i| i.hook_entry).map(u64::from));
                }
                Some(fingerprint)
            }
        }
    }

    fn shape(&self) -> Option<u64> {
        match self.tools.flavour {
            Flavour::Nft => shape_of_chains(self.family).ok(),
            Flavour::Legacy => None,
        }
    }
}

/// The shape of our chains in nf_tables. Their order does not count, so that it need not be known.
fn shape_of_chains(family: Family) -> portcullis_netlink::Result<u64> {
    let family = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    let mut shape = 0u64;
    nf_tables::list_chains(&mut Socket::open(NetlinkProtocol::Netfilter)?, family, |chain| {
        if chain.name.starts_with("KUBE-") && Table::named(&chain.table).is_some() {
            let mut hasher = DefaultHasher::new();
            chain.hash(&mut hasher);
            shape = shape.wrapping_add(hasher.finish());
        }
    })?;
    Ok(shape)
}

fn dump(tool: &str, table: Option<Table>, mut line: impl FnMut(&str)) -> Result<(), SyncError> {
    let mut command = Command::new(tool);
    if let Some(table) = table {
        command.args(["-t", table.as_str()]);
    }
    lines(command, tool, &mut line)
}

/// Hands over a line of `iptables -S` as `iptables-save` prints it.
fn in_save_format(text: &str, line: &mut dyn FnMut(&str)) {
    match text.split_once(' ') {
        Some(("-N", chain)) => line(&format!(":{chain} - [0:0]")),
        Some(("-P", policy)) => line(&format!(":{policy} [0:0]")),
        _ => line(text),
    }
}

/// Runs a tool that reads nothing, and hands over each line that it prints.
fn lines(mut command: Command, tool: &str, line: &mut dyn FnMut(&str)) -> Result<(), SyncError> {
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()), tool)?;
    let complaints = collect_complaints(&mut child);
    let mut reader = BufReader::with_capacity(64 * 1024, child.stdout.take().expect("stdout is piped"));
    let mut text = String::new();
    loop {
        text.clear();
        match reader.read_line(&mut text) {
            Ok(0) => break,
            Ok(_) => line(text.trim_end_matches('\n')),
            Err(error) => return Err(cannot_run(tool, &error)),
        }
    }
    let status = child.wait().map_err(|e| cannot_run(tool, &e))?;
    let message = complaints.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(refused(tool.to_owned(), status, message)) }
}

fn output(command: &mut Command, tool: &str) -> Result<String, SyncError> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| cannot_run(tool, &e))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(refused(tool.to_owned(), output.status, message));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a tool, wherever PATH leads to it.
fn spawn(command: &mut Command, tool: &str) -> Result<Child, SyncError> {
    command.spawn().map_err(|e| cannot_run(tool, &e))
}

fn cannot_run(tool: &str, error: &io::Error) -> SyncError {
    SyncError::Tool { tool: tool.to_owned(), reason: error.to_string() }
}

fn refused(tool: String, status: ExitStatus, message: String) -> SyncError {
    if status.code() == Some(LOCKED) && message.contains("xtables lock") {
        return SyncError::Locked { tool };
    }
    let line = blamed_line(&message);
    let message =
        message.lines().filter(|l| !l.is_empty() && !l.starts_with("Try `")).collect::<Vec<_>>().join("; ");
    SyncError::Rejected { tool, status: status.to_string(), message, line }
}

/// The line that a complaint names. The legacy tool blames the COMMIT for what the kernel refuses, which
/// belongs to no Service.
fn blamed_line(message: &str) -> Option<usize> {
    message.lines().find_map(|text| {
        let (_, rest) = text.split_once("line: ").or_else(|| text.split_once("line "))?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// Reads what a tool complains of while it runs, so that it never waits for us; keeps the last lines.
fn collect_complaints(child: &mut Child) -> std::thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    std::thread::spawn(move || {
        let mut kept: VecDeque<String> = VecDeque::new();
        let lines = stderr.into_iter().flat_map(|s| BufReader::new(s.take(1 << 20)).lines());
        for line in lines.map_while(Result::ok) {
            if kept.len() == COMPLAINT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        Vec::from(kept).join("\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_dumps() {
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
    fn a_complaint_names_its_line() {
        for (message, line) in [
            ("iptables-restore v1.8.9 (legacy): bad\n\nError occurred at line: 12\nTry `x'", Some(12)),
            ("iptables-restore: line 7 failed", Some(7)),
            ("x: \nline 5: RULE_APPEND failed (No such file or directory): rule in chain Y", Some(5)),
            ("something else", None),
        ] {
            assert_eq!(blamed_line(message), line, "{message}");
        }
    }
}
