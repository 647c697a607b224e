//! Namespaces beside that of a test.

use std::sync::mpsc;
use std::thread;

use crate::namespace::{inside, run};

/// Sets a sysctl of the calling thread's network namespace, by its path below `net`.
pub(crate) fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Runs `body` on a thread in a new network namespace that a veth pair connects to that of the calling thread: `name` with the first
/// address there, and `{name}-peer` with the second one.
pub(crate) fn in_neighbour_namespace(name: &str, addresses: [&str; 2], body: impl FnOnce() + Send + 'static) {
    let [own, peer] = addresses.map(str::to_owned);
    let (path_sender, path) = mpsc::channel();
    let (connected_sender, connected) = mpsc::channel();
    let interface = format!("{name}-peer");
    let set_up = format!("ip link set {interface} up");
    thread::spawn(move || {
        inside(move || {
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            path_sender.send(format!("/proc/{}/ns/net", task.display())).unwrap();
            connected.recv().unwrap();
            run("ip link set lo up");
            run(&format!("ip address add {peer}/30 dev {interface}"));
            run(&set_up);
            body();
        });
    });
    let namespace = path.recv().expect("the thread has a namespace");
    run(&format!("ip link add {name} type veth peer name {name}-peer"));
    run(&format!("ip link set {name}-peer netns {namespace}"));
    run(&format!("ip address add {own}/30 dev {name}"));
    run(&format!("ip link set {name} up"));
    connected_sender.send(()).unwrap();
}
