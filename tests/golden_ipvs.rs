//! The rendered objects of IPVS mode equal those of kube-proxy v1.36.2 for every recorded state: virtual servers, sets,
//! addresses and rules.

mod services;

use libtest_mimic::{Arguments, Trial};
use portcullis::config::ProxyMode;
use portcullis::node;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::ipvs::IpvsObjects;
use services::ipvs::{addresses, sets, virtual_servers};
use services::{Case, assert_same, bring, case_names, cases, normalised};

/// The recording of this case has excluded virtual servers of another program.
const WITH_FOREIGN_SERVERS: &str = "ipvs-exclude-cidrs";

/// One test for each case.
fn main() {
    let names = case_names(ProxyMode::Ipvs).into_iter();
    let mut trials: Vec<Trial> = names
        .map(|name| {
            Trial::test(format!("rendered_objects_are_those_of_kube_proxy::{name}"), move || {
                rendered_objects_are_those_of_kube_proxy(&Case::named(&name, ProxyMode::Ipvs));
                Ok(())
            })
        })
        .collect();
    trials.push(Trial::test("there_are_at_least_120_states", || {
        let states: usize = cases(ProxyMode::Ipvs).iter().map(|case| case.states().len()).sum();
        assert!(states >= 120, "only {states} states");
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn rendered_objects_are_those_of_kube_proxy(case: &Case) {
    let mut index = Index::new();
    for (i, state) in case.states().iter().enumerate() {
        let step = i + 1;
        bring(&mut index, state);
        let (options, host) = case.facts(&index);
        let desired = Desired::from_index(&index, case.node());
        let ipvs = node::ipvs_options(&case.config);
        let rendered = IpvsObjects::render(&desired, &Family::BOTH, &ipvs, &options, &host);
        let what = |part: &str| format!("{} step {step}: {part}", case.name);
        let same = |part: &str, file: &str, ours: String, normalised: fn(&str) -> String| {
            let recorded = normalised(&case.recorded(step, file));
            assert_same(&what(part), &recorded, &normalised(&ours));
        };
        if case.name != WITH_FOREIGN_SERVERS {
            same("virtual servers", "ipvsadm.save", rendered.ipvsadm(), virtual_servers);
        }
        same("sets", "ipset.save", rendered.ipset(), sets);
        same("addresses", "addrs", rendered.address_lines(), addresses);
        for family in Family::BOTH {
            let rules = normalised(&rendered.rules[&family].to_string());
            assert_same(&what(family.as_str()), &case.recorded_rules(step, family), &rules);
        }
    }
}
