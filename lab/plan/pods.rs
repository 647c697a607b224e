//! Scheduling of pods to nodes, and their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses::{AddressPool, Family};
use super::workloads::{self, WorkloadPod};
use super::{CLIENT_NAMESPACE, ClusterPlan, NodePlan, PlanOptions, PodPlan};
use crate::cluster_objects::{ClusterObjects, LabObject, namespace_of};
use crate::error::{Error, Result};

pub(super) fn plan(
    cluster: &ClusterObjects,
    before: &ClusterPlan,
    options: &PlanOptions,
    nodes: &[NodePlan],
) -> Result<Vec<PodPlan>> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let mut made = workloads::pods(cluster, &names);
    if options.clients {
        made.extend(names.iter().map(|node| client(node)));
    }
    let mut pods = schedule(made, before, nodes)?;
    address(&mut pods, cluster, nodes)?;
    for pod in &mut pods {
        fill_in(pod, nodes);
    }
    Ok(pods)
}

fn client(node: &str) -> WorkloadPod {
    let metadata = ObjectMeta {
        name: Some(format!("client-{node}")),
        namespace: Some(CLIENT_NAMESPACE.into()),
        ..Default::default()
    };
    let spec = PodSpec { node_name: Some(node.to_owned()), ..Default::default() };
    WorkloadPod { pod: Pod { metadata, spec: Some(spec), status: None }, owner: None }
}

/// Assigns each pod to a node: the node that it names, or its previous node, or of the nodes that its `nodeSelector`
/// allows the one with the fewest pods of the same owner, then the fewest pods.
fn schedule(made: Vec<WorkloadPod>, before: &ClusterPlan, nodes: &[NodePlan]) -> Result<Vec<PodPlan>> {
    let mut load: BTreeMap<(&str, Option<String>), usize> = BTreeMap::new();
    let mut pods = Vec::new();
    for WorkloadPod { pod: object, owner } in made {
        let own_name = object.metadata.name.as_deref().unwrap_or_default();
        let name = format!("{}/{own_name}", namespace_of(&object.metadata));
        let spec = object.spec.as_ref();
        let previous = before.pod(&name);
        let named = spec
            .and_then(|spec| spec.node_name.as_deref())
            .or(previous.map(|previous| previous.node.as_str()));
        let selector = spec.and_then(|spec| spec.node_selector.clone()).unwrap_or_default();
        let allowed = nodes.iter().filter(|node| {
            let labels = node.object.metadata.labels.as_ref();
            named.is_none_or(|named| node.name == named)
                && (named.is_some()
                    || selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value)))
        });
        let of = |node: &str, owner: &Option<String>, load: &BTreeMap<_, usize>| {
            nodes
                .iter()
                .find(|n| n.name == node)
                .and_then(|n| load.get(&(n.name.as_str(), owner.clone())).copied())
        };
        let node = allowed.min_by_key(|node| {
            let own = owner.as_ref().and_then(|_| of(&node.name, &owner, &load)).unwrap_or(0);
            (own, of(&node.name, &None, &load).unwrap_or(0))
        });
        let node = node.ok_or_else(|| {
            Error::plan(
                format!("Pod {name}"),
                "no node matches its `nodeSelector`; expected a Node with its labels",
            )
        })?;
        *load.entry((&node.name, None)).or_default() += 1;
        if owner.is_some() {
            *load.entry((&node.name, owner)).or_default() += 1;
        }
        let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
        let mut addresses = given_addresses(&object, &name)?;
        let has_ended = is_phase(&object, &["Succeeded", "Failed"]);
        let is_waiting = addresses.is_empty() && is_phase(&object, &["Pending"]);
        let is_running = !has_ended && !is_waiting;
        if !is_running {
            addresses.clear();
        } else if host_network {
            addresses.clone_from(&node.addresses);
        } else if let (true, Some(previous)) =
            (addresses.is_empty(), previous.filter(|previous| previous.node == node.name))
        {
            addresses.clone_from(&previous.addresses);
        }
        let ports = Default::default();
        pods.push(PodPlan {
            name,
            node: node.name.clone(),
            addresses,
            is_running,
            host_network,
            ports,
            object,
        });
    }
    Ok(pods)
}

