//! Every packet that may matter, through both tables.

use std::collections::BTreeMap;

use crate::outcome::Node;
use crate::{deliberate, probes, services, states};

/// Cases are dealt out to tests that run side by side.
const SHARES: usize = 4;

/// Differences that are shown.
const SHOWN: usize = 12;

/// Compares the cases of a share.
fn compare(share: usize) {
    let mut compared = 0;
    let mut differences = Vec::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let is_mine = |name: &str| name.bytes().map(usize::from).sum::<usize>() % SHARES == share;
    states::each(
        |case| is_mine(&case.name),
        |state| {
            let addresses = probes::own(state);
            let node = |table| Node { table, addresses: &addresses };
            for packet in probes::packets(state) {
                let theirs = node(&state.theirs).outcome(&packet);
                let ours = node(&state.ours).outcome(&packet);
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
    let shown = differences.iter().step_by(differences.len() / SHOWN + 1);
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), shown.join("\n"));
    assert!(compared > 10_000, "only {compared} packets compared");
    for difference in deliberate::ALL.iter().filter(|difference| is_mine(difference.case)) {
        assert!(explained.contains_key(difference.why), "not met any more: {}", difference.why);
    }
}

#[test]
fn tables_that_followed_are_those_from_nothing() {
    let mut compared = 0;
    states::each(
        |_| true,
        |state| {
            let (followed, rendered) = (state.followed.to_string(), state.ours.to_string());
            services::assert_same(&state.name(), &rendered, &followed);
            compared += 1;
        },
    );
    assert!(compared > 220, "only {compared} tables compared");
}

#[test]
fn packets_fare_as_by_kube_proxy_in_the_first_share_of_cases() {
    compare(0);
}

#[test]
fn packets_fare_as_by_kube_proxy_in_the_second_share_of_cases() {
    compare(1);
}

#[test]
fn packets_fare_as_by_kube_proxy_in_the_third_share_of_cases() {
    compare(2);
}

#[test]
fn packets_fare_as_by_kube_proxy_in_the_fourth_share_of_cases() {
    compare(3);
}
