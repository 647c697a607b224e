//! Changes of a folder of manifests: atomic renames, and invalid files.

use std::fs;
use std::time::Duration;

use crate::expectation::{only, spread};
use crate::row::{at, client, cluster_ip, row};
use crate::testbed::{PATIENCE, Setup, Testbed};

const EXTRA: &str = "10.96.0.77:80";

fn extra(pod: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: extra}}, spec: {{clusterIP: 10.96.0.77, ports: [{{port: 80}}]}}}}
---
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{name: '', port: 8080}}],
  metadata: {{name: extra-1, labels: {{kubernetes.io/service-name: extra}}}}, endpoints: [{{addresses: [{pod}]}}]}}
"
    )
}

#[test]
fn manifests_change_by_renames_and_become_invalid() {
    let mut testbed = Setup::new("web.yaml").up();
    let (a, b, c) = ("10.244.1.21", "10.244.2.22", "10.244.2.23");

    testbed.write_manifest("extra.yaml", &extra(a));
    answers(&testbed, "default/a");
    testbed.write_manifest("extra.yaml", &extra(b));
    answers(&testbed, "default/b");

    // One invalid document: the other documents are applied, and the last valid version of the Service stays.
    let broken =
        format!("{}---\n{{apiVersion: v1, kind: Service, metadata: {{name: odd}}, spec: 7}}\n", extra(c));
    testbed.write_manifest("extra.yaml", &broken);
    answers(&testbed, "default/c");
    testbed.wait_until("the invalid document is counted", PATIENCE, |testbed| problems(testbed) > 0.0);

    // A file that is not YAML: its last valid content stays, and all other files are followed.
    testbed.write_manifest("extra.yaml", "apiVersion: v1\nkind: [");
    testbed.lab.set_ready("b", false).unwrap();
    testbed.lab.set_ready("c", false).unwrap();
    testbed.synced();
    let rest = [
        row("the other file is followed", client(1), cluster_ip("web", 80), only("a").kept()),
        row("the last valid content of the invalid file stays", client(1), at(&[EXTRA]), only("c")),
    ];
    testbed.check(&rest);
    let log = fs::read_to_string(testbed.lab.daemon_log("node-1").unwrap()).unwrap();
    assert!(log.contains("extra.yaml"), "the log names the file:\n{log}");

    // The file is written in place without a rename, then deleted.
    fs::write(testbed.lab.manifests().join("extra.yaml"), extra(a)).unwrap();
    answers(&testbed, "default/a");
    fs::remove_file(testbed.lab.manifests().join("extra.yaml")).unwrap();
    testbed.wait_until("the Service is removed with its file", PATIENCE, |testbed| {
        testbed
            .from(client(1))
            .timeout(Duration::from_millis(200))
            .tcp(EXTRA.parse().unwrap())
            .responder()
            .is_none()
    });
    testbed.wait_until("no object problems remain", PATIENCE, |testbed| problems(testbed) == 0.0);
    testbed.lab.set_ready("b", true).unwrap();
    testbed.lab.set_ready("c", true).unwrap();
    testbed.synced();
    testbed.check(&[row(
        "all endpoints are served",
        client(2),
        cluster_ip("web", 80),
        spread(&["a", "b", "c"]).kept(),
    )]);
}

fn problems(testbed: &Testbed) -> f64 {
    testbed.metric("node-1", "portcullis_object_problems", "unreadable")
}

fn answers(testbed: &Testbed, pod: &str) {
    let prober = testbed.from(client(1)).timeout(Duration::from_millis(500));
    testbed.wait_until(&format!("{pod} answers"), PATIENCE, |_| {
        prober.tcp(EXTRA.parse().unwrap()).responder() == Some(pod)
    });
}
