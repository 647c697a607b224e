//! Defaults and allocations of Services, as the API server makes them: default fields, cluster IPs, node ports. In place of
//! a cloud provider, it also allocates load balancer addresses.
//!
//! The rules are those of the API reference for `ServiceSpec`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses::{AddressPool, Family, NodePortPool};
use crate::cluster_objects::namespace_of;
use crate::error::{Error, Result};

/// Sets the defaults that need no allocation.
///
/// # Errors
/// The Service requires a family that the cluster does not have.
pub(crate) fn set_defaults(service: &mut Service, families: &[Family]) -> Result<()> {
    let about = about(service);
    service.metadata.namespace = Some(namespace_of(&service.metadata).to_owned());
    let spec = service.spec.get_or_insert_default();
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    spec.session_affinity.get_or_insert_with(|| "None".into());
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
        config.client_ip.get_or_insert_with(ClientIPConfig::default).timeout_seconds.get_or_insert(10_800);
    }
    for port in spec.ports.iter_mut().flatten() {
        set_port_defaults(port);
    }
    if has_type(spec, "ExternalName") {
        return Ok(());
    }
    spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    if is_external(spec) {
        spec.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if has_type(spec, "LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    set_families(spec, families).map_err(|message| Error::plan(about, message))
}

fn set_port_defaults(port: &mut ServicePort) {
    port.protocol.get_or_insert_with(|| "TCP".into());
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// Sets `ipFamilyPolicy` and `ipFamilies`. Families in order: those given, those of given cluster IPs, the cluster's
/// primary family.
fn set_families(spec: &mut ServiceSpec, cluster: &[Family]) -> Result<(), String> {
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = spec.cluster_ip.clone().filter(|ip| !ip.is_empty()).map(|ip| vec![ip]);
    }
    let mut families = Vec::new();
    for name in spec.ip_families.iter().flatten() {
        families.push(
            Family::parse(name)
                .ok_or_else(|| format!("`ipFamilies`: expected IPv4 or IPv6, found {name:?}"))?,
        );
    }
    for ip in spec.cluster_ips.iter().flatten().filter(|ip| *ip != "None") {
        let ip: IpAddr =
            ip.parse().map_err(|_| format!("cluster IP: expected an IP address, found {ip:?}"))?;
        if !families.contains(&Family::from_ip(ip)) {
            families.push(Family::from_ip(ip));
        }
    }
    let selectorless_headless = is_headless(spec) && spec.selector.as_ref().is_none_or(|s| s.is_empty());
    let policy = spec.ip_family_policy.get_or_insert_with(|| {
        let dual = families.len() > 1 || (families.is_empty() && selectorless_headless && cluster.len() > 1);
        if dual { "RequireDualStack".into() } else { "SingleStack".into() }
    });
    if families.is_empty() {
        families.push(cluster[0]);
    }
    let second = cluster.iter().find(|family| !families.contains(family));
    match (policy.as_str(), second) {
        ("PreferDualStack" | "RequireDualStack", Some(&second)) => families.push(second),
        ("RequireDualStack", None) if families.len() < 2 => {
            return Err("`ipFamilyPolicy: RequireDualStack` requires a dual-stack cluster".into());
        }
        _ => {}
    }
    if let Some(foreign) = families.iter().find(|family| !cluster.contains(family)) {
        return Err(format!("requires {}, which the cluster does not have", foreign.name()));
    }
    spec.ip_families = Some(families.iter().map(|family| family.name().to_owned()).collect());
    Ok(())
}

/// Copies the allocations of the previous plan for the same Service into unset fields.
pub(crate) fn keep_allocated(service: &mut Service, before: &Service) {
    let status = before.status.clone();
    let (Some(spec), Some(before)) = (service.spec.as_mut(), before.spec.as_ref()) else { return };
    let given = spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())
        || spec.cluster_ip.as_ref().is_some_and(|ip| !ip.is_empty());
    if !given && !is_headless(before) && !has_type(spec, "ExternalName") {
        spec.cluster_ips.clone_from(&before.cluster_ips);
        if spec.ip_families.is_none() && spec.ip_family_policy == before.ip_family_policy {
            spec.ip_families.clone_from(&before.ip_families);
        }
    }
    for port in spec.ports.iter_mut().flatten() {
        let previous = before.ports.iter().flatten().find(|old| {
            old.name == port.name
                && old.port == port.port
                && old.protocol.as_deref() == Some(port.protocol.as_deref().unwrap_or("TCP"))
        });
        if needs_node_ports(spec.type_.as_deref(), spec.allocate_load_balancer_node_ports) {
            port.node_port = port.node_port.or(previous.and_then(|old| old.node_port));
        }
    }
    if has_type(spec, "LoadBalancer") {
        if spec.external_traffic_policy.as_deref() == Some("Local") {
            spec.health_check_node_port = spec.health_check_node_port.or(before.health_check_node_port);
        }
        if service.status.is_none() {
            service.status = status;
        }
    }
}

