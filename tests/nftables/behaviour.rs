//! Equal outcomes of packets in both tables.

use std::collections::BTreeMap;

use crate::outcome::Node;
use crate::services::Case;
use crate::{deliberate, probes, services, states};

/// The number of differences that are printed.
const MAX_PRINTED: usize = 12;

/// The minimum number of packets per case.
const MIN_PACKETS: usize = 500;

/// Compares the outcomes of all packets in the states of a case.
pub fn compare(case: &Case) {
    let mut compared = 0;
    let mut differences = Vec::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    states::each_of(case, |state| {
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
                None => differences
                    .push(format!("{}: {packet:?}\n  theirs {theirs:?}\n  ours   {ours:?}", state.name())),
            }
        }
    });
    println!("{compared} packets compared; explained: {explained:#?}");
    let shown = differences.iter().step_by(differences.len() / MAX_PRINTED + 1);
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), shown.join("\n"));
    assert!(compared > MIN_PACKETS, "only {compared} packets compared");
    for difference in deliberate::ALL.iter().filter(|difference| difference.case == case.name) {
        assert!(explained.contains_key(difference.why), "obsolete: {}", difference.why);
    }
}

/// Compares the table that was updated step by step with the rendered one.
pub fn compare_updated(case: &Case) {
    states::each_of(case, |state| {
        let (updated, rendered) = (state.updated.to_string(), state.ours.to_string());
        services::assert_same(&state.name(), &rendered, &updated);
    });
}
