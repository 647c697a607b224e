//! The store of attachments and of the addresses that they hold.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::attachment::{Attachment, AttachmentKey, NewAttachment};
use super::choice::IsInUse;
use super::error::{Error, Result};
use super::other_plugins::{Networks, OtherPlugins};
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
    pub(super) ranges: Vec<PodRange>,
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
        self.add_unless(new, &|_| Ok(false))
    }

    /// As [`add`](Self::add), and does not allocate addresses for which a function returns true: those that are in use on this node
    /// although no file says so, by pods of another network plugin, or since another program removed files of this store.
    ///
    /// # Errors
    /// As [`add`](Self::add), and those of the function.
    pub fn add_unless(&self, new: &NewAttachment, is_in_use: &IsInUse<'_>) -> Result<Reservation> {
        if self.ranges.is_empty() {
            return Err(Error::NoRange);
        }
        for folder in [self.addresses(), self.attachments_dir(), self.last_allocated()] {
            files::create_folder(&folder).map_err(Error::write(&folder))?;
        }
        let _lock = self.lock()?;
        recovery::write_boot_id(self)?;
        if let Some(reservation) = self.existing(new)? {
            return Ok(reservation);
        }
        let addresses = self.choose(is_in_use)?;
        let reservation = self.reserve(new, addresses);
        if reservation.is_err() {
            // If this fails too, the next operation does it.
            let _ = recovery::undo_addition(self);
        }
        reservation
    }

    /// Ends an `ADD`: the interface of the attachment exists, and the attachment is its only holder from now on.
    ///
    /// # Errors
    /// [`Error::Returned`] if the attachment was removed meanwhile. Then its interface and host ports must be removed too, since
    /// other attachments may get its addresses.
    pub fn complete(&self, reservation: Reservation) -> Result<Attachment> {
        let Reservation { attachment, file } = reservation;
        let path = self.attachment_path(&attachment.key);
        let ours = file.metadata().map_err(Error::io("read", &path))?.ino();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.ino() == ours => Ok(attachment),
            Ok(_) => Err(Error::Returned(attachment.key)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Returned(attachment.key)),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
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

    /// Returns the attachment that holds an address. An attachment may be returned that is being removed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn holder(&self, address: IpAddr) -> Result<Option<AttachmentKey>> {
        if recovery::is_of_earlier_boot(self)? {
            return Ok(None);
        }
        recovery::holder(&self.address_path(address))
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
        let described =
            (attachment.netns, attachment.netns_inode, attachment.host_interface, attachment.host_ports);
        attachment.netns = new.netns.clone();
        attachment.netns_inode = leaks::netns_inode(&new.netns);
        attachment.host_interface = new.host_interface.clone();
        attachment.host_ports = new.host_ports.clone();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        hold(&file, &new.key, &path)?;
        let a = &attachment;
        if described == (a.netns.clone(), a.netns_inode, a.host_interface.clone(), a.host_ports.clone()) {
            return Ok(Some(Reservation { attachment, file }));
        }
        self.update(attachment).map(Some)
    }

    /// Replaces the file of an attachment, which keeps its addresses.
    fn update(&self, attachment: Attachment) -> Result<Reservation> {
        let (path, updating) = (self.attachment_path(&attachment.key), self.updating());
        let written = files::write(&updating, &to_json(&attachment)).map_err(Error::write(&updating));
        let replaced = written.and_then(|file| {
            hold(&file, &attachment.key, &updating)?;
            files::rename(&updating, &path).map_err(Error::write(&path))?;
            Ok(file)
        });
        if replaced.is_err() {
            // If this fails too, the next operation does it.
            let _ = files::remove(&updating);
        }
        replaced.map(|file| Reservation { attachment, file })
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

    /// Reserves addresses: after the rename, or not at all.
    fn reserve(&self, new: &NewAttachment, addresses: Vec<IpNet>) -> Result<Reservation> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let attachment = Attachment {
            key: new.key.clone(),
            netns: new.netns.clone(),
            netns_inode: leaks::netns_inode(&new.netns),
            host_interface: new.host_interface.clone(),
            addresses,
            host_ports: new.host_ports.clone(),
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
        Ok(Reservation { attachment, file })
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

    pub(super) fn updating(&self) -> PathBuf {
        self.dir.join("updating")
    }

    pub(super) fn address_path(&self, address: IpAddr) -> PathBuf {
        self.addresses().join(address.to_string())
    }

    pub(super) fn attachment_path(&self, key: &AttachmentKey) -> PathBuf {
        self.attachments_dir().join(key.file_name())
    }

    pub(super) fn last_allocated_path(&self, range: &PodRange) -> PathBuf {
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
