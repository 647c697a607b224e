//! IPVS mode, in user-mode Linux. Booting a machine and starting a daemon take longer than most cases, so a machine runs a
//! group of cases, and a daemon all of them with the same node and configuration.

use libtest_mimic::Trial;
use portcullis::config::ProxyMode;
use portcullis_machines::uml;

use crate::follow::follow_group;
use crate::recorded_objects::{
    ADDRESSES, IPV4_RULES, IPV6_RULES, RecordedObjects, SETS, SYSCTLS, VIRTUAL_SERVERS,
};
use crate::services::{Case, case_names};
use crate::test;

/// The compared objects. Virtual servers are the first to differ, so the rest is read only once they are equal.
const OBJECTS: [RecordedObjects; 6] = [VIRTUAL_SERVERS, SETS, ADDRESSES, IPV4_RULES, IPV6_RULES, SYSCTLS];

/// A group of cases, with the beginnings of their names.
type Group = (&'static str, &'static [&'static str]);

#[rustfmt::skip]
const GROUPS: [Group; 5] = [
    ("addresses_traffic_policies_and_affinity", &["affinity-", "both-local", "clusterip-", "empty", "etp-", "external-ips", "ignored-services", "itp-", "lb", "leftover-", "mixed", "multi-", "service-cidr-", "terminating-"]),
    ("endpoints_and_topology_hints", &["endpoints-", "hairpin", "just-not-large", "large-cluster", "no-endpoints", "node-hints", "not-ready", "publish-", "slices-", "zone-hints"]),
    ("ipvs_options", &["ipvs-"]),
    ("node_ports_masquerading_and_families", &["detect-", "dual-stack", "ipv6-single", "masquerade-", "node-ipv", "nodeport"]),
    ("sequences", &["seq-"]),
];

/// Returns a test for each group. `PORTCULLIS_CASE=etp-local` selects one case of it.
pub(crate) fn trials() -> Vec<Trial> {
    let names = case_names(ProxyMode::Ipvs);
    for name in &names {
        let groups = GROUPS.iter().filter(|group| has(group, name)).count();
        assert_eq!(groups, 1, "{name}: expected a group in tests/drop_in/ipvs.rs");
    }
    let only = std::env::var("PORTCULLIS_CASE").ok();
    let trials = GROUPS.iter().map(|group| {
        let is_selected = |name: &&String| has(group, name) && only.as_ref().is_none_or(|only| only == *name);
        let names: Vec<String> = names.iter().filter(is_selected).cloned().collect();
        test(format!("ipvs::{}", group.0), move || {
            uml::inside(|| {
                let cases = names.iter().map(|name| Case::named(name, ProxyMode::Ipvs));
                follow_group(cases, &OBJECTS);
            });
        })
    });
    trials.collect()
}

fn has((_, beginnings): &Group, name: &str) -> bool {
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}
