//! Independent reference evaluation of policies: directly from the objects' JSON by the rules of the API, one connection
//! at a time, slow and simple. It shares no code with the crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_cluster::Protocol;
use portcullis_policy::evaluation::{Connection, Evaluation, PolicyVerdict};
use serde_json::Value;

/// The cluster's objects, by kind, namespace and name.
#[derive(Clone, Debug, Default)]
pub struct NaiveCluster {
    objects: BTreeMap<(String, String, String), Value>,
}

/// The verdicts at both ends, egress and ingress: true if allowed, `None` if the end is not a pod in scope.
pub type Verdicts = (Option<bool>, Option<bool>);

/// Returns the verdicts of an evaluation without the reasons.
pub fn verdicts(evaluation: &Evaluation) -> Verdicts {
    let of = |decision: &Option<portcullis_policy::evaluation::Decision>| {
        decision.as_ref().map(|decision| decision.verdict == PolicyVerdict::Allow)
    };
    (of(&evaluation.egress), of(&evaluation.ingress))
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn field(self) -> &'static str {
        if self == Direction::Ingress { "ingress" } else { "egress" }
    }

    fn peers(self) -> &'static str {
        if self == Direction::Ingress { "from" } else { "to" }
    }
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl NaiveCluster {
    pub fn apply(&mut self, object: &Value) {
        let key =
            ["/kind", "/metadata/namespace", "/metadata/name"].map(|path| text(object, path).to_owned());
        self.objects.insert(key.into(), object.clone());
    }

    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        self.objects.remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let first = (kind.to_owned(), String::new(), String::new());
        self.objects.range(first..).take_while(move |(key, _)| key.0 == kind).map(|(_, object)| object)
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    /// Evaluates a connection, with the pods of one node in scope or with all pods.
    pub fn evaluate(&self, node: Option<&str>, connection: Connection) -> Verdicts {
        self.evaluate_ends(node, connection, true)
    }

    /// Evaluates packets of a protocol without ports, such as ICMP: only rules for all ports match them.
    pub fn evaluate_without_ports(&self, node: Option<&str>, from: IpAddr, to: IpAddr) -> Verdicts {
        self.evaluate_ends(node, Connection { from, to, port: 0, protocol: Protocol::Tcp }, false)
    }

    fn evaluate_ends(&self, node: Option<&str>, connection: Connection, has_ports: bool) -> Verdicts {
        let end = |address, direction| {
            let pod = self.pod_at(address, node)?;
            Some(End { naive_cluster: self, pod, direction, connection, has_ports }.allows())
        };
        (end(connection.from, Direction::Egress), end(connection.to, Direction::Ingress))
    }

    /// Returns the pod that owns an address, of one node or of all.
    fn pod_at(&self, address: IpAddr, node: Option<&str>) -> Option<&Value> {
        let live = self.all("Pod").filter(|pod| {
            pod["spec"]["hostNetwork"] != true
                && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
                && list(&pod["status"]["podIPs"]).iter().any(|ip| is_address(text(ip, "/ip"), address))
                && node.is_none_or(|node| text(pod, "/spec/nodeName") == node)
        });
        // RFC 3339 in UTC sorts as text.
        live.max_by_key(|pod| {
            let running = pod["metadata"]["deletionTimestamp"].is_null();
            let created = text(pod, "/metadata/creationTimestamp");
            (running, created, text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
        })
    }

    fn namespace_labels(&self, name: &str) -> Value {
        match self.get("Namespace", "", name) {
            Some(namespace) => namespace["metadata"]["labels"].clone(),
            None => serde_json::json!({"kubernetes.io/metadata.name": name}),
        }
    }

    /// Returns true if a node has an address.
    fn is_of_node(&self, node: &Value, address: IpAddr) -> bool {
        list(&node["status"]["addresses"]).iter().any(|entry| {
            matches!(text(entry, "/type"), "InternalIP" | "ExternalIP")
                && is_address(text(entry, "/address"), address)
        })
    }
}

/// One end of a connection, and the pod there.
struct End<'a> {
    naive_cluster: &'a NaiveCluster,
    pod: &'a Value,
    direction: Direction,
    connection: Connection,
    has_ports: bool,
}

