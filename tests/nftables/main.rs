//! Comparison of nftables mode with kube-proxy v1.36.2 by packets: the two tables differ in layout, so packets are traced
//! through both for every recorded state.
//!
//! ```text
//! fixtures ─┬─ state-N.yaml ───────────────► our table ──┐
//!           └─ nftables/N/ruleset.nft ─► kube-proxy's ───┴─ many packets ─► equal outcomes
//! ```

#![allow(unreachable_pub, reason = "modules of a test binary")]

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../services/mod.rs"]
mod services;

mod affinity;
mod behaviour;
mod deliberate;
mod golden;
mod kernel;
mod many_endpoints;
mod outcome;
mod probes;
mod recorded;
mod states;

use libtest_mimic::{Arguments, Trial};
use portcullis::config::ProxyMode;
use recorded::span;
use services::{Case, case_names};

/// Returns tests that are functions of a module.
macro_rules! tests {
    ($($module:ident::$name:ident,)+) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
            $module::$name();
            Ok(())
        })),+]
    };
}

fn main() {
    let mut trials = tests![
        affinity::clients_keep_their_endpoint_as_with_kube_proxy,
        many_endpoints::kernel_accepts_maps_that_are_found_by_number_and_nft_lists_them,
        many_endpoints::affinity_with_19_endpoints_has_19_paths,
        many_endpoints::recorded_time_spans_may_have_several_units,
        recorded::parsed_recordings_print_unchanged,
        span::spans_may_have_several_units,
        states::there_are_more_than_220_tables,
    ];
    let all = || case_names(ProxyMode::Nftables);
    trials.extend(each("behaviour::packets_have_the_outcomes_of_kube_proxy", all(), behaviour::compare));
    trials.extend(each("behaviour::updated_tables_equal_rendered_ones", all(), behaviour::compare_updated));
    trials.extend(each("golden::tables_equal_golden_files", golden::cases(), golden::compare));
    trials.extend(each("kernel::kernel_tables_equal_rendered_ones", all(), kernel::sync_states));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Returns a test for each case.
fn each(test: &str, names: Vec<String>, run: fn(&Case)) -> impl Iterator<Item = Trial> {
    let test = test.to_owned();
    names.into_iter().map(move |name| {
        Trial::test(format!("{test}::{name}"), move || {
            run(&Case::named(&name, ProxyMode::Nftables));
            Ok(())
        })
    })
}
