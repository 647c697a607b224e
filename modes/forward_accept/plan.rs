//! The changes that the iptables chain `FORWARD` needs (pure).

use ipnet::IpNet;

use crate::iptables::saved_rule::{SavedRule, declared_chain};

/// The name of the chain with the rules.
pub const CHAIN: &str = "PORTCULLIS-FORWARD";

const FORWARD: &str = "FORWARD";

/// The chains `FORWARD` and [`CHAIN`] of one table `filter`.
#[derive(Debug, Default)]
pub(super) struct ForwardChains {
    /// The policy of `FORWARD` is `DROP`.
    drops_by_policy: bool,
    /// The rules of `FORWARD`, as iptables prints them.
    forward: Vec<String>,
    /// The rules of [`CHAIN`], if it exists.
    own: Option<Vec<String>>,
}

/// The change that is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    /// An input of `iptables-restore --noflush`.
    Write(String),
    /// An input that removes the rules, which are not needed.
    Remove(String),
}

/// The rules that should be there.
struct Wanted {
    /// Of [`CHAIN`].
    rules: Vec<String>,
    /// The jump to add in place of those that are there; `None` if there is one that has an effect.
    new_jump: Option<String>,
}

impl ForwardChains {
    /// Adds a line of `iptables-save`.
    pub(super) fn read_line(&mut self, line: &str) {
        match declared_chain(line) {
            Some(FORWARD) => {
                self.drops_by_policy = line.split(' ').nth(1) == Some("DROP");
            }
            Some(CHAIN) => _ = self.own.get_or_insert_default(),
            _ => {}
        }
        match SavedRule::parse(line).map(|rule| rule.chain) {
            Some(FORWARD) => self.forward.push(line.to_owned()),
            Some(CHAIN) => self.own.get_or_insert_default().push(line.to_owned()),
            _ => {}
        }
    }

    /// Returns the change after which packets from and to these CIDRs are accepted, if the chain drops any.
    pub(super) fn plan(&self, cidrs: &[IpNet]) -> Plan {
        let Some(Wanted { rules, new_jump }) = self.wanted(cidrs) else {
            return self.removal().map_or(Plan::Nothing, Plan::Remove);
        };
        if new_jump.is_none() && self.own.as_ref() == Some(&rules) {
            return Plan::Nothing;
        }
        let mut script = format!("*filter\n:{CHAIN} - [0:0]\n");
        rules.iter().for_each(|rule| push_line(&mut script, rule));
        if let Some(jump) = new_jump {
            self.jumps().into_iter().for_each(|at| push_line(&mut script, &deletion(&self.forward[at])));
            push_line(&mut script, &jump);
        }
        script.push_str("COMMIT\n");
        Plan::Write(script)
    }

    /// Returns the rules of this program that are there, and those that should be: the jump, then [`CHAIN`].
    pub(super) fn compare(&self, cidrs: &[IpNet]) -> (Vec<String>, Vec<String>) {
        let jumps: Vec<String> = self.jumps().into_iter().map(|at| self.forward[at].clone()).collect();
        let chain = || vec![format!("-N {CHAIN}")];
        let own = self.own.as_ref().map(|rules| [chain(), rules.clone()].concat());
        let found = [&*jumps, own.as_deref().unwrap_or_default()].concat();
        let wanted = self.wanted(cidrs).map(|Wanted { rules, new_jump }| {
            let jump = new_jump.map_or(jumps, |jump| vec![jump]);
            [jump, chain(), rules].concat()
        });
        (found, wanted.unwrap_or_default())
    }

