//! `CHECK`: compares the network of a container with what `ADD` made.

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use super::super::request::Container;
use super::super::result::CniResult;
use super::{host_ports, namespace, rtnetlink, store_error, store_without_ranges};
use crate::addresses::Attachment;
use crate::pod_interface::{Expected, Identity, PodInterface};

pub(super) fn run(
    configuration: &NetworkConfiguration,
    container: &Container,
    previous: &CniResult,
) -> Result<()> {
    let mut host = rtnetlink()?;
    let kernel = |error: portcullis_netlink::Error| CniError::new(ErrorCode::Kernel, error.to_string());
    let key = &container.key;
    let Some(attachment) =
        store_without_ranges(configuration)?.get(key).map_err(|error| store_error(&error))?
    else {
        return Err(match host.link(&Identity::new(key).host_name).map_err(kernel)? {
            Some(link) => damaged(vec![format!(
                "no addresses are reserved for {key}, which has interface {}",
                link.name
            )]),
            None => {
                CniError::new(ErrorCode::UnknownContainer, format!("{key} was not added to this network"))
            }
        });
    };
    let namespace = namespace(&container.netns).map_err(|error| damaged(vec![error.to_string()]))?;
    let sandbox = container.netns.to_string_lossy();
    let interface = PodInterface {
        key,
        namespace: &namespace,
        addresses: &attachment.addresses,
        wiring: configuration.wiring,
        bridge: configuration.bridge(),
        mtu: configuration.mtu,
    };
    let expected = expected(previous, &sandbox, key.interface(), &interface)?;
    let mut damages = reservation_damages(&attachment, &expected);
    let found = interface
        .check(&mut host, &expected)
        .map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))?;
    damages.extend(found);
    damages.extend(host_ports::missing(configuration, &attachment)?);
    if damages.is_empty() { Ok(()) } else { Err(damaged(damages)) }
}

fn damaged(damages: Vec<String>) -> CniError {
    CniError::new(ErrorCode::Damaged, damages.join("; "))
}

/// Returns what the previous result says of the pod's interface and the default routes through it.
fn expected(
    previous: &CniResult,
    sandbox: &str,
    name: &str,
    interface: &PodInterface<'_>,
) -> Result<Expected> {
    let Some(position) = previous.interface_in(sandbox, name) else {
        return Err(CniError::new(
            ErrorCode::InvalidConfiguration,
            format!("network configuration: prevResult.interfaces has no {name} in {sandbox}"),
        ));
    };
    let of_result = &previous.interfaces[position];
    let gateways: Vec<_> = interface.addresses.iter().map(|address| interface.gateway(*address)).collect();
    let is_ours = |gateway| gateways.contains(gateway);
    Ok(Expected {
        mac: Some(of_result.mac.clone()).filter(|mac| !mac.is_empty()),
        mtu: of_result.mtu,
        addresses: previous
            .ips
            .iter()
            .filter(|ip| ip.interface == Some(position))
            .map(|ip| ip.address)
            .collect(),
        routes: previous
            .routes
            .iter()
            .filter(|route| route.gw.as_ref().is_some_and(is_ours))
            .map(|route| (route.dst, route.gw))
            .collect(),
    })
}

/// Compares the reserved addresses with those of the result: another pod could get an address that is not reserved.
fn reservation_damages(attachment: &Attachment, expected: &Expected) -> Vec<String> {
    let is_reserved = |address: &&ipnet::IpNet| {
        attachment.addresses.iter().any(|reserved| reserved.addr() == address.addr())
    };
    expected
        .addresses
        .iter()
        .filter(|address| !is_reserved(address))
        .map(|address| format!("the address {} is not reserved for {}", address.addr(), attachment.key))
        .collect()
}
