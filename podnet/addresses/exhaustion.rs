//! The error of a range without free address: which attachments and plugins hold the addresses.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::choice::IsInUse;
use super::error::{Error, Result};
use super::other_plugins::Networks;
use super::pod_range::PodRange;
use super::store::AddressStore;
use super::{files, leaks};

/// A range whose addresses are all held.
#[derive(Debug, PartialEq, Eq)]
pub struct Exhaustion {
    range: PodRange,
    /// Addresses that attachments hold.
    attached: usize,
    /// Of these, the number whose network namespace and host interface do not exist any more.
    leaked: usize,
    /// Addresses that files of other network plugins hold, and the folder of one of them.
    elsewhere: usize,
    elsewhere_folder: Option<PathBuf>,
    /// Addresses whose reservation names no attachment.
    unreadable: usize,
    unreadable_file: Option<PathBuf>,
    /// Addresses that are in use although no file says so.
    in_use: usize,
    folder: PathBuf,
}

impl Exhaustion {
    /// Counts the holders of a range's addresses. The lock is held.
    pub(super) fn examine(
        store: &AddressStore,
        range: PodRange,
        networks: &Networks,
        is_in_use: &IsInUse<'_>,
    ) -> Result<Self> {
        let in_range = |addresses: &[ipnet::IpNet]| {
            addresses
                .iter()
                .map(ipnet::IpNet::addr)
                .filter(|address| range.contains(*address))
                .collect::<Vec<_>>()
        };
        let attached: HashSet<IpAddr> =
            store.attachments()?.attachments.iter().flat_map(|a| in_range(&a.addresses)).collect();
        let leaked = leaks::leaked(store, std::time::Duration::ZERO)?;
        let mut exhaustion = Self {
            range,
            attached: attached.len(),
            leaked: leaked.iter().map(|a| in_range(&a.addresses).len()).sum(),
            elsewhere: 0,
            elsewhere_folder: None,
            unreadable: 0,
            unreadable_file: None,
            in_use: 0,
            folder: store.attachments_dir(),
        };
        let reservations = store.addresses();
        let mut reserved = HashSet::new();
        files::for_each_name(&reservations, |name| {
            let Some(address) = name.parse().ok().filter(|address| range.contains(*address)) else { return };
            reserved.insert(address);
            if !attached.contains(&address) {
                exhaustion.unreadable += 1;
                exhaustion.unreadable_file.get_or_insert_with(|| reservations.join(name));
            }
        })
        .map_err(Error::io("read", &reservations))?;
        networks
            .for_each_address(|address, file| {
                if range.contains(address) && reserved.insert(address) {
                    exhaustion.elsewhere += 1;
                    exhaustion.elsewhere_folder = file.parent().map(Into::into);
                }
            })
            .map_err(Error::io("read", &reservations))?;
        // A full range has no more addresses than there are files and routes.
        for address in range.after(None).filter(|address| !reserved.contains(address)) {
            exhaustion.in_use += usize::from(is_in_use(address)?);
        }
        Ok(exhaustion)
    }
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, attached, leaked, elsewhere, unreadable, folder, .. } = self;
        write!(
            f,
            "no free pod address in {range}: of {} addresses {attached} are held by attachments",
            range.size()
        )?;
        if *leaked > 0 {
            write!(f, " ({leaked} of them without network namespace: the daemon and `GC` return these)")?;
        }
        if let Some(other) = &self.elsewhere_folder {
            write!(f, ", {elsewhere} by another network plugin in {}", other.display())?;
        }
        if let Some(file) = &self.unreadable_file {
            write!(f, ", {unreadable} by files without attachment such as {}", file.display())?;
        }
        if self.in_use > 0 {
            write!(
                f,
                ", {} by routes to single addresses (`ip route`), as other network plugins have",
                self.in_use
            )?;
        }
        write!(
            f,
            ". {} has a file for each attachment, named by its container: compare it with `crictl pods -q`, and limit the pods of \
             this node (`maxPods` of the kubelet) if all of them run",
            folder.display()
        )
    }
}

impl std::error::Error for Exhaustion {}
