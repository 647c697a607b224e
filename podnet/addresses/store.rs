//! The store of attachments and of the addresses that they hold.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::allocator::{self, Reservations};
use super::attachment::{Attachment, AttachmentKey, HostPort, NewAttachment};
use super::error::{Error, Result};
use super::exhaustion::Exhaustion;
use super::other_plugins::{Containers, Networks, OtherPlugins};
use super::pod_range::PodRange;
use super::store_lock::StoreLock;
use super::{files, leaks, recovery};

/// Time to wait for the lock. A change takes less than a millisecond, and the kubelet waits for minutes.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// The attachments of a node and the addresses that they hold, as files that the CNI plugin and the daemon share.
///
/// See the [module](super) for the files, and for what an interrupted process leaves.
#[derive(Debug)]
pub struct AddressStore {
    pub(super) dir: PathBuf,
    ranges: Vec<PodRange>,
    other_plugins: OtherPlugins,
    lock_limit: Duration,
}

/// Addresses that are reserved for an attachment whose interface is being created. While it exists, in this process, neither
/// [`remove_all_except`](AddressStore::remove_all_except) nor [`remove_leaked`](AddressStore::remove_leaked) returns them.
#[derive(Debug)]
pub struct Reservation {
    attachment: Attachment,
    /// The attachment's file, with a shared lock.
    file: File,
    /// The file names another network namespace or host interface.
    is_outdated: bool,
}

impl Reservation {
    /// Returns the attachment with its addresses, one of each range in the order of the ranges.
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

/// All attachments of a store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The attachments, in the order of their keys.
    pub attachments: Vec<Attachment>,
    /// Files that the store did not write or that are damaged. The addresses that they hold are not allocated.
    pub unreadable: Vec<UnreadableFile>,
}

