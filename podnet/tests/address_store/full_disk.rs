//! A file system without inodes, and one without space.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use portcullis_podnet::addresses::{Error, NewAttachment};

/// Mounts a tmpfs in a mount namespace of its own, and runs the rest of the test there.
const SCRIPT: &str = r#"mount -t tmpfs -o "$3" tmpfs "$2" && exec "$1" full-disk "$2""#;

pub(crate) fn test() -> Result<(), Failed> {
    // Each attachment takes one inode, and one for each of its addresses.
    for options in ["nr_inodes=60", "size=64k"] {
        let folder = tempfile::tempdir()?;
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", SCRIPT, "sh"])
            .args([super::this_program().as_os_str(), folder.path().as_os_str(), options.as_ref()])
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{options}: {}\n{text}", output.status).into());
        }
    }
    Ok(())
}

fn new(number: u64) -> NewAttachment {
    NewAttachment {
        key: super::worker::key("pod", number),
        netns: PathBuf::from("/run/netns/none"),
        host_interface: "none0".into(),
        host_ports: Vec::new(),
    }
}

/// The part of the test that runs in the small file system.
pub(crate) fn inside(folder: &Path) {
    let store = super::open(&folder.join("store"));
    store.add(&new(0)).expect("there is space for one");
    fill(folder);
    let mut added = 1;
    let error = loop {
        match store.add(&new(added)) {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
        assert!(added < 60, "the file system is not full");
    };
    let text = error.to_string();
    assert!(matches!(error, Error::DiskFull { .. }), "{text}");
    assert!(text.contains("No space left on device") && text.contains("no address was allocated"), "{text}");
    let addresses = 2 * added as usize;
    let held =
        || super::held_addresses(&folder.join("store")).map_err(|failed| failed.message().map(str::to_owned));
    assert_eq!(held().expect("consistent").len(), addresses);
    // A repeated ADD needs no space.
    store.add(&new(0)).expect("exists");
    store.remove(&new(0).key).expect("a removal needs no space");
    assert_eq!(held().expect("consistent").len(), addresses - 2);
    let removals = store.remove_all_except(&[], |_| Ok(())).expect("a removal needs no space");
    assert!(removals.iter().all(|removal| removal.result.is_ok()), "{removals:?}");
    assert!(held().expect("consistent").is_empty());
    store.add(&new(1)).expect("there is space again");
}

/// Writes a file until no page is left.
fn fill(folder: &Path) {
    let mut file = fs::File::create(folder.join("filler")).expect("one inode is free");
    // Larger than any of the file systems that have a limit.
    for _ in 0..64 {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}
