//! Processor time of a running program. It distinguishes a program that works, on however busy a machine, from one that hangs.

use std::fs;
use std::time::Duration;

/// Processor time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessorTime {
    /// The time for which it ran.
    pub(super) used: Duration,
    /// The time for which it could have run, and waited for a processor.
    pub(super) waited: Duration,
}

impl ProcessorTime {
    /// Reads the times of a process; zero if it has ended, or if the kernel does not record them (`CONFIG_SCHED_INFO`).
    pub(super) fn of(pid: u32) -> Self {
        fs::read_to_string(format!("/proc/{pid}/schedstat"))
            .ok()
            .and_then(|text| parse(&text))
            .unwrap_or_default()
    }
}

fn parse(text: &str) -> Option<ProcessorTime> {
    let mut times =
        text.split_whitespace().map_while(|field| Some(Duration::from_nanos(field.parse().ok()?)));
    Some(ProcessorTime { used: times.next()?, waited: times.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_schedstat() {
        let times = |used, waited| {
            Some(ProcessorTime { used: Duration::from_nanos(used), waited: Duration::from_nanos(waited) })
        };
        assert_eq!(parse("195210 53962328 2\n"), times(195_210, 53_962_328));
        assert_eq!(parse("0 0 0\n"), times(0, 0));
        for invalid in ["", "1", "1 x 2", "-1 2 3"] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
        assert!(ProcessorTime::of(std::process::id()).used > Duration::ZERO);
        assert_eq!(ProcessorTime::of(u32::MAX), ProcessorTime::default());
    }
}