    /// Returns what accepts packets from and to these CIDRs; `None` if the chain drops none of them.
    fn wanted(&self, cidrs: &[IpNet]) -> Option<Wanted> {
        let drop = self.forward.iter().position(|rule| drops_all(rule));
        if cidrs.is_empty() || (!self.drops_by_policy && drop.is_none()) {
            return None;
        }
        let jumps = self.jumps();
        // Rules after one that drops all packets have no effect.
        let is_effective = jumps.len() == 1 && drop.is_none_or(|drop| jumps[0] < drop);
        let new_jump = (!is_effective).then(|| {
            let before_drop = drop.map(|drop| drop - jumps.iter().filter(|at| **at < drop).count() + 1);
            let place = before_drop.map_or(format!("-A {FORWARD}"), |at| format!("-I {FORWARD} {at}"));
            format!("{place} -m comment --comment \"traffic of pods\" -j {CHAIN}")
        });
        Some(Wanted { rules: cidrs.iter().flat_map(|cidr| accept(*cidr)).collect(), new_jump })
    }

    /// Returns the positions of the jumps to [`CHAIN`].
    fn jumps(&self) -> Vec<usize> {
        (0..self.forward.len()).filter(|at| is_jump(&self.forward[*at])).collect()
    }

    /// Returns the input that removes the rules, if there are any.
    pub(super) fn removal(&self) -> Option<String> {
        let jumps = self.jumps();
        if jumps.is_empty() && self.own.is_none() {
            return None;
        }
        let mut script = format!("*filter\n:{CHAIN} - [0:0]\n");
        jumps.into_iter().for_each(|at| push_line(&mut script, &deletion(&self.forward[at])));
        push_line(&mut script, &format!("-X {CHAIN}"));
        script.push_str("COMMIT\n");
        Some(script)
    }
}

fn push_line(script: &mut String, line: &str) {
    script.push_str(line);
    script.push('\n');
}

/// Returns the rules that accept packets from and to a CIDR, as iptables prints them.
fn accept(cidr: IpNet) -> Vec<String> {
    // A match of all addresses is not printed.
    let matches = match cidr.prefix_len() {
        0 => vec![String::new()],
        _ => vec![format!("-s {cidr} "), format!("-d {cidr} ")],
    };
    matches.into_iter().map(|matched| format!("-A {CHAIN} {matched}-j ACCEPT")).collect()
}

fn is_jump(rule: &str) -> bool {
    SavedRule::parse(rule).is_some_and(|rule| rule.target() == Some(CHAIN))
}

/// Returns true for a rule without matches that drops or rejects.
fn drops_all(rule: &str) -> bool {
    let Some(rule) = SavedRule::parse(rule) else { return false };
    let mut effect = rule.effect();
    effect.next() == Some("-j") && matches!(effect.next(), Some("DROP" | "REJECT"))
}

