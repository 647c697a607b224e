//! Creation and registration of metrics.

use prometheus::core::Collector;
use prometheus::{Counter, CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry};

/// Reason why creating and registering a metric cannot fail.
const CONSTANT: &str = "names, labels and buckets are constants, each well-formed and used once";

/// Registers metrics in a registry.
#[derive(Clone, Copy)]
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Registrar<'_> {
    /// Registers any collector.
    pub(super) fn add<C: Collector + 'static>(self, collector: C) {
        self.0.register(Box::new(collector)).expect(CONSTANT);
    }

    pub(super) fn counter(self, name: &str, help: &str) -> Counter {
        let counter = Counter::new(name, help).expect(CONSTANT);
        self.add(counter.clone());
        counter
    }

    pub(super) fn counters(self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        let counters = CounterVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        self.add(counters.clone());
        counters
    }

    pub(super) fn gauge(self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::new(name, help).expect(CONSTANT);
        self.add(gauge.clone());
        gauge
    }

    pub(super) fn gauges(self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let gauges = GaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        self.add(gauges.clone());
        gauges
    }

    pub(super) fn histograms(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets);
        let histograms = HistogramVec::new(options, labels).expect(CONSTANT);
        self.add(histograms.clone());
        histograms
    }
}
