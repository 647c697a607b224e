//! Single operations, damaged files, and addresses of other plugins.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::super::{Error, UnreadableFile};
use super::*;

const BOTH: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

#[test]
fn an_attachment_gets_an_address_of_each_range() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    let first = add(&store, 1);
    assert_eq!(texts(&first), ["10.244.1.2/24", "fd00:10:244:1::2/64"]);
    assert_eq!(texts(&add(&store, 2)), ["10.244.1.3/24", "fd00:10:244:1::3/64"]);
    // The same attachment keeps its addresses.
    assert_eq!(add(&store, 1), first);
    assert_eq!(store.get(&key(1)).expect("readable"), Some(first.clone()));
    assert_eq!(store.remove(&key(1)).expect("removable"), Some(first));
    assert_eq!(store.remove(&key(1)).expect("removable"), None);
    assert_eq!(store.get(&key(1)).expect("readable"), None);
    // The address is not used again soon, also by the same attachment.
    assert_eq!(texts(&add(&store, 1)), ["10.244.1.4/24", "fd00:10:244:1::4/64"]);
    assert_eq!(names(&fixture.dir()), ["addresses", "attachments", "boot-id", "last-allocated", "lock"]);
}

#[test]
fn operations_on_a_store_that_does_not_exist_create_nothing() {
    let fixture = Fixture::new();
    let store = fixture.store(&[]);
    assert_eq!(store.remove(&key(1)).expect("nothing to remove"), None);
    assert_eq!(store.get(&key(1)).expect("nothing to read"), None);
    assert_eq!(store.attachments().expect("nothing to read"), Default::default());
    assert!(store.remove_all_except(&[], |_| Ok(())).expect("nothing to remove").is_empty());
    assert!(store.remove_leaked(Duration::ZERO, |_| Ok(())).expect("nothing to remove").is_empty());
    assert!(!fixture.dir().exists());
    assert!(matches!(store.add(&new(1)), Err(Error::NoRange)));
    let ranges = ["10.0.0.0/24".parse().expect("a range"), "10.0.1.0/24".parse().expect("a range")];
    assert!(matches!(AddressStore::open(&fixture.dir(), &ranges, &[]), Err(Error::SameFamily(..))));
}

#[test]
fn host_ports_are_recorded_before_they_exist() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    let with_port = NewAttachment { host_ports: vec![host_port(8080)], ..new(1) };
    let reservation = store.add(&with_port).expect("free");
    let attachment = store.get(&key(1)).expect("readable").expect("exists");
    assert_eq!(attachment.host_ports, with_port.host_ports);
    assert_eq!(store.complete(reservation).expect("not removed"), attachment);
    assert_eq!(store.holder("10.244.1.2".parse().expect("an address")).expect("readable"), Some(key(1)));
    assert_eq!(store.holder("10.244.1.3".parse().expect("an address")).expect("readable"), None);
    // A repeated ADD changes all but the addresses.
    let again =
        NewAttachment { netns: "/run/netns/another".into(), host_ports: vec![host_port(81)], ..new(1) };
    let reservation = store.add(&again).expect("exists");
    let changed = store.complete(reservation).expect("not removed");
    assert_eq!((&changed.netns, &changed.host_ports), (&again.netns, &again.host_ports));
    assert_eq!((changed.created, &changed.addresses), (attachment.created, &attachment.addresses));
    assert_eq!(store.get(&key(1)).expect("readable"), Some(changed));
    store.remove(&key(1)).expect("removable");
    assert!(names(&fixture.dir().join("addresses")).is_empty());
}

#[test]
fn a_removed_reservation_cannot_be_completed() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    let reservation = store.add(&new(1)).expect("free");
    store.remove(&key(1)).expect("removable");
    assert!(matches!(store.complete(reservation), Err(Error::Returned(_))));
    // Also if another ADD has taken the name.
    let reservation = store.add(&new(1)).expect("free");
    store.remove(&key(1)).expect("removable");
    let second = store.add(&new(1)).expect("free");
    assert!(matches!(store.complete(reservation), Err(Error::Returned(_))));
    store.complete(second).expect("it exists");
}

