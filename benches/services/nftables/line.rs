//! The cost of one endpoint, from the index event to the kernel's ACK, by the number of Services: the mode in this
//! process.

use std::fmt;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_modes::Mode;
use portcullis_modes::nftables::NftablesProxier;
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use serde_json::Value;

use crate::cluster_state::{NODE, objects_with, service_name, slice_with};
use crate::namespace::Namespace;
use crate::process;

/// The number of changes for median and maximum.
const CHANGES: usize = 201;

/// The number of changes for CPU time.
const MANY: usize = 1_000;

/// The figures for one number of Services.
pub(crate) struct Line {
    services: usize,
    endpoints: usize,
    /// From the receipt of the last object to the kernel's ACK.
    first: Duration,
    /// An endpoint changes: median and maximum.
    moved: (Duration, Duration),
    /// An endpoint is added or removed.
    scaled: (Duration, Duration),
    /// CPU time per change.
    processor: Duration,
}

/// Measures with one number of Services. `affinity`: all have session affinity.
pub(crate) fn measure(services: usize, endpoints: usize, affinity: bool) -> Line {
    Namespace::new().run(|| measure_here(services, endpoints, affinity))
}

fn measure_here(services: usize, endpoints: usize, affinity: bool) -> Line {
    let (mut index, mut dirty) = (Index::new(), DirtyServices::default());
    for kind in [Kind::Node, Kind::Service, Kind::EndpointSlice] {
        index.handle(Event::ListStarted(kind));
    }
    objects_with(services, endpoints)
        .map(|mut object| {
            if affinity && object["kind"] == "Service" {
                object["spec"]["sessionAffinity"] = "ClientIP".into();
            }
            object
        })
        .for_each(|object| dirty.extend(index.handle(Event::Applied(parse(object)))));
    for kind in [Kind::Node, Kind::Service, Kind::EndpointSlice] {
        dirty.extend(index.handle(Event::Listed(kind)));
    }
    let socket = Socket::open(NetlinkProtocol::Netfilter).expect("a netfilter socket");
    let mut mode =
        NftablesProxier::new(Options::default(), NodeFacts::default(), &[Family::V4, Family::V6], socket);
    let mut desired = Desired::new(Name::new(NODE));
    let start = Instant::now();
    sync(&mut mode, &mut desired, &index, dirty);
    let first = start.elapsed();

    let mut change = |n: usize, endpoints: usize| {
        let i = (n * 7919) % services;
        let slice =
            slice_with(&service_name(i), i, endpoints, Some(&format!("10.250.{}.{}", n / 250, n % 250 + 1)));
        let parsed = parse(slice);
        let start = Instant::now();
        let mut dirty = DirtyServices::default();
        dirty.extend(index.handle(Event::Applied(parsed)));
        sync(&mut mode, &mut desired, &index, dirty);
        start.elapsed()
    };
    let moved = summary((0..CHANGES).map(|n| change(n, endpoints)).collect());
    let scaled = summary((0..CHANGES).map(|n| change(n + CHANGES, endpoints + 1 + n % 2)).collect());
    let used = process::of_this_thread();
    (0..MANY).for_each(|n| _ = change(n + 2 * CHANGES, endpoints));
    let processor = (process::of_this_thread() - used) / MANY as u32;
    Line { services, endpoints, first, moved, scaled, processor }
}

pub(super) fn sync(mode: &mut NftablesProxier, desired: &mut Desired, index: &Index, dirty: DirtyServices) {
    let changes = desired.update(index, dirty);
    for report in mode.sync(desired, &changes) {
        assert!(report.error.is_none() && report.isolated.is_empty(), "{report:?}");
    }
}

pub(super) fn parse(object: Value) -> Object {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let kind = Kind::from_api(&text("apiVersion"), &text("kind")).expect("a kind that is used");
    Object::parse(kind, object).expect("an object").object
}

fn summary(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "{:>7} × {:<3} first {:>8.1} ms   moved {:>6.3} ms (worst {:>6.2})   scaled {:>6.3} ms (worst {:>6.2})   CPU a change {:>6.3} ms",
            self.services,
            self.endpoints,
            millis(self.first),
            millis(self.moved.0),
            millis(self.moved.1),
            millis(self.scaled.0),
            millis(self.scaled.1),
            millis(self.processor),
        )
    }
}
