//! Elements of the sets and maps by which pods are matched by interface.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, Key};

use super::edit::SetElements;
use super::names::{
    EGRESS_INTERFACES, EGRESS_PORTS, INGRESS_INTERFACES, INGRESS_PORTS, INTERFACE_ADDRESSES, POD_INTERFACES,
    POD_PORTS, PORT_ADDRESSES, of_family,
};
use super::profile_numbers::ProfileNumbers;
use crate::compile::{CompiledPolicies, LocalPod, Profile};
use crate::interfaces::PodInterface;

/// Flag in the priority: the port is the packet's output port, not its input port. Interface indexes have 31 bits, and are
/// below [`NUMBERED`](super::numbers::NUMBERED), since the kernel numbers interfaces from 1.
pub(super) const OUTPUT_PORT: u32 = 1 << 31;

/// Length of an interface name with padding (`IFNAMSIZ`).
const NAME_BYTES: usize = 16;

/// An interface of a pod with a profile in a direction.
struct SelectedInterface {
    name: Key,
    /// The value of `meta priority` that identifies it.
    priority: u32,
    profile: Arc<Profile>,
}

/// Elements of the sets and maps of interfaces, in both tables.
#[derive(Default)]
pub(super) struct InterfaceElements {
    names: Vec<Key>,
    /// Names with addresses of Pod objects, by family in the order of [`Family::ALL`].
    addresses: [Vec<Key>; 2],
    egress: Vec<SelectedInterface>,
    ingress: Vec<SelectedInterface>,
}

impl InterfaceElements {
    /// Returns the elements of these interfaces.
    pub(super) fn new(interfaces: &[PodInterface], compiled: &CompiledPolicies) -> Self {
        let mut elements = InterfaceElements::default();
        interfaces.iter().for_each(|interface| elements.add(interface, compiled));
        elements
    }

    /// Returns the elements in the inet table.
    pub(super) fn inet(&self, numbers: &ProfileNumbers) -> Vec<SetElements> {
        let number = |one: &SelectedInterface| {
            numbers.get(&one.profile).map(|number| Element::value(Key::new().number(number)))
        };
        let mut all = vec![set_elements(POD_INTERFACES, without_data(&self.names))];
        for (family, addresses) in Family::ALL.into_iter().zip(&self.addresses) {
            all.push(set_elements(&of_family(INTERFACE_ADDRESSES, family), without_data(addresses)));
        }
        for (selected, ports, interfaces) in [
            (&self.egress, EGRESS_PORTS, EGRESS_INTERFACES),
            (&self.ingress, INGRESS_PORTS, INGRESS_INTERFACES),
        ] {
            let by_port =
                selected.iter().filter_map(|one| Some((Key::new().number(one.priority), number(one)?)));
            all.push(set_elements(ports, by_port.collect()));
            let by_name = selected.iter().filter_map(|one| Some((one.name.clone(), number(one)?)));
            all.push(set_elements(interfaces, by_name.collect()));
        }
        all
    }

    /// Returns the elements in the bridge table.
    pub(super) fn bridge(&self) -> Vec<SetElements> {
        let mut all = vec![set_elements(POD_PORTS, without_data(&self.names))];
        for (family, addresses) in Family::ALL.into_iter().zip(&self.addresses) {
            all.push(set_elements(&of_family(PORT_ADDRESSES, family), without_data(addresses)));
        }
        for (selected, ports) in [(&self.egress, EGRESS_PORTS), (&self.ingress, INGRESS_PORTS)] {
            let priorities = selected.iter();
            let priorities =
                priorities.map(|one| (one.name.clone(), Element::value(Key::new().number(one.priority))));
            all.push(set_elements(ports, priorities.collect()));
        }
        all
    }

    /// Returns true if the bridge table sets the priority of packets to ports.
    pub(super) fn has_ingress_ports(&self) -> bool {
        !self.ingress.is_empty()
    }

    fn add(&mut self, interface: &PodInterface, compiled: &CompiledPolicies) {
        let mut bytes = [0; NAME_BYTES];
        let length = interface.name.len().min(NAME_BYTES - 1);
        bytes[..length].copy_from_slice(&interface.name.as_bytes()[..length]);
        let name = Key::new().part(&bytes);
        let pods: Vec<&LocalPod> = interface.pods.iter().filter_map(|pod| compiled.pod(pod)).collect();
        // If several pods claim an interface, the first one with a profile is used.
        let egress = pods.iter().find_map(|pod| pod.egress.clone());
        let ingress = pods.iter().find_map(|pod| pod.ingress.clone());
        self.names.push(name.clone());
        if egress.is_some() || ingress.is_some() {
            for address in pods.iter().flat_map(|pod| &pod.addresses) {
                let owned =
                    compiled.pod_at(*address).is_some_and(|owner| interface.pods.contains(&owner.key));
                let at = Family::ALL.iter().position(|family| *family == Family::from_address(*address));
                if let Some(at) = at.filter(|_| owned) {
                    self.addresses[at].push(name.clone().address(*address));
                }
            }
        }
        let index = interface.index;
        self.egress.extend(egress.map(|profile| SelectedInterface {
            name: name.clone(),
            priority: index,
            profile,
        }));
        self.ingress.extend(ingress.map(|profile| SelectedInterface {
            name,
            priority: index | OUTPUT_PORT,
            profile,
        }));
    }
}

fn set_elements(set: &str, elements: Vec<(Key, Element)>) -> SetElements {
    SetElements { set: set.into(), elements }
}

fn without_data(keys: &[Key]) -> Vec<(Key, Element)> {
    keys.iter().map(|key| (key.clone(), Element::new())).collect()
}
