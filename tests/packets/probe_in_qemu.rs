//! `explain --probe` where `tests/explain_probe` has no kernel for it: IPVS mode, and SCTP.

use std::process::Output;

use portcullis_lab::Vantage;
use portcullis_machines::qemu;

use crate::mode::Mode;
use crate::testbed::Setup;

#[test]
fn packets_of_sctp_are_traced_through_ipvs_in_qemu() {
    qemu::inside(|| {
        let testbed = Setup::new("sctp.yaml").mode(Mode::Ipvs).up();
        let node = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
        let Vantage::Pod(client) = Vantage::client_on("node-1") else { panic!("a client is a pod") };
        let explain = |to: &str| {
            let mut command = node.command(env!("CARGO_BIN_EXE_portcullis"));
            command.args(["explain", "--probe", "--family=ipv4", "--from", &client, "--to", to]);
            command.arg("--manifests").arg(testbed.lab.manifests()).arg("--hostname-override=node-1");
            command.args(testbed.mode.with_args(&testbed.args));
            let Output { status, stdout, stderr } = command.output().unwrap();
            let text = String::from_utf8_lossy(&stdout).into_owned();
            (status.code(), text, String::from_utf8_lossy(&stderr).into_owned())
        };
        let delivered = explain("svc/tunnel:9900/sctp");
        assert_eq!(delivered.0, Some(0), "{delivered:?}");
        assert!(delivered.1.contains("DELIVERED"), "{delivered:?}");
        let rejected = explain("svc/no-tunnel:9901/sctp");
        assert_eq!(rejected.0, Some(0), "{rejected:?}");
        assert!(rejected.1.starts_with("UNREACHABLE"), "{rejected:?}");
    });
}
