//! Metrics of observers of traffic events.

use prometheus::{CounterVec, Gauge};

use super::Metrics;
use super::register::Registrar;
use crate::observe::traffic_events::{LossReason, Verdict};

/// Metrics of observers. Clones share the values.
#[derive(Clone, Debug)]
pub(crate) struct TrafficEventMetrics {
    observers: Gauge,
    events: CounterVec,
    lost: CounterVec,
}

impl TrafficEventMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let metrics = TrafficEventMetrics {
            observers: to.gauge(
                "portcullis_observers",
                "Connected observers of traffic events (portcullis observe); rules log drops only while there is one",
            ),
            events: to.counters(
                "portcullis_observed_events_total",
                "Packets and connections that were read while observers were connected, by verdict",
                &["verdict"],
            ),
            lost: to.counters(
                "portcullis_observed_events_lost_total",
                "Events that observers did not receive: the kernel could not deliver them (reason=\"kernel\"), a rule had more \
                 drops than it logs in a second (\"rate_limit\"), or an observer reads too slowly (\"observer\")",
                &["reason"],
            ),
        };
        for verdict in Verdict::ALL {
            metrics.events.with_label_values(&[verdict.as_str()]);
        }
        for reason in [LossReason::Kernel, LossReason::RateLimit, LossReason::Observer] {
            metrics.lost.with_label_values(&[label(reason)]);
        }
        metrics
    }

    /// Sets the number of observers.
    pub(crate) fn set_observers(&self, observers: usize) {
        self.observers.set(observers as f64);
    }

    /// Counts packets or connections that were read.
    pub(crate) fn received(&self, verdict: Verdict, events: u64) {
        self.events.with_label_values(&[verdict.as_str()]).inc_by(events as f64);
    }

    /// Counts lost events.
    pub(crate) fn lost(&self, reason: LossReason, events: u64) {
        self.lost.with_label_values(&[label(reason)]).inc_by(events as f64);
    }
}

impl Metrics {
    /// Returns the metrics of observers.
    pub(crate) fn traffic_events(&self) -> TrafficEventMetrics {
        self.0.portcullis.traffic_events.clone()
    }
}

fn label(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Kernel => "kernel",
        LossReason::RateLimit => "rate_limit",
        LossReason::Observer => "observer",
    }
}
