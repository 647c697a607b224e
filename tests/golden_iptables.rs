//! The rules that we render are those that kube-proxy v1.36.2 programs, for every recorded state.

mod services;

use portcullis::config::ProxyMode;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::iptables::RuleSet;
use services::{assert_same, bring, cases, normalised};

/// Rules of others stand in this recording; it is compared with the kernel in `kernel_iptables.rs`.
const WITH_RULES_OF_OTHERS: &str = "leftover-iptables";

#[test]
fn rendered_rules_are_those_of_kube_proxy() {
    let mut compared = 0;
    for case in cases(ProxyMode::Iptables).iter().filter(|case| case.name != WITH_RULES_OF_OTHERS) {
        let mut index = Index::new();
        for (i, state) in case.states().iter().enumerate() {
            bring(&mut index, state);
            let (options, host) = case.facts(&index);
            let desired = Desired::from_index(&index, case.node());
            for family in Family::BOTH {
                let rendered = RuleSet::render(&desired, family, &options, &host).to_string();
                let wanted = case.recorded_rules(i + 1, family);
                assert_same(
                    &format!("{} step {} {family}", case.name, i + 1),
                    &wanted,
                    &normalised(&rendered),
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "only {compared} rule sets compared");
}