#[test]
fn a_changed_pod_cidr_gives_other_addresses() {
    let fixture = Fixture::new();
    add(&fixture.store(&BOTH), 1);
    add(&fixture.store(&BOTH), 2);
    let store = fixture.store(&["10.244.7.0/24"]);
    assert_eq!(texts(&add(&store, 1)), ["10.244.7.2/24"]);
    // The other one keeps its addresses until it is removed.
    assert_eq!(names(&fixture.dir().join("addresses")), ["10.244.1.3", "10.244.7.2", "fd00:10:244:1::3"]);
    store.remove(&key(2)).expect("removable");
    assert_eq!(names(&fixture.dir().join("addresses")), ["10.244.7.2"]);
}

#[test]
fn an_exhausted_range_names_the_holders() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.0.0.0/29"]);
    fixture.hold_elsewhere("10.0.0.3", "a0123456789abcdef\r\neth0");
    fs::create_dir_all(fixture.dir().join("addresses")).expect("a folder");
    fs::write(fixture.dir().join("addresses/10.0.0.5"), "damaged").expect("a file");
    for number in 0..3 {
        add(&store, number);
    }
    let error = store.add(&new(4)).expect_err("nothing is free").to_string();
    for part in [
        "no free pod address in 10.0.0.0/29: of 5 addresses 3 are held by attachments",
        "(3 of them without network namespace",
        "1 by another network plugin in ",
        "/networks/cbr0",
        "1 by files without attachment such as ",
        "/store/addresses/10.0.0.5",
        "/store/attachments has a file for each attachment",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    // Nothing was reserved, also in the other family.
    let store = fixture.store(&["10.0.0.0/29", "fd00::/64"]);
    store.add(&new(4)).expect_err("nothing is free");
    assert_eq!(names(&fixture.dir().join("addresses")).len(), 4);
    store.remove(&key(1)).expect("removable");
    assert_eq!(texts(&add(&store, 4)), ["10.0.0.4/29", "fd00::2/64"]);
}

#[test]
fn a_full_range_returns_leaked_attachments_by_itself() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.0.0.0/29"]);
    for number in 0..5 {
        add(&store, number);
    }
    let own = std::fs::metadata("/proc/self/ns/net")
        .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
        .expect("readable");
    for number in 0..5 {
        let path = fixture.dir().join("attachments").join(format!("container{number}@eth0"));
        let mut attachment = store.get(&key(number)).expect("readable").expect("exists");
        // All but the first two are old, the third has an interface, and the fourth a network namespace.
        attachment.created -= if number < 2 { 0 } else { 120 };
        match number {
            2 => attachment.host_interface = "lo".into(),
            3 => (attachment.netns, attachment.netns_inode) = ("/proc/self/ns/net".into(), own),
            _ => {}
        }
        fs::write(path, serde_json::to_vec(&attachment).expect("JSON")).expect("written");
    }
    assert_eq!(texts(&add(&store, 5)), ["10.0.0.6/29"]);
    store.add(&new(6)).expect_err("the others are not leaked");
    assert_eq!(store.get(&key(4)).expect("readable"), None);
}

#[test]
fn damaged_files_are_reported_and_removed_by_del() {
    for damage in ["", "{", "{}", "[1]", "\0\0\0", r#"{"key":{"container_id":"../x","interface":"eth0"}}"#] {
        let fixture = Fixture::new();
        let store = fixture.store(&BOTH);
        add(&store, 1);
        add(&store, 2);
        let path = fixture.dir().join("attachments/container1@eth0");
        // In place: the reservations are links to the same file.
        fs::write(&path, damage).expect("written");
        let error = store.add(&new(1)).expect_err("the file is damaged").to_string();
        assert!(error.starts_with(path.to_str().expect("UTF-8")), "{error}");
        let listing = store.attachments().expect("readable");
        assert_eq!(listing.attachments.len(), 1);
        assert_eq!(listing.unreadable.iter().map(|file| &file.path).collect::<Vec<_>>(), [&path]);
        // Its addresses stay held.
        assert_eq!(texts(&add(&store, 3)), ["10.244.1.4/24", "fd00:10:244:1::4/64"]);
        assert_eq!(store.remove(&key(1)).expect("removable"), None);
        assert_eq!(
            names(&fixture.dir().join("addresses")),
            ["10.244.1.3", "10.244.1.4", "fd00:10:244:1::3", "fd00:10:244:1::4"],
            "{damage:?}"
        );
    }
}

