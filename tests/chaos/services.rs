//! The model of Services: to which endpoints a node must route a connection, by the API reference and KEPs 752, 1669,
//! 2086 (internal traffic policy) and 2433 (topology hints). It shares no code with the program.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_lab::Protocol;
use serde_json::Value;

use super::cluster::{ModelCluster, address, list, text};
use super::pools::NODE;

/// A kind of frontend, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FrontendKind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// A Service port that owns a destination, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frontend<'a> {
    pub(crate) kind: FrontendKind,
    pub(crate) service: &'a Value,
    pub(crate) port: &'a Value,
}

/// The endpoints of a Service port in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// For traffic policy `Cluster`.
    pub(crate) cluster: BTreeSet<SocketAddr>,
    /// For traffic policy `Local`.
    pub(crate) local: BTreeSet<SocketAddr>,
    /// Endpoints exist on some node.
    pub(crate) exist: bool,
    /// Topology hints select some of the ready endpoints.
    pub(crate) are_hinted: bool,
    /// No endpoint is ready, and terminating ones take the traffic.
    pub(crate) are_terminating: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    ready: bool,
    serving: bool,
    not_terminating: bool,
    is_local: bool,
}

struct Endpoint<'a> {
    rank: Rank,
    zones: Vec<&'a str>,
}

impl Endpoint<'_> {
    fn is_fallback(&self) -> bool {
        !self.rank.ready && self.rank.serving && !self.rank.not_terminating
    }
}

impl ModelCluster {
    /// Returns the frontend that owns a destination. Of several Services, the one with the highest kind owns it, then the
    /// oldest, then the one with the least UID.
    pub(crate) fn frontend(&self, to: SocketAddr, protocol: Protocol, is_node: bool) -> Option<Frontend<'_>> {
        let mut found: Vec<Frontend<'_>> = self
            .all("Service")
            .filter(|service| is_served(service))
            .flat_map(|service| {
                let ports = list(&service["spec"]["ports"]).iter();
                ports.filter_map(move |port| {
                    let kind = kind_at(service, port, to, protocol, is_node)?;
                    Some(Frontend { kind, service, port })
                })
            })
            .collect();
        found.sort_by_key(|frontend| {
            let metadata = |path| text(frontend.service, path).to_owned();
            (frontend.kind, metadata("/metadata/creationTimestamp"), metadata("/metadata/uid"))
        });
        found.first().copied()
    }

    pub(crate) fn endpoints(&self, frontend: Frontend<'_>, is_ipv4: bool) -> Endpoints {
        let by_address = self.endpoints_by_address(frontend, is_ipv4);
        let addresses = |fits: &dyn Fn(&Endpoint<'_>) -> bool| -> BTreeSet<SocketAddr> {
            by_address.iter().filter(|(_, endpoint)| fits(endpoint)).map(|(address, _)| *address).collect()
        };
        let ready = || by_address.values().filter(|endpoint| endpoint.rank.ready);
        let zone = self.own_zone();
        let in_zone = |endpoint: &Endpoint<'_>| zone.is_some_and(|zone| endpoint.zones.contains(&zone));
        let is_hinted = ready().all(|endpoint| !endpoint.zones.is_empty()) && ready().any(in_zone);
        let are_hinted = is_hinted && ready().any(|endpoint| !in_zone(endpoint));
        let mut cluster = addresses(&|endpoint| endpoint.rank.ready && (!is_hinted || in_zone(endpoint)));
        let are_terminating = cluster.is_empty() && by_address.values().any(Endpoint::is_fallback);
        if cluster.is_empty() {
            cluster = addresses(&|endpoint| endpoint.is_fallback());
        }
        let mut local = addresses(&|endpoint| endpoint.rank.ready && endpoint.rank.is_local);
        if local.is_empty() {
            local = addresses(&|endpoint| endpoint.is_fallback() && endpoint.rank.is_local);
        }
        let exist = by_address.values().any(|endpoint| endpoint.rank.ready || endpoint.is_fallback());
        Endpoints { cluster, local, exist, are_hinted, are_terminating }
    }

    /// Returns the endpoints of all slices. Of several with the same address and port, the best one counts.
    fn endpoints_by_address(
        &self,
        frontend: Frontend<'_>,
        is_ipv4: bool,
    ) -> BTreeMap<SocketAddr, Endpoint<'_>> {
        let service = frontend.service;
        let mut found: BTreeMap<SocketAddr, Endpoint<'_>> = BTreeMap::new();
        let slices = self.all("EndpointSlice").filter(|slice| {
            slice["metadata"]["namespace"] == service["metadata"]["namespace"]
                && slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
                && (slice["addressType"] == "IPv4") == is_ipv4
        });
        for slice in slices {
            let port = list(&slice["ports"]).iter().find(|port| {
                port["name"] == frontend.port["name"] && port["protocol"] == frontend.port["protocol"]
            });
            let Some(number) = port.and_then(|port| port["port"].as_u64()) else { continue };
            for endpoint in list(&slice["endpoints"]) {
                let ip = list(&endpoint["addresses"]).first().and_then(address).expect("generated");
                let is = |name: &str| endpoint["conditions"][name].as_bool();
                let ready = is("ready").unwrap_or(true);
                let rank = Rank {
                    ready,
                    serving: is("serving").unwrap_or(ready),
                    not_terminating: !is("terminating").unwrap_or(false),
                    is_local: endpoint["nodeName"] == NODE,
                };
                let zones = list(&endpoint["hints"]["forZones"]).iter().map(|zone| text(zone, "/name"));
                let fresh = Endpoint { rank, zones: zones.collect() };
                let key = SocketAddr::new(ip, number as u16);
                match found.get_mut(&key) {
                    Some(known) if known.rank >= fresh.rank => {}
                    Some(known) => *known = fresh,
                    None => {
                        found.insert(key, fresh);
                    }
                }
            }
        }
        found
    }
}

