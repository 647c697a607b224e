//! Random operations, killed and failed at any system call, compared with a model.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::super::{Error, Result};
use super::fault_injection::{Fault, Outcome, run_with};
use super::*;

/// Attachments that take part; the range has fewer addresses.
const KEYS: usize = 9;
const RANGES: [&str; 2] = ["10.0.0.0/29", "fd00::/125"];

#[derive(Clone, Debug)]
enum Operation {
    Add(usize, bool),
    Remove(usize),
    /// `GC` with the attachments whose bit is set.
    Collect(u16),
}

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    fault: Option<(Fault, u32)>,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        6 => (0..KEYS, any::<bool>()).prop_map(|(key, ports)| Operation::Add(key, ports)),
        4 => (0..KEYS).prop_map(Operation::Remove),
        1 => any::<u16>().prop_map(Operation::Collect),
    ];
    let fault = proptest::option::weighted(
        0.5,
        (prop_oneof![2 => Just(Fault::Kill), 1 => Just(Fault::DiskFull)], 0u32..16),
    );
    (operation, fault).prop_map(|(operation, fault)| Step { operation, fault })
}

/// The attachments that must exist, by number.
type Model = BTreeMap<usize, Vec<String>>;

fn run(store: &AddressStore, operation: &Operation) -> Result<Option<Attachment>> {
    match operation {
        Operation::Add(key, has_ports) => {
            let host_ports = if *has_ports { vec![host_port(80)] } else { Vec::new() };
            let reservation = store.add(&NewAttachment { host_ports, ..new(*key) })?;
            store.complete(reservation).map(Some)
        }
        Operation::Remove(number) => store.remove(&key(*number)).map(|_| None),
        Operation::Collect(valid) => {
            let valid: Vec<AttachmentKey> =
                (0..KEYS).filter(|number| valid & (1 << number) != 0).map(key).collect();
            let removals = store.remove_all_except(&valid, |_| Ok(()))?;
            for removal in removals {
                removal.result.map_err(|message| Error::Unreadable {
                    path: store.dir.clone(),
                    reason: message,
                    way_out: "",
                })?;
            }
            Ok(None)
        }
    }
}

/// Checks that each address has one holder, and that each reservation belongs to an attachment.
fn check_files(fixture: &Fixture, store: &AddressStore) -> Model {
    let listing = store.attachments().expect("readable");
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    let mut held = HashSet::new();
    let mut model = Model::new();
    for attachment in &listing.attachments {
        assert_eq!(attachment.addresses.len(), RANGES.len());
        for address in &attachment.addresses {
            assert!(held.insert(address.addr().to_string()), "{address} has two holders");
        }
        let number = (0..KEYS).find(|number| key(*number) == attachment.key).expect("a known key");
        model.insert(number, texts(attachment));
    }
    let reserved: HashSet<String> = names(&fixture.dir().join("addresses")).into_iter().collect();
    assert_eq!(reserved, held, "reservations and attachments differ");
    assert_eq!(names(&fixture.dir()), ["addresses", "attachments", "boot-id", "last-allocated", "lock"]);
    model
}

