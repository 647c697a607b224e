//! nftables mode. The table is laid out in a way of its own, so that it is held against what is rendered of the state.
//! The daemon finds no tool in its path.

use portcullis::config::ProxyMode;

use crate::follow::{Daemons, play};
use crate::held::{Held, NOTHING_ELSE, SYSCTLS, TABLES};

/// What is looked at.
const HELD: [Held; 3] = [TABLES, NOTHING_ELSE, SYSCTLS];

#[test]
fn cases_dealt_first() {
    play(ProxyMode::Nftables, 0, Daemons::OnePerNode, &HELD);
}

#[test]
fn cases_dealt_second() {
    play(ProxyMode::Nftables, 1, Daemons::OnePerNode, &HELD);
}

#[test]
fn cases_dealt_third() {
    play(ProxyMode::Nftables, 2, Daemons::OnePerNode, &HELD);
}

#[test]
fn cases_dealt_fourth() {
    play(ProxyMode::Nftables, 3, Daemons::OnePerNode, &HELD);
}