impl Frontend<'_> {
    /// Returns true if its traffic policy is `Local`.
    pub(crate) fn is_local(&self) -> bool {
        let field = match self.kind {
            FrontendKind::ClusterIp => "internalTrafficPolicy",
            _ => "externalTrafficPolicy",
        };
        self.service["spec"][field] == "Local"
    }

    /// Returns true if its Service has addresses or ports for clients outside of the cluster.
    pub(crate) fn is_external_service(&self) -> bool {
        let spec = &self.service["spec"];
        spec["type"] != "ClusterIP" || !spec["externalIPs"].is_null()
    }

    /// Returns true if source ranges let a client pass.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        if self.kind != FrontendKind::LoadBalancer {
            return true;
        }
        let ranges = list(&self.service["spec"]["loadBalancerSourceRanges"]).iter();
        let mut ranges = ranges
            .filter_map(|range| range.as_str()?.parse::<ipnet::IpNet>().ok())
            .filter(|range| range.addr().is_ipv4() == client.is_ipv4())
            .peekable();
        // Ranges of the other family only do not restrict this one.
        ranges.peek().is_none() || ranges.any(|range| range.contains(&client))
    }
}

/// Returns true if this proxy serves a Service.
fn is_served(service: &Value) -> bool {
    let spec = &service["spec"];
    let labels = &service["metadata"]["labels"];
    let cluster_ip = text(service, "/spec/clusterIP");
    spec["type"] != "ExternalName"
        && !cluster_ip.is_empty()
        && cluster_ip != "None"
        && labels["service.kubernetes.io/service-proxy-name"].is_null()
}

fn kind_at(
    service: &Value,
    port: &Value,
    to: SocketAddr,
    protocol: Protocol,
    is_node: bool,
) -> Option<FrontendKind> {
    let spec = &service["spec"];
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    if !list(&spec["ipFamilies"]).iter().any(|name| name == family)
        || port["protocol"] != protocol.to_string()
    {
        return None;
    }
    let has = |addresses: &Value| list(addresses).iter().any(|ip| address(ip) == Some(to.ip()));
    let is_number = port["port"].as_u64() == Some(to.port().into());
    let ingress = list(&service["status"]["loadBalancer"]["ingress"]);
    let is_ingress =
        |ingress: &Value| address(&ingress["ip"]) == Some(to.ip()) && ingress["ipMode"] != "Proxy";
    if is_number && has(&spec["clusterIPs"]) {
        Some(FrontendKind::ClusterIp)
    } else if is_node && port["nodePort"].as_u64() == Some(to.port().into()) {
        Some(FrontendKind::NodePort)
    } else if is_number && ingress.iter().any(is_ingress) {
        Some(FrontendKind::LoadBalancer)
    } else if is_number && has(&spec["externalIPs"]) {
        Some(FrontendKind::ExternalIp)
    } else {
        None
    }
}
