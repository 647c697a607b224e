//! Waiting until new veth links forward packets.
//!
//! The kernel sets the carrier of a veth pair asynchronously, and the link drops packets before that. The first packet is
//! usually a neighbour solicitation; if it is dropped, the first probe of a test times out.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::netns::NetNs;
use crate::probe::{ProbeOutcome, Prober};

/// Maximum time to wait. Exceeding it is not an error, because a network policy may deny these connections.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The discard port, on which nothing listens.
const PORT: u16 = 9;

/// Waits until each address is reachable from the namespace.
pub(crate) fn wait_until_reachable(netns: &NetNs, neighbours: &[IpAddr]) {
    let until = Instant::now() + TIMEOUT;
    let prober = Prober::new(netns.clone()).timeout(Duration::from_millis(250));
    for neighbour in neighbours {
        while prober.tcp((*neighbour, PORT).into()) != ProbeOutcome::Refused {
            if Instant::now() > until {
                tracing::warn!(namespace = netns.name(), %neighbour, "neighbour not reachable; continuing");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
