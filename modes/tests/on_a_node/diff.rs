//! Tests of the diff: rules read from the kernel equal the written ones, and a difference names its Service.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use portcullis_cluster::Family;
use portcullis_modes::iptables::{Flavour, RuleOwner, RuleSet, Table, compare_rules};

use crate::namespace::{inside, run};
use crate::node::{FLAVOURS, Node, feed, tool};

/// The states recorded in iptables mode.
fn states() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/services");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let states: Vec<String> = entries
        .filter(|entry| entry.path().join("iptables/1").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(states.len() > 50, "{states:?}");
    states
}

fn owners(node: &Node, family: Family) -> Vec<String> {
    let differences = compare_rules(&node.desired_rules(family), &node.rules_in_kernel(family));
    differences.into_iter().map(|difference| difference.owner.to_string()).collect()
}

#[test]
fn order_of_services_is_no_difference() {
    for state in states() {
        let node = Node::new(Flavour::Nft, &state);
        for family in Family::BOTH {
            let wanted = node.desired_rules(family);
            assert_eq!(compare_rules(&wanted, &wanted), [], "{state} {family}");
            let mut turned = wanted.clone();
            for lines in turned.tables.values_mut().flat_map(|chains| chains.values_mut()) {
                reverse_services(lines);
            }
            assert_eq!(compare_rules(&wanted, &turned), [], "{state} {family}");
            assert_eq!(compare_rules(&turned, &wanted), [], "{state} {family}");
        }
    }
}

/// Reverses the order of Services in a shared chain, and adds spaces.
fn reverse_services(lines: &mut [String]) {
    let port = |line: &String| line.split([' ', '"']).find(|word| word.contains('/')).map(str::to_owned);
    let shared = ["KUBE-SERVICES ", "KUBE-NODEPORTS ", "KUBE-EXTERNAL-SERVICES ", "KUBE-PROXY-FIREWALL "];
    if lines.first().is_some_and(|line| shared.iter().any(|chain| line.starts_with(&format!("-A {chain}")))) {
        let comment = |line: &String| line.split_once("--comment ").and_then(|(_, c)| port(&c.to_owned()));
        let services = lines.iter().take_while(|line| comment(line).is_some()).count();
        lines[..services].sort_by_key(|line| std::cmp::Reverse(comment(line)));
    }
    lines.iter_mut().for_each(|line| *line = line.replace(" -j ", "  -j "));
}

#[test]
fn there_is_no_difference_after_a_sync() {
    for flavour in FLAVOURS {
        for state in ["mixed", "affinity-nodeport-lb", "large-cluster", "dual-stack", "empty"] {
            inside(|| {
                let node = Node::new(flavour, state);
                assert!(!owners(&node, Family::V4).is_empty(), "{flavour:?} {state}: all is missing");
                // Rules of other programs are not reported.
                for table in ["nat", "filter"] {
                    run(&format!("{} -w 60 -t {table} -N KUBE-KUBELET-CANARY", tool(flavour, Family::V4)));
                    run(&format!(
                        "{} -w 60 -t {table} -A OUTPUT -j KUBE-KUBELET-CANARY",
                        tool(flavour, Family::V4)
                    ));
                }
                node.sync();
                for family in Family::BOTH {
                    let none: Vec<String> = Vec::new();
                    assert_eq!(owners(&node, family), none, "{flavour:?} {state} {family}");
                }
            });
        }
    }
}

/// Returns a Service's chain with a rule that contains some words.
fn chain_with(set: &RuleSet, prefix: &str, words: &str) -> String {
    let chains = &set.tables[&Table::Nat];
    let has = |lines: &Vec<String>| lines.iter().any(|line| line.contains(words));
    let found = chains.iter().find(|(name, lines)| name.starts_with(prefix) && has(lines));
    found.unwrap_or_else(|| panic!("no chain {prefix} with {words}")).0.clone()
}

