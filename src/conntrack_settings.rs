//! Kernel settings of connection tracking, from `conntrack` in the configuration.
//!
//! As in kube-proxy, limits are only raised, as an administrator may have raised them; timeouts are set to the configured
//! values. Errors are reported and not fatal: in nested containers the limit cannot be written, and Services can be served
//! without.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::config::Conntrack;
use crate::{privileges, sysctl};

/// Connections per bucket of the hash table, as in the kernel (`nf_conntrack_init_start`).
const PER_BUCKET: u64 = 4;

const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "sys/module/nf_conntrack/parameters/hashsize";
const TCP_ESTABLISHED: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const TCP_BE_LIBERAL: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const UDP: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// The processors of the node, including those that this process may not use.
const ONLINE: &str = "sys/devices/system/cpu/online";

/// A setting that could not be written.
#[derive(Debug)]
pub(crate) struct RejectedSetting {
    path: PathBuf,
    value: u64,
    error: io::Error,
}

impl RejectedSetting {
    /// Returns true if the file system is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.error.kind() == io::ErrorKind::ReadOnlyFilesystem
    }
}

impl fmt::Display for RejectedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RejectedSetting { path, value, error } = self;
        write!(f, "cannot set {} to {value}: {error}", path.display())?;
        match error.kind() {
            io::ErrorKind::NotFound => write!(f, " (is the module nf_conntrack loaded?)"),
            io::ErrorKind::ReadOnlyFilesystem => {
                write!(f, " (mount it writable, or set it on the node beforehand)")
            }
            io::ErrorKind::PermissionDenied if !privileges::is_root() => {
                write!(f, " (it requires root: run `portcullis --init-only` as root beforehand)")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, " (only allowed in the node's network namespace; set it there)")
            }
            _ => Ok(()),
        }
    }
}

/// The target value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    AtLeast(u64),
    Exactly(u64),
}

impl Target {
    /// Returns the value to write, given the current one.
    fn to_write(self, current: u64) -> Option<u64> {
        match self {
            Target::AtLeast(value) => (current < value).then_some(value),
            Target::Exactly(value) => (current != value).then_some(value),
        }
    }

    fn value(self) -> u64 {
        match self {
            Target::AtLeast(value) | Target::Exactly(value) => value,
        }
    }
}

/// Writes the configured settings. Logs and returns those that could not be written.
pub(crate) fn set(config: &Conntrack) -> Vec<RejectedSetting> {
    let rejected = set_in(Path::new("/"), config);
    rejected.iter().for_each(|setting| tracing::warn!("{setting}"));
    rejected
}

/// The same below the folder `root`.
fn set_in(root: &Path, config: &Conntrack) -> Vec<RejectedSetting> {
    let settings = targets(config, cores(root));
    if !settings.is_empty() && !root.join(MAX).exists() {
        sysctl::load_module("nf_conntrack");
    }
    settings.into_iter().filter_map(|(name, target)| ensure(root.join(name), target).err()).collect()
}

/// Returns the target values for a number of processors.
fn targets(config: &Conntrack, cores: u64) -> Vec<(&'static str, Target)> {
    let mut settings = Vec::new();
    if let Some(per_core) = config.max_per_core {
        let max = (u64::from(per_core.get()) * cores).max(config.min.into());
        settings.extend([(MAX, Target::AtLeast(max)), (BUCKETS, Target::AtLeast(max / PER_BUCKET))]);
    }
    let timeouts = [
        (TCP_ESTABLISHED, config.tcp_established_timeout),
        (TCP_CLOSE_WAIT, config.tcp_close_wait_timeout),
        (UDP, config.udp_timeout),
        (UDP_STREAM, config.udp_stream_timeout),
    ];
    // Less than a second must not become 0, which would expire entries immediately.
    let seconds = |timeout: Duration| timeout.as_secs().max(1);
    settings.extend(
        timeouts
            .into_iter()
            .filter_map(|(name, timeout)| timeout.map(|timeout| (name, Target::Exactly(seconds(timeout))))),
    );
    if config.tcp_be_liberal {
        settings.push((TCP_BE_LIBERAL, Target::Exactly(1)));
    }
    settings
}

fn ensure(path: PathBuf, target: Target) -> Result<(), RejectedSetting> {
    let to_write = |current: &str| Ok(target.to_write(current.parse().map_err(io::Error::other)?));
    sysctl::change(&path, to_write).map_err(|error| RejectedSetting { value: target.value(), error, path })
}

/// Returns the number of processors.
fn cores(root: &Path) -> u64 {
    let online = fs::read_to_string(root.join(ONLINE)).ok().and_then(|list| count(list.trim()));
    online.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64))
}

/// Counts the numbers in a list such as `0-3,8`.
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
    fn limits_depend_on_the_processors_and_the_minimum() {
        let rows = [
            // per core, at least, processors: limit
            (32_768, 131_072, 2, Some(131_072)),
            (32_768, 131_072, 64, Some(2_097_152)),
            (32_768, 0, 1, Some(32_768)),
            (0, 131_072, 64, None),
        ];
        for (per_core, min, cores, limit) in rows {
            let settings = targets(&config(per_core, min), cores);
            let expected = limit.map(|limit| {
                vec![(MAX, Target::AtLeast(limit)), (BUCKETS, Target::AtLeast(limit / PER_BUCKET))]
            });
            assert_eq!(settings, expected.unwrap_or_default(), "{per_core} {min} {cores}");
        }
    }

    #[test]
    fn limits_are_only_raised_and_timeouts_are_set() {
        assert_eq!(Target::AtLeast(10).to_write(9), Some(10));
        assert_eq!(Target::AtLeast(10).to_write(11), None);
        assert_eq!(Target::Exactly(10).to_write(11), Some(10));
        assert_eq!(Target::Exactly(10).to_write(10), None);
        let seconds = |millis| Some(Duration::from_millis(millis));
        let config = Conntrack {
            tcp_established_timeout: seconds(86_400_000),
            udp_timeout: seconds(10_900),
            udp_stream_timeout: seconds(200),
            tcp_be_liberal: true,
            ..config(0, 0)
        };
        let expected = [(TCP_ESTABLISHED, 86_400), (UDP, 10), (UDP_STREAM, 1), (TCP_BE_LIBERAL, 1)];
        assert_eq!(targets(&config, 4), expected.map(|(name, value)| (name, Target::Exactly(value))));
    }

    #[test]
    fn ranges_of_processors_are_counted() {
        let rows = [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("3-1", None), ("", None)];
        for (list, expected) in rows {
            assert_eq!(count(list), expected, "{list:?}");
        }
    }

    #[test]
    fn existing_settings_are_written_and_missing_ones_are_reported() {
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
        let rejected = set_in(root.path(), &config);
        let read = |name: &str| fs::read_to_string(root.path().join(name)).expect("it is there");
        assert_eq!([MAX, BUCKETS, TCP_BE_LIBERAL].map(read), ["262144", "262144\n", "1"]);
        let [setting] = &rejected[..] else { panic!("{rejected:?}") };
        let text = setting.to_string();
        assert!(text.contains(UDP) && text.contains("30") && text.contains("nf_conntrack loaded"), "{text}");
    }
}