impl End<'_> {
    fn peer(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.connection.from,
            Direction::Egress => self.connection.to,
        }
    }

    fn allows(&self) -> bool {
        let node = self.naive_cluster.get("Node", "", text(self.pod, "/spec/nodeName"));
        let own_node = node.is_some_and(|node| self.naive_cluster.is_of_node(node, self.peer()));
        if own_node && self.direction == Direction::Ingress {
            return true;
        }
        match self.tier("Admin") {
            Some("Accept") => return true,
            Some("Deny") => return false,
            _ => {}
        }
        let isolating: Vec<&Value> =
            self.naive_cluster.all("NetworkPolicy").filter(|policy| self.isolates(policy)).collect();
        if !isolating.is_empty() {
            return own_node
                || self.connection.from == self.connection.to
                || isolating.iter().any(|policy| self.is_allowed_by(policy));
        }
        self.tier("Baseline") != Some("Deny")
    }

    /// Returns the action of the first matching rule of a tier.
    fn tier(&self, tier: &str) -> Option<&str> {
        let mut policies: Vec<&Value> = self
            .naive_cluster
            .all("ClusterNetworkPolicy")
            .filter(|policy| text(policy, "/spec/tier") == tier)
            .filter(|policy| policy["spec"]["priority"].as_u64().is_some_and(|n| n <= 1000))
            .filter(|policy| {
                let subject = &policy["spec"]["subject"];
                subject.as_object().is_some_and(|fields| fields.len() == 1)
                    && self.matches_pod(subject, self.pod)
            })
            .collect();
        policies.sort_by_key(|p| (p["spec"]["priority"].as_u64(), text(p, "/metadata/name")));
        let rules = policies.iter().flat_map(|policy| list(&policy["spec"][self.direction.field()]));
        let mut matching = rules.filter(|rule| {
            let peers = list(&rule[self.direction.peers()]);
            let ports = list(&rule["protocols"]);
            peers.iter().any(|peer| self.is_cluster_peer(peer))
                && (ports.is_empty() || ports.iter().any(|port| self.is_cluster_port(port)))
                && matches!(text(rule, "/action"), "Accept" | "Deny" | "Pass")
        });
        matching.next().map(|rule| text(rule, "/action"))
    }

    /// Returns true if a subject or peer of a ClusterNetworkPolicy matches a pod.
    fn matches_pod(&self, found: &Value, pod: &Value) -> bool {
        let namespace = self.naive_cluster.namespace_labels(text(pod, "/metadata/namespace"));
        let labels = &pod["metadata"]["labels"];
        let pods = &found["pods"];
        if pods.is_null() {
            return !found["namespaces"].is_null() && selects(&found["namespaces"], &namespace);
        }
        !pods["podSelector"].is_null()
            && selects(&pods["namespaceSelector"], &namespace)
            && selects(&pods["podSelector"], labels)
    }

    fn is_cluster_peer(&self, peer: &Value) -> bool {
        if peer.as_object().is_none_or(|fields| fields.len() != 1) {
            return false;
        }
        let address = self.peer();
        let pod = self.naive_cluster.pod_at(address, None);
        if pod.is_some_and(|pod| self.matches_pod(peer, pod)) {
            return true;
        }
        if self.direction == Direction::Ingress {
            return false;
        }
        let of_node = |node: &Value| {
            self.naive_cluster.is_of_node(node, address)
                && selects(&peer["nodes"], &node["metadata"]["labels"])
        };
        (!peer["nodes"].is_null() && self.naive_cluster.all("Node").any(of_node))
            || list(&peer["networks"]).iter().any(|net| is_in(net.as_str().unwrap_or_default(), address))
    }

    fn is_cluster_port(&self, port: &Value) -> bool {
        if !self.has_ports || port.as_object().is_none_or(|fields| fields.len() != 1) {
            return false;
        }
        let protocol = self.connection.protocol.as_str();
        if let Some(name) = port["destinationNamedPort"].as_str() {
            return self.destination_has(name, protocol);
        }
        let ports = &port[protocol]["destinationPort"];
        let number = u64::from(self.connection.port);
        let range = &ports["range"];
        ports["number"].as_u64() == Some(number)
            || range["start"].as_u64().is_some_and(|start| start <= number)
                && range["end"].as_u64().is_some_and(|end| number <= end)
    }

    /// Returns true if a NetworkPolicy isolates the pod in this direction.
    fn isolates(&self, policy: &Value) -> bool {
        let spec = &policy["spec"];
        let types = list(&spec["policyTypes"]);
        let concerned = match self.direction {
            Direction::Ingress => types.is_empty() || types.iter().any(|t| t == "Ingress"),
            Direction::Egress if types.is_empty() => !list(&spec["egress"]).is_empty(),
            Direction::Egress => types.iter().any(|t| t == "Egress"),
        };
        concerned
            && policy["metadata"]["namespace"] == self.pod["metadata"]["namespace"]
            && (selects(&spec["podSelector"], &self.pod["metadata"]["labels"])
                || !is_valid(&spec["podSelector"]))
    }

    fn is_allowed_by(&self, policy: &Value) -> bool {
        // A policy with an invalid selector isolates all pods of its namespace and allows nothing.
        is_valid(&policy["spec"]["podSelector"])
            && list(&policy["spec"][self.direction.field()]).iter().any(|rule| {
                let peers = list(&rule[self.direction.peers()]);
                let ports = list(&rule["ports"]);
                let namespace = text(policy, "/metadata/namespace");
                (peers.is_empty() || peers.iter().any(|peer| self.is_peer(peer, namespace)))
                    && (ports.is_empty() || ports.iter().any(|port| self.is_port(port)))
            })
    }

    fn is_peer(&self, peer: &Value, own_namespace: &str) -> bool {
        let (pods, namespaces, block) = (&peer["podSelector"], &peer["namespaceSelector"], &peer["ipBlock"]);
        if !block.is_null() {
            let except = list(&block["except"]);
            let is_in = |net: &Value| is_in(net.as_str().unwrap_or_default(), self.peer());
            return pods.is_null()
                && namespaces.is_null()
                && is_in(&block["cidr"])
                && !except.iter().any(is_in)
                && except.iter().all(|net| is_net(net.as_str().unwrap_or_default()));
        }
        let Some(pod) = self.naive_cluster.pod_at(self.peer(), None) else { return false };
        let namespace = text(pod, "/metadata/namespace");
        let right_namespace = match namespaces {
            Value::Null => namespace == own_namespace,
            selector => selects(selector, &self.naive_cluster.namespace_labels(namespace)),
        };
        !(pods.is_null() && namespaces.is_null())
            && right_namespace
            && selects(pods, &pod["metadata"]["labels"])
    }

    fn is_port(&self, port: &Value) -> bool {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if !self.has_ports || protocol != self.connection.protocol.as_str().to_uppercase() {
            return false;
        }
        let number = u64::from(self.connection.port);
        match (&port["port"], &port["endPort"]) {
            (Value::Null, Value::Null) => true,
            (Value::String(name), Value::Null) => {
                self.destination_has(name, self.connection.protocol.as_str())
            }
            (Value::Number(first), Value::Null) => first.as_u64() == Some(number),
            (Value::Number(first), Value::Number(last)) => {
                let bounds = first.as_u64().unwrap()..=last.as_u64().unwrap();
                bounds.contains(&number)
            }
            _ => false,
        }
    }

    /// Returns true if the destination pod has a port with this name and the connection's number.
    fn destination_has(&self, name: &str, protocol: &str) -> bool {
        let destination = match self.direction {
            Direction::Ingress => Some(self.pod),
            Direction::Egress => self.naive_cluster.pod_at(self.connection.to, None),
        };
        let containers = destination.map(|pod| list(&pod["spec"]["containers"])).unwrap_or_default();
        containers.iter().flat_map(|container| list(&container["ports"])).any(|port| {
            port["name"] == name
                && port["containerPort"] == self.connection.port
                && port["protocol"].as_str().unwrap_or("TCP").to_lowercase() == protocol
        })
    }
}

