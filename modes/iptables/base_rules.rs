//! The base rules, which do not depend on Services: jumps from built-in chains, and common chains.

use std::net::{IpAddr, Ipv6Addr};

use portcullis_cluster::Family;

use super::IptablesKernel;
use super::chain::{SharedChain, Table};
use super::error::ToolError;
use super::nfacct::NFACCT_INVALID_DROPPED;
use super::rule::{Rule, host};
use super::saved_rule::declared_chain;
use super::service_renderer::loopback_block;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::NodePortScope;
use crate::options::Options;

/// The canary chain: its absence shows that the table was flushed, or is new.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// The chain that drops packets to loopback addresses from other hosts.
const FIREWALL: &str = "KUBE-FIREWALL";

/// A jump from a built-in chain.
pub(crate) struct Jump {
    pub(crate) table: Table,
    pub(crate) from: &'static str,
    /// The rule, without `-A CHAIN`.
    pub(crate) rule: String,
}

/// A chain whose rules do not depend on Services.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    /// Its rules, one per line, each beginning with `-A CHAIN`.
    pub(crate) lines: String,
}

/// Returns all jumps, in the order in which the chains hold them.
pub(crate) fn jumps() -> Vec<Jump> {
    const LB: &str = "kubernetes load balancer firewall";
    const PORTALS: &str = "kubernetes service portals";
    const EXTERNAL: &str = "kubernetes externally-visible service portals";
    const HEALTH: &str = "kubernetes health check service ports";
    const FORWARD: &str = "kubernetes forwarding rules";
    const POSTROUTING: &str = "kubernetes postrouting rules";
    use Table::{Filter, Nat};
    let rows: [(Table, &str, &str, bool, Option<&str>); 14] = [
        (Filter, "INPUT", "KUBE-FIREWALL", false, None),
        (Filter, "INPUT", "KUBE-PROXY-FIREWALL", true, Some(LB)),
        (Filter, "INPUT", "KUBE-NODEPORTS", false, Some(HEALTH)),
        (Filter, "INPUT", "KUBE-EXTERNAL-SERVICES", true, Some(EXTERNAL)),
        (Filter, "FORWARD", "KUBE-PROXY-FIREWALL", true, Some(LB)),
        (Filter, "FORWARD", "KUBE-FORWARD", false, Some(FORWARD)),
        (Filter, "FORWARD", "KUBE-SERVICES", true, Some(PORTALS)),
        (Filter, "FORWARD", "KUBE-EXTERNAL-SERVICES", true, Some(EXTERNAL)),
        (Filter, "OUTPUT", "KUBE-FIREWALL", false, None),
        (Filter, "OUTPUT", "KUBE-PROXY-FIREWALL", true, Some(LB)),
        (Filter, "OUTPUT", "KUBE-SERVICES", true, Some(PORTALS)),
        (Nat, "PREROUTING", "KUBE-SERVICES", false, Some(PORTALS)),
        (Nat, "OUTPUT", "KUBE-SERVICES", false, Some(PORTALS)),
        (Nat, "POSTROUTING", "KUBE-POSTROUTING", false, Some(POSTROUTING)),
    ];
    let jump =
        |(table, from, to, new_only, comment): (Table, &'static str, &'static str, bool, Option<&str>)| {
            let mut text = String::new();
            let mut rule = Rule::new(&mut text);
            if new_only {
                rule = rule.ct_state("NEW");
            }
            if let Some(comment) = comment {
                rule = rule.comment(comment);
            }
            rule.jump(to);
            Jump { table, from, rule: text }
        };
    rows.into_iter().map(jump).collect()
}

/// Returns the chains whose rules do not depend on Services, without the shared chains.
pub(super) fn chains(family: Family, options: &Options, facts: &NodeFacts) -> Vec<BaseChain> {
    let mut chains: Vec<BaseChain> =
        Table::ALL.iter().map(|&table| BaseChain { table, name: CANARY, lines: String::new() }).collect();
    chains.push(forward(options, facts));
    chains.push(firewall(family, options, facts));
    chains.push(postrouting(options, facts));
    let mut mark = BaseChain::new(Table::Nat, "KUBE-MARK-MASQ");
    mark.rule(|rule| rule.set_mark(options.masquerade_mark()));
    chains.push(mark);
    chains
}

/// Returns the names of the same chains in one table.
pub(super) fn names(table: Table) -> impl Iterator<Item = &'static str> {
    let names: &[&str] = match table {
        Table::Filter => &[CANARY, "KUBE-FORWARD", "KUBE-FIREWALL"],
        Table::Mangle => &[CANARY],
        Table::Nat => &[CANARY, "KUBE-POSTROUTING", "KUBE-MARK-MASQ"],
    };
    names.iter().copied()
}

impl BaseChain {
    pub(crate) fn new(table: Table, name: &'static str) -> Self {
        BaseChain { table, name, lines: String::new() }
    }

