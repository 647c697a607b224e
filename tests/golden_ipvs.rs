//! The rendered objects of IPVS mode equal those of kube-proxy v1.36.2 for every recorded state: virtual servers, sets,
//! addresses and rules.

mod services;

use portcullis::config::ProxyMode;
use portcullis::node;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::ipvs::IpvsObjects;
use services::ipvs::{addresses, sets, virtual_servers};
use services::{assert_same, bring, cases, normalised};

/// The recording of this case has excluded virtual servers of another program.
const WITH_FOREIGN_SERVERS: &str = "ipvs-exclude-cidrs";

#[test]
fn rendered_objects_equal_those_of_kube_proxy() {
    let mut compared = 0;
    for case in cases(ProxyMode::Ipvs) {
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
            compared += 1;
        }
    }
    assert!(compared >= 120, "only {compared} states compared");
}
