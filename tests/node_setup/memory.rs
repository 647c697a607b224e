//! A daemon that gets no more memory ends, and its rules stay; the next one continues.

use std::fmt::Write;
use std::fs;
use std::os::unix::process::ExitStatusExt;

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

#[test]
fn daemon_without_memory_ends_and_its_rules_stay() {
    namespace::inside(|| {
        let node = Node::new();
        let folder = node.folder.path().join("manifests");
        fs::write(folder.join("0.yaml"), manifest(0, 1)).unwrap();
        let mut command = node.program(&[]);
        // Arenas reserve address space.
        command.env("MALLOC_ARENA_MAX", "1");
        let mut daemon = node.spawn(command);
        daemon.wait_until("it serves", || is_served("10.100.1.1"));
        daemon.wait_healthy();
        // As with `ulimit -v`, of the running process.
        let limit = address_space(&daemon) + (4 << 20);
        namespace::run(&format!("prlimit --pid {} --as={limit}", daemon.pid()));
        for file in 1..20 {
            fs::write(folder.join(format!("{file}.yaml")), manifest(file, 200)).unwrap();
        }
        let status = daemon.wait_for_exit();
        let log = daemon.log();
        assert!(!status.success(), "{status}: {log}");
        println!(
            "without memory: {status}: {}",
            log.lines().find(|line| line.contains("memory alloc")).unwrap_or_default()
        );
        assert!(status.signal().is_none_or(|signal| signal == libc::SIGABRT), "{status}: {log}");
        assert!(log.contains("memory"), "the log has no reason:\n{log}");
        assert!(is_served("10.100.1.1"), "the kernel still serves");

        // Fewer, as the test waits until all are programmed.
        for file in 2..20 {
            fs::remove_file(folder.join(format!("{file}.yaml"))).unwrap();
        }
        let mut next = node.start(&[]);
        // The last endpoint of Service 99.
        next.wait_until("everything is served", || is_served("10.100.200.100"));
        next.wait_healthy();
    });
}
