//! Equal outcomes of packets in both tables.

use std::collections::BTreeMap;

use crate::outcome::Node;
use crate::{deliberate, probes, services, states};

/// The number of tests that share the cases, so that they run in parallel.
const SHARES: usize = 4;

/// The number of differences that are printed.
const MAX_PRINTED: usize = 12;

/// Compares the outcomes in the cases of a share.
fn compare(share: usize) {
    let mut compared = 0;
    let mut differences = Vec::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let is_mine = |name: &str| name.bytes().map(usize::from).sum::<usize>() % SHARES == share;
    states::each(
        |case| is_mine(&case.name),
        |state| {
            let addresses = probes::node_addresses(state);
            let node = |table| Node { table, addresses: &addresses };
            for packet in probes::packets(state) {
                let theirs = node(&state.theirs).outcomes(&packet);
                let ours = node(&state.ours).outcomes(&packet);
                compared += 1;
                if theirs == ours {
                    continue;
                }
                match deliberate::explanation(state, &packet, &theirs, &ours) {
                    Some(why) => *explained.entry(why).or_default() += 1,
                    None => differences.push(format!(
                        "{}: {packet:?}\n  theirs {theirs:?}\n  ours   {ours:?}",
                        state.name()
                    )),
                }
            }
        },
    );
    println!("{compared} packets compared; explained: {explained:#?}");
    let shown = differences.iter().step_by(differences.len() / MAX_PRINTED + 1);
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), shown.join("\n"));
    assert!(compared > 10_000, "only {compared} packets compared");
    for difference in deliberate::ALL.iter().filter(|difference| is_mine(difference.case)) {
        assert!(explained.contains_key(difference.why), "obsolete: {}", difference.why);
    }
}

#[test]
fn updated_tables_equal_rendered_ones() {
    let mut compared = 0;
    states::each(
        |_| true,
        |state| {
            let (updated, rendered) = (state.updated.to_string(), state.ours.to_string());
            services::assert_same(&state.name(), &rendered, &updated);
            compared += 1;
        },
    );
    assert!(compared > 220, "only {compared} tables compared");
}

#[test]
fn packets_have_the_outcomes_of_kube_proxy_in_share_1() {
    compare(0);
}

#[test]
fn packets_have_the_outcomes_of_kube_proxy_in_share_2() {
    compare(1);
}

#[test]
fn packets_have_the_outcomes_of_kube_proxy_in_share_3() {
    compare(2);
}

#[test]
fn packets_have_the_outcomes_of_kube_proxy_in_share_4() {
    compare(3);
}
