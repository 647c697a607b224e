//! The limit of open file descriptors of this process (`RLIMIT_NOFILE`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit to which the program raises its own, if the hard limit allows it. More is never needed. Child processes inherit
/// it: a program that closes all descriptors up to the limit takes minutes if the limit is a thousand million, as in some
/// container runtimes.
const RAISED: u64 = 65_536;

/// The soft limit below which a warning is logged.
const RECOMMENDED: u64 = 1_024;

/// Raises the soft limit to the hard limit, but not above [`RAISED`]. Service managers and container runtimes start programs
/// with 1,024 for the sake of `select(2)`, which this program does not use.
pub(crate) fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let (current, maximum) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
    let raised = raised(current, maximum);
    if raised > current {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..before }) {
            Ok(()) => tracing::debug!("raised the limit of open files from {current} to {raised}"),
            Err(error) => tracing::warn!("cannot raise the limit of open files from {current}: {error}"),
        }
    }
    let limit = limit();
    if limit < RECOMMENDED {
        tracing::warn!(
            "the limit of open files (RLIMIT_NOFILE) is {limit}, expected {RECOMMENDED} or more; serving fewer HTTP \
             connections and health check node ports"
        );
    }
}

/// Returns the soft limit.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn raised(current: u64, maximum: u64) -> u64 {
    current.max(maximum.min(RAISED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_raised_to_the_hard_limit_or_to_what_is_needed() {
        let rows = [
            ("systemd", 1_024, 524_288, 65_536),
            ("a container", 1_048_576, 1_048_576, 1_048_576),
            ("unlimited", 1_024, u64::MAX, 65_536),
            ("a hard limit", 256, 4_096, 4_096),
            ("equal limits", 256, 256, 256),
        ];
        for (case, current, maximum, expected) in rows {
            assert_eq!(raised(current, maximum), expected, "{case}");
        }
    }
}
