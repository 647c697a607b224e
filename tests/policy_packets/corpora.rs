//! The policy fixtures, enforced by the daemons and checked with real packets: TCP and UDP, IPv4 and IPv6, on one node and
//! across two, directly and through Services.
//!
//! A lab takes longer than most cases, so each test runs a group of cases in few labs, and prints the result of each.

use crate::case::Case;
use crate::enforcement::Daemons;
use crate::runner::run_all;

/// Number of labs that run in parallel.
const LABS: usize = 2;

/// Returns the cases whose names contain one of these words, and every n-th of all cases.
fn share(corpus: &str, words: &[&str], every: usize) -> Vec<Case> {
    let mut cases = Case::all_of(corpus);
    let mut n = 0;
    cases.retain(|case| {
        n += 1;
        n % every == 0 || words.iter().any(|word| case.name.contains(word))
    });
    cases
}

#[test]
fn network_policies() {
    // The handwritten cases have the pitfalls.
    let cases = share("network-policy", &["edge-", "e2e-", "action-"], 8);
    assert!(cases.len() > 60, "{}", cases.len());
    run_all("network-policy", &cases, &["--network-policy"], LABS, || Box::new(Daemons));
}

/// Beside nftables mode, which does DNAT in the same hooks as iptables: a few cases of each kind, and all with Services.
#[test]
fn network_policies_beside_nftables() {
    let cases = share("network-policy", &["service", "external", "node"], 40);
    assert!(cases.len() > 8, "{}", cases.len());
    run_all("network-policy", &cases, &["--network-policy", "--mode=nftables"], LABS, || Box::new(Daemons));
}

#[test]
fn cluster_network_policies() {
    let cases = share("cluster-network-policy", &[], 1);
    run_all("cluster-network-policy", &cases, &["--network-policy"], LABS, || Box::new(Daemons));
}
