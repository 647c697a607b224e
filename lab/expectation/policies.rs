//! Expected outcomes of probes of a Service where network policies are enforced.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::Expectation;
use super::usable_endpoints::{Destination, usable_endpoints};
use crate::plan::{ClusterPlan, EchoPort, Frontend, Protocol};

/// Returns true if policies allow a connection from an address to a pod's address and port.
pub type PolicyCheck<'a> = dyn Fn(IpAddr, IpAddr, EchoPort) -> bool + 'a;

/// Restricts an expectation by network policies. The pods may see any of `sources` as the client's address. If the result
/// depends on the source address or the pod, the outcome is not checked.
pub fn restricted_by_policies(
    expected: Expectation,
    plan: &ClusterPlan,
    service: &Service,
    frontend: &Frontend,
    sources: &[IpAddr],
    allows: &PolicyCheck<'_>,
) -> Expectation {
    let Expectation::AnswerFrom { pods, .. } = &expected else { return expected };
    let Some(protocol) = Protocol::parse(&frontend.protocol) else { return expected };
    let is_expected = |endpoint: &Destination| endpoint.pod.as_ref().is_some_and(|pod| pods.contains(pod));
    let mut verdicts = BTreeSet::new();
    for endpoint in usable_endpoints(plan, service, frontend).into_iter().filter(is_expected) {
        let Some(address) = endpoint.address else { return Expectation::Unspecified };
        let port = EchoPort { port: address.port(), protocol };
        let is_same_family = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
        let sources = sources.iter().filter(is_same_family);
        verdicts.extend(sources.map(|source| allows(*source, address.ip(), port)));
    }
    match (verdicts.contains(&true), verdicts.contains(&false)) {
        (true, true) => Expectation::Unspecified,
        (false, true) => Expectation::Dropped,
        (_, false) => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_objects::ClusterObjects;
    use crate::plan::{Family, FrontendKind};

    #[test]
    fn policies_restrict_expectations() {
        let manifests = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}, status: {podIP: 10.244.1.21}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: web}}, status: {podIP: 10.244.1.22}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
";
        let plan = ClusterObjects::parse(manifests).unwrap().plan().unwrap();
        let service = plan.service("web").unwrap();
        let frontends = plan.frontends(service);
        let is_cluster_ip_v4 = |frontend: &&Frontend| {
            frontend.kind == FrontendKind::ClusterIp && Family::from_ip(frontend.address.ip()) == Family::V4
        };
        let frontend = frontends.iter().find(is_cluster_ip_v4).unwrap();
        let pods: BTreeSet<String> = ["default/a", "default/b"].map(str::to_owned).into();
        let all = Expectation::AnswerFrom { pods, same: false, source_kept: true };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (client, node) = (address("10.244.2.9"), address("192.168.77.12"));
        let [a, b] = ["10.244.1.21", "10.244.1.22"].map(address);
        // case · denied (from, to) · possible sources · expectation
        type Row<'a> = (&'a str, Vec<(IpAddr, IpAddr)>, Vec<IpAddr>, Expectation);
        let rows: [Row<'_>; 6] = [
            ("all is allowed", vec![], vec![client, node], all.clone()),
            ("all is denied", vec![(client, a), (client, b)], vec![client], Expectation::Dropped),
            ("one pod denies", vec![(client, a)], vec![client], Expectation::Unspecified),
            ("an impossible source is denied", vec![(node, a), (node, b)], vec![client], all.clone()),
            (
                "a possible source is denied",
                vec![(node, a), (node, b)],
                vec![client, node],
                Expectation::Unspecified,
            ),
            ("a source of the other family", vec![], vec![client, address("fd00::1")], all.clone()),
        ];
        for (what, denied, sources, expected) in rows {
            let allows = |from: IpAddr, to: IpAddr, port: EchoPort| {
                assert_eq!(port, EchoPort::tcp(8080), "{what}: the pod's port");
                !denied.contains(&(from, to))
            };
            assert_eq!(
                restricted_by_policies(all.clone(), &plan, service, frontend, &sources, &allows),
                expected,
                "{what}"
            );
        }
        let refused =
            restricted_by_policies(Expectation::Refused, &plan, service, frontend, &[client], &|_, _, _| {
                false
            });
        assert_eq!(refused, Expectation::Refused, "there is no pod to which policies apply");
    }
}
