//! What policies leave of what is expected of a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::{Expected, Reached, usable};
use crate::plan::{EchoPort, Front, Plan, Protocol};

/// Whether policies let a connection pass: from an address, to a pod's, at its port.
pub type Judge<'a> = dyn Fn(IpAddr, IpAddr, EchoPort) -> bool + 'a;

/// What is left to expect of a front where policies are enforced. The pods may see the client as any of `sources`; where
/// that makes a difference, or the pods differ, nothing is expected.
pub fn where_judged(
    expected: Expected,
    plan: &Plan,
    service: &Service,
    front: &Front,
    sources: &[IpAddr],
    judge: &Judge<'_>,
) -> Expected {
    let Expected::AnswerFrom { pods, .. } = &expected else { return expected };
    let Some(protocol) = Protocol::named(&front.protocol) else { return expected };
    let is_meant = |endpoint: &Reached| endpoint.pod.as_ref().is_some_and(|pod| pods.contains(pod));
    let mut verdicts = BTreeSet::new();
    for endpoint in usable(plan, service, front).into_iter().filter(is_meant) {
        let Some(at) = endpoint.at else { return Expected::Anything };
        let port = EchoPort { port: at.port(), protocol };
        let same = |source: &&IpAddr| source.is_ipv4() == at.is_ipv4();
        verdicts.extend(sources.iter().filter(same).map(|source| judge(*source, at.ip(), port)));
    }
    match (verdicts.contains(&true), verdicts.contains(&false)) {
        (true, true) => Expected::Anything,
        (false, true) => Expected::Dropped,
        (_, false) => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::plan::{Family, FrontKind};

    #[test]
    fn what_policies_leave_to_expect() {
        let manifests = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}, status: {podIP: 10.244.1.21}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: web}}, status: {podIP: 10.244.1.22}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
";
        let plan = Cluster::parse(manifests).unwrap().plan().unwrap();
        let service = plan.service("web").unwrap();
        let fronts = plan.fronts(service);
        let is_it = |front: &&Front| {
            front.kind == FrontKind::ClusterIp && Family::of(front.address.ip()) == Family::V4
        };
        let front = fronts.iter().find(is_it).unwrap();
        let pods: BTreeSet<String> = ["default/a", "default/b"].map(str::to_owned).into();
        let all = Expected::AnswerFrom { pods, same: false, source_kept: true };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (client, node) = (address("10.244.2.9"), address("192.168.77.12"));
        let [a, b] = ["10.244.1.21", "10.244.1.22"].map(address);
        // What is denied: from, to.
        type Row<'a> = (&'a str, Vec<(IpAddr, IpAddr)>, Vec<IpAddr>, Expected);
        let rows: [Row<'_>; 6] = [
            ("all is allowed", vec![], vec![client, node], all.clone()),
            ("nothing is", vec![(client, a), (client, b)], vec![client], Expected::Dropped),
            ("one pod denies", vec![(client, a)], vec![client], Expected::Anything),
            ("a source that cannot be", vec![(node, a), (node, b)], vec![client], all.clone()),
            ("a source that can be", vec![(node, a), (node, b)], vec![client, node], Expected::Anything),
            ("a source of the other family", vec![], vec![client, address("fd00::1")], all.clone()),
        ];
        for (what, denied, sources, expected) in rows {
            let judge = |from: IpAddr, to: IpAddr, at: EchoPort| {
                assert_eq!(at, EchoPort::tcp(8080), "{what}: the pod's port");
                !denied.contains(&(from, to))
            };
            assert_eq!(
                where_judged(all.clone(), &plan, service, front, &sources, &judge),
                expected,
                "{what}"
            );
        }
        let refused = where_judged(Expected::Refused, &plan, service, front, &[client], &|_, _, _| false);
        assert_eq!(refused, Expected::Refused, "nobody is there to deny");
    }
}
