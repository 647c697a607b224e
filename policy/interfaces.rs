//! The interfaces of this node by pod: the node's ends of the veth pairs.
//!
//! ```text
//!  node's network namespace                pod's network namespace
//!  vethN ── link: peer (netns 3, 2) ─────► eth0, number 2: 10.244.1.5, fd00:10:244:1::5, fe80::…
//! ```
//! The kernel knows the other end of each veth pair, and lists the addresses there, so a pod is found by its addresses
//! of the API, however pods are wired: as ports of a bridge or by routes. An interface stays with the pod for which
//! it was found as long as both exist: a pod that changes its addresses changes nothing of that.

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
    /// Its number.
    pub index: u32,
    /// It is a port of a bridge.
    pub is_bridge_port: bool,
    /// The pods of which it has an address, sorted. Several only where a pod has given itself another one's address.
    pub pods: Box<[NamespacedName]>,
    peer: LinkPeer,
}

impl PodInterface {
    /// An interface of these pods.
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
    /// Those that were found last, in the order of their numbers.
    pub fn found(&self) -> &[PodInterface] {
        &self.found
    }

    /// Looks for the interfaces of all pods, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel cannot list its links; what was found before stays.
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
                // An interface whose other end cannot be read belongs to no known pod.
                None => pods_at(&mut interfaces, peer, compiled).unwrap_or_default(),
            };
            if !pods.is_empty() {
                let name = link.name.as_str().into();
                self.found.push(PodInterface { name, index: link.index, is_bridge_port, pods, peer });
            }
        }
        Ok(())
    }

    /// The pods that some policy isolates and of which no interface was found, sorted.
    pub fn missing(&self, compiled: &CompiledPolicies) -> Vec<NamespacedName> {
        let attached: BTreeSet<&NamespacedName> =
            self.found.iter().flat_map(|interface| &interface.pods).collect();
        let is_isolated = |pod: &&LocalPod| pod.ingress.is_some() || pod.egress.is_some();
        let pods = compiled.pods().filter(is_isolated).map(|pod| &pod.key);
        pods.filter(|pod| !attached.contains(pod)).cloned().collect()
    }
}

/// Whether a link is one end of a pair whose other end is a pod's interface.
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
