//! The pods that the workload controllers would make.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::{Cluster, Object, namespace_of};

/// A pod, and the workload that made it, if any did.
pub(crate) struct MadePod {
    /// The pod.
    pub(crate) pod: Pod,
    /// `Deployment default/web`; pods of one owner are spread over the nodes.
    pub(crate) owner: Option<String>,
}

/// All pods: the user's own, then those of the workloads. A pod that the user gave under the name of one that a
/// workload would make takes that one's place, which is how a test changes the state of a single replica.
pub(crate) fn pods(cluster: &Cluster, nodes: &[String]) -> Vec<MadePod> {
    let mut pods: Vec<MadePod> = Vec::new();
    for object in cluster.objects() {
        if let Object::Pod(pod) = object {
            pods.push(MadePod { pod: pod.clone(), owner: None });
        }
    }
    for object in cluster.objects() {
        for (pod, owner) in made_by(object, nodes) {
            match pods.iter_mut().find(|known| same_name(&known.pod.metadata, &pod.metadata)) {
                Some(known) => known.owner = Some(owner),
                None => pods.push(MadePod { pod, owner: Some(owner) }),
            }
        }
    }
    pods
}

fn same_name(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.name == b.name && namespace_of(a) == namespace_of(b)
}

fn made_by(object: &Object, nodes: &[String]) -> Vec<(Pod, String)> {
    let numbered = |first: i32, replicas: Option<i32>| {
        (0..replicas.unwrap_or(1)).map(|index| ((first + index).to_string(), None)).collect::<Vec<_>>()
    };
    let (meta, template, suffixes) = match object {
        Object::Deployment(o) => (&o.metadata, Some(&o.spec.template), numbered(1, o.spec.replicas)),
        Object::ReplicaSet(o) => (&o.metadata, o.spec.template.as_ref(), numbered(1, o.spec.replicas)),
        Object::StatefulSet(o) => (&o.metadata, Some(&o.spec.template), numbered(0, o.spec.replicas)),
        Object::DaemonSet(o) => {
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
