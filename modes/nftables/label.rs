//! What maps hold of Services: a label, that says how they are served.

use std::fmt;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Field, Key};

use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, ENDPOINTS, INSIDE_IPS, INSIDE_NODE_PORTS, NODE_PORT_ENDPOINTS,
};
use super::settings::Settings;

/// By what a Service is reached, and so by what its endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// An address: its cluster IP, an external or a load balancer's.
    Address,
    /// A node port.
    NodePort,
}

impl Front {
    /// What a packet shows of the Service.
    pub(super) fn key(self, settings: &Settings) -> Vec<Field> {
        match self {
            Front::NodePort => vec![Field::PROTOCOL, Field::DestinationPort],
            Front::Address => vec![settings.destination(), Field::PROTOCOL, Field::DestinationPort],
        }
    }

    /// The map in which those inside of the cluster find the Service.
    pub(super) fn inside(self) -> &'static str {
        match self {
            Front::NodePort => INSIDE_NODE_PORTS,
            Front::Address => INSIDE_IPS,
        }
    }

    /// The map of endpoints.
    pub(super) fn endpoints(self) -> &'static str {
        match self {
            Front::Address => ENDPOINTS,
            Front::NodePort => NODE_PORT_ENDPOINTS,
        }
    }

    /// The map that leads to chains of one Service.
    pub(super) fn affine(self) -> &'static str {
        match self {
            Front::Address => AFFINE_IPS,
            Front::NodePort => AFFINE_NODE_PORTS,
        }
    }
}

/// Whose endpoints take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Those of policy Cluster.
    Cluster,
    /// Those of policy Local.
    Local,
}

impl View {
    /// A port's endpoints, in the order in which they are numbered.
    pub(super) fn endpoints(self, port: &ServicePort) -> Vec<Endpoint> {
        let chosen: Vec<Endpoint> = match self {
            View::Cluster => port.endpoints.for_cluster().copied().collect(),
            View::Local => port.endpoints.for_local().copied().collect(),
        };
        chosen.into_iter().take(MOST_ENDPOINTS).collect()
    }
}

/// What is done, by its number in labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// An endpoint is picked.
    Pick = 1,
    /// A local one is picked.
    PickLocal = 2,
    /// Masquerading is asked for, and an endpoint picked: it may be anywhere, and must answer by way of this node.
    Masquerade = 3,
    /// Pods and this node are sent to what they would find inside of the cluster: only for what comes from outside a local
    /// endpoint is picked.
    PartOutside = 4,
    /// The Service has a chain of its own.
    Affinity = 5,
}

impl Task {
    /// How a label of it begins.
    pub(super) fn key(self) -> Key {
        Key::new().port(self as u16)
    }
}

/// What is done for a Service, and for how many endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label {
    pub(super) task: Task,
    /// 0 where none is picked.
    pub(super) endpoints: u16,
}

impl Label {
    /// As a map holds it: two numbers of 16 bits, as ports are. Never zero, and in the order of labels.
    pub(super) fn key(self) -> Key {
        self.task.key().port(self.endpoints)
    }

    /// Which endpoints are picked from.
    pub(super) fn view(self) -> View {
        match self.task {
            Task::Pick | Task::Masquerade | Task::Affinity => View::Cluster,
            Task::PickLocal | Task::PartOutside => View::Local,
        }
    }
}

/// As `nft` lists it in a map.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.task as u16, self.endpoints)
    }
}

/// Of the number by which an endpoint is found: the view, how many endpoints there are, and which of them it is. With
/// their count in it, packets that still count as many as there were find what was.
pub(super) fn first_number(view: View, endpoints: u16) -> u32 {
    let local = if view == View::Local { 1 << 31 } else { 0 };
    local | u32::from(endpoints) << 15
}

/// The most endpoints of a Service that are used: fifteen bits.
pub(super) const MOST_ENDPOINTS: usize = (1 << 15) - 1;