/// A file in the store's folders that is not one of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableFile {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl AddressStore {
    /// Returns the store in a folder. `other_dirs` are folders of `host-local`, whose addresses are not allocated. Nothing is read or
    /// written before the first operation; the ranges may be empty for all operations but [`add`](Self::add).
    ///
    /// # Errors
    /// Two ranges of the same address family.
    pub fn open(dir: &Path, ranges: &[PodRange], other_dirs: &[PathBuf]) -> Result<Self> {
        for (index, range) in ranges.iter().enumerate() {
            let family = |range: &PodRange| range.network().addr().is_ipv4();
            if let Some(first) = ranges[..index].iter().find(|first| family(first) == family(range)) {
                return Err(Error::SameFamily(*first, *range));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            ranges: ranges.to_vec(),
            other_plugins: OtherPlugins::new(other_dirs),
            lock_limit: LOCK_LIMIT,
        })
    }

    /// Reserves an address of each range. An attachment that exists keeps its addresses.
    ///
    /// # Errors
    /// No address is free, or the files cannot be written; then nothing is reserved.
    pub fn add(&self, new: &NewAttachment) -> Result<Reservation> {
        if self.ranges.is_empty() {
            return Err(Error::NoRange);
        }
        for folder in [self.addresses(), self.attachments_dir(), self.last_allocated()] {
            fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
        }
        let _lock = self.lock()?;
        recovery::write_boot_id(self)?;
        if let Some(reservation) = self.existing(new)? {
            return Ok(reservation);
        }
        let addresses = self.choose()?;
        let reservation = self.reserve(new, addresses);
        if reservation.is_err() {
            // If this fails too, the next operation does it.
            let _ = recovery::undo_addition(self);
        }
        reservation
    }

    /// Completes an attachment whose interface exists, with the ports of the node that are forwarded to it.
    ///
    /// # Errors
    /// The attachment was removed meanwhile, so its interface must be removed too; or the file cannot be written.
    pub fn complete(&self, reservation: Reservation, host_ports: Vec<HostPort>) -> Result<Attachment> {
        let Reservation { mut attachment, file, is_outdated } = reservation;
        let path = self.attachment_path(&attachment.key);
        let is_ours = || -> Result<bool> {
            let ours = file.metadata().map_err(Error::io("read", &path))?.ino();
            match fs::metadata(&path) {
                Ok(metadata) => Ok(metadata.ino() == ours),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(Error::io("read", &path)(error)),
            }
        };
        if !is_outdated && attachment.host_ports == host_ports {
            return if is_ours()? { Ok(attachment) } else { Err(Error::Returned(attachment.key)) };
        }
        let _lock = self.lock()?;
        if !is_ours()? {
            return Err(Error::Returned(attachment.key));
        }
        attachment.host_ports = host_ports;
        let completing = self.completing();
        let written = files::write(&completing, &to_json(&attachment))
            .and_then(|_| files::rename(&completing, &path))
            .map_err(Error::write(&path));
        if written.is_err() {
            // If this fails too, the next operation does it.
            let _ = files::remove(&completing);
        }
        written.map(|()| attachment)
    }

    /// Returns an attachment.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn get(&self, key: &AttachmentKey) -> Result<Option<Attachment>> {
        if recovery::is_of_earlier_boot(self)? {
            return Ok(None);
        }
        self.read_attachment(&self.attachment_path(key))
    }

    /// Removes an attachment and returns its addresses to the ranges. Its interface must be removed before. Returns the attachment;
    /// `None` if there is none, or if its file was damaged.
    ///
    /// # Errors
    /// The files cannot be removed. Full file systems are no reason.
    pub fn remove(&self, key: &AttachmentKey) -> Result<Option<Attachment>> {
        if !self.attachments_dir().exists() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        self.remove_locked(key)
    }

    /// Returns all attachments. Needs no lock and no right to write.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn attachments(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        if recovery::is_of_earlier_boot(self)? {
            return Ok(listing);
        }
        let folder = self.attachments_dir();
        let mut names = Vec::new();
        files::for_each_name(&folder, |name| names.push(name.to_owned()))
            .map_err(Error::io("read", &folder))?;
        names.sort_unstable();
        for name in names {
            let path = folder.join(&name);
            match self.read_attachment(&path) {
                Ok(attachment) => listing.attachments.extend(attachment),
                Err(Error::Unreadable { path, reason, .. }) => {
                    listing.unreadable.push(UnreadableFile { path, reason });
                }
                Err(Error::Io { source, .. }) => {
                    listing.unreadable.push(UnreadableFile { path, reason: source.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// Acquires the lock, and undoes or finishes what an interrupted process left.
    pub(super) fn lock(&self) -> Result<StoreLock> {
        let lock = StoreLock::acquire(&self.dir.join("lock"), self.lock_limit)?;
        recovery::recover(self)?;
        Ok(lock)
    }

    /// Returns the reservation of an attachment that exists and has an address of each range.
    fn existing(&self, new: &NewAttachment) -> Result<Option<Reservation>> {
        let path = self.attachment_path(&new.key);
        let Some(mut attachment) = self.read_attachment(&path)? else { return Ok(None) };
        let is_of_ranges = attachment.addresses.len() == self.ranges.len()
            && attachment.addresses.iter().zip(&self.ranges).all(|(address, range)| {
                range.contains(address.addr()) && address.prefix_len() == range.network().prefix_len()
            });
        if !is_of_ranges || !self.restore_reservations(&attachment, &path)? {
            self.remove_locked(&new.key)?;
            return Ok(None);
        }
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        hold(&file, &new.key, &path)?;
        let netns_inode = leaks::netns_inode(&new.netns);
        let is_outdated = attachment.netns != new.netns
            || attachment.netns_inode != netns_inode
            || attachment.host_interface != new.host_interface;
        attachment.netns.clone_from(&new.netns);
        attachment.netns_inode = netns_inode;
        attachment.host_interface.clone_from(&new.host_interface);
        Ok(Some(Reservation { attachment, file, is_outdated }))
    }

    /// Links the reservations of an attachment again that another process removed; returns whether the attachment holds all.
    fn restore_reservations(&self, attachment: &Attachment, path: &Path) -> Result<bool> {
        for address in &attachment.addresses {
            let reservation = self.address_path(address.addr());
            match files::link(path, &reservation) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !recovery::is_held_by(&reservation, &attachment.key, path)? {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(Error::write(&reservation)(error)),
            }
        }
        Ok(true)
    }

    /// Chooses a free address of each range.
    fn choose(&self) -> Result<Vec<IpNet>> {
        let networks = self.networks()?;
        let mut addresses = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let last = files::read(&self.last_allocated_path(range))
                .ok()
                .flatten()
                .and_then(|content| String::from_utf8_lossy(&content).trim().parse().ok());
            let address = self.next(*range, last, &networks)?;
            addresses.push(
                IpNet::new(address, range.network().prefix_len()).expect("the prefix length is of the range"),
            );
        }
        Ok(addresses)
    }

    fn next(&self, range: PodRange, last: Option<IpAddr>, networks: &Networks) -> Result<IpAddr> {
        let held = HeldAddresses { store: self, networks, containers: None };
        if let Some(address) = allocator::next(range, last, &held)? {
            return Ok(address);
        }
        // Rather than failing until the daemon runs, return what leaked.
        leaks::remove_leaked_locked(self)?;
        let containers = Containers::read();
        let held = HeldAddresses { store: self, networks, containers: containers.as_ref() };
        if let Some(address) = allocator::next(range, last, &held)? {
            return Ok(address);
        }
        Err(Box::new(Exhaustion::examine(self, range, networks)?).into())
    }

    /// Reserves addresses: after the rename, or not at all.
    fn reserve(&self, new: &NewAttachment, addresses: Vec<IpNet>) -> Result<Reservation> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let attachment = Attachment {
            key: new.key.clone(),
            netns: new.netns.clone(),
            netns_inode: leaks::netns_inode(&new.netns),
            host_interface: new.host_interface.clone(),
            addresses,
            host_ports: Vec::new(),
            created,
        };
        let adding = self.adding();
        let file = files::write(&adding, &to_json(&attachment)).map_err(Error::write(&adding))?;
        hold(&file, &new.key, &adding)?;
        for (address, range) in attachment.addresses.iter().zip(&self.ranges) {
            let reservation = self.address_path(address.addr());
            files::link(&adding, &reservation).map_err(Error::write(&reservation))?;
            let last = self.last_allocated_path(range);
            files::overwrite(&last, format!("{:<46}\n", address.addr()).as_bytes())
                .map_err(Error::write(&last))?;
        }
        let path = self.attachment_path(&new.key);
        files::rename(&adding, &path).map_err(Error::write(&path))?;
        Ok(Reservation { attachment, file, is_outdated: false })
    }

    pub(super) fn remove_locked(&self, key: &AttachmentKey) -> Result<Option<Attachment>> {
        let path = self.attachment_path(key);
        match files::rename(&path, &self.removing()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("remove", &path)(error)),
        }
        recovery::finish_removal(self)
    }

    /// Reads an attachment; `None` if there is no file.
    fn read_attachment(&self, path: &Path) -> Result<Option<Attachment>> {
        let Some(content) = files::read(path).map_err(Error::io("read", path))? else { return Ok(None) };
        let unreadable = |reason: String| Error::Unreadable {
            path: path.to_owned(),
            reason,
            way_out: "`DEL` of this attachment removes it, and the runtime then creates another pod sandbox",
        };
        let attachment = from_json(&content).map_err(unreadable)?;
        if path.file_name().is_none_or(|name| *name != *attachment.key.file_name()) {
            return Err(unreadable(format!("is the file of the attachment {}", attachment.key)));
        }
        Ok(Some(attachment))
    }

    pub(super) fn networks(&self) -> Result<Networks> {
        self.other_plugins.networks().map_err(Error::io("read", Path::new("the folders of other plugins")))
    }

    pub(super) fn addresses(&self) -> PathBuf {
        self.dir.join("addresses")
    }

    pub(super) fn attachments_dir(&self) -> PathBuf {
        self.dir.join("attachments")
    }

    pub(super) fn last_allocated(&self) -> PathBuf {
        self.dir.join("last-allocated")
    }

    pub(super) fn adding(&self) -> PathBuf {
        self.dir.join("adding")
    }

    pub(super) fn removing(&self) -> PathBuf {
        self.dir.join("removing")
    }

    pub(super) fn completing(&self) -> PathBuf {
        self.dir.join("completing")
    }

    pub(super) fn address_path(&self, address: IpAddr) -> PathBuf {
        self.addresses().join(address.to_string())
    }

    pub(super) fn attachment_path(&self, key: &AttachmentKey) -> PathBuf {
        self.attachments_dir().join(key.file_name())
    }

    fn last_allocated_path(&self, range: &PodRange) -> PathBuf {
        self.last_allocated().join(range.to_string().replace('/', "-"))
    }
}

/// Holds an attachment during its `ADD`; the kernel releases it if the process is killed.
fn hold(file: &File, key: &AttachmentKey, path: &Path) -> Result<()> {
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        // Its removal has begun.
        Err(TryLockError::WouldBlock) => Err(Error::Returned(key.clone())),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

fn to_json(attachment: &Attachment) -> Vec<u8> {
    let mut text = serde_json::to_vec(attachment).expect("an attachment has only strings for keys");
    text.push(b'\n');
    text
}

pub(super) fn from_json(content: &[u8]) -> Result<Attachment, String> {
    if content.is_empty() {
        return Err("is empty".into());
    }
    serde_json::from_slice(content).map_err(|error| format!("is not an attachment: {error}"))
}

/// The addresses that cannot be allocated: by reservations of this store, and by files of other plugins.
struct HeldAddresses<'a> {
    store: &'a AddressStore,
    networks: &'a Networks,
    /// If set, addresses of containers that have ended are free.
    containers: Option<&'a Containers>,
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
        Ok(other.is_some_and(|file| self.is_held_elsewhere(&file)))
    }

    fn held(&self) -> Result<HashSet<IpAddr>> {
        let mut held = HashSet::new();
        let folder = self.store.addresses();
        let result: io::Result<()> =
            files::for_each_name(&folder, |name| held.extend(name.parse::<IpAddr>()));
        result.map_err(Error::io("read", &folder))?;
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
