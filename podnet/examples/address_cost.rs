//! Times of the store of pod addresses: `cargo run --release -p portcullis-podnet --example address_cost`.
//!
//! Prints the median and the 99th percentile of an addition and of a removal of a dual-stack attachment, with 250 and with 65,000
//! attachments on a tmpfs, one after another and by eight threads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_podnet::addresses::{AddressStore, AttachmentKey, NewAttachment, PodRange};

const SAMPLES: usize = 400;

fn main() {
    println!("{:>11} {:>8} {:>22} {:>22}", "attachments", "threads", "add, median and p99", "remove");
    for (held, range) in [(250, "10.0.0.0/16"), (65_000, "10.0.0.0/16"), (252, "10.0.0.0/24")] {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
        let store = open(folder.path(), range);
        // With as many addresses as the range has, the search for a free one takes longest.
        for number in 0..held {
            add(&store, number);
        }
        let (mut additions, mut removals) = (Vec::new(), Vec::new());
        for number in 0..SAMPLES {
            // Keys that are spread over all.
            let number = number * 37 % held;
            removals.push(time(|| remove(&store, number)));
            additions.push(time(|| add(&store, number)));
        }
        print(held, 1, additions, removals);
    }
    let folder = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let folder = folder.path();
                scope.spawn(move || {
                    let store = open(folder, "10.0.0.0/16");
                    let numbers = thread * SAMPLES..(thread + 1) * SAMPLES;
                    let additions: Vec<_> =
                        numbers.clone().map(|number| time(|| add(&store, number))).collect();
                    let removals: Vec<_> = numbers.map(|number| time(|| remove(&store, number))).collect();
                    (additions, removals)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let (additions, removals): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    print(8 * SAMPLES, 8, additions.concat(), removals.concat());
}

fn open(folder: &Path, range: &str) -> AddressStore {
    let ranges = [range, "fd00::/64"].map(|range| range.parse::<PodRange>().expect("a range"));
    AddressStore::open(folder, &ranges, &[PathBuf::from("/var/lib/cni/networks")]).expect("valid ranges")
}

fn key(number: usize) -> AttachmentKey {
    AttachmentKey::new(format!("{number:064x}"), "eth0").expect("a valid key")
}

fn add(store: &AddressStore, number: usize) {
    let new = NewAttachment {
        key: key(number),
        netns: PathBuf::from("/proc/self/ns/net"),
        host_interface: "lo".into(),
        host_ports: Vec::new(),
    };
    let reservation = store.add(&new).expect("an address is free");
    store.complete(reservation).expect("not removed");
}

fn remove(store: &AddressStore, number: usize) {
    store.remove(&key(number)).expect("removable");
}

fn time(function: impl FnOnce()) -> Duration {
    let start = Instant::now();
    function();
    start.elapsed()
}

fn print(held: usize, threads: usize, additions: Vec<Duration>, removals: Vec<Duration>) {
    let text = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let micros = |index: usize| format!("{} µs", times[index].as_micros());
        format!("{:>10} {:>10}", micros(times.len() / 2), micros(times.len() * 99 / 100))
    };
    println!("{held:>11} {threads:>8} {:>22} {:>22}", text(additions), text(removals));
}
