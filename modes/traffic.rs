//! The traffic of Services, from counters that the kernel keeps anyway.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::{AddAssign, Sub};

use portcullis_cluster::Family;
use portcullis_cluster::desired::ServicePortName;

/// The traffic of one Service port in one family, since this program first read the counters or the kernel began to
/// count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortTraffic {
    /// The port.
    pub port: ServicePortName,
    /// The family.
    pub family: Family,
    /// The traffic at all of its addresses.
    pub counts: TrafficCounts,
}

/// Traffic counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Connections, and flows of other protocols than TCP, that were forwarded to an endpoint.
    pub connections: u64,
    /// Packets and bytes, in modes that count more than first packets.
    pub volume: Option<TrafficVolume>,
}

/// Packets, and bytes with their IP headers. "In" is from the client, "out" is to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficVolume {
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl TrafficCounts {
    fn numbers(self) -> [u64; 5] {
        let TrafficVolume { packets_in, packets_out, bytes_in, bytes_out } = self.volume.unwrap_or_default();
        [self.connections, packets_in, packets_out, bytes_in, bytes_out]
    }

    /// Combines each pair of numbers.
    fn with(self, other: TrafficCounts, make: impl Fn(u64, u64) -> u64) -> TrafficCounts {
        let (ours, theirs) = (self.numbers(), other.numbers());
        let [connections, packets_in, packets_out, bytes_in, bytes_out] =
            std::array::from_fn(|i| make(ours[i], theirs[i]));
        let volume = self.volume.or(other.volume);
        let volume = volume.map(|_| TrafficVolume { packets_in, packets_out, bytes_in, bytes_out });
        TrafficCounts { connections, volume }
    }

    /// Returns true if no counter was reset since `before`.
    fn follows(self, before: TrafficCounts) -> bool {
        self.numbers().iter().zip(before.numbers()).all(|(now, before)| *now >= before)
    }
}

impl AddAssign for TrafficCounts {
    fn add_assign(&mut self, other: TrafficCounts) {
        *self = self.with(other, u64::wrapping_add);
    }
}

impl Sub for TrafficCounts {
    type Output = TrafficCounts;

    fn sub(self, other: TrafficCounts) -> TrafficCounts {
        self.with(other, u64::wrapping_sub)
    }
}

/// Sums the kernel's counters by Service port. A single counter may disappear or be reset, for example when an address
/// is removed or a rule is replaced, but the sums never decrease, as Prometheus expects.
pub(crate) struct TrafficMeter<Key> {
    last: HashMap<Key, TrafficCounts>,
    totals: BTreeMap<(ServicePortName, Family), TrafficCounts>,
}

impl<Key> Default for TrafficMeter<Key> {
    fn default() -> Self {
        TrafficMeter { last: HashMap::new(), totals: BTreeMap::new() }
    }
}

impl<Key: Eq + Hash> TrafficMeter<Key> {
    /// Adds the present values of all counters. Ports without a counter are removed.
    pub(crate) fn read(
        &mut self,
        counters: impl IntoIterator<Item = (Key, ServicePortName, Family, TrafficCounts)>,
    ) -> Vec<ServicePortTraffic> {
        let last = std::mem::take(&mut self.last);
        let mut before = std::mem::take(&mut self.totals);
        for (key, port, family, now) in counters {
            let since = last.get(&key).copied().filter(|last| now.follows(*last)).unwrap_or_default();
            let of = (port, family);
            let total = before.remove(&of);
            let sum = self.totals.entry(of).or_default();
            total.into_iter().for_each(|total| *sum += total);
            *sum += now - since;
            self.last.insert(key, now);
        }
        let traffic = self.totals.iter().map(|((port, family), counts)| ServicePortTraffic {
            port: port.clone(),
            family: *family,
            counts: *counts,
        });
        traffic.collect()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Name, NamespacedName, Protocol};

    use super::*;

    fn port(name: &str) -> ServicePortName {
        ServicePortName {
            service: NamespacedName::new("shop", name),
            port: Name::new("http"),
            protocol: Protocol::Tcp,
        }
    }

    fn counter(
        key: &'static str,
        of: &str,
        connections: u64,
    ) -> (&'static str, ServicePortName, Family, TrafficCounts) {
        (key, port(of), Family::V4, TrafficCounts { connections, volume: None })
    }

    #[test]
    fn sums_never_decrease_when_single_counters_are_reset() {
        let mut meter = TrafficMeter::default();
        let mut read = |counters: &[(&'static str, ServicePortName, Family, TrafficCounts)]| {
            let traffic = meter.read(counters.iter().cloned());
            let texts = traffic.iter().map(|t| format!("{} {}", t.port.service.name, t.counts.connections));
            texts.collect::<Vec<_>>()
        };
        let rows: [(&str, &[_], &[&str]); 7] = [
            ("from earlier counts", &[counter("a", "web", 5), counter("b", "web", 2)], &["web 7"]),
            ("increase", &[counter("a", "web", 6), counter("b", "web", 2)], &["web 8"]),
            ("one is gone", &[counter("b", "web", 4)], &["web 10"]),
            ("it is back, and one was reset", &[counter("a", "web", 1), counter("b", "web", 3)], &["web 14"]),
            (
                "another port has the counter",
                &[counter("a", "db", 2), counter("b", "web", 3)],
                &["db 1", "web 14"],
            ),
            ("none is left", &[], &[]),
            ("from the beginning", &[counter("b", "web", 3)], &["web 3"]),
        ];
        for (case, counters, expected) in rows {
            assert_eq!(read(counters), expected, "{case}");
        }
    }

    #[test]
    fn all_numbers_are_summed() {
        let volume =
            |n| Some(TrafficVolume { packets_in: n, packets_out: n + 1, bytes_in: n + 2, bytes_out: n + 3 });
        let mut counts = TrafficCounts { connections: 1, volume: volume(10) };
        counts += TrafficCounts { connections: 2, volume: volume(100) };
        let sum = TrafficVolume { packets_in: 110, packets_out: 112, bytes_in: 114, bytes_out: 116 };
        assert_eq!(counts, TrafficCounts { connections: 3, volume: Some(sum) });
        assert!(
            !TrafficCounts { connections: 9, volume: volume(9) }
                .follows(TrafficCounts { connections: 1, volume: volume(10) })
        );
    }
}
