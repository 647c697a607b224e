//! A process that adds and removes attachments, and reports each step before and after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_podnet::addresses::{Attachment, AttachmentKey, Error, NewAttachment};

/// Attachments of each worker.
const ATTACHMENTS: u64 = 12;

/// Returns a pseudo-random number, and advances the state (xorshift).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The addresses of an attachment, as workers report them.
pub(crate) fn addresses(attachment: &Attachment) -> String {
    attachment.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(crate) fn key(worker: &str, number: u64) -> AttachmentKey {
    AttachmentKey::new(format!("{worker}-{number}"), "eth0").expect("a valid key")
}

/// Adds and removes attachments until it is killed.
pub(crate) fn run(folder: &Path, worker: &str, seed: u64) {
    let store = super::open(folder);
    let mut state = seed;
    let mut held: BTreeMap<u64, bool> = BTreeMap::new();
    for number in 0..ATTACHMENTS {
        held.insert(number, store.get(&key(worker, number)).expect("readable").is_some());
    }
    loop {
        let number = random(&mut state) % ATTACHMENTS;
        let key = key(worker, number);
        // One in four repeats the operation before.
        let repeats = random(&mut state).is_multiple_of(4);
        if held[&number] == repeats {
            println!("adding {key}");
            let new = NewAttachment {
                key: key.clone(),
                netns: PathBuf::from("/run/netns/none"),
                host_interface: "none0".into(),
                host_ports: Vec::new(),
            };
            match store.add(&new).and_then(|reservation| store.complete(reservation)) {
                Ok(attachment) => {
                    for address in &attachment.addresses {
                        assert_eq!(store.holder(address.addr()).expect("readable"), Some(key.clone()));
                    }
                    println!("added {key} {}", addresses(&attachment));
                    held.insert(number, true);
                }
                Err(Error::Exhausted(_)) => println!("exhausted {key}"),
                Err(error) => panic!("{error}"),
            }
        } else {
            println!("removing {key}");
            store.remove(&key).expect("removable");
            println!("removed {key}");
            held.insert(number, false);
        }
    }
}
