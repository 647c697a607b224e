//! Memory, descriptors and threads of the daemon over time.

use std::fs;

/// Resources of a process at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Anonymous resident memory in KiB: without code and files, which the kernel may drop and read again.
    pub(super) anonymous_kib: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

impl Sample {
    pub(super) fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some(Sample { anonymous_kib: field("RssAnon:")?, descriptors, threads: field("Threads:")? })
    }
}

/// The first and the last quarter of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quarters {
    /// The medians of anonymous memory in KiB.
    pub(super) anonymous_kib: [u64; 2],
    /// The highest number of descriptors in the first half, and the lowest in the last quarter: requests, tools and work on
    /// threads need some for a moment, and a leak exceeds these in time. A half, because in a short soak a thread of the pool
    /// may start after the first quarter.
    pub(super) descriptors: [u64; 2],
    /// The same for threads.
    pub(super) threads: [u64; 2],
}

impl Quarters {
    /// Returns the quarters of samples after a start of which a tenth is left out.
    pub(super) fn new(samples: &[Sample]) -> Option<Self> {
        let samples = &samples[samples.len() / 10..];
        let quarter = samples.len() / 4;
        let ends = [samples.get(..quarter)?, samples.get(samples.len() - quarter..)?];
        let median = |samples: &[Sample]| {
            let mut all: Vec<u64> = samples.iter().map(|sample| sample.anonymous_kib).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied()
        };
        let range = |of: fn(&Sample) -> u64| {
            let [first_half, last] = [&samples[..samples.len() / 2], ends[1]];
            Some([first_half.iter().map(of).max()?, last.iter().map(of).min()?])
        };
        Some(Quarters {
            anonymous_kib: [median(ends[0])?, median(ends[1])?],
            descriptors: range(|sample| sample.descriptors)?,
            threads: range(|sample| sample.threads)?,
        })
    }
}

pub(crate) mod tests {
    use super::*;

    pub(crate) fn quarters_compare_the_ends() {
        let sample = |n: u64| Sample {
            anonymous_kib: if n < 10 { 1 } else { 1000 + n },
            descriptors: 20 + n % 2 + n / 80,
            threads: 5 + n % 3,
        };
        let samples: Vec<Sample> = (0..100).map(sample).collect();
        let quarters = Quarters::new(&samples).unwrap();
        assert_eq!(quarters.anonymous_kib, [1021, 1089]);
        assert_eq!((quarters.descriptors, quarters.threads), ([21, 20], [7, 5]));
        let last: Vec<Sample> =
            samples.iter().map(|s| Sample { descriptors: s.descriptors + 2, ..*s }).collect();
        let leak: Vec<Sample> = samples[..60].iter().chain(&last[60..]).copied().collect();
        assert_eq!(Quarters::new(&leak).unwrap().descriptors, [21, 22]);
        assert_eq!(Quarters::new(&samples[..3]), None);
    }
}
