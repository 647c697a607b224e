//! IPVS mode, in user-mode Linux; each test has its own machine.

use portcullis::config::ProxyMode;
use portcullis_machines::uml;

use crate::follow::{Daemons, run_share};
use crate::recorded_objects::{
    ADDRESSES, IPV4_RULES, IPV6_RULES, RecordedObjects, SETS, SYSCTLS, VIRTUAL_SERVERS,
};

/// The compared objects. Virtual servers are the first to differ, so the rest is read only once they are equal.
const OBJECTS: [RecordedObjects; 6] = [VIRTUAL_SERVERS, SETS, ADDRESSES, IPV4_RULES, IPV6_RULES, SYSCTLS];

#[test]
fn first_share_of_cases() {
    uml::inside(|| run_share(ProxyMode::Ipvs, 0, Daemons::OnePerNode, &OBJECTS));
}

#[test]
fn second_share_of_cases() {
    uml::inside(|| run_share(ProxyMode::Ipvs, 1, Daemons::OnePerNode, &OBJECTS));
}

#[test]
fn third_share_of_cases() {
    uml::inside(|| run_share(ProxyMode::Ipvs, 2, Daemons::OnePerNode, &OBJECTS));
}

#[test]
fn fourth_share_of_cases() {
    uml::inside(|| run_share(ProxyMode::Ipvs, 3, Daemons::OnePerNode, &OBJECTS));
}
