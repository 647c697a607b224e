//! Waiting until fresh wires carry packets.
//!
//! A veth pair gets its carrier from a work queue of the kernel, and drops what is sent before. The packet that would be
//! lost is the question for the neighbour's address, and a test's first probe would time out for it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::netns::NetNs;
use crate::probe::{Outcome, Prober};

/// How long wires may take. A network policy may also forbid what is tried here, so that it is not an error.
const PATIENCE: Duration = Duration::from_secs(2);
/// The discard port, where nothing listens.
const PORT: u16 = 9;

/// Waits until each of the addresses was reached from the namespace.
pub(crate) fn settle(netns: &NetNs, neighbours: &[IpAddr]) {
    let until = Instant::now() + PATIENCE;
    let prober = Prober::new(netns.clone()).timeout(Duration::from_millis(250));
    for neighbour in neighbours {
        while prober.tcp((*neighbour, PORT).into()) != Outcome::Refused {
            if Instant::now() > until {
                tracing::warn!(namespace = netns.name(), %neighbour, "a wire of the lab carries nothing yet");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