/// Returns the line that deletes a rule.
fn deletion(rule: &str) -> String {
    rule.replacen("-A ", "-D ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUMP: &str = "-A FORWARD -m comment --comment \"traffic of pods\" -j PORTCULLIS-FORWARD";
    const RULES: &str = "-A PORTCULLIS-FORWARD -s 10.244.0.0/16 -j ACCEPT\n\
                         -A PORTCULLIS-FORWARD -d 10.244.0.0/16 -j ACCEPT";
    const REJECT: &str =
        "-A FORWARD -m comment --comment \"all others\" -j REJECT --reject-with icmp-host-prohibited";

    const CIDR: &str = "10.244.0.0/16";

    fn read(dump: &str) -> ForwardChains {
        let mut chains = ForwardChains::default();
        dump.lines().for_each(|line| chains.read_line(line));
        chains
    }

    fn plan(dump: &str) -> Plan {
        read(dump).plan(&[CIDR.parse().expect("a CIDR")])
    }

    #[test]
    fn the_jump_comes_after_rules_of_the_firewall_and_before_what_drops_all() {
        let docker = "-A FORWARD -j DOCKER-USER\n-A FORWARD -i docker0 -j ACCEPT";
        let own = ":PORTCULLIS-FORWARD - [0:0]";
        let set_up = |place: &str| {
            Plan::Write(format!(
                "*filter\n{own}\n{RULES}\n{place}COMMIT\n",
                place = if place.is_empty() { String::new() } else { format!("{place}\n") }
            ))
        };
        let append = JUMP;
        let insert = |at: usize| JUMP.replace("-A FORWARD", &format!("-I FORWARD {at}"));
        let delete = JUMP.replace("-A ", "-D ");
        let remove =
            |jump: &str| Plan::Remove(format!("*filter\n{own}\n{jump}-X PORTCULLIS-FORWARD\nCOMMIT\n"));
        let rows = [
            (":FORWARD ACCEPT [0:0]".to_owned(), Plan::Nothing),
            (format!(":FORWARD ACCEPT [0:0]\n{docker}"), Plan::Nothing),
            (format!(":FORWARD DROP [1:2]\n{docker}"), set_up(append)),
            (format!(":FORWARD DROP [1:2]\n{own}\n{docker}\n{JUMP}\n{RULES}"), Plan::Nothing),
            // Another process flushed the rules, deleted the jump, or added one.
            (format!(":FORWARD DROP [1:2]\n{own}\n{docker}\n{JUMP}"), set_up("")),
            (format!(":FORWARD DROP [1:2]\n{own}\n{docker}\n{RULES}"), set_up(append)),
            (
                format!(":FORWARD DROP [1:2]\n{own}\n{JUMP}\n{JUMP}\n{RULES}"),
                set_up(&format!("{delete}\n{delete}\n{append}")),
            ),
            // The last rule drops, whatever the policy.
            (format!(":FORWARD ACCEPT [1:2]\n{docker}\n{REJECT}"), set_up(&insert(3))),
            (format!(":FORWARD DROP [1:2]\n{docker}\n-A FORWARD -j DROP"), set_up(&insert(3))),
            (
                format!(":FORWARD ACCEPT [1:2]\n{own}\n{docker}\n{REJECT}\n{JUMP}\n{RULES}"),
                set_up(&format!("{delete}\n{}", insert(3))),
            ),
            (format!(":FORWARD ACCEPT [1:2]\n{own}\n{docker}\n{JUMP}\n{REJECT}\n{RULES}"), Plan::Nothing),
            // Nothing is dropped any more.
            (
                format!(":FORWARD ACCEPT [1:2]\n{own}\n{docker}\n{JUMP}\n{RULES}"),
                remove(&format!("{delete}\n")),
            ),
            (format!(":FORWARD ACCEPT [1:2]\n{own}\n{docker}"), remove("")),
            // A rule that drops some packets belongs to the firewall.
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -i eth1 -j DROP".to_owned(), Plan::Nothing),
        ];
        for (dump, expected) in rows {
            assert_eq!(plan(&dump), expected, "{dump}");
            let (found, wanted) = read(&dump).compare(&[CIDR.parse().expect("a CIDR")]);
            match &expected {
                Plan::Nothing => assert_eq!(found, wanted, "{dump}"),
                Plan::Remove(_) => assert!(!found.is_empty() && wanted.is_empty(), "{dump}: {wanted:?}"),
                Plan::Write(_) => {
                    assert_ne!(found, wanted, "{dump}");
                    assert!(wanted[0].ends_with("-j PORTCULLIS-FORWARD"), "{wanted:?}");
                    assert_eq!(wanted[1], "-N PORTCULLIS-FORWARD", "{dump}");
                    assert_eq!(wanted[2..].join("\n"), RULES, "{dump}");
                }
            }
        }
    }

    #[test]
    fn no_pods_need_no_rules() {
        let mut chains = ForwardChains::default();
        chains.read_line(":FORWARD DROP [0:0]");
        assert_eq!(chains.plan(&[]), Plan::Nothing);
        assert_eq!(
            chains.plan(&["0.0.0.0/0".parse().expect("a CIDR")]).script().matches("ACCEPT").count(),
            1
        );
    }

    impl Plan {
        fn script(&self) -> &str {
            match self {
                Plan::Nothing => "",
                Plan::Write(script) | Plan::Remove(script) => script,
            }
        }
    }
}
