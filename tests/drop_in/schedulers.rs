//! Schedulers by annotation: the kernel accepts every known one; an unknown name falls back to the default.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use portcullis_cluster::IpvsScheduler;
use portcullis_machines::uml;

use crate::daemon::portcullis;
use crate::recorded_objects::output;
use crate::{namespace, node};

pub(crate) fn every_scheduler_can_be_selected_by_annotation() {
    uml::inside(|| namespace::inside(select_all));
}

fn select_all() {
    node::run("ip link set lo up");
    let names: Vec<&str> =
        IpvsScheduler::ALL.into_iter().map(IpvsScheduler::name).chain(["fastest"]).collect();
    let mut text = String::from("{apiVersion: v1, kind: Node, metadata: {name: node-a}}\n");
    for (i, name) in names.iter().enumerate() {
        write!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{i}, namespace: default, \
             annotations: {{portcullis.io/ipvs-scheduler: {name}}}}}, \
             spec: {{clusterIP: 10.96.0.{i}, ports: [{{port: 80}}]}}}}\n"
        )
        .expect("writing to memory");
    }
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    std::fs::write(folder.path().join("services.yaml"), text).expect("the folder can be written to");
    let once = portcullis(&["--mode=ipvs", "--ipvs-scheduler=wlc", "--once"], folder.path())
        .stderr(Stdio::piped())
        .output()
        .expect("the binary is built");
    let log = String::from_utf8_lossy(&once.stderr);
    assert!(log.contains("\"fastest\" is not rr, wrr"), "{log}");
    let dump = output(&["ipvsadm", "-Sn"]);
    let mut missing = 0;
    for (i, name) in names.iter().enumerate() {
        let expected = match *name {
            "fastest" => "wlc".to_owned(),
            "mh" => "mh -b mh-port".to_owned(),
            name => name.to_owned(),
        };
        let line = format!("-A -t 10.96.0.{i}:80 -s {expected}");
        if dump.lines().any(|l| l.trim_end() == line) {
            continue;
        }
        // A scheduler that the test's kernel lacks is reported by name, and does not affect other Services.
        assert!(
            log.contains(&format!("default/s{i}: cannot add the virtual server")),
            "{line}\n{dump}\n{log}"
        );
        assert!(log.contains(&format!("is there a kernel module ip_vs_{name} on this node?")), "{log}");
        assert!(!loads(name), "the kernel has ip_vs_{name}, but {line} is not in\n{dump}\n{log}");
        missing += 1;
    }
    assert_eq!(once.status.code(), Some(i32::from(missing > 0)), "{log}");
    assert!(missing <= 1, "{missing} schedulers are missing:\n{log}");
}

/// Returns true if the kernel accepts the scheduler from ipvsadm.
fn loads(scheduler: &str) -> bool {
    let added = Command::new("ipvsadm")
        .args(["-A", "-t", "192.0.2.1:1", "-s", scheduler])
        .output()
        .expect("ipvsadm is installed");
    added.status.success()
}
