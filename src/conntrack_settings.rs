//! The kernel's connection tracking, as `conntrack` in the configuration wants it.
//!
//! As kube-proxy does it: limits are only ever raised, as somebody may have raised them for a reason; timeouts become what
//! is configured. What cannot be set is told and ends nothing: in containers within containers the limit cannot be
//! written, and Services can be served all the same.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::config::Conntrack;
use crate::sysctl;

/// Connections for each bucket of the hash table, as the kernel has it where it sizes both itself
/// (`nf_conntrack_init_start`).
const PER_BUCKET: u64 = 4;

const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "sys/module/nf_conntrack/parameters/hashsize";
const TCP_ESTABLISHED: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const TCP_BE_LIBERAL: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const UDP: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// The processors that the node has, however few of them this process may use.
const ONLINE: &str = "sys/devices/system/cpu/online";

/// A setting that the kernel did not take.
#[derive(Debug)]
pub(crate) struct Refused {
    path: PathBuf,
    value: u64,
    error: io::Error,
}

impl Refused {
    /// Whether the file system is mounted so that nothing can be set.
    pub(crate) fn is_read_only(&self) -> bool {
        self.error.kind() == io::ErrorKind::ReadOnlyFilesystem
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { path, value, error } = self;
        write!(f, "{} cannot be set to {value}: {error}", path.display())?;
        match error.kind() {
            io::ErrorKind::NotFound => write!(f, " (is the module nf_conntrack loaded?)"),
            io::ErrorKind::ReadOnlyFilesystem => {
                write!(f, " (mount it writable, or set it on the node beforehand)")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, " (only the node's own network namespace may; set it there)")
            }
            _ => Ok(()),
        }
    }
}

/// What a setting is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    AtLeast(u64),
    Exactly(u64),
}

impl Wanted {
    /// What is to be written where it is `now`.
    fn to_write(self, now: u64) -> Option<u64> {
        match self {
            Wanted::AtLeast(value) => (now < value).then_some(value),
            Wanted::Exactly(value) => (now != value).then_some(value),
        }
    }

    fn value(self) -> u64 {
        match self {
            Wanted::AtLeast(value) | Wanted::Exactly(value) => value,
        }
    }
}

/// Sets what is configured, and logs what the kernel did not take, which is what it returns.
pub(crate) fn set(config: &Conntrack) -> Vec<Refused> {
    let refused = set_in(Path::new("/"), config);
    refused.iter().for_each(|refused| tracing::warn!("{refused}"));
    refused
}

/// The same in the file system of `root`; what was not taken.
fn set_in(root: &Path, config: &Conntrack) -> Vec<Refused> {
    let settings = wanted(config, cores(root));
    if !settings.is_empty() && !root.join(MAX).exists() {
        sysctl::load_module("nf_conntrack");
    }
    settings.into_iter().filter_map(|(name, wanted)| ensure(root.join(name), wanted).err()).collect()
}

/// What is wanted of a node with so many processors.
fn wanted(config: &Conntrack, cores: u64) -> Vec<(&'static str, Wanted)> {
    let mut settings = Vec::new();
    if let Some(per_core) = config.max_per_core {
        let max = (u64::from(per_core.get()) * cores).max(config.min.into());
        settings.extend([(MAX, Wanted::AtLeast(max)), (BUCKETS, Wanted::AtLeast(max / PER_BUCKET))]);
    }
    let timeouts = [
        (TCP_ESTABLISHED, config.tcp_established_timeout),
        (TCP_CLOSE_WAIT, config.tcp_close_wait_timeout),
        (UDP, config.udp_timeout),
        (UDP_STREAM, config.udp_stream_timeout),
    ];
    // A part of a second must not come to mean that packets are forgotten at once.
    let seconds = |timeout: Duration| timeout.as_secs().max(1);
    settings.extend(
        timeouts
            .into_iter()
            .filter_map(|(name, timeout)| timeout.map(|timeout| (name, Wanted::Exactly(seconds(timeout))))),
    );
    if config.tcp_be_liberal {
        settings.push((TCP_BE_LIBERAL, Wanted::Exactly(1)));
    }
    settings
}

