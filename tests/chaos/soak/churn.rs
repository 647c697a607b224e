//! Changes during a soak: many Services whose endpoints come and go, pods with new names, and policies.

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::objects;
use crate::policies;
use crate::pools::{ALL_PODS, NODE, PODS, SERVICES, STABLE, ServiceSlot};
use crate::random::Random;

/// Number of Services without servers, and the largest number of their endpoints.
const BACKGROUND_SERVICES: usize = 200;
const ENDPOINTS: usize = 8;

/// Number of pods at a time that exist as objects only.
const BACKGROUND_PODS: usize = 60;

/// The node port of the Service `fixed/stable`.
pub(super) const STABLE_NODE_PORT: u16 = 32_500;

pub(super) struct Churn {
    random: Random,
    policies: bool,
    /// The numbers of pods: each pod gets a new name, as those of Jobs and Deployments.
    pods: std::collections::VecDeque<u64>,
    next_pod: u64,
    pub(super) changes: usize,
}

impl Churn {
    /// Creates all objects.
    pub(super) fn start(server: &ApiServer, policies: bool) -> Self {
        let random = Random::new(1);
        let mut churn =
            Churn { random, policies, pods: std::collections::VecDeque::new(), next_pod: 0, changes: 0 };
        crate::pools::fixed_objects().into_iter().chain([with_node_port()]).for_each(|object| {
            server.apply(object);
        });
        ALL_PODS[..PODS].iter().for_each(|slot| {
            server.apply(objects::pod(*slot, "web"));
        });
        for number in 0..BACKGROUND_SERVICES {
            server.apply(background_service(number));
            server.apply(churn.background_slice(number));
        }
        (0..BACKGROUND_PODS).for_each(|_| churn.replace_pod(server));
        churn.changes = 0;
        churn
    }

    /// Makes one change.
    pub(super) fn step(&mut self, server: &ApiServer) {
        self.changes += 1;
        let number = self.random.below(BACKGROUND_SERVICES);
        match self.random.below(if self.policies { 100 } else { 70 }) {
            0..=44 => _ = server.apply(self.background_slice(number)),
            45..=54 => {
                // A Service is deleted and created again, with its slice.
                server.delete("services", &format!("soak/b{number}"));
                server.apply(background_service(number));
            }
            55..=64 => {
                let slot = ServiceSlot::new(self.random.below(SERVICES));
                server.apply(objects::random_service(&mut self.random, &slot));
            }
            65..=69 => {
                let slot = ServiceSlot::new(self.random.below(SERVICES));
                server.apply(objects::random_slice(&mut self.random, &slot));
            }
            70..=84 => self.replace_pod(server),
            85..=89 => _ = server.apply(objects::random_pod(&mut self.random)),
            90..=95 => _ = server.apply(policies::random_network_policy(&mut self.random)),
            _ => _ = server.apply(policies::random_cluster_network_policy(&mut self.random)),
        }
    }

    fn background_slice(&mut self, number: usize) -> Value {
        let count = self.random.below(ENDPOINTS + 1);
        let endpoints: Vec<Value> = (0..count)
            .map(|_| {
                let address = format!("10.244.3.{}", 10 + self.random.below(200));
                json!({"addresses": [address], "nodeName": "node-3", "conditions": {"ready": self.random.chance(85)}})
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("b{number}-1"), "namespace": "soak",
                "labels": {"kubernetes.io/service-name": format!("b{number}")}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }

    /// Creates a pod with a new name, and deletes the oldest one.
    fn replace_pod(&mut self, server: &ApiServer) {
        let number = self.next_pod;
        self.next_pod += 1;
        if self.policies {
            server.apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("job-{number}"), "namespace": "a",
                    "labels": {"app": self.random.pick(&["web", "db"]), "job": format!("job-{number}")}},
                "spec": {"nodeName": if number.is_multiple_of(3) { NODE } else { "node-3" },
                    "containers": [{"name": "c", "ports": [{"name": format!("port-{number}"), "containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.3.{}", 10 + number % 200)}]},
            }));
        }
        self.pods.push_back(number);
        if self.pods.len() > BACKGROUND_PODS {
            let oldest = self.pods.pop_front().expect("it is not empty");
            if self.policies {
                server.delete("pods", &format!("a/job-{oldest}"));
            }
        }
    }
}

fn background_service(number: usize) -> Value {
    let ip = format!("10.97.{}.{}", number / 200, 1 + number % 200);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("b{number}"), "namespace": "soak", "uid": format!("b{number}")},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "sessionAffinity": if number.is_multiple_of(10) { "ClientIP" } else { "None" },
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

/// Returns the Service `fixed/stable` with a node port.
fn with_node_port() -> Value {
    let mut objects = crate::pools::fixed_objects().into_iter();
    let mut service = objects.find(|object| object["kind"] == "Service").expect("there is one");
    service["spec"]["type"] = "NodePort".into();
    service["spec"]["ports"][0]["nodePort"] = STABLE_NODE_PORT.into();
    assert_eq!(service["spec"]["clusterIP"], STABLE.ip().to_string());
    service
}
