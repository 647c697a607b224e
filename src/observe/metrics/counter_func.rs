//! Counters whose value is read at scrape time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Reads the value; `None` if it is not available.
type Read = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// Counter whose value is kept elsewhere, for example by the kernel. Without a reader, or while it returns
/// `None`, the metric is absent.
#[derive(Clone)]
pub(super) struct CounterFunc {
    desc: Desc,
    read: Arc<Mutex<Option<Read>>>,
}

impl CounterFunc {
    pub(super) fn new(name: &str, help: &str) -> Self {
        CounterFunc { desc: describe(name, help, &[]), read: Arc::default() }
    }

    /// Sets the reader.
    pub(super) fn set_reader(&self, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }
}

impl Collector for CounterFunc {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let value = read.as_ref().and_then(|read| read());
        vec![family(&self.desc, MetricType::COUNTER, value.map(|value| (Vec::new(), value)))]
    }
}

/// Creates the description of a metric.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        .expect("names and labels are constants, and well-formed")
}

/// Creates a counter or gauge with these label values and values, in order. Without samples, the metric is
/// absent.
pub(super) fn family(
    desc: &Desc,
    kind: MetricType,
    samples: impl IntoIterator<Item = (Vec<String>, f64)>,
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(values, value)| metric(desc, kind, values, value)).collect();
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric(desc: &Desc, kind: MetricType, values: Vec<String>, value: f64) -> Metric {
    let pair = |(name, value): (&String, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value);
        pair
    };
    let mut labels: Vec<LabelPair> = desc.variable_labels.iter().zip(values).map(pair).collect();
    labels.sort();
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
