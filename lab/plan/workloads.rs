//! Pods of Deployments, ReplicaSets, StatefulSets and DaemonSets.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster_objects::{ClusterObjects, LabObject, namespace_of};

/// A pod and its workload, if it has one.
pub(crate) struct WorkloadPod {
    /// The pod.
    pub(crate) pod: Pod,
    /// E.g. `Deployment default/web`; pods of the same owner are spread over the nodes.
    pub(crate) owner: Option<String>,
}

/// Returns all pods: the user's, then those of workloads. A pod of the user replaces a workload's pod of the same name,
/// which lets a test change the status of a single replica.
pub(crate) fn pods(cluster: &ClusterObjects, nodes: &[String]) -> Vec<WorkloadPod> {
    let mut pods: Vec<WorkloadPod> = Vec::new();
    for object in cluster.objects() {
        if let LabObject::Pod(pod) = object {
            pods.push(WorkloadPod { pod: pod.clone(), owner: None });
        }
    }
    for object in cluster.objects() {
        for (pod, owner) in pods_of_workload(object, nodes) {
            match pods.iter_mut().find(|existing| same_name(&existing.pod.metadata, &pod.metadata)) {
                Some(existing) => existing.owner = Some(owner),
                None => pods.push(WorkloadPod { pod, owner: Some(owner) }),
            }
        }
    }
    pods
}

fn same_name(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.name == b.name && namespace_of(a) == namespace_of(b)
}

fn pods_of_workload(object: &LabObject, nodes: &[String]) -> Vec<(Pod, String)> {
    let numbered = |first: i32, replicas: Option<i32>| {
        (0..replicas.unwrap_or(1)).map(|index| ((first + index).to_string(), None)).collect::<Vec<_>>()
    };
    let (meta, template, suffixes) = match object {
        LabObject::Deployment(o) => (&o.metadata, Some(&o.spec.template), numbered(1, o.spec.replicas)),
        LabObject::ReplicaSet(o) => (&o.metadata, o.spec.template.as_ref(), numbered(1, o.spec.replicas)),
        LabObject::StatefulSet(o) => (&o.metadata, Some(&o.spec.template), numbered(0, o.spec.replicas)),
        LabObject::DaemonSet(o) => {
            let suffixes = nodes.iter().map(|node| (node.clone(), Some(node.clone()))).collect();
            (&o.metadata, Some(&o.spec.template), suffixes)
        }
        _ => return Vec::new(),
    };
    let Some(template) = template else { return Vec::new() };
    let owner = object.name();
    suffixes
        .into_iter()
        .map(|(suffix, node)| {
            let name = format!("{}-{suffix}", owner.name);
            (from_template(template, meta, name, node), owner.to_string())
        })
        .collect()
}

fn from_template(template: &PodTemplateSpec, owner: &ObjectMeta, name: String, node: Option<String>) -> Pod {
    let mut metadata = template.metadata.clone().unwrap_or_default();
    metadata.name = Some(name);
    metadata.namespace = Some(namespace_of(owner).to_owned());
    let mut spec = template.spec.clone().unwrap_or_default();
    if node.is_some() {
        spec.node_name = node;
    }
    Pod { metadata, spec: Some(spec), status: None }
}
