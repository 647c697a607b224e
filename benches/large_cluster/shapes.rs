//! The JSON of objects as an API server returns it, with all fields that components of Kubernetes set: only a few are in use, but
//! all are transferred.

use serde_json::{Value, json};

const CREATED: &str = "2026-11-02T08:14:31Z";

/// An entry of `managedFields` with these fields: `spec/containers` is `f:spec` with `f:containers`, and `~1` is a slash.
fn managed(manager: &str, subresource: Option<&str>, version: &str, fields: &[&str]) -> Value {
    let mut tree = json!({});
    for path in fields {
        let mut at = &mut tree;
        for part in path.split('/') {
            let key = part.replace("~1", "/");
            at = &mut at[if key.starts_with("k:") { key } else { format!("f:{key}") }];
            if at.is_null() {
                *at = json!({});
            }
        }
    }
    let mut entry = json!({
        "manager": manager, "operation": "Update", "apiVersion": version, "time": CREATED,
        "fieldsType": "FieldsV1", "fieldsV1": tree,
    });
    if let Some(subresource) = subresource {
        entry["subresource"] = subresource.into();
    }
    entry
}

/// A pod of a Deployment with one container; `Running` and ready.
pub(crate) fn pod() -> Value {
    let of_controller = [
        "metadata/annotations/prometheus.io~1port",
        "metadata/annotations/prometheus.io~1scrape",
        "metadata/generateName",
        "metadata/labels/app.kubernetes.io~1instance",
        "metadata/labels/app.kubernetes.io~1name",
        "metadata/labels/app.kubernetes.io~1version",
        "metadata/labels/pod-template-hash",
        "metadata/ownerReferences/k:{\"uid\":\"@@owner@@\"}",
        "spec/containers/k:{\"name\":\"@@app@@\"}/env/k:{\"name\":\"LOG_LEVEL\"}/name",
        "spec/containers/k:{\"name\":\"@@app@@\"}/env/k:{\"name\":\"LOG_LEVEL\"}/value",
        "spec/containers/k:{\"name\":\"@@app@@\"}/env/k:{\"name\":\"POD_IP\"}/valueFrom/fieldRef",
        "spec/containers/k:{\"name\":\"@@app@@\"}/image",
        "spec/containers/k:{\"name\":\"@@app@@\"}/imagePullPolicy",
        "spec/containers/k:{\"name\":\"@@app@@\"}/livenessProbe/httpGet/path",
        "spec/containers/k:{\"name\":\"@@app@@\"}/livenessProbe/httpGet/port",
        "spec/containers/k:{\"name\":\"@@app@@\"}/ports/k:{\"containerPort\":8080,\"protocol\":\"TCP\"}/containerPort",
        "spec/containers/k:{\"name\":\"@@app@@\"}/ports/k:{\"containerPort\":8080,\"protocol\":\"TCP\"}/name",
        "spec/containers/k:{\"name\":\"@@app@@\"}/readinessProbe/httpGet/path",
        "spec/containers/k:{\"name\":\"@@app@@\"}/resources/limits/memory",
        "spec/containers/k:{\"name\":\"@@app@@\"}/resources/requests/cpu",
        "spec/containers/k:{\"name\":\"@@app@@\"}/terminationMessagePath",
        "spec/dnsPolicy",
        "spec/enableServiceLinks",
        "spec/restartPolicy",
        "spec/schedulerName",
        "spec/securityContext",
        "spec/serviceAccountName",
        "spec/terminationGracePeriodSeconds",
    ];
    let of_kubelet = [
        "status/conditions/k:{\"type\":\"ContainersReady\"}/lastTransitionTime",
        "status/conditions/k:{\"type\":\"ContainersReady\"}/status",
        "status/conditions/k:{\"type\":\"Initialized\"}/lastTransitionTime",
        "status/conditions/k:{\"type\":\"Initialized\"}/status",
        "status/conditions/k:{\"type\":\"PodReadyToStartContainers\"}/status",
        "status/conditions/k:{\"type\":\"Ready\"}/lastTransitionTime",
        "status/conditions/k:{\"type\":\"Ready\"}/status",
        "status/containerStatuses",
        "status/hostIP",
        "status/hostIPs",
        "status/observedGeneration",
        "status/phase",
        "status/podIP",
        "status/podIPs/k:{\"ip\":\"@@ip@@\"}/ip",
        "status/startTime",
    ];
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": CREATED, "observedGeneration": 1});
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(condition);
    let probe = |path: &str| {
        json!({
            "httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3,
        })
    };
    let mount = json!({"name": "kube-api-access-@@hash@@", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "@@name@@", "generateName": "@@app@@-@@hash@@-", "namespace": "@@namespace@@", "uid": "@@uid@@",
            "resourceVersion": "@@revision@@", "generation": 1, "creationTimestamp": CREATED,
            "labels": {
                "app.kubernetes.io/instance": "@@app@@", "app.kubernetes.io/name": "@@app@@",
                "app.kubernetes.io/version": "@@version@@", "pod-template-hash": "@@hash@@",
            },
            "annotations": {"prometheus.io/port": "9090", "prometheus.io/scrape": "true", "kubectl.kubernetes.io/restartedAt": CREATED},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "@@app@@-@@hash@@", "uid": "@@owner@@",
                "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [
                managed("kube-controller-manager", None, "v1", &of_controller),
                managed("kubelet", Some("status"), "v1", &of_kubelet),
            ],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-@@hash@@", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}],
            "containers": [{
                "name": "@@app@@", "image": "registry.example.com/shop/@@app@@:1.42.7", "imagePullPolicy": "IfNotPresent",
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                ],
                "env": [
                    {"name": "LOG_LEVEL", "value": "info"},
                    {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "@@app@@-database", "key": "url"}}},
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                ],
                "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "256Mi"}},
                "volumeMounts": [mount.clone()], "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "@@app@@", "serviceAccount": "@@app@@", "nodeName": "@@node@@", "securityContext": {},
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
        },
        "status": {
            "observedGeneration": 1, "phase": "Running",
            "conditions": conditions,
            "hostIP": "@@nodeip@@", "hostIPs": [{"ip": "@@nodeip@@"}], "podIP": "@@ip@@", "podIPs": [{"ip": "@@ip@@"}],
            "startTime": CREATED, "qosClass": "Burstable",
            "containerStatuses": [{
                "name": "@@app@@", "state": {"running": {"startedAt": CREATED}}, "lastState": {}, "ready": true, "restartCount": 0,
                "image": "registry.example.com/shop/@@app@@:1.42.7", "started": true,
                "imageID": "registry.example.com/shop/@@app@@@sha256:3fbc632167424a6d997e74f52b878d7cc478225cffac6bc977eedfe51c7f4e79",
                "containerID": "containerd://6a9f2c0de1b84c3f9a57d4e8b1c60f72a9d35e4c1f80b7d2e6a4c9b8f7d1e053",
                "allocatedResources": {"cpu": "250m", "memory": "256Mi"},
                "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "256Mi"}},
                "volumeMounts": [mount], "user": {"linux": {"uid": 1000, "gid": 1000, "supplementalGroups": [1000]}},
            }],
        },
    })
}

