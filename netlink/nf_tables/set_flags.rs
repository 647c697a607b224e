//! The flags of sets (`NFT_SET_*`).

use super::set::SetSpec;

pub(super) const ANONYMOUS: u32 = 0x1;
pub(super) const INTERVAL: u32 = 0x4;
pub(super) const MAP: u32 = 0x8;
pub(super) const TIMEOUT: u32 = 0x10;
pub(super) const EVAL: u32 = 0x20;
pub(super) const CONCAT: u32 = 0x80;

/// Returns the flags of a set.
pub(super) fn of_spec(spec: &SetSpec) -> u32 {
    let rows = [
        (INTERVAL, spec.interval),
        (MAP, spec.is_map()),
        (TIMEOUT, spec.timeout.is_some()),
        (EVAL, spec.dynamic),
        // The kernel rejects a set that describes the lengths of several parts without this flag.
        (CONCAT, spec.key.len() > 1),
    ];
    rows.into_iter().filter(|(_, on)| *on).fold(0, |flags, (flag, _)| flags | flag)
}