/// Applies a step to the store and to the model, which allows for both results of an operation that was killed. Returns whether the
/// step's fault happened.
fn apply(fixture: &Fixture, store: &AddressStore, model: &mut Model, step: &Step) -> bool {
    let (fault, after) = step.fault.unwrap_or((Fault::Kill, u32::MAX));
    let (outcome, has_happened) = run_with(fault, after, || run(store, &step.operation));
    // The next process finds what this one left. An operation on an unknown attachment changes nothing else.
    store.remove(&AttachmentKey::new("unknown", "eth0").expect("valid")).expect("recovery needs no space");
    let found = check_files(fixture, store);
    let is_changed = |number: &usize| found.get(number) != model.get(number);
    let changed: Vec<usize> = (0..KEYS).filter(is_changed).collect();
    match (&step.operation, &outcome) {
        (Operation::Add(number, _), Outcome::Returned(Ok(Some(attachment)))) => {
            if let Some(addresses) = model.get(number) {
                assert_eq!(&texts(attachment), addresses, "a repeated ADD keeps its addresses");
            }
            assert_eq!(found.get(number), Some(&texts(attachment)));
            assert!(changed.iter().all(|other| other == number));
        }
        (Operation::Add(..), Outcome::Returned(Err(error))) => {
            match error {
                Error::DiskFull { .. } => assert!(has_happened),
                Error::Exhausted(_) => assert_eq!(model.len(), 5, "addresses are free"),
                error => panic!("unexpected error: {error}"),
            }
            assert!(changed.is_empty());
        }
        (Operation::Remove(number), Outcome::Returned(result)) => {
            result.as_ref().expect("a removal needs no space");
            assert!(!found.contains_key(number));
            assert!(changed.iter().all(|other| other == number));
        }
        (Operation::Collect(valid), Outcome::Returned(result)) => {
            result.as_ref().expect("a removal needs no space");
            assert!(found.keys().all(|number| valid & (1 << number) != 0));
            assert!(changed.iter().all(|number| valid & (1 << number) == 0));
        }
        (Operation::Add(number, _) | Operation::Remove(number), Outcome::Killed) => {
            assert!(changed.iter().all(|other| other == number));
        }
        (Operation::Collect(valid), Outcome::Killed) => {
            assert!(changed.iter().all(|number| valid & (1 << number) == 0 && !found.contains_key(number)));
        }
        (operation, outcome) => panic!("unexpected result of {operation:?}: {outcome:?}"),
    }
    *model = found;
    has_happened
}

proptest! {
    #[test]
    fn no_fault_allocates_twice_or_leaks(steps in proptest::collection::vec(step(), 1..60)) {
        let fixture = Fixture::new();
        let store = fixture.store(&RANGES);
        // Creates the folders without a fault.
        add(&store, 0);
        store.remove(&key(0)).expect("removable");
        let mut model = Model::new();
        for step in &steps {
            apply(&fixture, &store, &mut model, step);
        }
    }
}

/// Each operation, killed before each of its system calls, and with a file system that is full from this call on.
#[test]
fn each_system_call_can_be_the_last() {
    for fault in [Fault::Kill, Fault::DiskFull] {
        for operation in
            [Operation::Add(1, false), Operation::Add(0, true), Operation::Remove(0), Operation::Collect(0)]
        {
            let has_happened = |after: u32| {
                let fixture = Fixture::new();
                let store = fixture.store(&RANGES);
                add(&store, 0);
                let mut model = check_files(&fixture, &store);
                let step = Step { operation: operation.clone(), fault: Some((fault, after)) };
                apply(&fixture, &store, &mut model, &step)
            };
            let calls = (0..).take_while(|after| has_happened(*after)).count();
            assert!(calls >= 2, "{operation:?} has {calls} calls");
        }
    }
}

#[test]
fn an_interrupted_first_add_is_recovered() {
    for after in 0..20 {
        let fixture = Fixture::new();
        let store = fixture.store(&RANGES);
        let (outcome, _) = run_with(Fault::Kill, after, || run(&store, &Operation::Add(0, false)));
        let attachment = add(&store, 1);
        let found = check_files(&fixture, &store);
        assert_eq!(found.get(&1), Some(&texts(&attachment)));
        assert!(found.contains_key(&0) || matches!(outcome, Outcome::Killed));
    }
}

#[test]
fn threads_never_share_an_address() {
    let fixture = Fixture::new();
    let (dir, other) = (fixture.dir(), fixture.other());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (dir, other) = (&dir, &other);
            scope.spawn(move || {
                let ranges: Vec<PodRange> = ["10.0.0.0/26", "fd00::/64"]
                    .iter()
                    .map(|range| range.parse().expect("a range"))
                    .collect();
                let store = AddressStore::open(dir, &ranges, std::slice::from_ref(other)).expect("valid");
                for round in 0..20 {
                    for number in 0..4 {
                        add(&store, thread * 4 + number);
                    }
                    for number in 0..(if round == 19 { 0 } else { 4 }) {
                        store.remove(&key(thread * 4 + number)).expect("removable");
                    }
                }
            });
        }
    });
    let listing = fixture.store(&[]).attachments().expect("readable");
    let addresses: HashSet<_> = listing.attachments.iter().flat_map(|a| a.addresses.clone()).collect();
    assert_eq!((listing.attachments.len(), addresses.len()), (32, 64));
    assert_eq!(names(&fixture.dir().join("addresses")).len(), 64);
}
