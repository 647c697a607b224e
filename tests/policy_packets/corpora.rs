//! The daemons enforce the corpora: a broad share of their cases by real packets, TCP and UDP, IPv4 and IPv6, on one
//! node and across two, directly and through Services.

use crate::case::Case;
use crate::enforcer::Daemons;
use crate::run::run_all;

/// So many labs side by side.
const LABS: usize = 2;

/// Those whose names the words are part of, or every so many of all.
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
    // What is written by hand is where the pitfalls are.
    let cases = share("network-policy", &["edge-", "e2e-", "action-"], 8);
    assert!(cases.len() > 60, "{}", cases.len());
    run_all("network-policy", &cases, &["--network-policy"], LABS, || Box::new(Daemons));
}

/// Beside the table of nftables mode, which translates as rules of iptables do: a few of each kind, and all that have to do
/// with Services.
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
