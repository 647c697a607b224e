//! Removal of rules of other processes that block all packets, before the first sync.
//!
//! A running proxier restores its chains; one that starts does so only when it has read the Services, for which it needs its API
//! server. So what blocks all packets, and what this program never writes, is removed before.

use super::chain::Table;
use super::error::ToolError;
use super::kernel::IptablesKernel;
use super::rule_set::is_ours;

/// Removes from our chains of table filter the rules that drop or reject all packets. Returns descriptions of them.
///
/// # Errors
/// The tool could not be run or failed.
pub fn remove_blocking_rules(kernel: &dyn IptablesKernel) -> Result<Vec<String>, ToolError> {
    let mut blocking = Vec::new();
    let (mut chain, mut position) = (String::new(), 0);
    kernel.dump(Table::Filter, &mut |line| {
        let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) else {
            return;
        };
        position = if name == chain { position + 1 } else { 1 };
        name.clone_into(&mut chain);
        if is_ours(Table::Filter, name) && blocks_all(rule) {
            blocking.push((chain.clone(), position, rule.to_owned()));
        }
    })?;
    if blocking.is_empty() {
        return Ok(Vec::new());
    }
    kernel.restore(&mut |out| {
        writeln!(out, "*filter")?;
        // From the last one on, so that positions stay valid.
        blocking.iter().rev().try_for_each(|(chain, position, _)| writeln!(out, "-D {chain} {position}"))?;
        writeln!(out, "COMMIT")
    })?;
    Ok(blocking.into_iter().map(|(chain, _, rule)| format!("filter {chain}: {rule}")).collect())
}

/// Returns true for a rule that drops or rejects every packet.
fn blocks_all(rule: &str) -> bool {
    let words = words(rule);
    let target = words.iter().position(|word| *word == "-j").and_then(|at| words.get(at + 1));
    matches!(target, Some(&"DROP" | &"REJECT")) && !has_match(&words)
}

/// Returns the words of a rule without its comment.
fn words(rule: &str) -> Vec<&str> {
    rule.split('"').step_by(2).flat_map(str::split_ascii_whitespace).collect()
}

/// Returns true if the words before the target match packets by more than a comment.
fn has_match(words: &[&str]) -> bool {
    let before = words.iter().take_while(|word| !matches!(**word, "-j" | "-g"));
    before.copied().any(|word| word.starts_with('-') && !matches!(word, "-m" | "--comment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_without_a_match_block_all_packets() {
        for (rule, expected) in [
            ("-j DROP", true),
            ("-m comment --comment \"a b -d x\" -j DROP", true),
            ("-m comment --comment ab -j REJECT --reject-with icmp-port-unreachable", true),
            ("-j ACCEPT", false),
            ("-j RETURN", false),
            ("-m conntrack --ctstate INVALID -j DROP", false),
            (
                "-d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
                false,
            ),
            ("-m mark --mark 0x8000/0x8000 -j DROP", false),
        ] {
            assert_eq!(blocks_all(rule), expected, "{rule}");
        }
    }
}
