//! Removal of attachments that no container uses: `GC` of the runtime, and leaks that the daemon finds.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::attachment::{Attachment, AttachmentKey};
use super::error::{Error, Result};
use super::recovery;
use super::store::AddressStore;

/// Age below which an attachment is not taken for leaked. It is a precaution: an `ADD` in progress holds its attachment.
pub const GRACE: Duration = Duration::from_secs(60);

/// The removal of an attachment that no container uses.
#[derive(Debug)]
pub struct Removal {
    /// The attachment.
    pub key: AttachmentKey,
    /// Its addresses; empty if its file was damaged.
    pub addresses: Vec<IpNet>,
    /// An error if it was not removed; then it still holds its addresses.
    pub result: Result<(), String>,
}

impl AddressStore {
    /// Removes all attachments but those that the runtime knows (`GC`). `unwire` removes the interface and host ports of an
    /// attachment, before its addresses are returned; if it fails, the attachment remains. An `ADD` in progress is not disturbed.
    ///
    /// # Errors
    /// The files cannot be read, or the lock cannot be acquired.
    pub fn remove_all_except(
        &self,
        valid: &[AttachmentKey],
        unwire: impl FnMut(&AttachmentKey) -> Result<(), String>,
    ) -> Result<Vec<Removal>> {
        let valid: HashSet<&AttachmentKey> = valid.iter().collect();
        let listing = self.attachments()?;
        let damaged = listing.unreadable.iter().filter_map(|file| {
            let name = file.path.file_name()?.to_str()?;
            Some((AttachmentKey::from_file_name(name)?, Vec::new()))
        });
        let readable =
            listing.attachments.into_iter().map(|attachment| (attachment.key, attachment.addresses));
        let unknown = readable.chain(damaged).filter(|(key, _)| !valid.contains(key)).collect();
        let removals = self.remove_each(unknown, unwire)?;
        if self.attachments_dir().exists() {
            let _lock = self.lock()?;
            recovery::remove_orphans(self)?;
        }
        Ok(removals)
    }

    /// Removes attachments whose network namespace and host interface no longer exist, and that are older than `grace`. To be called
    /// in the node's network namespace. `unwire` as for [`remove_all_except`](Self::remove_all_except).
    ///
    /// A container without the node's `/run/netns` sees no network namespaces; then only the host interface counts.
    ///
    /// # Errors
    /// As [`remove_all_except`](Self::remove_all_except).
    pub fn remove_leaked(
        &self,
        grace: Duration,
        unwire: impl FnMut(&AttachmentKey) -> Result<(), String>,
    ) -> Result<Vec<Removal>> {
        let leaked = leaked(self, grace)?;
        self.remove_each(leaked.into_iter().map(|a| (a.key, a.addresses)).collect(), unwire)
    }

    fn remove_each(
        &self,
        attachments: Vec<(AttachmentKey, Vec<IpNet>)>,
        mut unwire: impl FnMut(&AttachmentKey) -> Result<(), String>,
    ) -> Result<Vec<Removal>> {
        let mut removals = Vec::new();
        for (key, addresses) in attachments {
            let Some(guard) = self.begin_removal(&key)? else { continue };
            // Not under the lock of the store: each takes milliseconds, and pods are being created meanwhile.
            let result = unwire(&key)
                .and_then(|()| self.finish_guarded(&key, &guard).map_err(|error| error.to_string()));
            removals.push(Removal { key, addresses, result });
        }
        Ok(removals)
    }

    /// Locks the file of an attachment, so that no `ADD` takes it meanwhile; `None` if it has gone or its `ADD` is in progress.
    fn begin_removal(&self, key: &AttachmentKey) -> Result<Option<File>> {
        let path = self.attachment_path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Removes the attachment whose file is locked, unless another one has taken its name.
    fn finish_guarded(&self, key: &AttachmentKey, guard: &File) -> Result<()> {
        let path = self.attachment_path(key);
        let _lock = self.lock()?;
        let locked = guard.metadata().map_err(Error::io("read", &path))?.ino();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == locked) {
            self.remove_locked(key)?;
        }
        Ok(())
    }
}

/// Removes leaked attachments without host ports, which need nothing else to be removed. The lock is held.
pub(super) fn remove_leaked_locked(store: &AddressStore) -> Result<()> {
    for attachment in leaked(store, GRACE)?.into_iter().filter(|attachment| attachment.host_ports.is_empty())
    {
        if store.begin_removal(&attachment.key)?.is_some() {
            store.remove_locked(&attachment.key)?;
        }
    }
    Ok(())
}

/// Returns the attachments whose network namespace and host interface do not exist.
pub(super) fn leaked(store: &AddressStore, grace: Duration) -> Result<Vec<Attachment>> {
    let interfaces = host_interfaces()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut attachments = store.attachments()?.attachments;
    attachments.retain(|attachment| {
        // A clock that was set back makes an attachment young.
        let age = now.saturating_sub(Duration::from_secs(attachment.created));
        let exists = interfaces.contains(&attachment.host_interface)
            || (attachment.netns_inode != 0 && netns_inode(&attachment.netns) == attachment.netns_inode);
        !exists && age >= grace
    });
    Ok(attachments)
}

/// Returns the inode of a network namespace; 0 if it cannot be seen.
pub(super) fn netns_inode(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.ino())
}

/// Returns the names of the interfaces of the network namespace of this thread.
fn host_interfaces() -> Result<HashSet<String>> {
    let path = Path::new("/proc/thread-self/net/dev");
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    // A line is `  eth0: 1234 …`; an interface name has no colon. The first two are headings.
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.collect())
}