#[test]
fn files_of_other_programs_are_reported_and_left_alone() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.0.0.0/29"]);
    add(&store, 1);
    let attachments = fixture.dir().join("attachments");
    fs::write(attachments.join("README"), "x").expect("written");
    fs::create_dir(attachments.join("folder")).expect("created");
    fs::copy(attachments.join("container1@eth0"), attachments.join("copy@eth0")).expect("copied");
    fs::write(fixture.dir().join("not-ready"), "x").expect("written");
    fs::create_dir(fixture.dir().join("addresses/10.0.0.3")).expect("created");
    let listing = store.attachments().expect("readable");
    assert_eq!(listing.attachments.len(), 1);
    let reasons: Vec<String> = listing
        .unreadable
        .iter()
        .map(|UnreadableFile { path, reason }| {
            format!("{}: {reason}", path.file_name().expect("a name").display())
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "README: is not an attachment: expected value at line 1 column 1",
            "copy@eth0: is the file of the attachment container1@eth0",
            "folder: Is a directory (os error 21)",
        ]
    );
    assert_eq!(texts(&add(&store, 2)), ["10.0.0.4/29"]);
    // `copy@eth0` names an attachment that holds no address.
    store.remove(&AttachmentKey::new("copy", "eth0").expect("valid")).expect("removable");
    assert_eq!(names(&fixture.dir().join("addresses")), ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    let removals = store.remove_all_except(&[], |_| Ok(())).expect("removable");
    assert_eq!(removals.len(), 2);
    assert_eq!(names(&fixture.dir().join("addresses")), ["10.0.0.3"]);
    assert_eq!(names(&attachments), ["README", "folder"]);
}

#[test]
fn missing_reservations_are_restored() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    let attachment = add(&store, 1);
    fs::remove_file(fixture.dir().join("addresses/10.244.1.2")).expect("exists");
    assert_eq!(add(&store, 1), attachment);
    assert!(fixture.dir().join("addresses/10.244.1.2").exists());
    // An attachment whose file was deleted leaves reservations, which GC returns.
    fs::remove_file(fixture.dir().join("attachments/container1@eth0")).expect("exists");
    store.remove_all_except(&[], |_| Ok(())).expect("readable");
    assert!(names(&fixture.dir().join("addresses")).is_empty());
}

#[test]
fn files_of_an_earlier_boot_are_removed() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    add(&store, 1);
    fs::write(fixture.dir().join("not-ready"), "x").expect("written");
    let boot_id = fixture.dir().join("boot-id");
    let now = fs::read(&boot_id).expect("written by the first ADD");
    fs::write(&boot_id, "00000000-0000-0000-0000-000000000000\n").expect("written");
    assert_eq!(store.get(&key(1)).expect("readable"), None);
    assert!(store.attachments().expect("readable").attachments.is_empty());
    let reservation = store.add(&new(2)).expect("free");
    assert_eq!(texts(reservation.attachment()), ["10.244.1.2/24", "fd00:10:244:1::2/64"]);
    assert_eq!(names(&fixture.dir().join("attachments")), ["container2@eth0"]);
    assert_eq!(fs::read(&boot_id).expect("written"), now);
    assert!(fixture.dir().join("not-ready").exists(), "a file of another program");
}

#[test]
fn addresses_of_another_plugin_are_allocated_last_and_after_their_container() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.0.0.0/29"]);
    let old = fixture.hold_elsewhere("10.0.0.2", "a0123456789abcdef\r\neth0");
    let young = fixture.hold_elsewhere("10.0.0.3", "b0123456789abcdef\r\neth0");
    let damaged = fixture.hold_elsewhere("10.0.0.4", "");
    let lock = fixture.hold_elsewhere("lock", "");
    fixture.hold_elsewhere("last_reserved_ip.0", "10.0.0.4");
    fs::write(fixture.other().join("file"), "not a network").expect("written");
    for path in [&old, &damaged, &lock] {
        let file = fs::File::open(path).expect("exists");
        file.set_modified(SystemTime::now() - Duration::from_secs(3_600)).expect("set");
    }
    assert_eq!(texts(&add(&store, 1)), ["10.0.0.5/29"]);
    assert_eq!(texts(&add(&store, 2)), ["10.0.0.6/29"]);
    // No cgroup has the name of the first container.
    assert_eq!(texts(&add(&store, 3)), ["10.0.0.2/29"]);
    let error = store.add(&new(4)).expect_err("two files may belong to running containers").to_string();
    assert!(error.contains("2 by another network plugin"), "{error}");
    assert!(old.exists() && young.exists() && damaged.exists());
}

