//! The resources that are served.

use serde_json::{Value, json};

/// A resource of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// The `apiVersion` of its objects.
    pub(super) version: &'static str,
    /// Its name in paths.
    pub(super) plural: &'static str,
    /// The kind of its objects.
    pub(super) kind: &'static str,
    /// True if it is namespaced.
    pub(super) namespaced: bool,
}

const fn resource(
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { version, plural, kind, namespaced }
}

static RESOURCES: [Resource; 11] = [
    resource("v1", "nodes", "Node", false),
    resource("v1", "services", "Service", true),
    resource("v1", "namespaces", "Namespace", false),
    resource("v1", "pods", "Pod", true),
    resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
    resource("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", false),
    resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", true),
    resource("policy.networking.k8s.io/v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy", false),
    resource("policy.networking.k8s.io/v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy", false),
    resource(
        "policy.networking.k8s.io/v1alpha1",
        "baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicy",
        false,
    ),
    resource("events.k8s.io/v1", "events", "Event", true),
];

impl Resource {
    /// Returns the resource of an object.
    pub(super) fn of(object: &Value) -> &'static Resource {
        let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let found = RESOURCES.iter().find(|r| Some(r.version) == version && Some(r.kind) == kind);
        found.unwrap_or_else(|| panic!("this server has no {version:?} {kind:?}; add it to RESOURCES"))
    }

    pub(super) fn by_plural(plural: &str) -> &'static Resource {
        let found = RESOURCES.iter().find(|r| r.plural == plural);
        found.unwrap_or_else(|| panic!("this server has no {plural}; add it to RESOURCES"))
    }

    /// Returns all resources of an `apiVersion`.
    pub(super) fn of_version(version: &str) -> impl Iterator<Item = &'static Resource> {
        RESOURCES.iter().filter(move |resource| resource.version == version)
    }

    /// Parses a path into resource, namespace and name.
    pub(super) fn at(path: &str) -> Option<(&'static Resource, Option<String>, Option<String>)> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, plural, name) = match rest {
            [plural] => (None, plural, None),
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            [plural, name] => (None, plural, Some(name)),
            _ => return None,
        };
        let found = RESOURCES.iter().find(|r| r.version == version && r.plural == *plural)?;
        let owned = |part: Option<&&str>| part.map(|part| (*part).to_owned());
        Some((found, owned(namespace), owned(name)))
    }

    /// Returns the key of an object in etcd, relative to its resource.
    pub(super) fn key(&self, object: &Value) -> String {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        match (self.namespaced, text("namespace")) {
            (true, namespace) if namespace.is_empty() => format!("/default/{}", text("name")),
            (true, namespace) => format!("/{namespace}/{}", text("name")),
            (false, _) => format!("/{}", text("name")),
        }
    }

    /// Returns the object of a bookmark: empty, except for fields without `omitempty`.
    pub(super) fn bookmark(&self, revision: u64, ends_list: bool) -> Value {
        let mut object = json!({"kind": self.kind, "apiVersion": self.version, "metadata": {"resourceVersion": revision.to_string()}});
        if ends_list {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let always = match self.kind {
            "Service" => json!({"spec": {}, "status": {"loadBalancer": {}}}),
            "EndpointSlice" => json!({"addressType": "", "endpoints": null, "ports": null}),
            _ => json!({"spec": {}, "status": {}}),
        };
        let Value::Object(fields) = always else { unreachable!("it is written as an object above") };
        fields.into_iter().for_each(|(name, value)| object[name] = value);
        object
    }
}