fn ensure(path: PathBuf, wanted: Wanted) -> Result<(), Refused> {
    let to_write = |now: &str| Ok(wanted.to_write(now.parse().map_err(io::Error::other)?));
    sysctl::change(&path, to_write).map_err(|error| Refused { value: wanted.value(), error, path })
}

/// How many processors are there.
fn cores(root: &Path) -> u64 {
    let online = fs::read_to_string(root.join(ONLINE)).ok().and_then(|list| count(list.trim()));
    online.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64))
}

/// How many numbers are in a list such as `0-3,8`.
fn count(list: &str) -> Option<u64> {
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    ranges.sum()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn config(max_per_core: u32, min: u32) -> Conntrack {
        Conntrack {
            max_per_core: NonZeroU32::new(max_per_core),
            min,
            tcp_established_timeout: None,
            tcp_close_wait_timeout: None,
            tcp_be_liberal: false,
            udp_timeout: None,
            udp_stream_timeout: None,
        }
    }

    #[test]
    fn limits_follow_the_processors_and_the_minimum() {
        let rows = [
            // per core, at least, processors: limit
            (32_768, 131_072, 2, Some(131_072)),
            (32_768, 131_072, 64, Some(2_097_152)),
            (32_768, 0, 1, Some(32_768)),
            (0, 131_072, 64, None),
        ];
        for (per_core, min, cores, limit) in rows {
            let settings = wanted(&config(per_core, min), cores);
            let expected = limit.map(|limit| {
                vec![(MAX, Wanted::AtLeast(limit)), (BUCKETS, Wanted::AtLeast(limit / PER_BUCKET))]
            });
            assert_eq!(settings, expected.unwrap_or_default(), "{per_core} {min} {cores}");
        }
    }

    #[test]
    fn limits_are_raised_and_timeouts_are_set() {
        assert_eq!(Wanted::AtLeast(10).to_write(9), Some(10));
        assert_eq!(Wanted::AtLeast(10).to_write(11), None);
        assert_eq!(Wanted::Exactly(10).to_write(11), Some(10));
        assert_eq!(Wanted::Exactly(10).to_write(10), None);
        let seconds = |millis| Some(Duration::from_millis(millis));
        let config = Conntrack {
            tcp_established_timeout: seconds(86_400_000),
            udp_timeout: seconds(10_900),
            udp_stream_timeout: seconds(200),
            tcp_be_liberal: true,
            ..config(0, 0)
        };
        let expected = [(TCP_ESTABLISHED, 86_400), (UDP, 10), (UDP_STREAM, 1), (TCP_BE_LIBERAL, 1)];
        assert_eq!(wanted(&config, 4), expected.map(|(name, value)| (name, Wanted::Exactly(value))));
    }

    #[test]
    fn processors_are_counted_by_ranges() {
        let rows = [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("3-1", None), ("", None)];
        for (list, expected) in rows {
            assert_eq!(count(list), expected, "{list:?}");
        }
    }

    #[test]
    fn what_is_there_is_written_and_what_is_not_is_told() {
        let root = tempfile::tempdir().expect("a folder for temporary files");
        let files = [(ONLINE, "0-7\n"), (MAX, "65536\n"), (BUCKETS, "262144\n"), (TCP_BE_LIBERAL, "0\n")];
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        let config = Conntrack {
            tcp_be_liberal: true,
            udp_timeout: Some(Duration::from_secs(30)),
            ..config(32_768, 131_072)
        };
        let refused = set_in(root.path(), &config);
        let read = |name: &str| fs::read_to_string(root.path().join(name)).expect("it is there");
        assert_eq!([MAX, BUCKETS, TCP_BE_LIBERAL].map(read), ["262144", "262144\n", "1"]);
        let [refused] = &refused[..] else { panic!("{refused:?}") };
        let told = refused.to_string();
        assert!(told.contains(UDP) && told.contains("30") && told.contains("nf_conntrack loaded"), "{told}");
    }
}
