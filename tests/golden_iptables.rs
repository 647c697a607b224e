//! Golden test of iptables mode: for every recorded state the rendered rules equal those of kube-proxy v1.36.2.

mod services;

use libtest_mimic::{Arguments, Trial};
use portcullis::config::ProxyMode;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::iptables::RuleSet;
use services::{Case, assert_same, bring, case_names, cases, normalised};

/// This recording contains rules of other programs; `kernel_iptables.rs` compares it with the kernel.
const WITH_FOREIGN_RULES: &str = "leftover-iptables";

/// One test for each case.
fn main() {
    let names = case_names(ProxyMode::Iptables).into_iter().filter(|name| name != WITH_FOREIGN_RULES);
    let mut trials: Vec<Trial> = names
        .map(|name| {
            Trial::test(format!("rendered_rules_equal_those_of_kube_proxy::{name}"), move || {
                rendered_rules_equal_those_of_kube_proxy(&Case::named(&name, ProxyMode::Iptables));
                Ok(())
            })
        })
        .collect();
    trials.push(Trial::test("there_are_more_than_200_rule_sets", || {
        let states: usize = cases(ProxyMode::Iptables)
            .iter()
            .filter(|case| case.name != WITH_FOREIGN_RULES)
            .map(|case| case.states().len())
            .sum();
        assert!(states * Family::BOTH.len() > 200, "only {states} states");
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn rendered_rules_equal_those_of_kube_proxy(case: &Case) {
    let mut index = Index::new();
    for (i, state) in case.states().iter().enumerate() {
        bring(&mut index, state);
        let (options, host) = case.facts(&index);
        let desired = Desired::from_index(&index, case.node());
        for family in Family::BOTH {
            let rendered = RuleSet::render(&desired, family, &options, &host).to_string();
            let wanted = case.recorded_rules(i + 1, family);
            assert_same(&format!("{} step {} {family}", case.name, i + 1), &wanted, &normalised(&rendered));
        }
    }
}
