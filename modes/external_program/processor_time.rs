//! Processor time of a running program. It distinguishes a program that works, on however busy a machine, from one that hangs.

use std::fs;
use std::time::Duration;

/// Processor time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessorTime {
    /// The time for which it ran.
    pub(super) used: Duration,
    /// The time for which it could have run, and waited for a processor, without a wait that has not ended.
    pub(super) waited: Duration,
    /// It runs, or waits for a processor.
    pub(super) is_runnable: bool,
}

impl ProcessorTime {
    /// Reads the times of a process; zero if it has ended, or if the kernel does not record them (`CONFIG_SCHED_INFO`).
    pub(super) fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let Some((used, waited)) = times(&read("schedstat")) else { return Self::default() };
        ProcessorTime { used, waited, is_runnable: is_runnable(&read("stat")) }
    }
}

/// Returns the first two fields of `schedstat`.
fn times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut times =
        schedstat.split_whitespace().map_while(|field| Some(Duration::from_nanos(field.parse().ok()?)));
    Some((times.next()?, times.next()?))
}

/// Returns true if the state in `stat` is R. The name before it, in parentheses, may contain anything.
fn is_runnable(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_schedstat() {
        let nanoseconds = |used, waited| Some((Duration::from_nanos(used), Duration::from_nanos(waited)));
        assert_eq!(times("195210 53962328 2\n"), nanoseconds(195_210, 53_962_328));
        assert_eq!(times("0 0 0\n"), nanoseconds(0, 0));
        for invalid in ["", "1", "1 x 2", "-1 2 3"] {
            assert_eq!(times(invalid), None, "{invalid:?}");
        }
        assert!(ProcessorTime::of(std::process::id()).used > Duration::ZERO);
        assert_eq!(ProcessorTime::of(u32::MAX), ProcessorTime::default());
    }

    #[test]
    fn states_of_processes() {
        for (stat, expected) in [
            ("7 (iptables) R 1 7", true),
            ("7 (iptables) S 1 7", false),
            ("7 (R) R) D 1 7", false),
            ("7 ((sd) R S) R 1", true),
            ("", false),
        ] {
            assert_eq!(is_runnable(stat), expected, "{stat}");
        }
    }
}
