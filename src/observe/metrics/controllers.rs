//! Metrics that all controllers have.

use std::time::{Duration, SystemTime};

use prometheus::{CounterVec, GaugeVec, HistogramVec};

use super::Metrics;
use super::register::Registrar;

/// Buckets of sync durations: from 0.1 ms to 100 s.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0, 100.0];

/// Results of syncs.
const RESULTS: [&str; 2] = ["success", "failure"];

/// Metrics that all controllers have.
pub(super) struct ControllerMetrics {
    syncs: CounterVec,
    duration: HistogramVec,
    isolated: GaugeVec,
    oldest_change: GaugeVec,
}

impl ControllerMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        ControllerMetrics {
            syncs: to.counters(
                "portcullis_controller_syncs_total",
                "Syncs by controller (services, policies), for Services in each IP family; a failed sync keeps the last good \
                 rules",
                &["controller", "result"],
            ),
            duration: to.histograms(
                "portcullis_controller_sync_duration_seconds",
                "Duration of syncs by controller, for Services in each IP family",
                &["controller"],
                BUCKETS.to_vec(),
            ),
            isolated: to.gauges(
                "portcullis_controller_isolated_objects",
                "Objects that cannot be programmed, while all others are; each keeps its last accepted rules",
                &["controller"],
            ),
            oldest_change: to.gauges(
                "portcullis_controller_oldest_change_timestamp_seconds",
                "Unix time of the oldest change that no successful sync of the controller has written yet; 0 if there is none",
                &["controller"],
            ),
        }
    }
}

impl ControllerMetrics {
    /// Creates the series of a controller, each with the value 0.
    pub(super) fn declare(&self, controller: &str) {
        RESULTS.iter().for_each(|result| drop(self.syncs.with_label_values(&[controller, result])));
        drop(self.duration.with_label_values(&[controller]));
        self.isolated.with_label_values(&[controller]).set(0.0);
        self.oldest_change.with_label_values(&[controller]).set(0.0);
    }
}

impl Metrics {
    /// Records a finished sync of a controller.
    pub fn controller_synced(&self, controller: &str, has_succeeded: bool, took: Duration) {
        let controllers = &self.0.portcullis.controllers;
        let result = RESULTS[usize::from(!has_succeeded)];
        controllers.syncs.with_label_values(&[controller, result]).inc();
        controllers.duration.with_label_values(&[controller]).observe(took.as_secs_f64());
    }

    /// Sets the time of the oldest change that no successful sync of a controller has written.
    pub fn set_oldest_change(&self, controller: &str, at: Option<SystemTime>) {
        let at = at.map_or(0.0, super::unix_seconds);
        self.0.portcullis.controllers.oldest_change.with_label_values(&[controller]).set(at);
    }

    /// Sets the number of objects of a controller that cannot be programmed.
    pub fn set_isolated_objects(&self, controller: &str, objects: usize) {
        self.0.portcullis.controllers.isolated.with_label_values(&[controller]).set(objects as f64);
    }
}
