//! Policies beside IPVS, on a kernel that has both: where a Service's address is replaced by that of its endpoint only
//! behind the hooks of other modes.

use portcullis_lab::qemu;

use crate::case::Case;
use crate::enforcer::Daemons;
use crate::run::run_all_in;

/// Blocks, named ports, the node itself, Services, both directions, SCTP.
const CASES: [&str; 6] = [
    "e2e-027-sctp-only-isolates",
    "edge-010-ipblock-names-pods",
    "edge-019-port-name-differs-per-pod",
    "edge-025-node-to-its-own-pods",
    "edge-027-service-port-is-not-the-pod-port",
    "edge-043-egress-and-ingress-must-both-agree",
];

#[test]
fn policies_beside_ipvs_in_qemu() {
    qemu::inside(|| {
        let mut cases = Case::all_of("network-policy");
        cases.retain(|case| CASES.contains(&case.name.as_str()));
        assert_eq!(cases.len(), CASES.len());
        run_all_in("ipvs", "network-policy", &cases, &["--network-policy"], 1, || Box::new(Daemons));
    });
}
