//! Network namespaces of nodes and pods.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use portcullis_podnet::pod_interface::Namespace;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, deleted at the end.
pub(crate) struct Netns {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) namespace: Namespace,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cnibench-{}-{number}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Namespace::open(Path::new(&path(&name))).expect("it was just made");
        Netns { name, number, namespace }
    }

    pub(crate) fn path(&self) -> String {
        path(&self.name)
    }

    /// Runs a function in the namespace. Programs started there stay there.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        self.namespace.run(work).expect("it can be entered")
    }

    /// Runs a command line in the namespace.
    pub(crate) fn run(&self, line: &str) {
        self.within(|| run(line));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

fn path(name: &str) -> String {
    format!("/run/netns/{name}")
}

/// Runs a command line, whose words contain no spaces.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().expect("a program")).args(words).stdin(Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{line}: {status:?}");
}
