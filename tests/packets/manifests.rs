//! A folder of manifests that changes: by atomic renames, and by mistakes.

use std::fs;
use std::time::Duration;

use crate::bed::{Bed, PATIENCE, Setup};
use crate::expectation::{only, spread};
use crate::row::{at, client, cluster_ip, row};

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
fn manifests_change_by_renames_and_mistakes() {
    let mut bed = Setup::of("web.yaml").up();
    let (a, b, c) = ("10.244.1.21", "10.244.2.22", "10.244.2.23");

    bed.write_manifest("extra.yaml", &extra(a));
    answers(&bed, "default/a");
    bed.write_manifest("extra.yaml", &extra(b));
    answers(&bed, "default/b");

    // One bad document beside good ones: the good ones count, the Service as it was last good stays.
    let broken =
        format!("{}---\n{{apiVersion: v1, kind: Service, metadata: {{name: odd}}, spec: 7}}\n", extra(c));
    bed.write_manifest("extra.yaml", &broken);
    answers(&bed, "default/c");
    bed.wait_until("the mistake is counted", PATIENCE, |bed| problems(bed) > 0.0);

    // A file that is no YAML at all: what it held last stays, and all other files are followed.
    bed.write_manifest("extra.yaml", "apiVersion: v1\nkind: [");
    bed.lab.set_ready("b", false).unwrap();
    bed.lab.set_ready("c", false).unwrap();
    bed.synced();
    let rest = [
        row("the other file is followed", client(1), cluster_ip("web", 80), only("a").kept()),
        row("the broken file's last good state stays", client(1), at(&[EXTRA]), only("c")),
    ];
    bed.check(&rest);
    let log = fs::read_to_string(bed.lab.daemon_log("node-1").unwrap()).unwrap();
    assert!(log.contains("extra.yaml"), "the log names the file:\n{log}");

    // Written in place, byte by byte, as a careless editor does; then deleted.
    fs::write(bed.lab.manifests().join("extra.yaml"), extra(a)).unwrap();
    answers(&bed, "default/a");
    fs::remove_file(bed.lab.manifests().join("extra.yaml")).unwrap();
    bed.wait_until("the Service goes with its file", PATIENCE, |bed| {
        bed.from(client(1)).timeout(Duration::from_millis(200)).tcp(EXTRA.parse().unwrap()).by().is_none()
    });
    bed.wait_until("nothing is wrong any more", PATIENCE, |bed| problems(bed) == 0.0);
    bed.lab.set_ready("b", true).unwrap();
    bed.lab.set_ready("c", true).unwrap();
    bed.synced();
    bed.check(&[row("all is well", client(2), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept())]);
}

fn problems(bed: &Bed) -> f64 {
    bed.metric("node-1", "portcullis_object_problems", "unreadable")
}

fn answers(bed: &Bed, pod: &str) {
    let prober = bed.from(client(1)).timeout(Duration::from_millis(500));
    bed.wait_until(&format!("{pod} answers"), PATIENCE, |_| {
        prober.tcp(EXTRA.parse().unwrap()).by() == Some(pod)
    });
}
