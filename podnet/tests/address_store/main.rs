//! Processes that share a store of pod addresses: killed at random, and with a full file system.

mod full_disk;
mod killed;
mod worker;

use std::env;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use portcullis_podnet::addresses::{AddressStore, PodRange};

type Test = fn() -> Result<(), Failed>;

const TESTS: [(&str, Test); 2] = [
    ("killed_processes_neither_share_nor_leak_addresses", killed::test),
    ("full_file_systems_prevent_additions_only", full_disk::test),
];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    // The processes of the tests are this program.
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "worker", store, name, seed] => {
            worker::run(Path::new(store), name, seed.parse().expect("a number"));
        }
        [_, "full-disk", folder] => full_disk::inside(Path::new(folder)),
        _ => {
            let trials = TESTS.map(|(name, test)| Trial::test(name, test)).into();
            libtest_mimic::run(&Arguments::from_args(), trials).exit();
        }
    }
}

/// A /27, which has fewer addresses than the workers have attachments, and an IPv6 range.
fn open(folder: &Path) -> AddressStore {
    let ranges = ["10.0.0.0/27", "fd00::/64"].map(|range| range.parse::<PodRange>().expect("a range"));
    AddressStore::open(folder, &ranges, &[]).expect("valid ranges")
}

/// Returns the addresses of all attachments, and fails if two have the same one or a reservation belongs to none.
fn held_addresses(folder: &Path) -> Result<Vec<String>, Failed> {
    let listing = open(folder).attachments()?;
    if !listing.unreadable.is_empty() {
        return Err(format!("unreadable files: {:?}", listing.unreadable).into());
    }
    let mut held: Vec<String> = listing
        .attachments
        .iter()
        .flat_map(|a| &a.addresses)
        .map(|address| address.addr().to_string())
        .collect();
    held.sort();
    let mut reserved = names(&folder.join("addresses"))?;
    reserved.sort();
    // A reservation exists once, so an address with two holders makes a difference too.
    if held != reserved {
        return Err(format!("attachments hold {held:?}, reserved are {reserved:?}").into());
    }
    Ok(held)
}

fn names(folder: &Path) -> Result<Vec<String>, Failed> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn this_program() -> PathBuf {
    env::current_exe().expect("the path of the test")
}
