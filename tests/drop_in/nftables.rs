//! nftables mode. Its table differs from kube-proxy's, so it is compared with the rendered table. The daemon has no tools in
//! its PATH.

use portcullis::config::ProxyMode;

use crate::follow::{Daemons, run_share};
use crate::recorded_objects::{NOTHING_ELSE, RecordedObjects, SYSCTLS, TABLES};

/// The compared objects.
const OBJECTS: [RecordedObjects; 3] = [TABLES, NOTHING_ELSE, SYSCTLS];

#[test]
fn first_share_of_cases() {
    run_share(ProxyMode::Nftables, 0, Daemons::OnePerNode, &OBJECTS);
}

#[test]
fn second_share_of_cases() {
    run_share(ProxyMode::Nftables, 1, Daemons::OnePerNode, &OBJECTS);
}

#[test]
fn third_share_of_cases() {
    run_share(ProxyMode::Nftables, 2, Daemons::OnePerNode, &OBJECTS);
}

#[test]
fn fourth_share_of_cases() {
    run_share(ProxyMode::Nftables, 3, Daemons::OnePerNode, &OBJECTS);
}