fn is_phase(pod: &Pod, phases: &[&str]) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.is_some_and(|phase| phases.contains(&phase))
}

fn given_addresses(pod: &Pod, name: &str) -> Result<Vec<IpAddr>> {
    let Some(status) = &pod.status else { return Ok(Vec::new()) };
    let mut texts: Vec<&String> = status.pod_ips.iter().flatten().map(|ip| &ip.ip).collect();
    if texts.is_empty() {
        texts.extend(&status.pod_ip);
    }
    let parsed = texts.into_iter().filter(|text| !text.is_empty()).map(|text| {
        text.parse().map_err(|_| {
            Error::plan(format!("Pod {name}"), format!("expected an IP address, found {text:?}"))
        })
    });
    parsed.collect()
}

/// Allocates addresses for pods without any, one from each pod CIDR of their node. Addresses in the user's EndpointSlices
/// are reserved.
fn address(pods: &mut [PodPlan], cluster: &ClusterObjects, nodes: &[NodePlan]) -> Result<()> {
    let mut taken: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
    for object in cluster.objects() {
        if let LabObject::EndpointSlice(slice) = object {
            let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            taken.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
        }
    }
    for node in nodes {
        // The network's first address is the node's, on the bridge.
        let mut pools: Vec<AddressPool> =
            node.pod_cidrs.iter().map(|net| AddressPool::new(net.trunc(), 2)).collect();
        pools.iter_mut().for_each(|pool| taken.iter().for_each(|address| pool.reserve(*address)));
        let needs_addresses =
            |pod: &&mut PodPlan| pod.is_running && pod.node == node.name && pod.addresses.is_empty();
        for pod in pods.iter_mut().filter(needs_addresses) {
            for pool in &mut pools {
                let address = pool.take();
                let full = || {
                    let message = format!("no free address in pod CIDR {}", pool.net());
                    Error::plan(format!("Node {}", node.name), message)
                };
                pod.addresses.push(address.ok_or_else(full)?);
            }
        }
    }
    Ok(())
}

fn fill_in(pod: &mut PodPlan, nodes: &[NodePlan]) {
    let object = &mut pod.object;
    object.metadata.namespace = Some(namespace_of(&object.metadata).to_owned());
    if !pod.is_running {
        return;
    }
    object.spec.get_or_insert_default().node_name = Some(pod.node.clone());
    let status = object.status.get_or_insert_with(PodStatus::default);
    // The user's spelling of addresses is kept: a daemon must accept every spelling.
    if status.pod_ips.as_ref().is_none_or(Vec::is_empty) {
        status.pod_ip = pod.addresses.first().map(IpAddr::to_string);
        status.pod_ips = Some(pod.addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    }
    if let Some(node) = nodes.iter().find(|node| node.name == pod.node && status.host_ips.is_none()) {
        status.host_ip = node.addresses.first().map(IpAddr::to_string);
        status.host_ips = Some(node.addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    }
    status.phase.get_or_insert_with(|| "Running".into());
    if !status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready") {
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..Default::default() };
        status.conditions.get_or_insert_default().push(ready);
    }
}

