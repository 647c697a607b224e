//! Traced packets.

use std::net::IpAddr;

use portcullis_cluster::{Name, Protocol};
use portcullis_netlink::nf_tables::{Fate, Hook, Packet};
use portcullis_policy::compile::{DirtyPolicyObjects, RuleAction};
use portcullis_policy::evaluation::{Decision, DecisionReason, PolicyVerdict};
use portcullis_policy::table::{DropLabels, DropLog, PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Connection, Scope};
use proptest::prelude::*;

use crate::random_objects::{Event, NODES, connection};
use crate::{Cluster, batches};

/// A protocol without ports that is not ICMP: its packets have arbitrary bytes where TCP has ports.
const GRE: u8 = 47;

/// A node with its updated tables.
struct Node {
    name: &'static str,
    compiler: Compiler,
    tables: Vec<PolicyTable>,
}

/// The effects of a table on a packet.
#[derive(Debug, PartialEq)]
struct Effects {
    is_dropped: bool,
    /// Direction and policies of the counter.
    counted: Option<DropLabels>,
    log_prefix: Option<String>,
}

impl Node {
    fn new(name: &'static str) -> Self {
        let plain = PolicyOptions::default();
        let log = Some(DropLog { group: 7, rate: 10 });
        let audit = PolicyOptions { audit: true, log, ..plain.clone() };
        let logged = PolicyOptions { log, terminates_connections: true, ..plain.clone() };
        Node {
            name,
            compiler: Compiler::new(Scope::Node(Name::new(name))),
            tables: [plain, audit, logged].map(PolicyTable::new).into(),
        }
    }

    fn update(&mut self, cluster: &Cluster, dirty: &DirtyPolicyObjects) {
        let changes = self.compiler.update(&cluster.index, dirty);
        self.tables.iter_mut().for_each(|table| table.apply(&changes, self.compiler.compiled()));
    }

    /// Returns true if the address is one of this node and of a pod here, so that routing decides who receives packets.
    fn is_ambiguous(&self, address: IpAddr, cluster: &Cluster) -> bool {
        self.is_local(address, cluster) && self.compiler.compiled().pod_at(address).is_some()
    }

    fn is_local(&self, address: IpAddr, cluster: &Cluster) -> bool {
        let node = cluster.index.node(&Name::new(self.name));
        node.is_some_and(|node| node.ips().any(|ip| ip == address))
    }

    /// Checks the effects of all tables on a packet. `scratch` has the options of the first one, and was built from scratch.
    fn check(
        &self,
        cluster: &Cluster,
        scratch: &PolicyTable,
        packet: &Packet,
        (egress, ingress): (Option<bool>, Option<bool>),
    ) -> Result<(), TestCaseError> {
        let (from, to) = (packet.source, packet.destination);
        if self.is_ambiguous(from, cluster) || self.is_ambiguous(to, cluster) {
            return Ok(());
        }
        let source_is_local = self.is_local(from, cluster);
        let packet = Packet {
            input: packet.input.clone().filter(|_| !source_is_local),
            source_is_local,
            destination_is_local: self.is_local(to, cluster),
            ..packet.clone()
        };
        let hook = if packet.destination_is_local { Hook::Input } else { Hook::Postrouting };
        let place =
            || format!("{}: {from} → {to} {}/{}", self.name, packet.destination_port, packet.protocol);
        let [of_updated, of_scratch] = [&self.tables[0], scratch].map(|table| effects(table, hook, &packet));
        prop_assert_eq!(of_updated, of_scratch, "from scratch, {}", place());
        for table in &self.tables {
            let effects = effects(table, hook, &packet);
            let is_denied = egress == Some(false) || ingress == Some(false);
            prop_assert_eq!(effects.is_dropped, is_denied && !table.options().audit, "{}", place());
            prop_assert_eq!(effects.counted.is_some(), is_denied, "{}", place());
            prop_assert_eq!(effects.log_prefix.is_some(), is_denied && table.options().log.is_some());
            let direction = if egress == Some(false) { "egress" } else { "ingress" };
            if let Some(counted) = effects.counted {
                prop_assert_eq!(counted.direction, direction, "{}", place());
            }
        }
        Ok(())
    }

