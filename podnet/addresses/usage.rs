//! The use of the addresses of a range, for metrics and health.

use std::collections::HashSet;
use std::net::IpAddr;

use super::error::{Error, Result};
use super::files;
use super::pod_range::PodRange;
use super::store::AddressStore;

/// The number of addresses of a range, by use. Addresses to which only a route leads are counted as free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressUsage {
    /// The range.
    pub range: PodRange,
    /// Addresses that attachments hold, also those that have leaked.
    pub held: usize,
    /// Addresses that files of other network plugins hold.
    pub elsewhere: usize,
}

impl AddressUsage {
    /// Returns the number of free addresses.
    pub fn free(&self) -> u128 {
        self.range.size().saturating_sub((self.held + self.elsewhere) as u128)
    }

    /// Returns true if fewer than a tenth of the addresses are free.
    pub fn is_low(&self) -> bool {
        self.free() < self.range.size() / 10
    }
}

impl AddressStore {
    /// Counts the addresses of each range by use. Nothing is locked: a change in progress may be counted or not.
    ///
    /// # Errors
    /// The folders cannot be read.
    pub fn usage(&self) -> Result<Vec<AddressUsage>> {
        let reservations = self.addresses();
        let mut held: HashSet<IpAddr> = HashSet::new();
        files::for_each_name(&reservations, |name| held.extend(name.parse::<IpAddr>()))
            .map_err(Error::io("read", &reservations))?;
        let mut elsewhere: HashSet<IpAddr> = HashSet::new();
        self.networks()?
            .for_each_address(|address, _| {
                if !held.contains(&address) {
                    elsewhere.insert(address);
                }
            })
            .map_err(Error::io("read", &reservations))?;
        let count = |addresses: &HashSet<IpAddr>, range: &PodRange| {
            addresses.iter().filter(|address| range.contains(**address)).count()
        };
        let usage = |range: &PodRange| AddressUsage {
            range: *range,
            held: count(&held, range),
            elsewhere: count(&elsewhere, range),
        };
        Ok(self.ranges.iter().map(usage).collect())
    }
}
