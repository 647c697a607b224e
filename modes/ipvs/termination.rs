//! Graceful termination: a real server that is no longer desired gets weight 0, and is deleted once its connections
//! have ended.
//!
//! As in kube-proxy, only TCP terminates gracefully: UDP has no connections to wait for, and the kernel drops packets
//! of the rest (`expire_nodest_conn`). The time is an argument of every function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_netlink::ip_vs::{RealServerState, VirtualServer};

/// The time until connections are first counted. Most real servers have none by then, and many are removed together.
const FIRST_CHECK: Duration = Duration::from_secs(1);

/// The longest time between two counts; kube-proxy counts at this interval only.
const LAST_CHECK: Duration = Duration::from_secs(60);

/// The factor by which the interval grows with each count.
const GROWTH: u32 = 4;

/// Returns true if real servers of this virtual server terminate gracefully.
pub(super) fn is_graceful(server: &VirtualServer) -> bool {
    i32::from(server.protocol) == libc::IPPROTO_TCP
}

/// The draining real servers, by virtual server.
#[derive(Debug, Default)]
pub(super) struct Terminations(BTreeMap<VirtualServer, Draining>);

#[derive(Debug)]
struct Draining {
    real_servers: BTreeSet<SocketAddr>,
    check_at: Instant,
    interval: Duration,
}

impl Terminations {
    /// Sets the draining real servers of a virtual server. A new one is checked soon.
    pub(super) fn set(&mut self, server: VirtualServer, real_servers: BTreeSet<SocketAddr>, now: Instant) {
        if real_servers.is_empty() {
            self.0.remove(&server);
            return;
        }
        let first = now + FIRST_CHECK;
        let draining = self.0.entry(server).or_insert_with(|| Draining {
            real_servers: BTreeSet::new(),
            check_at: first,
            interval: FIRST_CHECK,
        });
        if !real_servers.is_subset(&draining.real_servers) {
            draining.interval = FIRST_CHECK;
            draining.check_at = draining.check_at.min(first);
        }
        draining.real_servers = real_servers;
    }

    /// Returns the draining real servers of a virtual server.
    pub(super) fn draining(&self, server: &VirtualServer) -> BTreeSet<SocketAddr> {
        self.0.get(server).map(|draining| draining.real_servers.clone()).unwrap_or_default()
    }

    pub(super) fn is_draining(&self, server: &VirtualServer, real_server: SocketAddr) -> bool {
        self.0.get(server).is_some_and(|draining| draining.real_servers.contains(&real_server))
    }

    /// Returns the virtual servers whose connections must be counted now.
    pub(super) fn due(&self, now: Instant) -> Vec<VirtualServer> {
        self.0.iter().filter(|(_, d)| d.check_at <= now).map(|(server, _)| *server).collect()
    }

    /// Returns the time of the next count.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.0.values().map(|draining| draining.check_at).min()
    }

    /// Takes a count. Removes and returns the real servers whose connections have ended; also removes those that the
    /// kernel no longer has.
    pub(super) fn check(
        &mut self,
        server: &VirtualServer,
        found: &[RealServerState],
        now: Instant,
    ) -> Vec<SocketAddr> {
        let Some(draining) = self.0.get_mut(server) else { return Vec::new() };
        let state = |real: &SocketAddr| found.iter().find(|s| s.server.socket_address() == *real);
        let has_ended = |s: &RealServerState| s.active == 0 && s.inactive == 0;
        draining.real_servers.retain(|real| state(real).is_some());
        let ended = draining.real_servers.extract_if(.., |real| state(real).is_some_and(has_ended)).collect();
        draining.interval = (draining.interval * GROWTH).min(LAST_CHECK);
        draining.check_at = now + draining.interval;
        if draining.real_servers.is_empty() {
            self.0.remove(server);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portcullis_netlink::ip_vs::RealServer;

    use super::*;

    fn server() -> VirtualServer {
        VirtualServer { protocol: 6, address: "10.96.0.1".parse().expect("an address"), port: 80 }
    }

    fn state(last: u8, active: u32, inactive: u32) -> RealServerState {
        let server = RealServer { address: IpAddr::from([10, 244, 0, last]), port: 8080, weight: 0 };
        RealServerState { server, forwarding: 0, active, inactive, persistent: 0 }
    }

    fn real(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 244, 0, last], 8080))
    }

    #[test]
    fn connections_are_counted_at_growing_intervals() {
        let start = Instant::now();
        let mut terminations = Terminations::default();
        terminations.set(server(), [real(1)].into(), start);
        assert!(terminations.is_draining(&server(), real(1)));
        let mut at = start;
        for wait in [1, 4, 16, 60, 60] {
            let due = terminations.next_check().expect("one is draining");
            assert_eq!(due - at, Duration::from_secs(wait));
            assert_eq!(terminations.due(due - Duration::from_millis(1)), []);
            assert_eq!(terminations.due(due), [server()]);
            assert_eq!(terminations.check(&server(), &[state(1, 0, 1)], due), []);
            at = due;
        }
        assert_eq!(terminations.check(&server(), &[state(1, 0, 0)], at), [real(1)]);
        assert_eq!(terminations.next_check(), None);
    }

    #[test]
    fn a_new_real_server_is_checked_soon_and_a_missing_one_is_forgotten() {
        let start = Instant::now();
        let mut terminations = Terminations::default();
        terminations.set(server(), [real(1)].into(), start);
        let later = start + Duration::from_secs(1);
        assert_eq!(terminations.check(&server(), &[state(1, 1, 0)], later), []);
        terminations.set(server(), [real(1), real(2)].into(), later);
        assert_eq!(terminations.next_check(), Some(later + FIRST_CHECK));
        assert_eq!(terminations.check(&server(), &[state(1, 1, 0)], later), []);
        assert!(!terminations.is_draining(&server(), real(2)), "the kernel no longer has it");
        assert_eq!(terminations.draining(&server()), [real(1)].into());
        assert_eq!(terminations.check(&server(), &[], later), []);
        assert_eq!(terminations.next_check(), None);
    }

    #[test]
    fn only_tcp_terminates_gracefully() {
        for (protocol, graceful) in [(6, true), (17, false), (132, false)] {
            assert_eq!(is_graceful(&VirtualServer { protocol, ..server() }), graceful);
        }
    }
}
