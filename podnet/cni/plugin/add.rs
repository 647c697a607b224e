//! `ADD`: gives a container an interface with addresses and routes.

use std::cell::RefCell;

use portcullis_netlink::route::Rtnetlink;

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use super::super::request::Container;
use super::super::result::{CniResult, Interface, Ip, Route};
use super::{ensure_set_up, host_ports, namespace, ranges, rtnetlink, store_error};
use crate::addresses::{self, AddressStore, NewAttachment, Reservation};
use crate::pod_interface::{self, AddedInterface, AddedLink, Identity, Namespace, PodInterface};

pub(super) fn run(configuration: &NetworkConfiguration, container: &Container) -> Result<CniResult> {
    ensure_set_up(configuration).map_err(|reason| {
        CniError::new(ErrorCode::TryAgainLater, "the pod network is not ready").with_details(reason)
    })?;
    let key = &container.key;
    let namespace = namespace(&container.netns)?;
    let sandbox = container.netns.to_string_lossy();
    if container
        .previous
        .as_ref()
        .is_some_and(|previous| previous.interface_in(&sandbox, key.interface()).is_some())
    {
        return Err(CniError::new(
            ErrorCode::InvalidEnvironment,
            format!(
                "CNI_IFNAME: a previous plugin in the chain made an interface {} in the pod",
                key.interface()
            ),
        ));
    }
    let mut host = rtnetlink()?;
    let store = AddressStore::open(
        &configuration.state_dir(),
        &ranges(configuration)?,
        &configuration.other_address_dirs,
    )
    .map_err(|error| store_error(&error))?;
    let new = NewAttachment {
        key: key.clone(),
        netns: container.netns.clone(),
        host_interface: Identity::new(key).host_name,
        host_ports: configuration.port_mappings()?,
    };
    let reservation = reserve(&store, &new, &mut host)?;
    let added = attach(configuration, &namespace, &mut host, &store, reservation);
    if added.is_err() {
        // The first error explains more. `DEL` and `GC` remove what cannot be removed now, and then return the addresses.
        let ports = host_ports::remove(configuration, &store, key);
        let interface = pod_interface::remove(&mut host, key);
        if ports.is_ok() && interface.is_ok() {
            let _ = store.remove(key);
        }
    }
    let result = result(&added?, &sandbox, configuration);
    Ok(match &container.previous {
        None => result,
        Some(previous) => result.appended_to(previous.clone()),
    })
}

/// Reserves addresses that no other pod has.
fn reserve(store: &AddressStore, new: &NewAttachment, host: &mut Rtnetlink) -> Result<Reservation> {
    // Pods of another plugin with a route per pod, and our own pods if their records were removed, still have their addresses.
    let host = RefCell::new(host);
    let is_in_use = |address| {
        let found = host.borrow_mut().has_host_route(address);
        found.map_err(|source| addresses::Error::Lookup { address, source })
    };
    store.add_unless(new, &is_in_use).map_err(|error| store_error(&error))
}

/// Adds the interface of an attachment whose addresses are reserved.
fn attach(
    configuration: &NetworkConfiguration,
    namespace: &Namespace,
    host: &mut Rtnetlink,
    store: &AddressStore,
    reservation: Reservation,
) -> Result<AddedInterface> {
    let attachment = reservation.attachment();
    let interface = PodInterface {
        key: &attachment.key,
        namespace,
        addresses: &attachment.addresses,
        wiring: configuration.wiring,
        bridge: configuration.bridge(),
        mtu: configuration.mtu,
    };
    let added = interface.add(host).map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))?;
    let attachment = store.complete(reservation).map_err(|error| store_error(&error))?;
    host_ports::add(configuration, store, &attachment, &added.host.name)?;
    Ok(added)
}

/// Returns the result: the links, the addresses of the pod's interface, and its default routes.
fn result(added: &AddedInterface, sandbox: &str, configuration: &NetworkConfiguration) -> CniResult {
    let interface = |link: &AddedLink, sandbox: Option<&str>| Interface {
        name: link.name.clone(),
        mac: link.mac.to_string(),
        mtu: Some(link.mtu),
        sandbox: sandbox.map(str::to_owned),
        other: serde_json::Map::new(),
    };
    let mut interfaces: Vec<_> = added.bridge.iter().map(|bridge| interface(bridge, None)).collect();
    interfaces.push(interface(&added.host, None));
    let position = interfaces.len();
    interfaces.push(interface(&added.pod, Some(sandbox)));
    let ips = added
        .addresses
        .iter()
        .map(|added| Ip { address: added.address, gateway: Some(added.gateway), interface: Some(position) })
        .collect();
    let routes = added
        .default_routes()
        .map(|(dst, gw)| Route { dst, gw: Some(gw), other: serde_json::Map::new() })
        .collect();
    CniResult { interfaces, ips, routes, dns: configuration.dns.clone() }
}
