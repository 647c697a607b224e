//! Network interfaces of this node's pods: the node's ends of the veth pairs.
//!
//! ```text
//!  node's network namespace                pod's network namespace
//!  vethN ── link: peer (netns 3, 2) ─────► eth0, number 2: 10.244.1.5, fd00:10:244:1::5, fe80::…
//! ```
//! The kernel knows the peer of each veth pair and lists the addresses of the peer, so an interface is assigned to the
//! pod whose Pod object has one of these addresses. This works with bridges and with routed pods. The assignment lasts
//! as long as both exist: a pod that changes its own addresses does not change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_cluster::NamespacedName;
use portcullis_netlink::route::{Link, LinkPeer, Rtnetlink};

use crate::compile::{CompiledPolicies, LocalPod};

/// The node's end of a pod's veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// Its name.
    pub name: Arc<str>,
    /// Its index.
    pub index: u32,
    /// True if it is a port of a bridge.
    pub is_bridge_port: bool,
    /// The pods of which it has an address, sorted. More than one only if a pod has assigned itself an address of
    /// another pod.
    pub pods: Box<[NamespacedName]>,
    peer: LinkPeer,
}

impl PodInterface {
    /// Returns an interface of these pods that is a bridge port.
    pub fn new(name: &str, index: u32, pods: &[NamespacedName]) -> Self {
        let peer = LinkPeer { netns: 0, index: 0 };
        PodInterface { name: name.into(), index, is_bridge_port: true, pods: pods.into(), peer }
    }
}

/// The interfaces of the pods of this node.
#[derive(Debug, Default)]
pub struct PodInterfaces {
    found: Vec<PodInterface>,
}

impl PodInterfaces {
    /// Returns the interfaces that the last scan found, by index.
    pub fn found(&self) -> &[PodInterface] {
        &self.found
    }

    /// Finds the interfaces of all pods in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The links cannot be listed; the previous result is kept.
    pub fn scan(&mut self, compiled: &CompiledPolicies) -> portcullis_netlink::Result<()> {
        let mut interfaces = Rtnetlink::open()?;
        let links = interfaces.links()?;
        let known: BTreeMap<u32, PodInterface> = std::mem::take(&mut self.found)
            .into_iter()
            .filter(|interface| interface.pods.iter().all(|pod| compiled.pod(pod).is_some()))
            .map(|interface| (interface.index, interface))
            .collect();
        for link in links {
            let Some(peer) = link.peer.filter(|_| is_pair(&link)) else { continue };
            let is_bridge_port = link.controller.is_some();
            let same = |known: &&PodInterface| *known.name == *link.name && known.peer == peer;
            let pods = match known.get(&link.index).filter(same) {
                Some(known) => known.pods.clone(),
                // An interface whose peer cannot be read belongs to no known pod.
                None => pods_at(&mut interfaces, peer, compiled).unwrap_or_default(),
            };
            if !pods.is_empty() {
                let name = link.name.as_str().into();
                self.found.push(PodInterface { name, index: link.index, is_bridge_port, pods, peer });
            }
        }
        Ok(())
    }

    /// Returns the pods that some policy selects and that have no known interface, sorted.
    pub fn missing(&self, compiled: &CompiledPolicies) -> Vec<NamespacedName> {
        let attached: BTreeSet<&NamespacedName> =
            self.found.iter().flat_map(|interface| &interface.pods).collect();
        let is_isolated = |pod: &&LocalPod| pod.ingress.is_some() || pod.egress.is_some();
        let pods = compiled.pods().filter(is_isolated).map(|pod| &pod.key);
        pods.filter(|pod| !attached.contains(pod)).cloned().collect()
    }
}

/// Returns true if a link is one end of a pair whose other end can be a pod's interface.
fn is_pair(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("veth" | "netkit"))
}

fn pods_at(
    interfaces: &mut Rtnetlink,
    peer: LinkPeer,
    compiled: &CompiledPolicies,
) -> portcullis_netlink::Result<Box<[NamespacedName]>> {
    let addresses = interfaces.peer_addresses(peer)?;
    let pods =
        addresses.into_iter().filter_map(|address| compiled.pod_at(address)).map(|pod| pod.key.clone());
    Ok(pods.collect::<BTreeSet<_>>().into_iter().collect())
}
