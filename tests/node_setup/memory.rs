//! A daemon that gets no more memory ends, and its rules stay; the next one continues.

use std::fmt::Write;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::daemon::{Daemon, Node};
use crate::namespace;

/// Returns 50 Services with this number of endpoints each; `file` is a number from 0.
fn manifest(file: usize, endpoints: usize) -> String {
    let mut text = String::new();
    for service in 50 * file..50 * (file + 1) {
        let (high, low) = (service / 250, service % 250 + 1);
        let address = format!("10.97.{high}.{low}");
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: shop}}\n\
             spec: {{clusterIP: {address}, clusterIPs: [{address}], ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: s{service}-1, namespace: shop, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
             ports: [{{port: 8080}}]\nendpoints:"
        )
        .unwrap();
        for endpoint in 0..endpoints {
            writeln!(text, "- addresses: [10.{}.{}.{low}]", 100 + high, endpoint + 1).unwrap();
        }
    }
    text
}

fn is_served(endpoint: &str) -> bool {
    namespace::run("nft list ruleset").contains(&format!("{endpoint} . 8080"))
}

/// Returns the size of the address space in bytes.
fn address_space(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    size.unwrap().parse::<u64>().unwrap() << 10
}

/// A memory cgroup, which is removed on drop.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates a cgroup with a limit in bytes; `None` if this machine has no memory cgroups that can be created.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("portcullis-test-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let cgroup = Cgroup(Path::new(root).join(&name));
            if fs::create_dir(&cgroup.0).is_ok() && fs::write(cgroup.0.join(file), limit.to_string()).is_ok()
            {
                return Some(cgroup);
            }
        }
        None
    }

    fn add(&self, daemon: &Daemon) {
        fs::write(self.0.join("cgroup.procs"), daemon.pid().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It fails while a process is ending, and if the folder could not be created.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Starts a daemon, limits its memory, adds objects until it ends, and starts another one. Returns the exit status and the
/// log of the first.
fn exhaust(limit: impl FnOnce(&Daemon)) -> (ExitStatus, String) {
    let node = Node::new();
    let folder = node.folder.path().join("manifests");
    fs::write(folder.join("0.yaml"), manifest(0, 1)).unwrap();
    let mut command = node.program(&[]);
    // Arenas reserve address space.
    command.env("MALLOC_ARENA_MAX", "1");
    let mut daemon = node.spawn(command);
    daemon.wait_until("it serves", || is_served("10.100.1.1"));
    daemon.wait_healthy();
    limit(&daemon);
    for file in 1..20 {
        fs::write(folder.join(format!("{file}.yaml")), manifest(file, 200)).unwrap();
    }
    let status = daemon.wait_for_exit();
    assert!(!status.success(), "{status}: {}", daemon.log());
    assert!(is_served("10.100.1.1"), "the kernel still serves");

    // Fewer, as the test waits until all are programmed.
    for file in 2..20 {
        fs::remove_file(folder.join(format!("{file}.yaml"))).unwrap();
    }
    let mut next = node.start(&[]);
    // The last endpoint of Service 99.
    next.wait_until("everything is served", || is_served("10.100.200.100"));
    next.wait_healthy();
    (status, daemon.log())
}

#[test]
fn daemon_without_address_space_aborts_and_its_rules_stay() {
    namespace::inside(|| {
        // As with `ulimit -v`, of the running process.
        let (status, log) = exhaust(|daemon| {
            let limit = address_space(daemon) + (4 << 20);
            namespace::run(&format!("prlimit --pid {} --as={limit}", daemon.pid()));
        });
        println!(
            "without address space: {status}: {}",
            log.lines().find(|line| line.contains("memory alloc")).unwrap_or_default()
        );
        assert!(status.signal().is_none_or(|signal| signal == libc::SIGABRT), "{status}: {log}");
        assert!(log.contains("memory"), "the log has no reason:\n{log}");
    });
}

#[test]
fn daemon_that_exceeds_its_cgroup_is_killed_and_its_rules_stay() {
    let Some(cgroup) = Cgroup::new(8 << 20) else {
        println!("this machine has no memory cgroups that a test can create");
        return;
    };
    namespace::inside(|| {
        // Only memory that it allocates from now on counts.
        let (status, log) = exhaust(|daemon| cgroup.add(daemon));
        println!("beyond the cgroup's memory: {status}");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}: {log}");
    });
}