/// Returns pods for endpoints whose address belongs to no pod, so that Services and EndpointSlices without pods can be
/// probed. Endpoints outside of every pod CIDR and without a node name are outside of the cluster and get no pod.
pub(super) fn placeholder_pods(
    slices: &[EndpointSlice],
    pods: &[PodPlan],
    nodes: &[NodePlan],
) -> Vec<PodPlan> {
    let mut made: Vec<PodPlan> = Vec::new();
    // If an address is listed twice, the ready endpoint determines the node.
    for wants_ready in [true, false] {
        for (slice, endpoint) in endpoints_of(slices).filter(|(_, e)| is_ready_endpoint(e) == wants_ready) {
            let Some(address) = endpoint.addresses.first().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
                continue;
            };
            if pods.iter().chain(&made).any(|pod| pod.addresses.contains(&address)) {
                continue;
            }
            let node = match endpoint.node_name.as_deref() {
                Some(name) => nodes.iter().find(|node| node.name == name),
                None => nodes.iter().find(|node| node.pod_cidrs.iter().any(|net| net.contains(&address))),
            };
            let Some(node) = node.filter(|node| !node.addresses.contains(&address)) else { continue };
            let target = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            let own_name =
                target.unwrap_or_else(|| format!("at-{}", address.to_string().replace([':', '.'], "-")));
            let namespace = namespace_of(&slice.metadata).to_owned();
            let name = format!("{namespace}/{own_name}");
            if pods.iter().any(|pod| pod.name == name && !pod.is_running) {
                continue;
            }
            let previous = made.iter_mut().find(|pod| pod.name == name && pod.node == node.name);
            if let Some(previous) = previous.filter(|pod| !has_family(pod, Family::from_ip(address))) {
                previous.addresses.push(address);
                continue;
            }
            let metadata =
                ObjectMeta { name: Some(own_name), namespace: Some(namespace), ..Default::default() };
            made.push(PodPlan {
                name,
                node: node.name.clone(),
                addresses: vec![address],
                is_running: true,
                host_network: false,
                ports: Default::default(),
                object: Pod { metadata, ..Default::default() },
            });
        }
    }
    made.iter_mut().for_each(|pod| fill_in(pod, nodes));
    made
}

fn endpoints_of(slices: &[EndpointSlice]) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
    slices.iter().flat_map(|slice| slice.endpoints.iter().flatten().map(move |endpoint| (slice, endpoint)))
}

/// Returns true if an endpoint is ready. An unset condition means ready, see the API reference.
fn is_ready_endpoint(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

fn has_family(pod: &PodPlan, family: Family) -> bool {
    pod.addresses.iter().any(|address| Family::from_ip(*address) == family)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_given_status_is_kept_unchanged() {
        let live = "{phase: Running, hostIP: 1.2.3.4, hostIPs: [{ip: 1.2.3.4}], podIP: 'FD00:10:244:1::A', podIPs: [{ip: 'FD00:10:244:1::A'}]}";
        let done = "{phase: Succeeded, podIP: 10.244.1.9, podIPs: [{ip: 10.244.1.9}]}";
        // status · whether the pod is running · its addresses · whether the status stays unchanged
        let rows: &[(&str, bool, &[&str], bool)] = &[
            (live, true, &["fd00:10:244:1::a"], true),
            (done, false, &[], true),
            ("{phase: Failed, podIPs: [{ip: 'fd00::9'}]}", false, &[], true),
            ("{phase: Pending}", false, &[], true),
            ("{phase: Pending, podIPs: []}", false, &[], true),
            ("{phase: Pending, podIPs: [{ip: 10.244.1.77}]}", true, &["10.244.1.77"], false),
            ("{phase: Running}", true, &["10.244.1.2", "fd00:10:244:1::2"], false),
            ("{phase: Running, podIPs: [{ip: 10.244.1.9}]}", true, &["10.244.1.9"], false),
        ];
        for (status, is_running, addresses, same) in rows {
            let plan = ClusterObjects::parse(&format!(
                    "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{nodeName: node-1}}, status: {status}}}"
                ))
                .unwrap()
                .plan()
                .unwrap();
            let pod = plan.pod("p").unwrap();
            let found: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(
                (pod.is_running, found.iter().map(String::as_str).collect::<Vec<_>>()),
                (*is_running, addresses.to_vec()),
                "{status}"
            );
            let given: Value = serde_saphyr::from_str(status).unwrap();
            let mut kept = serde_json::to_value(&pod.object.status).unwrap();
            if pod.is_running {
                // The condition `Ready` is added.
                kept.as_object_mut().unwrap().remove("conditions");
            }
            let given = serde_json::to_value(serde_json::from_value::<PodStatus>(given).unwrap()).unwrap();
            assert_eq!(kept == given, *same, "{status}: {kept}");
        }
    }
}
