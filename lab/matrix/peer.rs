//! Sources and destinations of a matrix: pods, nodes, the outside host, Services.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::plan::{CLIENT_NAMESPACE, ClusterPlan, EchoPort, Family, FrontendKind};
use crate::probe::Vantage;

/// A source or destination of probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixPeer {
    name: String,
    vantage: Option<Vantage>,
    addresses: Vec<IpAddr>,
    /// The ports at which it is probed; `None` for all.
    ports: Option<BTreeSet<EchoPort>>,
}

impl MatrixPeer {
    /// Returns a pod, named as for [`ClusterPlan::pod`]. A pod that is not running has no addresses; a pod on the host
    /// network has its node's.
    ///
    /// # Errors
    /// No such pod.
    pub fn pod(plan: &ClusterPlan, name: &str) -> Result<Self> {
        let unknown = || Error::not_found("pod", name, plan.pods.iter().map(|pod| &pod.name));
        let pod = plan.pod(name).ok_or_else(unknown)?;
        let vantage = pod.is_running.then(|| Vantage::pod(&pod.name));
        Ok(Self { name: pod.name.clone(), vantage, addresses: pod.addresses.clone(), ports: None })
    }

    /// Returns a node with its `InternalIP`s, by name.
    ///
    /// # Errors
    /// No such node.
    pub fn node(plan: &ClusterPlan, name: &str) -> Result<Self> {
        let unknown = || Error::not_found("node", name, plan.nodes.iter().map(|node| &node.name));
        let node = plan.node(name).ok_or_else(unknown)?;
        Ok(Self {
            name: node.name.clone(),
            vantage: Some(Vantage::node(&node.name)),
            addresses: node.addresses.clone(),
            ports: None,
        })
    }

    /// Returns the outside host with some of its addresses: of 198.51.100.0/24 and 2001:db8:100::/64, or those of
    /// [`PlanOptions::outside`](crate::PlanOptions::outside). It listens only on the latter.
    pub fn outside(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let name = addresses.first().map_or_else(|| "outside".to_owned(), IpAddr::to_string);
        Self { name, vantage: Some(Vantage::Outside), addresses, ports: None }
    }

    /// Returns the cluster IPs of a Service, named as for [`ClusterPlan::service`], as a destination.
    ///
    /// # Errors
    /// No such Service.
    pub fn service(plan: &ClusterPlan, name: &str) -> Result<Self> {
        let service = plan.service(name).ok_or_else(|| Error::not_found("Service", name, []))?;
        let mut addresses = Vec::new();
        for frontend in
            plan.frontends(service).into_iter().filter(|frontend| frontend.kind == FrontendKind::ClusterIp)
        {
            if !addresses.contains(&frontend.address.ip()) {
                addresses.push(frontend.address.ip());
            }
        }
        Ok(Self { name: name.to_owned(), vantage: None, addresses, ports: None })
    }

    /// Returns any addresses as a destination.
    pub fn address(name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { name: name.into(), vantage: None, addresses: addresses.into_iter().collect(), ports: None }
    }

    /// Returns all running pods with a network namespace of their own, without the lab's client pods.
    pub fn pods(plan: &ClusterPlan) -> Vec<Self> {
        let own = format!("{}/", CLIENT_NAMESPACE);
        let pods = plan.pods.iter().filter(|pod| pod.has_own_netns() && !pod.name.starts_with(&own));
        pods.filter_map(|pod| Self::pod(plan, &pod.name).ok()).collect()
    }

    /// Returns all nodes.
    pub fn nodes(plan: &ClusterPlan) -> Vec<Self> {
        plan.nodes.iter().filter_map(|node| Self::node(plan, &node.name).ok()).collect()
    }

    /// Sets the name shown in tables.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Limits probes of this destination to these ports.
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = EchoPort>) -> Self {
        self.ports = Some(ports.into_iter().collect());
        self
    }

    /// Returns true if this destination is probed at a port.
    pub fn is_probed_at(&self, port: EchoPort) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Returns the name shown in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the vantage point of its probes, if it can be a source.
    pub fn vantage(&self) -> Option<&Vantage> {
        self.vantage.as_ref()
    }

    /// Returns its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns its address of a family.
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::from_ip(*address) == family)
    }
}

impl fmt::Display for MatrixPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
