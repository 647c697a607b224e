//! The ends of probes: pods, nodes, hosts outside, Services.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::plan::{CLIENT_NAMESPACE, EchoPort, Family, FrontKind, Plan};
use crate::probe::Vantage;

/// Something that probes come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    name: String,
    vantage: Option<Vantage>,
    addresses: Vec<IpAddr>,
    /// The ports that it is asked at; `None` for all.
    ports: Option<BTreeSet<EchoPort>>,
}

impl End {
    /// A pod, by its name as in [`Plan::pod`]. One that does not run has no addresses; one on the host network has its
    /// node's.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn pod(plan: &Plan, name: &str) -> Result<Self> {
        let unknown = || Error::unknown("pod", name, plan.pods.iter().map(|pod| &pod.name));
        let pod = plan.pod(name).ok_or_else(unknown)?;
        let vantage = pod.runs.then(|| Vantage::pod(&pod.name));
        Ok(Self { name: pod.name.clone(), vantage, addresses: pod.addresses.clone(), ports: None })
    }

    /// A process on a node that uses its `InternalIP`s, by the node's name.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node(plan: &Plan, name: &str) -> Result<Self> {
        let unknown = || Error::unknown("node", name, plan.nodes.iter().map(|node| &node.name));
        let node = plan.node(name).ok_or_else(unknown)?;
        Ok(Self {
            name: node.name.clone(),
            vantage: Some(Vantage::node(&node.name)),
            addresses: node.addresses.clone(),
            ports: None,
        })
    }

    /// The host outside, by addresses of its own: of 198.51.100.0/24 and 2001:db8:100::/64, or those of
    /// [`PlanOptions::outside`](crate::PlanOptions::outside). It listens only at the latter.
    pub fn outside(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let name = addresses.first().map_or_else(|| "outside".to_owned(), IpAddr::to_string);
        Self { name, vantage: Some(Vantage::Outside), addresses, ports: None }
    }

    /// The cluster IPs of a Service, by its name as in [`Plan::service`]; probes go to them, and come from nowhere.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn service(plan: &Plan, name: &str) -> Result<Self> {
        let service = plan.service(name).ok_or_else(|| Error::unknown("Service", name, []))?;
        let mut addresses = Vec::new();
        for front in plan.fronts(service).into_iter().filter(|front| front.kind == FrontKind::ClusterIp) {
            if !addresses.contains(&front.address.ip()) {
                addresses.push(front.address.ip());
            }
        }
        Ok(Self { name: name.to_owned(), vantage: None, addresses, ports: None })
    }

    /// Any address that probes may go to.
    pub fn address(name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { name: name.into(), vantage: None, addresses: addresses.into_iter().collect(), ports: None }
    }

    /// All pods that run on a network of their own, without the lab's clients.
    pub fn pods(plan: &Plan) -> Vec<Self> {
        let own = format!("{}/", CLIENT_NAMESPACE);
        let pods = plan.pods.iter().filter(|pod| pod.is_wired() && !pod.name.starts_with(&own));
        pods.filter_map(|pod| Self::pod(plan, &pod.name).ok()).collect()
    }

    /// All nodes.
    pub fn nodes(plan: &Plan) -> Vec<Self> {
        plan.nodes.iter().filter_map(|node| Self::node(plan, &node.name).ok()).collect()
    }

    /// Another name for the tables.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// No probes go to it but at these ports.
    pub fn only_at(mut self, ports: impl IntoIterator<Item = EchoPort>) -> Self {
        self.ports = Some(ports.into_iter().collect());
        self
    }

    /// Whether probes go to it at a port.
    pub fn is_asked_at(&self, port: EchoPort) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// How the tables call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its probes start, if any can.
    pub fn vantage(&self) -> Option<&Vantage> {
        self.vantage.as_ref()
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its address of a family.
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