/// A node, with the 50 images that a kubelet reports at most.
pub(crate) fn node() -> Value {
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": format!("kubelet reports {reason}"),
            "lastHeartbeatTime": CREATED, "lastTransitionTime": CREATED,
        })
    };
    let image = |n: usize| {
        json!({
            "names": [
                format!("registry.example.com/shop/image-{n:02}@sha256:3fbc632167424a6d997e74f52b878d7cc478225cffac6bc977eedfe51c7f4e79"),
                format!("registry.example.com/shop/image-{n:02}:1.42.7"),
            ],
            "sizeBytes": 48_123_456 + n,
        })
    };
    let resources = json!({"cpu": "32", "ephemeral-storage": "203056560Ki", "memory": "131071232Ki", "pods": "110", "hugepages-2Mi": "0"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "@@node@@", "uid": "@@uid@@", "resourceVersion": "@@revision@@", "creationTimestamp": CREATED,
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/instance-type": "m7.8xlarge", "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": "@@node@@", "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "m7.8xlarge", "topology.kubernetes.io/region": "eu-west-1",
                "topology.kubernetes.io/zone": "eu-west-1@@team@@", "example.com/node-pool": "general",
            },
            "annotations": {"node.alpha.kubernetes.io/ttl": "300", "volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            "managedFields": [managed("kubelet", Some("status"), "v1", &[
                "metadata/labels/kubernetes.io~1hostname", "status/allocatable/memory", "status/capacity/memory",
                "status/conditions/k:{\"type\":\"Ready\"}/lastHeartbeatTime", "status/conditions/k:{\"type\":\"DiskPressure\"}/lastHeartbeatTime",
                "status/conditions/k:{\"type\":\"MemoryPressure\"}/lastHeartbeatTime", "status/images", "status/nodeInfo/bootID",
            ])],
        },
        "spec": {"podCIDR": "@@ip@@", "podCIDRs": ["@@ip@@"], "providerID": "cloud:///eu-west-1/@@uid@@"},
        "status": {
            "capacity": resources.clone(), "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"), condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"), condition("Ready", "True", "KubeletReady"),
            ],
            "addresses": [{"type": "InternalIP", "address": "@@nodeip@@"}, {"type": "Hostname", "address": "@@node@@"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": "ec2a9f2c0de1b84c3f9a57d4e8b1c60f", "systemUUID": "@@uid@@", "bootID": "@@uid@@", "kernelVersion": "6.12.48-cloud",
                "osImage": "Debian GNU/Linux 13 (trixie)", "containerRuntimeVersion": "containerd://2.1.4", "kubeletVersion": "v1.36.2",
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
            "images": (0..50).map(image).collect::<Vec<_>>(),
        },
    })
}