    /// Checks that the drop of a connection is counted for the policies that deny it.
    fn check_labels(&self, connection: Connection, packet: &Packet) -> Result<(), TestCaseError> {
        let evaluation = self.compiler.compiled().evaluate(connection);
        let is_denied = |decision: &&Decision| decision.verdict == PolicyVerdict::Deny;
        let denied = [&evaluation.egress, &evaluation.ingress].into_iter().flatten().find(is_denied);
        let effects = effects(&self.tables[0], Hook::Postrouting, packet);
        let (Some(decision), Some(DropLabels { policy, .. })) = (denied, effects.counted) else {
            return Ok(());
        };
        match &decision.reason {
            DecisionReason::Rule(rule) => {
                prop_assert_eq!(rule.action, RuleAction::Deny);
                prop_assert_eq!(policy, rule.rules.policy.to_string());
            }
            DecisionReason::NoRuleMatches { policies } => {
                let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                let shown = policy.split(" and ").next().unwrap();
                prop_assert!(names == policy || names.starts_with(shown), "{policy} for {names}");
            }
            other => prop_assert!(false, "{:?} denies nothing", other),
        }
        Ok(())
    }
}

fn effects(table: &PolicyTable, hook: Hook, packet: &Packet) -> Effects {
    let trace = table.table().desired().trace(hook, packet, &mut |_| 0);
    Effects {
        is_dropped: trace.fate != Fate::Accepted,
        // An audit evaluates ingress after a denial by egress, too.
        counted: trace.counters.first().map(|counter| table.labels()[counter].clone()),
        log_prefix: trace.log_prefixes.first().map(|prefix| prefix.to_string()),
    }
}

/// Returns a packet of ICMP in the addresses' family.
fn ping(from: IpAddr, to: IpAddr) -> Packet {
    let (protocol, icmp_type) = match from {
        IpAddr::V4(_) => (libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::IPPROTO_ICMPV6, 128),
    };
    Packet { icmp_type, ..Packet::new(from, to, protocol as u8, 0) }
}

fn check_batches(batches: &[Vec<Event>], connections: &[Connection]) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::default();
    let mut nodes = NODES.map(Node::new);
    for batch in batches {
        let dirty = cluster.handle(batch);
        for node in &mut nodes {
            node.update(&cluster, &dirty);
            let options = node.tables[0].options().clone();
            let scratch = PolicyTable::from_compiled(options, node.compiler.compiled());
            for connection in connections {
                let Connection { from, to, port, protocol } = *connection;
                let packet = Packet::new(from, to, protocol.number(), port);
                let expected = cluster.naive.evaluate(Some(node.name), *connection);
                node.check(&cluster, &scratch, &packet, expected)?;
                if ![from, to].iter().any(|end| node.is_ambiguous(*end, &cluster)) {
                    node.check_labels(*connection, &packet)?;
                }
            }
            // The addresses of some connections are enough: only rules for all ports match.
            for Connection { from, to, port, .. } in
                connections.iter().filter(|c| c.protocol == Protocol::Sctp)
            {
                let expected = cluster.naive.evaluate_without_ports(Some(node.name), *from, *to);
                node.check(&cluster, &scratch, &ping(*from, *to), expected)?;
                node.check(&cluster, &scratch, &Packet::new(*from, *to, GRE, *port), expected)?;
            }
        }
    }
    Ok(())
}

proptest! {
    // Each case renders dozens of tables and traces thousands of packets.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.min(96),
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    })]

    #[test]
    fn packets_are_decided_as_by_the_reference_evaluation(
        batches in batches(),
        connections in prop::collection::vec(connection(), 50),
    ) {
        check_batches(&batches, &connections)?;
    }
}
