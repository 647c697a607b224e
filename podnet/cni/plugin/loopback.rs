//! The plugin `loopback`: sets `lo` of a pod up.
//!
//! containerd runs a plugin of this name for each pod, unless `use_internal_loopback` is set (since 2.0; off by default), and starts no pods
//! without it. Packages such as kubernetes-cni have one; where no other program has installed it, this plugin has the name as well.

use ipnet::IpNet;
use portcullis_netlink::route::{InterfaceBatch, Link, Rtnetlink};

use super::super::error::{CniError, ErrorCode, Result};
use super::super::request::{Container, Request};
use super::super::result::{CniResult, Interface, Ip};
use super::{Answer, namespace};

/// The name of the interface, whatever `CNI_IFNAME` is.
const NAME: &str = "lo";

/// Executes a request. `DEL` and `GC` have nothing to do: the interface ends with the pod's network namespace.
pub(super) fn run(request: &Request) -> Result<Answer> {
    match request {
        Request::Add(container) => add(container).map(Answer::Added),
        Request::Check(container, _) => check(container).map(|()| Answer::Nothing),
        Request::Del(_) | Request::Status | Request::Gc(_) => Ok(Answer::Nothing),
        Request::Version(requested) => Ok(Answer::Versions(requested.clone())),
    }
}

/// Sets the interface up. A previous result passes unchanged, as with the reference plugin.
fn add(container: &Container) -> Result<CniResult> {
    let addresses = inside(container, |rtnetlink| {
        let index = link(rtnetlink)?.index;
        let mut batch = InterfaceBatch::new();
        batch.set_up(index);
        rtnetlink.change_interfaces(&mut batch)?;
        rtnetlink.link_addresses(index)
    })?;
    Ok(container.previous.clone().unwrap_or_else(|| result(container, &addresses)))
}

fn check(container: &Container) -> Result<()> {
    match inside(container, link)?.is_up() {
        true => Ok(()),
        false => Err(CniError::new(ErrorCode::Damaged, format!("interface {NAME} is down"))),
    }
}

/// Calls a function with a socket in the network namespace of a container.
fn inside<T>(
    container: &Container,
    task: impl FnOnce(&mut Rtnetlink) -> portcullis_netlink::Result<T>,
) -> Result<T> {
    let kernel = |error: &dyn std::fmt::Display| CniError::new(ErrorCode::Kernel, error.to_string());
    let done = namespace(&container.netns)?.run(|| task(&mut Rtnetlink::open()?));
    done.map_err(|error| kernel(&error))?.map_err(|error| kernel(&error))
}

fn link(rtnetlink: &mut Rtnetlink) -> portcullis_netlink::Result<Link> {
    rtnetlink.link(NAME)?.ok_or(portcullis_netlink::Error::NoResponse { action: "look up lo" })
}

fn result(container: &Container, addresses: &[IpNet]) -> CniResult {
    let interface = Interface {
        name: NAME.to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        mtu: None,
        sandbox: Some(container.netns.to_string_lossy().into_owned()),
        other: serde_json::Map::new(),
    };
    let ip = |address: &IpNet| Ip { address: *address, gateway: None, interface: Some(0) };
    CniResult { interfaces: vec![interface], ips: addresses.iter().map(ip).collect(), ..CniResult::default() }
}
