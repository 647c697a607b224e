//! The Services that are programmed in one family, and the kernel objects that they need.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_cluster::desired::ServicePort;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::ip_vs::VirtualServer;

use super::references::{ReferenceChanges, References};
use super::renderer::Renderer;
use super::service_objects::{ServerSpec, ServiceObjects};

/// The ports of a Service, shared with the desired state.
pub(super) type Ports = Arc<[ServicePort]>;

/// The Services that are programmed in one family.
pub(super) struct Programmed {
    renderer: Renderer,
    services: BTreeMap<NamespacedName, Ports>,
    references: References,
    /// Virtual servers with these addresses belong to other programs.
    excluded: Arc<[IpNet]>,
}

/// A request to program Services.
pub(super) struct Update {
    /// Renders the Services from now on; all of them must then be in `services`.
    pub(super) renderer: Option<Renderer>,
    /// Services with their new ports; `None` removes one.
    pub(super) services: Vec<(NamespacedName, Option<Ports>)>,
}

/// The effect of an [`Update`].
#[derive(Default)]
pub(super) struct ChangeSet {
    /// The changed Services with their previous ports.
    pub(super) services: HashMap<NamespacedName, Option<Ports>>,
    pub(super) servers: BTreeMap<VirtualServer, ServerTransition>,
    pub(super) references: ReferenceChanges,
}

/// A virtual server before and after a change; `None` where there is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerTransition {
    pub(super) before: Option<ServerSpec>,
    pub(super) after: Option<ServerSpec>,
}

impl ChangeSet {
    /// Adds changes that came after these, before any of them was written to a virtual server.
    pub(super) fn extend(&mut self, later: ChangeSet) {
        for (name, previous) in later.services {
            self.services.entry(name).or_insert(previous);
        }
        for (server, transition) in later.servers {
            match self.servers.entry(server) {
                Entry::Vacant(vacant) => drop(vacant.insert(transition)),
                Entry::Occupied(mut earlier) => earlier.get_mut().after = transition.after,
            }
        }
        self.references.extend(&later.references);
    }
}

impl Programmed {
    /// Returns the state of a family in which no Service is programmed yet.
    pub(super) fn new(renderer: Renderer, excluded: Arc<[IpNet]>) -> Self {
        Programmed { renderer, services: BTreeMap::new(), references: References::default(), excluded }
    }

    pub(super) fn family(&self) -> Family {
        self.renderer.family
    }

    pub(super) fn renderer(&self) -> &Renderer {
        &self.renderer
    }

    pub(super) fn services(&self) -> &BTreeMap<NamespacedName, Ports> {
        &self.services
    }

    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// Returns the Service whose endpoints a virtual server has.
    pub(super) fn owner(&self, server: &VirtualServer) -> Option<&NamespacedName> {
        self.references.owner(server)
    }

    /// Returns a virtual server as its owner needs it.
    pub(super) fn server(&self, server: &VirtualServer) -> Option<ServerSpec> {
        self.server_of(self.owner(server)?, server, &self.renderer)
    }

    /// Returns the virtual servers that a Service owns.
    pub(super) fn owned_servers(
        &self,
        name: &NamespacedName,
        ports: &[ServicePort],
    ) -> Vec<(VirtualServer, ServerSpec)> {
        let mut servers = self.renderer.service(ports).servers;
        servers.retain(|(server, _)| self.owner(server) == Some(name));
        servers
    }

    /// Returns true if a virtual server that no Service needs may be deleted.
    pub(super) fn may_delete(&self, server: &VirtualServer) -> bool {
        Family::from_address(server.address) == self.family()
            && !self.excluded.iter().any(|net| net.contains(&server.address))
    }

    /// Replaces all Services. The kernel must be compared with the result as a whole.
    pub(super) fn replace(&mut self, renderer: Option<Renderer>, services: BTreeMap<NamespacedName, Ports>) {
        if let Some(renderer) = renderer {
            self.renderer = renderer;
        }
        self.references = References::with_capacity(services.len());
        for (name, ports) in &services {
            self.references.add(name, &self.renderer.service(ports), &mut ReferenceChanges::default());
        }
        self.services = services;
    }

    /// Programs Services, and returns what that changes.
    pub(super) fn update(&mut self, update: Update) -> ChangeSet {
        let Update { renderer: next, services } = update;
        let mut changes = ChangeSet::default();
        let mut rendered = Vec::with_capacity(services.len());
        // The previous servers of all Services come first, as one Service may take over a server from another.
        for (name, ports) in services {
            let before = self.services.get(&name).map(|ports| self.renderer.service(ports));
            let before = before.unwrap_or_default();
            let renderer = next.as_ref().unwrap_or(&self.renderer);
            let after = ports.as_ref().map(|ports| renderer.service(ports)).unwrap_or_default();
            for (server, _) in before.servers.iter().chain(&after.servers) {
                if !changes.servers.contains_key(server) {
                    let before = self.server_before(server, &name, &before);
                    changes.servers.insert(*server, ServerTransition { before, after: None });
                }
            }
            rendered.push((name, before, after, ports));
        }
        let mut rendered_after = HashMap::new();
        for (name, before, after, ports) in rendered {
            self.references.remove(&name, &before, &mut changes.references);
            self.references.add(&name, &after, &mut changes.references);
            let previous = match ports {
                Some(ports) => self.services.insert(name.clone(), ports),
                None => self.services.remove(&name),
            };
            changes.services.insert(name.clone(), previous);
            rendered_after.insert(name, after);
        }
        if let Some(next) = next {
            self.renderer = next;
        }
        for (server, transition) in &mut changes.servers {
            let Some(owner) = self.owner(server) else { continue };
            transition.after = match rendered_after.get_mut(owner) {
                Some(objects) => objects.take_server(server),
                None => self.server_of(owner, server, &self.renderer),
            };
        }
        changes
    }

    /// Returns a virtual server before an update of `name`, whose previous objects are known.
    fn server_before(
        &self,
        server: &VirtualServer,
        name: &NamespacedName,
        objects: &ServiceObjects,
    ) -> Option<ServerSpec> {
        match self.owner(server)? {
            owner if owner == name => objects.server(server).cloned(),
            owner => self.server_of(owner, server, &self.renderer),
        }
    }

    fn server_of(
        &self,
        owner: &NamespacedName,
        server: &VirtualServer,
        renderer: &Renderer,
    ) -> Option<ServerSpec> {
        renderer.service(self.services.get(owner)?).take_server(server)
    }
}