#[test]
fn external_changes_are_reported_for_the_right_service() {
    for flavour in FLAVOURS {
        inside(|| {
            let node = Node::new(flavour, "mixed");
            node.sync();
            let wanted = node.desired_rules(Family::V4);
            let tool = tool(flavour, Family::V4);
            let services: BTreeSet<String> =
                node.desired.services().keys().map(ToString::to_string).collect();
            let served = |words: &str| {
                let line =
                    wanted.tables[&Table::Nat]["KUBE-SERVICES"].iter().find(|line| line.contains(words));
                let rest = line.unwrap().split_once("--comment \"").unwrap().1;
                rest.split([':', ' ']).next().unwrap().to_owned()
            };
            let web = served("10.96.20.1/32");
            assert!(services.contains(&web), "{web}");
            let service_chain = chain_with(&wanted, "KUBE-SVC-", "10.96.20.3/32");
            let other = served("10.96.20.3/32");
            let endpoint = chain_with(&wanted, "KUBE-SEP-", &format!("--comment \"{web}:"));
            let shared = wanted.tables[&Table::Nat]["KUBE-SERVICES"]
                .iter()
                .find(|line| line.contains("10.96.20.1/32"))
                .unwrap();
            let deletion = format!("*nat\n-D {}\nCOMMIT\n", shared.strip_prefix("-A ").unwrap());
            let none: &[&str] = &[];
            let rows: [(&str, String, &[&str]); 8] = [
                ("a rule that catches", format!("<{deletion}"), &[&web]),
                ("a Service's chain", format!("-t nat -F {service_chain}"), &[&other]),
                ("an endpoint's rule", format!("-t nat -D {endpoint} 1"), &[&web]),
                ("a foreign rule in an endpoint chain", format!("-t nat -A {endpoint} -j RETURN"), &[&web]),
                ("a base chain", "-t nat -F KUBE-POSTROUTING".to_owned(), &["base rules"]),
                ("a jump", "-t nat -D OUTPUT 1".to_owned(), &["base rules"]),
                ("a rule after the last", "-t nat -A KUBE-SERVICES -j RETURN".to_owned(), &["base rules"]),
                ("a foreign chain", "-t nat -N MINE".to_owned(), none),
            ];
            for (what, change, expected) in rows {
                match change.strip_prefix('<') {
                    Some(text) => feed(&format!("{tool}-restore -w 60 --noflush"), text),
                    None => run(&format!("{tool} -w 60 {change}")),
                };
                assert_eq!(owners(&node, Family::V4), expected, "{flavour:?}: {what}");
                node.sync();
                assert_eq!(owners(&node, Family::V4), none, "{flavour:?}: restored {what}");
            }
        });
    }
}

/// In a large cluster, endpoint chains have no comments.
#[test]
fn chains_without_comments_are_assigned_by_the_jumps_to_them() {
    let node = Node::new(Flavour::Nft, "large-cluster");
    let wanted = node.desired_rules(Family::V4);
    let (chain, _) = wanted.tables[&Table::Nat]
        .iter()
        .find(|(name, lines)| name.starts_with("KUBE-SEP-") && !lines[0].contains("--comment"))
        .expect("the state has more than a thousand endpoints");
    let mut found = wanted.clone();
    found.tables.get_mut(&Table::Nat).unwrap().remove(chain);
    let differences = compare_rules(&wanted, &found);
    let [difference] = differences.as_slice() else { panic!("{differences:?}") };
    let leads = |line: &&String| line.ends_with(&format!("-j {chain}"));
    let leading = wanted.tables[&Table::Nat].values().flatten().find(leads).unwrap();
    let service = wanted.tables[&Table::Nat]["KUBE-SERVICES"]
        .iter()
        .find(|line| line.ends_with(leading.split(' ').nth(1).unwrap()))
        .unwrap();
    let RuleOwner::Service(name) = &difference.owner else { panic!("{:?}", difference.owner) };
    assert!(service.contains(&format!("--comment \"{name}")), "{name}: {service}");
    let [part] = difference.chains.as_slice() else { panic!("{:?}", difference.chains) };
    assert_eq!((&part.chain, part.actual.as_ref()), (chain, None));
}

/// A node port rule that is not last would match packets meant for a Service.
#[test]
fn service_rule_after_the_node_port_rule_is_a_difference() {
    let node = Node::new(Flavour::Nft, "mixed");
    let wanted = node.desired_rules(Family::V4);
    let mut found = wanted.clone();
    let lines = found.tables.get_mut(&Table::Nat).unwrap().get_mut("KUBE-SERVICES").unwrap();
    lines.rotate_right(1);
    assert!(compare_rules(&wanted, &found).iter().any(|d| d.owner == RuleOwner::Base));
}