/// Returns true if a selector matches labels. An invalid selector matches nothing.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = list(&selector["matchExpressions"]).iter();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| {
            let label = labels.get(text(expression, "/key"));
            let values = list(&expression["values"]);
            let among = label.is_some_and(|label| values.contains(label));
            match text(expression, "/operator") {
                "In" => among,
                "NotIn" => !values.is_empty() && !among,
                "Exists" => values.is_empty() && label.is_some(),
                "DoesNotExist" => values.is_empty() && label.is_none(),
                _ => false,
            }
        })
}

/// Returns true if the API server would accept a selector.
fn is_valid(selector: &Value) -> bool {
    list(&selector["matchExpressions"]).iter().all(|expression| {
        let has_values = !list(&expression["values"]).is_empty();
        match text(expression, "/operator") {
            "In" | "NotIn" => has_values,
            "Exists" | "DoesNotExist" => !has_values,
            _ => false,
        }
    })
}

fn is_address(text: &str, address: IpAddr) -> bool {
    text.parse() == Ok(address)
}

/// Parses a CIDR; octets may have leading zeros.
fn net(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let address = match address.contains(':') {
        true => address.parse().ok()?,
        false => {
            let octets: Vec<u8> = address.split('.').map_while(|octet| octet.parse().ok()).collect();
            IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)
        }
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Some((address, length.parse().ok().filter(|length| *length <= bits)?))
}

fn is_net(text: &str) -> bool {
    net(text).is_some()
}

fn is_in(text: &str, address: IpAddr) -> bool {
    let Some((net, length)) = net(text) else { return false };
    let same = |a: u128, b: u128, bits: u32| length == 0 || (a ^ b) >> (bits - length) == 0;
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => same(net.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(net), IpAddr::V6(address)) => same(net.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}