/// A ClusterIP Service with one port.
pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "@@app@@", "namespace": "@@namespace@@", "uid": "@@uid@@", "resourceVersion": "@@revision@@", "creationTimestamp": CREATED,
            "labels": {"app.kubernetes.io/instance": "@@app@@", "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": "@@app@@"},
            "annotations": {"meta.helm.sh/release-name": "@@app@@", "meta.helm.sh/release-namespace": "@@namespace@@"},
            "managedFields": [managed("helm", None, "v1", &[
                "metadata/annotations/meta.helm.sh~1release-name", "metadata/labels/app.kubernetes.io~1name", "spec/internalTrafficPolicy",
                "spec/ports/k:{\"port\":80,\"protocol\":\"TCP\"}/name", "spec/ports/k:{\"port\":80,\"protocol\":\"TCP\"}/targetPort",
                "spec/selector", "spec/sessionAffinity", "spec/type",
            ])],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "@@ip@@", "clusterIPs": ["@@ip@@"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "selector": {"app.kubernetes.io/name": "@@app@@"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// An EndpointSlice, whose endpoints are [`endpoint`]s.
pub(crate) fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "@@app@@-@@hash@@", "generateName": "@@app@@-", "namespace": "@@namespace@@", "uid": "@@uid@@",
            "resourceVersion": "@@revision@@", "generation": 4, "creationTimestamp": CREATED,
            "labels": {
                "app.kubernetes.io/instance": "@@app@@", "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": "@@app@@",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io", "kubernetes.io/service-name": "@@app@@",
            },
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": CREATED},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "@@app@@", "uid": "@@owner@@", "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [managed("kube-controller-manager", None, "discovery.k8s.io/v1", &[
                "addressType", "endpoints", "metadata/annotations/endpoints.kubernetes.io~1last-change-trigger-time", "metadata/generateName",
                "metadata/labels/app.kubernetes.io~1name", "metadata/labels/endpointslice.kubernetes.io~1managed-by",
                "metadata/labels/kubernetes.io~1service-name", "metadata/ownerReferences/k:{\"uid\":\"@@owner@@\"}", "ports",
            ])],
        },
        "endpoints": "@@endpoints@@",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
}

/// An endpoint of a slice.
pub(crate) fn endpoint(is_ready: bool, is_terminating: bool) -> Value {
    json!({
        "addresses": ["@@ip@@"], "conditions": {"ready": is_ready, "serving": true, "terminating": is_terminating},
        "nodeName": "@@node@@", "zone": "eu-west-1@@team@@",
        "targetRef": {"kind": "Pod", "namespace": "@@namespace@@", "name": "@@name@@", "uid": "@@uid@@"},
    })
}

/// A namespace with a team, which others share.
pub(crate) fn namespace() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": "@@namespace@@", "uid": "@@uid@@", "resourceVersion": "@@revision@@", "creationTimestamp": CREATED,
            "labels": {"kubernetes.io/metadata.name": "@@namespace@@", "example.com/team": "@@team@@", "pod-security.kubernetes.io/enforce": "baseline"},
            "managedFields": [managed("kubectl-create", None, "v1", &["metadata/labels/kubernetes.io~1metadata.name", "metadata/labels/example.com~1team"])],
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

/// A policy of a namespace with these rules.
fn policy(name: &str, selector: &Value, ingress: &Value, egress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": name, "namespace": "@@namespace@@", "uid": "@@uid@@", "resourceVersion": "@@revision@@", "generation": 1,
            "creationTimestamp": CREATED, "labels": {"app.kubernetes.io/managed-by": "argocd"},
            "managedFields": [managed("argocd-controller", None, "networking.k8s.io/v1", &[
                "metadata/labels/app.kubernetes.io~1managed-by", "spec/egress", "spec/ingress", "spec/podSelector", "spec/policyTypes",
            ])],
        },
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress},
    })
}

/// The policy of all pods of a namespace: traffic within the namespace, metrics, DNS, and the outside. With `is_open`, all pods of
/// the cluster may connect to its port `http`.
pub(crate) fn default_policy(is_open: bool) -> Value {
    let by_name =
        |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let mut ingress = json!([
        {"from": [{"podSelector": {}}]},
        {"from": [by_name("team-000")], "ports": [{"port": "metrics", "protocol": "TCP"}]},
    ]);
    if is_open {
        let rule =
            json!({"from": [{"namespaceSelector": {}}], "ports": [{"port": "http", "protocol": "TCP"}]});
        ingress.as_array_mut().expect("it is a list").push(rule);
    }
    let egress = json!([
        {"to": [{"podSelector": {}}]},
        {"to": [by_name("team-001")], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443, "protocol": "TCP"}]},
    ]);
    policy("default", &json!({}), &ingress, &egress)
}

/// A policy of one app: the namespaces of the same team may connect.
pub(crate) fn app_policy() -> Value {
    let from = json!({"namespaceSelector": {"matchLabels": {"example.com/team": "@@team@@"}}});
    let ingress = json!([{"from": [from.clone()], "ports": [{"port": "http", "protocol": "TCP"}]}]);
    let egress = json!([{"to": [from], "ports": [{"port": "http", "protocol": "TCP"}]}]);
    policy(
        "app-@@number@@",
        &json!({"matchLabels": {"app.kubernetes.io/name": "@@app@@"}}),
        &ingress,
        &egress,
    )
}