    pub(crate) fn rule(&mut self, write: impl FnOnce(Rule<'_>)) {
        self.lines.push_str("-A ");
        self.lines.push_str(self.name);
        self.lines.push(' ');
        write(Rule::new(&mut self.lines));
        self.lines.push('\n');
    }

    /// Appends a rule given without `-A CHAIN`.
    pub(crate) fn line(&mut self, rule: &str) {
        self.rule(|text| text.text(rule));
    }
}

fn forward(options: &Options, facts: &NodeFacts) -> BaseChain {
    let mut chain = BaseChain::new(Table::Filter, "KUBE-FORWARD");
    if !options.conntrack_tcp_liberal {
        // NAT does not translate such a packet back, and its receiver would reset the connection.
        chain.rule(|rule| {
            let rule = rule.ct_state("INVALID");
            if facts.iptables.nfacct {
                rule.nfacct(NFACCT_INVALID_DROPPED).jump("DROP")
            } else {
                rule.jump("DROP")
            }
        });
    }
    chain.rule(|rule| {
        rule.comment("kubernetes forwarding rules").mark(options.masquerade_mark()).jump("ACCEPT")
    });
    chain.rule(|rule| {
        rule.comment("kubernetes forwarding conntrack rule").ct_state("RELATED,ESTABLISHED").jump("ACCEPT");
    });
    chain
}

/// Returns the chain that drops packets to loopback addresses from other hosts (CVE-2020-8558), while `route_localnet`
/// is set or is going to be set for node ports on localhost. IPv6 has no such sysctl, so its chain is empty.
fn firewall(family: Family, options: &Options, facts: &NodeFacts) -> BaseChain {
    let mut chain = BaseChain::new(Table::Filter, FIREWALL);
    if family == Family::V4 && (options.serves_localhost_node_ports() || facts.route_localnet) {
        guard_loopback(&mut chain);
    }
    chain
}

/// Appends the rule that drops packets to IPv4 loopback addresses from other hosts, as kube-proxy writes it.
pub(crate) fn guard_loopback(chain: &mut BaseChain) {
    chain.rule(|rule| {
        rule.comment("block incoming localnet connections")
            .destination(loopback_block())
            .not_source(loopback_block())
            .not_ct_state("RELATED,ESTABLISHED,DNAT")
            .jump("DROP");
    });
}

/// Writes the rule that drops packets to IPv4 loopback addresses from other hosts while no mode serves and the kernel
/// has no nf_tables. It is in the chain that iptables mode takes over and that cleanup removes. Returns true if the
/// chain is new.
///
/// # Errors
/// The tool could not be run, or the kernel rejects the rule.
pub(crate) fn write_loopback_guard(kernel: &dyn IptablesKernel) -> Result<bool, ToolError> {
    let (mut has_jump, mut is_new) = (false, true);
    let jump = format!("-A INPUT -j {FIREWALL}");
    kernel.dump(Table::Filter, &mut |line| {
        has_jump |= line.trim_end() == jump;
        is_new &= declared_chain(line) != Some(FIREWALL);
    })?;
    let mut chain = BaseChain::new(Table::Filter, FIREWALL);
    guard_loopback(&mut chain);
    kernel.restore(&mut |out| {
        write!(out, "*filter\n:{FIREWALL} - [0:0]\n{}", chain.lines)?;
        if !has_jump {
            writeln!(out, "-I INPUT 1 -j {FIREWALL}")?;
        }
        writeln!(out, "COMMIT")
    })?;
    Ok(is_new)
}

fn postrouting(options: &Options, facts: &NodeFacts) -> BaseChain {
    let mut chain = BaseChain::new(Table::Nat, "KUBE-POSTROUTING");
    chain.rule(|rule| rule.not_mark(options.masquerade_mark()).jump("RETURN"));
    // The mark is cleared so that a packet that passes here again is not masqueraded again.
    chain.rule(|rule| rule.flip_mark(options.masquerade_mark()));
    chain.rule(|rule| {
        rule.comment("kubernetes service traffic requiring SNAT").masquerade(facts.iptables.random_fully);
    });
    chain
}

/// Returns the last rules of `nat KUBE-SERVICES`, without `-A CHAIN`: they send all other packets to this node to the
/// node ports.
pub(super) fn node_port_tail(family: Family, options: &Options, facts: &NodeFacts) -> Vec<String> {
    const COMMENT: &str = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
    const TARGET: &str = "KUBE-NODEPORTS";
    // IPv6 has no route_localnet: node ports on ::1 do not work.
    let loopback = family == Family::V4 && options.serves_localhost_node_ports();
    let mut lines = Vec::new();
    let mut rule = |write: &dyn Fn(Rule<'_>)| {
        let mut text = String::new();
        write(Rule::new(&mut text));
        lines.push(text);
    };
    match options.node_port_scope(family, facts) {
        NodePortScope::All => rule(&|rule| {
            let rule = rule.comment(COMMENT).destination_is_local();
            match family {
                _ if loopback => rule.jump(TARGET),
                Family::V4 => rule.not_destination(loopback_block()).jump(TARGET),
                Family::V6 => rule.not_destination(host(IpAddr::V6(Ipv6Addr::LOCALHOST))).jump(TARGET),
            }
        }),
        NodePortScope::Addresses(addresses) => {
            for ip in addresses.into_iter().filter(|ip| loopback || !ip.is_loopback()) {
                rule(&|rule| rule.comment(COMMENT).destination(host(ip)).jump(TARGET));
            }
        }
    }
    lines
}

/// Returns the names of the shared chains of a table.
pub(super) fn shared_names(table: Table) -> impl Iterator<Item = &'static str> {
    SharedChain::ALL.into_iter().filter(move |c| c.table() == table).map(SharedChain::name)
}
