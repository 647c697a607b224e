//! Truth tables of a step: connections from every pod to every pod, and to every Service with a single pod.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use portcullis_lab::{EchoPort, Family, Lab, Matrix, MatrixOptions, MatrixPeer, MatrixProbe};

use crate::case::Expect;
use crate::service_of_pod::services_of_pods;

/// Timeout of a probe. Replies take a few milliseconds, and probes that expect one are repeated. Probes that expect none
/// count as lost after the timeout, so it is longer on a busy machine.
pub(crate) fn wait() -> Duration {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let processors = thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    Duration::from_millis(250).mul_f64((load / processors).clamp(1.0, 10.0))
}

/// Probes the tables.
pub(crate) fn probe(lab: &Lab, expect: &Expect) -> Matrix {
    let plan = lab.plan();
    let pods: Vec<MatrixPeer> =
        expect.columns.iter().map(|name| MatrixPeer::pod(plan, name).unwrap()).collect();
    let services = services_of_pods(plan);
    let mut to = pods.clone();
    to.extend(services.iter().map(|service| service.end.clone()));
    let ports: BTreeSet<EchoPort> = expect.ports().into_iter().collect();
    let options = MatrixOptions { timeout: wait(), ..MatrixOptions::new(pods, to, ports) };
    // NetworkPolicies allow a pod to reach itself through a Service; ClusterNetworkPolicies evaluate that like any other
    // connection, and the tables have no such cells.
    let evaluates_self = plan.others.iter().any(|other| other["kind"] == "ClusterNetworkPolicy");
    let expected = |question: &MatrixProbe<'_>| {
        let pod = match services.iter().find(|service| service.end == *question.to) {
            None => question.to.name(),
            Some(service) if evaluates_self && service.pod == question.from.name() => return None,
            Some(service) if service.ports.contains(&question.port) => &service.pod,
            Some(_) => return None,
        };
        expect.allows(question.from.name(), pod, question.port, question.family)
    };
    lab.matrix(&options, expected).unwrap()
}

/// Compares the columns of a table with the running pods. Returns pods without a column and columns without a pod.
pub(crate) fn missing(lab: &Lab, expect: &Expect) -> Vec<String> {
    let pods = MatrixPeer::pods(lab.plan());
    let named = |name: &str| expect.columns.iter().any(|column| column == name);
    let unlisted = pods.iter().map(MatrixPeer::name).filter(|name| !named(name)).map(str::to_owned);
    let without = expect.columns.iter().filter(|name| {
        let end = MatrixPeer::pod(lab.plan(), name);
        end.is_ok_and(|end| Family::BOTH.iter().all(|family| end.address_of(*family).is_none()))
    });
    unlisted.chain(without.cloned()).collect()
}