/// Pools from which Services are allocated.
pub(crate) struct Pools {
    pub(crate) cluster_ips: Vec<AddressPool>,
    pub(crate) load_balancer_ips: Vec<AddressPool>,
    pub(crate) node_ports: NodePortPool,
}

impl Pools {
    /// Marks the addresses and ports that a Service already has as used.
    pub(crate) fn reserve(&mut self, service: &Service) {
        let Some(spec) = &service.spec else { return };
        let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        for ip in cluster_ips.filter_map(|ip| ip.parse().ok()) {
            self.cluster_ips.iter_mut().for_each(|pool| pool.reserve(ip));
        }
        let external = spec.external_ips.iter().flatten().cloned().chain(ingress_ips(service));
        for ip in external.chain(spec.load_balancer_ip.clone()).filter_map(|ip| ip.parse().ok()) {
            self.load_balancer_ips.iter_mut().for_each(|pool| pool.reserve(ip));
        }
        let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
        ports.chain(spec.health_check_node_port).for_each(|port| self.node_ports.reserve(port));
    }

    /// Allocates the missing addresses and ports of a Service with defaults set.
    ///
    /// # Errors
    /// A pool is empty.
    pub(crate) fn allocate(&mut self, service: &mut Service) -> Result<()> {
        let about = about(service);
        let empty = |what: &str| Error::plan(about.clone(), format!("no free {what} in the lab's range"));
        let spec = service.spec.get_or_insert_default();
        if has_type(spec, "ExternalName") {
            return Ok(());
        }
        let families: Vec<Family> =
            spec.ip_families.iter().flatten().filter_map(|name| Family::parse(name)).collect();
        if !is_headless(spec) {
            let ips = spec.cluster_ips.get_or_insert_default();
            for &family in families.iter().skip(ips.len()) {
                ips.push(take(&mut self.cluster_ips, family).ok_or_else(|| empty("cluster IP"))?.to_string());
            }
        }
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned());
        if needs_node_ports(spec.type_.as_deref(), spec.allocate_load_balancer_node_ports) {
            for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
                port.node_port = Some(self.node_ports.take().ok_or_else(|| empty("node port"))?);
            }
        }
        if !has_type(spec, "LoadBalancer") {
            return Ok(());
        }
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        if local && spec.health_check_node_port.unwrap_or(0) == 0 {
            spec.health_check_node_port = Some(self.node_ports.take().ok_or_else(|| empty("node port"))?);
        }
        let requested = spec.load_balancer_ip.clone().filter(|ip| !ip.is_empty());
        let status = service.status.get_or_insert_with(ServiceStatus::default);
        let balancer = status.load_balancer.get_or_insert_with(LoadBalancerStatus::default);
        if balancer.ingress.is_none() {
            let mut ingress = Vec::new();
            for &family in &families {
                let ip = match requested
                    .as_ref()
                    .filter(|ip| ip.parse().is_ok_and(|ip| Family::from_ip(ip) == family))
                {
                    Some(requested) => requested.clone(),
                    None => take(&mut self.load_balancer_ips, family)
                        .ok_or_else(|| empty("load balancer IP"))?
                        .to_string(),
                };
                let ip_mode = Some("VIP".to_owned());
                ingress.push(LoadBalancerIngress { ip: Some(ip), ip_mode, ..Default::default() });
            }
            balancer.ingress = Some(ingress);
        }
        Ok(())
    }
}

fn take(pools: &mut [AddressPool], family: Family) -> Option<IpAddr> {
    pools.iter_mut().find(|pool| Family::from_ip(pool.net().addr()) == family)?.take()
}

/// Returns the IPs in the load balancer status of a Service.
pub(crate) fn ingress_ips(service: &Service) -> impl Iterator<Item = String> + '_ {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten().filter_map(|i| i.ip.clone())
}

pub(crate) fn has_type(spec: &ServiceSpec, type_: &str) -> bool {
    spec.type_.as_deref().unwrap_or("ClusterIP") == type_
}

/// Returns true if the Service has `clusterIP: None`.
pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.as_ref().is_some_and(|ips| ips.iter().any(|ip| ip == "None"))
}

fn is_external(spec: &ServiceSpec) -> bool {
    has_type(spec, "NodePort")
        || has_type(spec, "LoadBalancer")
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty())
}

fn needs_node_ports(type_: Option<&str>, allocate: Option<bool>) -> bool {
    match type_ {
        Some("NodePort") => true,
        Some("LoadBalancer") => allocate.unwrap_or(true),
        _ => false,
    }
}

fn about(service: &Service) -> String {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    format!("Service {}/{name}", namespace_of(&service.metadata))
}
