//! Jumps of the clock, and a process that is stopped for a while: rules are followed, and health stays as it is.

use std::cell::RefCell;
use std::fs;
use std::time::{Duration, Instant};

use portcullis_machines::uml;

use crate::daemon::{HEALTH, METRICS, Node, program};
use crate::http::get;
use crate::namespace;

fn manifest(endpoint: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata:\n  name: a-1\n  namespace: shop\n  labels: {{kubernetes.io/service-name: a}}\n  annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '2026-11-01T00:00:00Z'}}\n\
         endpoints: [{{addresses: [{endpoint}]}}]\nports: [{{port: 8080}}]\n"
    )
}

fn rules() -> String {
    namespace::run("iptables-legacy-save -t nat")
}

/// The clock of a machine of user-mode Linux is its own.
#[test]
fn jumps_of_the_clock_change_nothing() {
    uml::inside_for(Duration::from_secs(400), || namespace::inside(set_the_clock));
}

fn set_the_clock() {
    let node = Node::new();
    let manifests = node.folder.path().join("manifests");
    fs::write(manifests.join("a.yaml"), manifest("10.244.0.1")).unwrap();
    let mut command = program();
    command.args(["--mode=iptables", "--iptables-min-sync-period=0s", "--manifests"]).arg(&manifests);
    let mut daemon = node.spawn(command);
    daemon.wait_until("it serves", || rules().contains("10.244.0.1:8080"));
    daemon.wait_healthy();
    let jumps = [
        ("an hour back", "2026-11-01 11:00"),
        ("a year ahead", "2027-11-01 12:00"),
        ("to the second day of Unix time", "1970-01-02"),
        ("behind the year 2038", "2038-01-19 03:14:08"),
        ("100 years ahead", "2126-11-01 12:00"),
        ("to the present", "2026-11-01 12:00"),
    ];
    for (number, (name, date)) in jumps.into_iter().enumerate() {
        let set = std::process::Command::new("date").args(["--utc", "--set", date]).output().unwrap();
        assert!(set.status.success(), "{name}: {}", String::from_utf8_lossy(&set.stderr));
        let endpoint = format!("10.244.0.{}", number + 2);
        let start = Instant::now();
        fs::write(manifests.join("a.yaml"), manifest(&endpoint)).unwrap();
        daemon.wait_until(&format!("{name}: changes are followed"), || {
            rules().contains(&format!("{endpoint}:8080"))
        });
        println!("clock: {name:30} followed after {:5} ms", start.elapsed().as_millis());
        for path in ["/healthz", "/livez"] {
            daemon.wait_until(&format!("{name}: {path} succeeds"), || {
                get(HEALTH, path)
                    .is_some_and(|answer| answer.contains(" 200 ") && !answer.contains("problems"))
            });
        }
        let metrics = RefCell::new(String::new());
        daemon.wait_until("metrics answer", || {
            get(METRICS, "/metrics").map(|text| metrics.replace(text)).is_some()
        });
        let metrics = metrics.into_inner();
        let values = metrics.lines().filter(|line| !line.starts_with('#'));
        for line in values.filter(|line| line.contains("_sum") || line.contains("_timestamp_seconds")) {
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= 0.0 && value.is_finite(), "{name}: {line}");
        }
        assert!(!daemon.log().contains("panicked"), "{name}: {}", daemon.log());
    }
}

/// A stopped process finds that minutes have passed, like one on a suspended machine.
#[test]
fn stopped_process_continues_when_it_is_resumed() {
    namespace::inside(|| {
        let node = Node::new();
        let manifests = node.folder.path().join("manifests");
        fs::write(manifests.join("a.yaml"), manifest("10.244.0.1")).unwrap();
        let mut daemon = node.start(&[]);
        let served =
            |endpoint: &str| namespace::run("nft list ruleset").contains(&format!("{endpoint} . 8080"));
        daemon.wait_until("it serves", || served("10.244.0.1"));
        let signal = |name: &str| namespace::run(&format!("kill -{name} {}", daemon.pid()));
        signal("STOP");
        fs::write(manifests.join("a.yaml"), manifest("10.244.0.2")).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        assert!(served("10.244.0.1") && get(HEALTH, "/healthz").is_none());
        signal("CONT");
        daemon.wait_until("the change is followed", || served("10.244.0.2"));
        daemon.wait_healthy();
    });
}
