//! iptables mode, by the flavour of the tool that is the machine's own.

use portcullis::config::ProxyMode;

use crate::follow::{Daemons, play};
use crate::held::{Held, IPV4_RULES, IPV6_RULES, SYSCTLS};

/// What is looked at.
const HELD: [Held; 3] = [IPV4_RULES, IPV6_RULES, SYSCTLS];

#[test]
fn cases_dealt_first() {
    play(ProxyMode::Iptables, 0, Daemons::OnePerCase, &HELD);
}

#[test]
fn cases_dealt_second() {
    play(ProxyMode::Iptables, 1, Daemons::OnePerCase, &HELD);
}

#[test]
fn cases_dealt_third() {
    play(ProxyMode::Iptables, 2, Daemons::OnePerCase, &HELD);
}

#[test]
fn cases_dealt_fourth() {
    play(ProxyMode::Iptables, 3, Daemons::OnePerCase, &HELD);
}
