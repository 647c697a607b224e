//! IPVS mode, in user-mode Linux. A test is a machine of its own.

use portcullis::config::ProxyMode;
use portcullis_lab::uml;

use crate::follow::{Daemons, play};
use crate::held::{ADDRESSES, Held, IPV4_RULES, IPV6_RULES, SETS, SYSCTLS, VIRTUAL_SERVERS};

/// What is looked at. The virtual servers come first, as no set or rule need be looked at while they differ.
const HELD: [Held; 6] = [VIRTUAL_SERVERS, SETS, ADDRESSES, IPV4_RULES, IPV6_RULES, SYSCTLS];

#[test]
fn cases_dealt_first() {
    uml::inside(|| play(ProxyMode::Ipvs, 0, Daemons::OnePerNode, &HELD));
}

#[test]
fn cases_dealt_second() {
    uml::inside(|| play(ProxyMode::Ipvs, 1, Daemons::OnePerNode, &HELD));
}

#[test]
fn cases_dealt_third() {
    uml::inside(|| play(ProxyMode::Ipvs, 2, Daemons::OnePerNode, &HELD));
}

#[test]
fn cases_dealt_fourth() {
    uml::inside(|| play(ProxyMode::Ipvs, 3, Daemons::OnePerNode, &HELD));
}
