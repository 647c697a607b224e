//! `portcullis diff`: how the kernel differs from what a state asks for, as a unified diff by Service.

use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::SyncError;
use portcullis_modes::iptables::{ChainDifference, Difference, Line, RuleSet, Tools, differences};
use similar::{Algorithm, ChangeTag, DiffOp, capture_diff_slices, group_diff_ops};

use super::render::families;
use crate::config::{Config, Diff, ProxyMode};
use crate::state::{self, StateError};

/// Unchanged lines shown around changes, as `diff -u` does.
const CONTEXT: usize = 3;

/// Why no difference can be told.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The mode is not there yet.
    #[error("mode {0} cannot be compared yet; --mode iptables can")]
    Mode(&'static str),
    /// The kernel's rules cannot be read.
    #[error("cannot read the rules: {0}")]
    Kernel(#[from] SyncError),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints how the kernel differs, coloured if asked for. Lines with `-` stand in the kernel and should not,
/// lines with `+` are missing. Says whether it differs.
///
/// # Errors
/// The state or the kernel's rules cannot be had, or the mode cannot be compared.
pub fn run(config: &Config, diff: &Diff, colour: bool, out: &mut dyn Write) -> Result<bool, DiffError> {
    if config.mode != ProxyMode::Iptables {
        return Err(DiffError::Mode(config.mode.name()));
    }
    let state = state::load(config, diff.host.as_deref())?;
    let tools = Tools::find()?;
    let mut printer = Printer { out, colour };
    let mut differs = false;
    for family in families(diff.family) {
        let found = RuleSet::read(&*tools.kernel(family))?;
        if is_empty(&found)
            && let Err(reason) = tools.supports(family)
        {
            tracing::warn!(%family, %reason, "this family cannot be served here, so it is not compared");
            continue;
        }
        let wanted = RuleSet::render(&state.desired, family, &state.options, &state.host);
        for difference in differences(&wanted, &found) {
            differs = true;
            printer.difference(family, &difference)?;
        }
    }
    Ok(differs)
}

/// Whether none of our rules stand.
fn is_empty(set: &RuleSet) -> bool {
    set.tables.values().all(|chains| chains.values().all(Vec::is_empty))
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

/// What a line is, which decides its colour.
#[derive(Clone, Copy)]
enum Part {
    File,
    Hunk,
    Kept,
    Deleted,
    Added,
}

impl Part {
    /// The terminal's code (SGR).
    fn code(self) -> Option<&'static str> {
        match self {
            Part::File => Some("1"),
            Part::Hunk => Some("36"),
            Part::Kept => None,
            Part::Deleted => Some("31"),
            Part::Added => Some("32"),
        }
    }
}

impl Printer<'_> {
    fn difference(&mut self, family: Family, difference: &Difference) -> io::Result<()> {
        let subject = &difference.subject;
        self.line(Part::File, format_args!("--- kernel/{family}/{subject}"))?;
        self.line(Part::File, format_args!("+++ wanted/{family}/{subject}"))?;
        difference.chains.iter().try_for_each(|chain| self.chain(chain))
    }

    fn chain(&mut self, chain: &ChainDifference) -> io::Result<()> {
        let remark = match (&chain.found, &chain.wanted) {
            (None, _) => " (the chain is missing)",
            (_, None) => " (the chain is not wanted)",
            _ => "",
        };
        let section = format!("{} {}{remark}", chain.table, chain.chain);
        let old = chain.found.as_deref().unwrap_or_default();
        let new = chain.wanted.as_deref().unwrap_or_default();
        if old.is_empty() && new.is_empty() {
            return self.line(Part::Hunk, format_args!("@@ -0,0 +0,0 @@ {section}"));
        }
        let operations = capture_diff_slices(Algorithm::Myers, old, new);
        for hunk in group_diff_ops(operations, CONTEXT) {
            self.hunk(&hunk, old, new, &section)?;
        }
        Ok(())
    }

    fn hunk(&mut self, hunk: &[DiffOp], old: &[Line], new: &[Line], section: &str) -> io::Result<()> {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { return Ok(()) };
        let from = range(first.old_range().start, last.old_range().end);
        let to = range(first.new_range().start, last.new_range().end);
        self.line(Part::Hunk, format_args!("@@ -{from} +{to} @@ {section}"))?;
        for change in hunk.iter().flat_map(|operation| operation.iter_changes(old, new)) {
            let (part, sign) = match change.tag() {
                ChangeTag::Equal => (Part::Kept, ' '),
                ChangeTag::Delete => (Part::Deleted, '-'),
                ChangeTag::Insert => (Part::Added, '+'),
            };
            self.line(part, format_args!("{sign}{}", change.value_ref().text))?;
        }
        Ok(())
    }

    fn line(&mut self, part: Part, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        match part.code().filter(|_| self.colour) {
            Some(code) => writeln!(self.out, "\x1b[{code}m{text}\x1b[0m"),
            None => writeln!(self.out, "{text}"),
        }
    }
}

/// As `diff -u` numbers lines: the first and how many, where an empty range is named by the line before it.
fn range(start: usize, end: usize) -> String {
    let length = end - start;
    match length {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{length}", start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_modes::iptables::Table;

    fn set(text: &str) -> RuleSet {
        let mut set = RuleSet::default();
        let chains = set.tables.entry(Table::Nat).or_default();
        for line in text.lines() {
            match line.strip_prefix(':') {
                Some(chain) => drop(chains.entry(chain.to_owned()).or_default()),
                None => {
                    let chain = line.split(' ').nth(1).expect("-A CHAIN");
                    chains.entry(chain.to_owned()).or_default().push(line.to_owned());
                }
            }
        }
        set
    }

    fn printed(wanted: &str, found: &str, colour: bool) -> String {
        let mut out = Vec::new();
        let mut printer = Printer { out: &mut out, colour };
        for difference in differences(&set(wanted), &set(found)) {
            printer.difference(Family::V4, &difference).expect("writing to memory");
        }
        String::from_utf8(out).expect("it is text")
    }

    const WANTED: &str = "\
:KUBE-PROXY-CANARY
-A KUBE-SERVICES -d 10.96.0.1/32 -m comment --comment \"default/web:http cluster IP\" -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.2/32 -m comment --comment \"default/dns cluster IP\" -j KUBE-SVC-B
-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.1:80\" -j KUBE-SEP-A1
-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.2:80\" -j KUBE-SEP-A2
-A KUBE-SVC-B -m comment --comment \"default/dns -> 10.0.0.3:53\" -j KUBE-SEP-B1
-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80
-A KUBE-SEP-A2 -j DNAT --to-destination 10.0.0.2:80";

    #[test]
    fn a_diff_reads_like_one() {
        let found = WANTED
            .replace(":KUBE-PROXY-CANARY\n", "")
            .replace("10.0.0.1:80\" -j KUBE-SEP-A1", "10.0.0.9:80\" -j KUBE-SEP-A9")
            .replace("-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80\n", "");
        assert_eq!(
            printed(WANTED, &found, false),
            "\
--- kernel/IPv4/base rules
+++ wanted/IPv4/base rules
@@ -0,0 +0,0 @@ nat KUBE-PROXY-CANARY (the chain is missing)
--- kernel/IPv4/default/web
+++ wanted/IPv4/default/web
@@ -0,0 +1 @@ nat KUBE-SEP-A1 (the chain is missing)
+-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80
@@ -1,2 +1,2 @@ nat KUBE-SVC-A
--A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.9:80\" -j KUBE-SEP-A9
+-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.1:80\" -j KUBE-SEP-A1
 -A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.2:80\" -j KUBE-SEP-A2
"
        );
        assert_eq!(printed(WANTED, WANTED, false), "");
    }

    #[test]
    fn colours_are_only_colours() {
        let found = WANTED.replace("10.0.0.2", "10.0.0.8");
        let coloured = printed(WANTED, &found, true);
        assert!(coloured.contains("\x1b[31m-") && coloured.contains("\x1b[32m+"), "{coloured}");
        let mut plain = coloured;
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[36m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, printed(WANTED, &found, false));
    }
}
