//! Changes that an interrupted process left unfinished, and files of an earlier boot.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::attachment::{Attachment, AttachmentKey};
use super::error::{Error, Result};
use super::files;
use super::store::{AddressStore, from_json};

/// Undoes or finishes what an interrupted process left. The lock is held. Needs no space in the file system.
pub(super) fn recover(store: &AddressStore) -> Result<()> {
    if is_of_earlier_boot(store)? {
        remove_everything(store)?;
    }
    undo_addition(store)?;
    finish_removal(store)?;
    let updating = store.updating();
    files::remove(&updating).map_err(Error::io("remove", &updating))?;
    Ok(())
}

/// Undoes an addition that was not committed.
pub(super) fn undo_addition(store: &AddressStore) -> Result<()> {
    remove_with_reservations(store, &store.adding(), false)?;
    Ok(())
}

/// Finishes a removal that was committed. Returns the attachment, if its file was readable.
pub(super) fn finish_removal(store: &AddressStore) -> Result<Option<Attachment>> {
    remove_with_reservations(store, &store.removing(), true)
}

/// Removes a file, and before it the reservations of the attachment that it contains: those that are links to the file, and, if
/// `by_key`, those that name the attachment.
fn remove_with_reservations(store: &AddressStore, path: &Path, by_key: bool) -> Result<Option<Attachment>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let content = files::read(path).ok().flatten().unwrap_or_default();
    let attachment = from_json(&content).ok();
    let is_its = |reservation: &Path| -> Result<bool> {
        match fs::symlink_metadata(reservation) {
            Ok(other) if other.ino() == metadata.ino() => Ok(true),
            Ok(_) if !by_key => Ok(false),
            Ok(_) => Ok(match (&attachment, holder(reservation)?) {
                // A copy of the file of an attachment that exists.
                (Some(attachment), _) if store.attachment_path(&attachment.key).exists() => false,
                (Some(attachment), Some(key)) => key == attachment.key,
                // A damaged reservation: only the attachment that names the address can have made it.
                (Some(_), None) => true,
                // A damaged attachment, whose name is lost: no reservation remains without attachment.
                (None, Some(key)) => !store.attachment_path(&key).exists(),
                (None, None) => false,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("read", reservation)(error)),
        }
    };
    let reservations = match &attachment {
        Some(attachment) => {
            attachment.addresses.iter().map(|address| store.address_path(address.addr())).collect()
        }
        None => all_reservations(store)?,
    };
    for reservation in reservations {
        if is_its(&reservation)? {
            files::remove(&reservation).map_err(Error::io("remove", &reservation))?;
        }
    }
    files::remove(path).map_err(Error::io("remove", path))?;
    Ok(attachment)
}

/// Removes reservations without attachment. Only another program can make them, by removing an attachment's file.
pub(super) fn remove_orphans(store: &AddressStore) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for reservation in all_reservations(store)? {
        let is_orphan = holder(&reservation)?.is_some_and(|key| !store.attachment_path(&key).exists());
        if is_orphan {
            files::remove(&reservation).map_err(Error::io("remove", &reservation))?;
            removed.push(reservation);
        }
    }
    Ok(removed)
}

/// Returns whether a reservation belongs to an attachment.
pub(super) fn is_held_by(reservation: &Path, key: &AttachmentKey, attachment: &Path) -> Result<bool> {
    let inode = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.ino()).ok();
    Ok(inode(reservation) == inode(attachment) || holder(reservation)?.as_ref() == Some(key))
}

/// Returns the key of the attachment that a reservation names; `None` if the file is damaged.
pub(super) fn holder(reservation: &Path) -> Result<Option<AttachmentKey>> {
    match files::read(reservation) {
        Ok(content) => {
            Ok(content.and_then(|content| from_json(&content).ok()).map(|attachment| attachment.key))
        }
        // A folder, or larger than any attachment.
        Err(error) if matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::FileTooLarge) => Ok(None),
        Err(error) => Err(Error::io("read", reservation)(error)),
    }
}

fn all_reservations(store: &AddressStore) -> Result<Vec<PathBuf>> {
    let folder = store.addresses();
    let mut paths = Vec::new();
    files::for_each_name(&folder, |name| {
        if name.parse::<IpAddr>().is_ok() {
            paths.push(folder.join(name));
        }
    })
    .map_err(Error::io("read", &folder))?;
    Ok(paths)
}

/// Returns the identity of this boot of the kernel; `None` if it is unknown.
fn boot_id() -> Option<Vec<u8>> {
    files::read(Path::new("/proc/sys/kernel/random/boot_id")).ok().flatten().filter(|id| !id.is_empty())
}

fn boot_id_path(store: &AddressStore) -> PathBuf {
    store.dir.join("boot-id")
}

/// Returns whether the files were written before the node was started: then none of the pods exists.
pub(super) fn is_of_earlier_boot(store: &AddressStore) -> Result<bool> {
    let path = boot_id_path(store);
    let written = files::read(&path).map_err(Error::io("read", &path))?;
    // An empty file is one whose writer was interrupted, before it reserved anything.
    let written = written.filter(|id| !id.is_empty());
    Ok(match (written, boot_id()) {
        (Some(written), Some(now)) => written != now,
        _ => false,
    })
}

/// Writes the identity of this boot before the first reservation.
pub(super) fn write_boot_id(store: &AddressStore) -> Result<()> {
    let path = boot_id_path(store);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    match boot_id() {
        Some(id) => files::write(&path, &id).map(drop).map_err(Error::write(&path)),
        None => Ok(()),
    }
}

/// Removes all files of an earlier boot; those of other programs in the folder remain.
fn remove_everything(store: &AddressStore) -> Result<()> {
    for folder in [store.attachments_dir(), store.addresses(), store.last_allocated()] {
        let mut names = Vec::new();
        files::for_each_name(&folder, |name| names.push(name.to_owned()))
            .map_err(Error::io("read", &folder))?;
        for path in names.iter().map(|name| folder.join(name)) {
            files::remove(&path).map_err(Error::io("remove", &path))?;
        }
    }
    // Last, so that an interrupted removal is repeated.
    for path in [store.adding(), store.removing(), store.updating(), boot_id_path(store)] {
        files::remove(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}
