//! iptables mode, with the machine's default flavour of iptables.

use portcullis::config::ProxyMode;

use crate::follow::{Daemons, run_share};
use crate::recorded_objects::{IPV4_RULES, IPV6_RULES, RecordedObjects, SYSCTLS};

/// The compared objects.
const OBJECTS: [RecordedObjects; 3] = [IPV4_RULES, IPV6_RULES, SYSCTLS];

#[test]
fn first_share_of_cases() {
    run_share(ProxyMode::Iptables, 0, Daemons::OnePerCase, &OBJECTS);
}

#[test]
fn second_share_of_cases() {
    run_share(ProxyMode::Iptables, 1, Daemons::OnePerCase, &OBJECTS);
}

#[test]
fn third_share_of_cases() {
    run_share(ProxyMode::Iptables, 2, Daemons::OnePerCase, &OBJECTS);
}

#[test]
fn fourth_share_of_cases() {
    run_share(ProxyMode::Iptables, 3, Daemons::OnePerCase, &OBJECTS);
}
