//! The rule of chain `KUBE-POSTROUTING` that returns packets without the masquerade mark, before the first sync.
//!
//! Without it all packets of the node are masqueraded, those between its loopback addresses too. The loopback guard drops these, so a
//! daemon could not reach an API server on its own node, and would never have the sync that restores the rule.

use super::base_rules::BaseChain;
use super::chain::Table;
use super::error::ToolError;
use super::kernel::IptablesKernel;
use crate::options::Options;

const CHAIN: &str = "KUBE-POSTROUTING";

/// Restores the rule that returns packets without the mark of these options, if a chain of an earlier run lacks it. Returns true if it was missing.
/// Does nothing without the chain.
///
/// # Errors
/// The tool could not be run, or the kernel rejected the chain.
pub fn restore_unmarked_return(kernel: &dyn IptablesKernel, options: &Options) -> Result<bool, ToolError> {
    let mut rules = Vec::new();
    match kernel.dump_counters(CHAIN, &mut |line| rules.extend(rule_without_counters(line))) {
        Ok(()) => {}
        // There is no such chain, or no table.
        Err(ToolError::Failed { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let Some(index) = first_unconditional(&rules) else { return Ok(false) };
    let mut chain = BaseChain::new(Table::Nat, CHAIN);
    rules[..index].iter().for_each(|rule| chain.line(rule));
    chain.rule(|rule| rule.not_mark(options.masquerade_mark()).jump("RETURN"));
    rules[index..].iter().for_each(|rule| chain.line(rule));
    kernel.restore(&mut |out| write!(out, "*nat\n:{CHAIN} - [0:0]\n{}COMMIT\n", chain.lines))?;
    Ok(true)
}

/// Returns the index of a rule that marks or masquerades all packets, unless packets without a mark have returned before.
fn first_unconditional(rules: &[String]) -> Option<usize> {
    let returns = |rule: &String| rule.contains("! --mark ") && rule.ends_with("-j RETURN");
    let is_conditional = |rule: &str| rule.contains(" --mark ") || rule.contains("--match-set ");
    let writes = |rule: &&String| rule.contains("-j MARK ") || rule.contains("-j MASQUERADE");
    let before_return = rules.iter().take_while(|rule| !returns(rule));
    before_return.enumerate().find(|(_, rule)| writes(rule) && !is_conditional(rule)).map(|(index, _)| index)
}

/// Returns a rule of the chain without `-A CHAIN` and without its counters, which precede its target.
fn rule_without_counters(line: &str) -> Option<String> {
    let rule = line.trim_end().strip_prefix("-A ")?.strip_prefix(CHAIN)?.trim_start();
    let Some((before, counters)) = rule.rsplit_once("-c ") else { return Some(rule.to_owned()) };
    let target = counters.splitn(3, ' ').nth(2).unwrap_or_default();
    Some(format!("{before}{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_all_packets_are_found_unless_unmarked_packets_have_returned() {
        const RETURN: &str = "-m mark ! --mark 0x4000/0x4000 -j RETURN";
        const LOOP: &str = "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE";
        const FLIP: &str = "-j MARK --set-xmark 0x4000/0x0";
        const MASQUERADE: &str =
            "-m comment --comment \"service traffic requiring SNAT\" -j MASQUERADE --random-fully";
        let rows: [(&[&str], Option<usize>); 8] = [
            (&[], None),
            (&[RETURN, FLIP, MASQUERADE], None),
            (&[LOOP, RETURN, FLIP, MASQUERADE], None),
            (&[RETURN], None),
            (&[FLIP, MASQUERADE], Some(0)),
            (&[LOOP, FLIP, MASQUERADE], Some(1)),
            (&[MASQUERADE, RETURN, FLIP, MASQUERADE], Some(0)),
            (&["-m mark --mark 0x4000/0x4000 -j MASQUERADE"], None),
        ];
        for (rules, expected) in rows {
            let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
            assert_eq!(first_unconditional(&rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn counters_are_removed() {
        for (line, expected) in [
            ("-P POSTROUTING ACCEPT -c 1 2", None),
            ("-N KUBE-POSTROUTING", None),
            (
                "-A KUBE-POSTROUTING -c 7 420 -j MARK --set-xmark 0x4000/0x0",
                Some("-j MARK --set-xmark 0x4000/0x0"),
            ),
            (
                "-A KUBE-POSTROUTING -m comment --comment \"a b\" -c 0 0 -j MASQUERADE --random-fully",
                Some("-m comment --comment \"a b\" -j MASQUERADE --random-fully"),
            ),
            ("-A KUBE-POSTROUTING -j MASQUERADE", Some("-j MASQUERADE")),
        ] {
            assert_eq!(rule_without_counters(line).as_deref(), expected, "{line}");
        }
    }
}