#[test]
fn addresses_in_use_are_not_allocated() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.0.0.0/29"]);
    let is_in_use = |address: IpAddr| Ok(["10.0.0.2", "10.0.0.4"].contains(&address.to_string().as_str()));
    for (number, expected) in [(1, "10.0.0.3/29"), (2, "10.0.0.5/29"), (3, "10.0.0.6/29"), (1, "10.0.0.3/29")]
    {
        let reservation = store.add_unless(&new(number), &is_in_use).expect("free");
        assert_eq!(texts(reservation.attachment()), [expected]);
    }
    let error = store.add_unless(&new(4), &is_in_use).expect_err("nothing is free").to_string();
    assert!(error.contains("3 are held by attachments") && error.contains("2 by routes"), "{error}");
    // If that cannot be determined, nothing is allocated.
    let unknown = |_| Err(Error::NoRange);
    store.remove(&key(1)).expect("removable");
    assert!(matches!(store.add_unless(&new(4), &unknown), Err(Error::NoRange)));
    assert_eq!(names(&fixture.dir().join("addresses")).len(), 2);
}

#[test]
fn gc_unwires_first_and_keeps_what_cannot_be_unwired() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    for number in 0..4 {
        add(&store, number);
    }
    let in_progress = store.add(&new(4)).expect("free");
    let mut unwired = Vec::new();
    let removals = store
        .remove_all_except(&[key(0)], |key| {
            assert!(store.get(key).expect("readable").is_some(), "its addresses are still held");
            unwired.push(key.clone());
            if *key == super::key(2) { Err("no permission".into()) } else { Ok(()) }
        })
        .expect("readable");
    assert_eq!(unwired, [key(1), key(2), key(3)]);
    let results: Vec<_> =
        removals.iter().map(|removal| (removal.key.clone(), removal.result.clone())).collect();
    assert_eq!(results, [(key(1), Ok(())), (key(2), Err("no permission".into())), (key(3), Ok(()))]);
    store.complete(in_progress).expect("an ADD in progress is not disturbed");
    let left: Vec<_> =
        store.attachments().expect("readable").attachments.into_iter().map(|a| a.key).collect();
    assert_eq!(left, [key(0), key(2), key(4)]);
}

#[test]
fn leaked_attachments_are_returned_after_a_grace_time() {
    let fixture = Fixture::new();
    let store = fixture.store(&BOTH);
    add(&store, 1);
    let in_progress = store.add(&new(2)).expect("free");
    let alive = NewAttachment { netns: "/proc/self/ns/net".into(), ..new(3) };
    store.complete(store.add(&alive).expect("free")).expect("reserved");
    let interface = NewAttachment { host_interface: "lo".into(), ..new(4) };
    store.complete(store.add(&interface).expect("free")).expect("reserved");
    assert!(store.remove_leaked(super::super::GRACE, |_| Ok(())).expect("readable").is_empty());
    let removals = store.remove_leaked(Duration::ZERO, |_| Ok(())).expect("readable");
    assert_eq!(removals.iter().map(|removal| &removal.key).collect::<Vec<_>>(), [&key(1)]);
    // Killed during ADD.
    drop(in_progress);
    let removals = store.remove_leaked(Duration::ZERO, |_| Ok(())).expect("readable");
    assert_eq!(removals.iter().map(|removal| &removal.key).collect::<Vec<_>>(), [&key(2)]);
    assert_eq!(store.attachments().expect("readable").attachments.len(), 2);
}

#[test]
fn addresses_are_counted_by_use() {
    let fixture = Fixture::new();
    let store = fixture.store(&["10.244.1.0/27", "fd00:10:244:1::/64"]);
    let counts = || {
        let usage = store.usage().expect("readable").into_iter();
        usage.map(|of| (of.held, of.elsewhere, of.free(), of.is_low())).collect::<Vec<_>>()
    };
    let v6_free = (1_u128 << 64) - 2;
    assert_eq!(counts(), [(0, 0, 29, false), (0, 0, v6_free, false)], "nothing was written yet");
    (0..26).for_each(|number| _ = add(&store, number));
    // Of two files for one address, and of addresses outside of the range, none counts.
    for address in ["10.244.1.2", "10.244.1.29", "10.9.9.9", "last_reserved_ip.0"] {
        fixture.hold_elsewhere(address, "container");
    }
    assert_eq!(counts(), [(26, 1, 2, false), (26, 0, v6_free - 26, false)]);
    fixture.hold_elsewhere("10.244.1.30", "container");
    assert_eq!(counts()[0], (26, 2, 1, true));
}
