//! Golden test of iptables mode: for every recorded state the rendered rules equal those of kube-proxy v1.36.2.

mod services;

use portcullis::config::ProxyMode;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::iptables::RuleSet;
use services::{assert_same, bring, cases, normalised};

/// This recording contains rules of other programs; `kernel_iptables.rs` compares it with the kernel.
const WITH_FOREIGN_RULES: &str = "leftover-iptables";

#[test]
fn rendered_rules_equal_those_of_kube_proxy() {
    let mut compared = 0;
    for case in cases(ProxyMode::Iptables).iter().filter(|case| case.name != WITH_FOREIGN_RULES) {
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
