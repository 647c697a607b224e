//! The scenarios that run in several modes. Each has a test per mode: `scenarios::restarts::by_ipvs`.

use std::time::Duration;

use portcullis_machines::{qemu, uml};

use crate::mode::Mode;

/// Defines the tests of scenarios: functions that take the mode.
macro_rules! scenarios {
    ($($file:ident::$scenario:ident: $modes:tt,)+) => {
        $(mod $scenario {
            scenarios!(@modes $file $scenario $modes);
        })+
    };
    (@modes $file:ident $scenario:ident all_modes_and_tools) => {
        scenarios!(@modes $file $scenario [by_the_nft_tool by_the_legacy_tool by_nftables by_ipvs]);
    };
    (@modes $file:ident $scenario:ident all_modes) => {
        scenarios!(@modes $file $scenario [by_the_nft_tool by_nftables by_ipvs]);
    };
    (@modes $file:ident $scenario:ident all_modes_with_nf_tables) => {
        scenarios!(@modes $file $scenario [by_the_nft_tool by_the_legacy_tool by_nftables]);
    };
    (@modes $file:ident $scenario:ident all_modes_in_qemu) => {
        scenarios!(@modes $file $scenario [by_the_nft_tool_in_qemu by_nftables_in_qemu by_ipvs_in_qemu]);
    };
    (@modes $file:ident $scenario:ident [$($mode:ident)+]) => {
        $(#[test]
        fn $mode() {
            super::$mode(crate::$file::$scenario);
        })+
    };
}

// `all_modes` uses the nft tool in iptables mode; the legacy tool runs where the rules or their writing may differ.
scenarios! {
    address_conflicts::an_address_stays_with_its_service: all_modes,
    changes::tcp_connections_survive_unrelated_changes: all_modes,
    changes::udp_flows_follow_endpoints: all_modes_and_tools,
    cluster_ips::cluster_ips: all_modes_and_tools,
    drift::drift_is_reverted: all_modes_and_tools,
    explain::explanations_agree_with_packets: [by_the_nft_tool by_nftables by_ipvs_within_400_s],
    external_addresses::external_addresses: all_modes_and_tools,
    // The other modes have their own reasons for rejections.
    isolation::a_rejected_service_is_isolated: [by_the_nft_tool by_the_legacy_tool],
    lab_table::all_expectations_are_met: all_modes,
    live_traffic::pods_are_replaced_under_live_traffic: all_modes_and_tools,
    // The legacy tool requires root, and user-mode Linux, in which IPVS mode is tested, has no other.
    non_root::daemon_without_root: [by_the_nft_tool by_nftables],
    // IPVS mode passes too. Its rules are iptables mode's, and eight labs take minutes in user-mode Linux.
    observe::connections_are_observed: all_modes,
    observe::dropped_packets_are_observed: all_modes_with_nf_tables,
    observe::rules_that_log_are_written_once_the_kernel_accepts_them: [by_nftables],
    options::local_traffic_detection: [by_the_nft_tool by_nftables],
    options::masquerading: all_modes,
    options::node_port_addresses: all_modes,
    restart::restarts: all_modes_and_tools,
    same_port::several_services_are_reached_from_one_source_port: all_modes,
    sctp::sctp_associations: all_modes_in_qemu,
    service_traffic::service_traffic_is_counted: all_modes_and_tools,
    session_affinity::a_client_whose_pod_is_removed_gets_another_and_stays: all_modes,
    session_affinity::affinity_is_kept_then_expires: all_modes_and_tools,
    single_stack::clusters_of_one_family: all_modes,
    topology_hints::topology_hints: all_modes,
}

/// A scenario, which builds its own test beds.
type Scenario = fn(Mode);

fn by_the_nft_tool(scenario: Scenario) {
    scenario(Mode::IPTABLES_NFT);
}

fn by_the_legacy_tool(scenario: Scenario) {
    scenario(Mode::IPTABLES_LEGACY);
}

fn by_nftables(scenario: Scenario) {
    scenario(Mode::Nftables);
}

fn by_ipvs(scenario: Scenario) {
    uml::inside(|| scenario(Mode::Ipvs));
}

fn by_ipvs_within_400_s(scenario: Scenario) {
    uml::inside_for(Duration::from_secs(400), || scenario(Mode::Ipvs));
}

fn by_the_nft_tool_in_qemu(scenario: Scenario) {
    qemu::inside(|| scenario(Mode::IPTABLES_NFT));
}

fn by_nftables_in_qemu(scenario: Scenario) {
    qemu::inside(|| scenario(Mode::Nftables));
}

fn by_ipvs_in_qemu(scenario: Scenario) {
    qemu::inside(|| scenario(Mode::Ipvs));
}
