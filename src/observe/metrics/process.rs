//! Process metrics from /proc, with the names of Prometheus' client libraries.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::counter_func::{describe, family};

/// Clock ticks per second in /proc: `USER_HZ`, which is 100 on every supported architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads one value; `None` if it is not available.
type Read = fn(&Proc) -> Option<f64>;

const METRICS: &[(&str, &str, MetricType, Read)] = &[
    ("process_cpu_seconds_total", "CPU time used, in user and system mode", MetricType::COUNTER, |p| {
        Some((p.stat(14)? + p.stat(15)?) / TICKS_PER_SECOND)
    }),
    ("process_max_fds", "Maximum number of open files", MetricType::GAUGE, |p| p.limit("Max open files")),
    ("process_open_fds", "Number of open files", MetricType::GAUGE, |_| open_files()),
    ("process_resident_memory_bytes", "Resident memory", MetricType::GAUGE, |p| p.status("VmRSS:")),
    ("process_start_time_seconds", "Unix time at which the process started", MetricType::GAUGE, |p| {
        Some(boot_time()? + p.stat(22)? / TICKS_PER_SECOND)
    }),
    ("process_virtual_memory_bytes", "Virtual memory", MetricType::GAUGE, |p| p.status("VmSize:")),
    ("process_virtual_memory_max_bytes", "Maximum virtual memory", MetricType::GAUGE, |p| {
        p.limit("Max address space")
    }),
    (
        "process_network_receive_bytes_total",
        "Bytes received by the network namespace of the process",
        MetricType::COUNTER,
        |_| network_bytes("InOctets"),
    ),
    (
        "process_network_transmit_bytes_total",
        "Bytes sent by the network namespace of the process",
        MetricType::COUNTER,
        |_| network_bytes("OutOctets"),
    ),
];

/// Collector of the `process_*` metrics.
pub(super) struct Process(Vec<Desc>);

impl Process {
    pub(super) fn new() -> Self {
        Process(METRICS.iter().map(|(name, help, ..)| describe(name, help, &[])).collect())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let proc = Proc::read();
        let rows = self.0.iter().zip(METRICS);
        rows.map(|(desc, (_, _, kind, read))| {
            family(desc, *kind, read(&proc).map(|value| (Vec::new(), value)))
        })
        .collect()
    }
}

/// Files of /proc that more than one metric needs.
struct Proc {
    stat: String,
    limits: String,
    status: String,
}

impl Proc {
    fn read() -> Self {
        let file = |name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Proc { stat: file("stat"), limits: file("limits"), status: file("status") }
    }

    /// Returns a field of `stat`, numbered from 1 as in proc(5).
    fn stat(&self, field: usize) -> Option<f64> {
        // The second field is the program name in parentheses, which may contain spaces.
        let rest = self.stat.rsplit_once(") ")?.1;
        rest.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
    }

    /// Returns a soft limit. An unlimited one is the largest number, as in Prometheus' client libraries.
    fn limit(&self, name: &str) -> Option<f64> {
        let line = self.limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX as f64),
            number => number.parse().ok(),
        }
    }

    /// Returns a size of `status` in bytes.
    fn status(&self, name: &str) -> Option<f64> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
    }
}

fn open_files() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

/// Returns the Unix time at which the machine started.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

/// Returns a counter of `IpExt`, which has the names in one line and the values in the next.
fn network_bytes(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("IpExt:"));
    let column = lines.next()?.split(' ').position(|column| column == name)?;
    lines.next()?.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        let proc = Proc {
            stat: "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 4200 99 1".to_owned(),
            limits: "Limit  Soft Limit  Hard Limit  Units\n\
                     Max open files            1024  524288  files\n\
                     Max address space         unlimited  unlimited  bytes\n"
                .to_owned(),
            status: "Name:\tx\nVmSize:\t    8 kB\nVmRSS:\t    3 kB\n".to_owned(),
        };
        assert_eq!(proc.stat(14), Some(250.0));
        assert_eq!(proc.stat(15), Some(50.0));
        assert_eq!(proc.stat(22), Some(4200.0));
        assert_eq!(proc.limit("Max open files"), Some(1024.0));
        assert_eq!(proc.limit("Max address space"), Some(18_446_744_073_709_551_615.0));
        assert_eq!(proc.status("VmRSS:"), Some(3072.0));
        assert_eq!(proc.status("VmSize:"), Some(8192.0));
    }

    #[test]
    fn this_process_has_all_values() {
        let proc = Proc::read();
        for (name, _, _, read) in METRICS {
            assert!(read(&proc).is_some_and(|value| value >= 0.0), "{name}");
        }
    }
}
