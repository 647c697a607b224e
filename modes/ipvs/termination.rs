//! Graceful termination: a real server that is no longer wanted gets no new connection, and goes when those that
//! it has ended.
//!
//! As in kube-proxy, only TCP waits: a datagram's sender has no connection to end, and the kernel drops what is left
//! (`expire_nodest_conn`). Knows no clock: every call says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_netlink::ip_vs::{RealServerState, VirtualServer};

use super::server_diff::place;

/// The first time until connections are counted. Most that ends has none, and many end together.
const FIRST_CHECK: Duration = Duration::from_secs(1);

/// The longest time between two counts, which is kube-proxy's only one.
const LAST_CHECK: Duration = Duration::from_secs(60);

/// By how much the time grows with each count.
const GROWTH: u32 = 4;

/// Whether a real server of this protocol is to wait for its connections to end.
pub(super) fn is_graceful(server: &VirtualServer) -> bool {
    i32::from(server.protocol) == libc::IPPROTO_TCP
}

/// The real servers that wait for their connections to end.
#[derive(Debug, Default)]
pub(super) struct Terminations(BTreeMap<VirtualServer, Draining>);

#[derive(Debug)]
struct Draining {
    real: BTreeSet<(IpAddr, u16)>,
    check_at: Instant,
    wait: Duration,
}

impl Terminations {
    /// Notes a real server whose weight is 0 now.
    pub(super) fn begin(&mut self, server: VirtualServer, real: (IpAddr, u16), now: Instant) {
        let draining = self.0.entry(server).or_insert(Draining {
            real: BTreeSet::new(),
            check_at: now + FIRST_CHECK,
            wait: FIRST_CHECK,
        });
        if draining.real.insert(real) {
            draining.wait = FIRST_CHECK;
            draining.check_at = draining.check_at.min(now + FIRST_CHECK);
        }
    }

    /// Notes that a real server is wanted again or gone. Says whether it was waiting.
    pub(super) fn end(&mut self, server: &VirtualServer, real: (IpAddr, u16)) -> bool {
        let Some(draining) = self.0.get_mut(server) else { return false };
        let was = draining.real.remove(&real);
        if draining.real.is_empty() {
            self.0.remove(server);
        }
        was
    }

    /// Notes that a virtual server is gone, and all behind it.
    pub(super) fn forget(&mut self, server: &VirtualServer) {
        self.0.remove(server);
    }

    /// Whether a real server is waiting.
    pub(super) fn holds(&self, server: &VirtualServer, real: (IpAddr, u16)) -> bool {
        self.0.get(server).is_some_and(|draining| draining.real.contains(&real))
    }

    /// The virtual servers whose connections are to be counted.
    pub(super) fn due(&self, now: Instant) -> Vec<VirtualServer> {
        self.0.iter().filter(|(_, d)| d.check_at <= now).map(|(server, _)| *server).collect()
    }

    /// When the next count is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|draining| draining.check_at).min()
    }

    /// Takes a count. Returns the real servers that can be deleted; those that the kernel no longer has are forgotten.
    pub(super) fn counted(
        &mut self,
        server: &VirtualServer,
        found: &[RealServerState],
        now: Instant,
    ) -> Vec<(IpAddr, u16)> {
        let Some(draining) = self.0.get_mut(server) else { return Vec::new() };
        let state = |real: &(IpAddr, u16)| found.iter().find(|s| place(&s.server) == *real);
        draining.real.retain(|real| state(real).is_some());
        let ended = |s: &RealServerState| s.active == 0 && s.inactive == 0;
        let done: Vec<_> =
            draining.real.iter().filter(|real| state(real).is_some_and(ended)).copied().collect();
        draining.wait = (draining.wait * GROWTH).min(LAST_CHECK);
        draining.check_at = now + draining.wait;
        if draining.real.is_empty() {
            self.0.remove(server);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use portcullis_netlink::ip_vs::RealServer;

    use super::*;

    fn server() -> VirtualServer {
        VirtualServer { protocol: 6, address: "10.96.0.1".parse().expect("an address"), port: 80 }
    }

    fn state(last: u8, active: u32, inactive: u32) -> RealServerState {
        let server = RealServer { address: IpAddr::from([10, 244, 0, last]), port: 8080, weight: 0 };
        RealServerState { server, forwarding: 0, active, inactive, persistent: 0 }
    }

    fn real(last: u8) -> (IpAddr, u16) {
        (IpAddr::from([10, 244, 0, last]), 8080)
    }

    #[test]
    fn what_has_connections_waits_and_is_asked_less_and_less_often() {
        let start = Instant::now();
        let mut terminations = Terminations::default();
        terminations.begin(server(), real(1), start);
        assert!(terminations.holds(&server(), real(1)));
        let mut at = start;
        for wait in [1, 4, 16, 60, 60] {
            let due = terminations.next().expect("one waits");
            assert_eq!(due - at, Duration::from_secs(wait));
            assert_eq!(terminations.due(due - Duration::from_millis(1)), []);
            assert_eq!(terminations.due(due), [server()]);
            assert_eq!(terminations.counted(&server(), &[state(1, 0, 1)], due), []);
            at = due;
        }
        assert_eq!(terminations.counted(&server(), &[state(1, 0, 0)], at), [real(1)]);
        assert!(terminations.end(&server(), real(1)));
        assert_eq!(terminations.next(), None);
    }

    #[test]
    fn one_more_is_asked_about_soon_and_one_that_is_gone_is_forgotten() {
        let start = Instant::now();
        let mut terminations = Terminations::default();
        terminations.begin(server(), real(1), start);
        let later = start + Duration::from_secs(1);
        assert_eq!(terminations.counted(&server(), &[state(1, 1, 0)], later), []);
        terminations.begin(server(), real(2), later);
        assert_eq!(terminations.next(), Some(later + FIRST_CHECK));
        assert_eq!(terminations.counted(&server(), &[state(1, 1, 0)], later), []);
        assert!(!terminations.holds(&server(), real(2)), "the kernel has it no more");
        assert!(!terminations.end(&server(), real(2)));
        assert_eq!(terminations.counted(&server(), &[], later), []);
        assert_eq!(terminations.next(), None);
    }

    #[test]
    fn only_tcp_waits() {
        for (protocol, graceful) in [(6, true), (17, false), (132, false)] {
            assert_eq!(is_graceful(&VirtualServer { protocol, ..server() }), graceful);
        }
    }
}
