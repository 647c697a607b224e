//! Choice of the addresses of a new attachment: which addresses are held, and the attempts before a range is exhausted.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use ipnet::IpNet;

use super::allocator::{self, Reservations};
use super::error::{Error, Result};
use super::exhaustion::Exhaustion;
use super::other_plugins::{Containers, Networks};
use super::pod_range::PodRange;
use super::store::AddressStore;
use super::{files, leaks};

/// Returns whether an address is in use on this node.
pub(super) type IsInUse<'a> = dyn Fn(IpAddr) -> Result<bool> + 'a;

impl AddressStore {
    /// Chooses a free address of each range.
    pub(super) fn choose(&self, is_in_use: &IsInUse<'_>) -> Result<Vec<IpNet>> {
        let networks = self.networks()?;
        let mut addresses = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let last = files::read(&self.last_allocated_path(range))
                .ok()
                .flatten()
                .and_then(|content| String::from_utf8_lossy(&content).trim().parse().ok());
            let address = self.next(*range, last, &networks, is_in_use)?;
            addresses.push(
                IpNet::new(address, range.network().prefix_len()).expect("the prefix length is of the range"),
            );
        }
        Ok(addresses)
    }

    fn next(
        &self,
        range: PodRange,
        last: Option<IpAddr>,
        networks: &Networks,
        is_in_use: &IsInUse<'_>,
    ) -> Result<IpAddr> {
        let held = HeldAddresses { store: self, networks, containers: None, is_in_use };
        if let Some(address) = allocator::next(range, last, &held)? {
            return Ok(address);
        }
        // Rather than failing until the daemon runs, return what leaked.
        leaks::remove_leaked_locked(self)?;
        let containers = Containers::read();
        let held = HeldAddresses { store: self, networks, containers: containers.as_ref(), is_in_use };
        if let Some(address) = allocator::next(range, last, &held)? {
            return Ok(address);
        }
        Err(Box::new(Exhaustion::examine(self, range, networks, is_in_use)?).into())
    }
}

/// The addresses that cannot be allocated: by reservations of this store, and by files of other plugins.
struct HeldAddresses<'a> {
    store: &'a AddressStore,
    networks: &'a Networks,
    /// If set, addresses of containers that have ended are free.
    containers: Option<&'a Containers>,
    is_in_use: &'a IsInUse<'a>,
}

impl HeldAddresses<'_> {
    fn is_held_elsewhere(&self, file: &Path) -> bool {
        self.containers.is_none_or(|containers| !containers.has_ended(file, SystemTime::now()))
    }
}

impl Reservations for HeldAddresses<'_> {
    type Error = Error;

    fn is_held(&self, address: IpAddr) -> Result<bool> {
        let path = self.store.address_path(address);
        match fs::symlink_metadata(&path) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
        let other = self.networks.file(address).map_err(Error::io("read", &path))?;
        Ok(other.is_some_and(|file| self.is_held_elsewhere(&file)) || (self.is_in_use)(address)?)
    }

    fn held(&self) -> Result<HashSet<IpAddr>> {
        let mut held = HashSet::new();
        let folder = self.store.addresses();
        files::for_each_name(&folder, |name| held.extend(name.parse::<IpAddr>()))
            .map_err(Error::io("read", &folder))?;
        self.networks
            .for_each_address(|address, file| {
                if self.is_held_elsewhere(&file) {
                    held.insert(address);
                }
            })
            .map_err(Error::io("read", &folder))?;
        Ok(held)
    }
}
