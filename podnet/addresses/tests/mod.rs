//! Tests of the store.

mod basics;
pub(super) mod fault_injection;
mod model;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::host_ports::PortMapping;

use super::{AddressStore, Attachment, AttachmentKey, NewAttachment, PodRange};

/// A store in a temporary folder, with a folder of another plugin.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        // On a tmpfs, as on a node.
        Self { folder: tempfile::tempdir_in("/dev/shm").expect("a temporary folder") }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn other(&self) -> PathBuf {
        self.folder.path().join("networks")
    }

    fn store(&self, ranges: &[&str]) -> AddressStore {
        let ranges: Vec<PodRange> = ranges.iter().map(|range| range.parse().expect("a range")).collect();
        AddressStore::open(&self.dir(), &ranges, &[self.other()]).expect("valid ranges")
    }

    /// Writes a file of `host-local`.
    fn hold_elsewhere(&self, address: &str, content: &str) -> PathBuf {
        let folder = self.other().join("cbr0");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(address);
        fs::write(&path, content).expect("a file");
        path
    }
}

fn key(number: usize) -> AttachmentKey {
    AttachmentKey::new(format!("container{number}"), "eth0").expect("a valid key")
}

/// A new attachment whose network namespace and interface do not exist.
fn new(number: usize) -> NewAttachment {
    NewAttachment {
        key: key(number),
        netns: PathBuf::from(format!("/run/netns/none-{number}")),
        host_interface: format!("none{number}"),
        host_ports: Vec::new(),
    }
}

fn add(store: &AddressStore, number: usize) -> Attachment {
    let reservation = store.add(&new(number)).expect("addresses are free");
    store.complete(reservation).expect("the reservation exists")
}

fn host_port(port: u16) -> PortMapping {
    serde_json::from_str(&format!(r#"{{"hostPort":{port},"containerPort":80}}"#)).expect("a mapping")
}

fn texts(attachment: &Attachment) -> Vec<String> {
    attachment.addresses.iter().map(ToString::to_string).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}
