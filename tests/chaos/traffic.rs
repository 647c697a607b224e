//! Continuous traffic of pods that never change: connections that must never be lost, and connections that must never be
//! answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_lab::{Protocol, TrafficGenerator, TrafficLog, TrafficOptions};
use portcullis_machines::uml;

use super::model::Client;
use super::node::NodeUnderTest;
use super::pools::{ALL_PODS, CLIENT, DENIED, STABLE, TCP_PORTS};
use super::violation::{Invariant, Violation};

pub(crate) struct Traffic {
    allowed: TrafficGenerator,
    denied: Option<TrafficGenerator>,
    /// Times in which another process changed the rules, and connections may have any outcome.
    disturbed: Vec<(Instant, Instant)>,
    disturbed_since: Option<Instant>,
    /// Changes of the mode from IPVS, each of which may end a connection in flight.
    left_ipvs: usize,
}

/// Counts of a scenario's connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrafficCounts {
    pub(crate) allowed: usize,
    pub(crate) denied: usize,
    pub(crate) disturbed: usize,
}

impl Traffic {
    pub(crate) fn start(node: &NodeUnderTest, policies: bool) -> Self {
        let index = ALL_PODS.iter().position(|pod| *pod == CLIENT).expect("the client is a pod");
        let start = |to: SocketAddr, interval: u64, timeout: u64| {
            let options = TrafficOptions {
                interval: Duration::from_millis(interval),
                timeout: Duration::from_millis(timeout),
                max_in_flight: 64,
            };
            node.prober(Client::Pod(index), true)
                .connections(Protocol::Tcp, to, options)
                .expect("the client exists")
        };
        // Long timeouts, because the machine may be busy; the interval leaves time for the daemon.
        let interval = if uml::is_inside() { 60 } else { 15 };
        Traffic {
            allowed: start(STABLE, interval, 10_000),
            denied: policies.then(|| start((DENIED.addresses()[0], TCP_PORTS[0]).into(), 50, 300)),
            disturbed: Vec::new(),
            disturbed_since: None,
            left_ipvs: 0,
        }
    }

    /// Begins a time in which connections may have any outcome.
    pub(crate) fn disturb(&mut self) {
        self.disturbed_since.get_or_insert_with(Instant::now);
    }

    /// Ends it.
    pub(crate) fn settle(&mut self) {
        if let Some(since) = self.disturbed_since.take() {
            // Connections that began earlier may have met the change.
            self.disturbed.push((since - Duration::from_secs(1), Instant::now()));
        }
    }

    pub(crate) fn leave_ipvs(&mut self) {
        self.left_ipvs += 1;
    }

    /// Stops the traffic and checks it.
    pub(crate) fn stop(mut self) -> Result<TrafficCounts, Violation> {
        self.settle();
        let is_disturbed =
            |at: Instant| self.disturbed.iter().any(|(since, until)| (*since..*until).contains(&at));
        let undisturbed = |log: TrafficLog| {
            let all = log.probes.len();
            let probes: Vec<_> =
                log.probes.into_iter().filter(|probe| !is_disturbed(probe.sent_at)).collect();
            (TrafficLog { description: log.description, probes }, all)
        };
        let (allowed, all) = undisturbed(self.allowed.stop());
        let mut counts = TrafficCounts {
            allowed: allowed.probes.len(),
            disturbed: all - allowed.probes.len(),
            ..TrafficCounts::default()
        };
        let lost = allowed.lost();
        if lost.len() > self.left_ipvs {
            let message = format!("{allowed} {:?}", lost[0].outcome);
            return Err(Violation::new(Invariant::Lost, message));
        }
        if let Some(denied) = self.denied {
            let (denied, _) = undisturbed(denied.stop());
            counts.denied = denied.probes.len();
            if !denied.answered().is_empty() {
                return Err(Violation::new(Invariant::Answered, denied.to_string()));
            }
        }
        Ok(counts)
    }
}
