//! Times of a daemon's last sync, from its metrics.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::netns::NetNs;
use crate::plan::Family;

const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const LAST_QUEUED: &str = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";

/// Times at which each IP family was last queued and last synced, in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SyncTimes {
    synced: BTreeMap<String, f64>,
    queued: BTreeMap<String, f64>,
}

impl SyncTimes {
    /// Parses the text of `/metrics`.
    pub(crate) fn parse(metrics: &str) -> Self {
        let mut times = Self::default();
        for line in metrics.lines() {
            let into = if line.starts_with(LAST_SYNC) {
                &mut times.synced
            } else if line.starts_with(LAST_QUEUED) {
                &mut times.queued
            } else {
                continue;
            };
            let family = line.split("ip_family=\"").nth(1).and_then(|rest| rest.split('"').next());
            let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
            if let Some(value) = value {
                into.insert(family.unwrap_or_default().to_owned(), value);
            }
        }
        times
    }

    /// Returns true if every family was synced after it was last queued, and after `time`. With `queued`, the family must
    /// also have been queued after `time`, because a sync that started before a change may end after it.
    pub(crate) fn is_since(&self, time: f64, queued: bool, families: &[Family]) -> bool {
        families.iter().all(|family| {
            // A series without the label is about both families.
            let of = |times: &BTreeMap<String, f64>| times.get(family.name()).or(times.get("")).copied();
            let (Some(synced), was_queued) = (of(&self.synced), of(&self.queued).unwrap_or(0.0)) else {
                return false;
            };
            synced >= time && synced >= was_queued && (!queued || was_queued >= time)
        })
    }
}

/// Returns true if any series of a metric is above 0.
pub(crate) fn is_above_zero(metrics: &str, name: &str) -> bool {
    let of_name = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let mut series = of_name.filter(|rest| rest.starts_with([' ', '{']));
    series
        .any(|rest| rest.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok_and(|v| v > 0.0)))
}

/// Requests a daemon's metrics; `None` if it does not respond.
pub(crate) fn metrics(netns: &NetNs) -> Option<String> {
    let get = || {
        let wait = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 10_249)), wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    netns.run(get).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_above_zero_if_any_of_its_series_is() {
        let text = "# HELP a b\na 0\nb{x=\"1\"} 0\nb{x=\"2\"} 1.5e+09\nab 1\n";
        for (name, expected) in [("a", false), ("b", true), ("ab", true), ("c", false)] {
            assert_eq!(is_above_zero(text, name), expected, "{name}");
        }
    }

    #[test]
    fn a_daemon_is_synced_if_all_families_are() {
        let figure =
            |name: &str, family: &str, value: f64| format!("{name}{{ip_family=\"{family}\"}} {value:e}\n");
        // Queued and synced of IPv4, then of IPv6 · whether the queued time counts · synced since 100?
        let rows = [
            ([101.0, 102.0, 101.0, 102.0], true, true),
            ([101.0, 102.0, 101.0, 100.5], true, false),
            ([101.0, 102.0, 99.0, 102.0], true, false),
            ([99.0, 102.0, 99.0, 102.0], false, true),
            ([99.0, 99.5, 99.0, 102.0], false, false),
            ([103.0, 102.0, 101.0, 102.0], true, false),
        ];
        for ([q4, s4, q6, s6], queued, expected) in rows {
            let text = "# HELP x y\n".to_owned()
                + &figure(LAST_QUEUED, "IPv4", q4)
                + &figure(LAST_SYNC, "IPv4", s4)
                + &figure(LAST_QUEUED, "IPv6", q6)
                + &figure(LAST_SYNC, "IPv6", s6);
            let times = SyncTimes::parse(&text);
            assert_eq!(times.is_since(100.0, queued, &Family::BOTH), expected, "{text}");
        }
        let unlabelled = SyncTimes::parse(&format!("{LAST_SYNC} 1.2e+02\n"));
        assert!(unlabelled.is_since(100.0, false, &Family::BOTH));
        assert!(!SyncTimes::parse("").is_since(0.0, false, &[Family::V4]));
    }
}
