//! Removal of everything that the pod network has on this node, except the interfaces of pods.

use std::fs;

use portcullis_modes::forward_accept::ForwardAccept;
use portcullis_netlink::nf_tables::{self, TableFamily};
use portcullis_podnet::installation::Installation;
use portcullis_podnet::{egress, host_ports, links};

/// An object that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedObject {
    /// The object.
    pub object: String,
    /// Its type, as a word for programs.
    pub kind: &'static str,
}

/// The result of a removal.
#[derive(Debug, Default)]
pub struct NodeNetworkCleanup {
    /// The removed objects.
    pub removed: Vec<RemovedObject>,
    /// The objects that could not be removed, each with the reason.
    pub left: Vec<(String, String)>,
}

/// Removes the CNI configuration and plugin, then links, routes and rules; or only finds them. Interfaces of pods and their
/// records stay: the container runtime removes these with the pods.
pub fn remove(dry_run: bool) -> NodeNetworkCleanup {
    let mut cleanup = NodeNetworkCleanup::default();
    if is_in_network_of_the_node() {
        let (files, errors) = Installation::default().remove(dry_run);
        for path in files {
            cleanup.add(path.display().to_string(), "file");
        }
        cleanup.left.extend(errors.iter().map(|error| ("CNI plugin".to_owned(), error.to_string())));
    }
    match links::remove(dry_run) {
        Ok(removed) => {
            for (count, object, kind) in [
                (removed.routes, "route to pods of another node", "route"),
                (removed.links, "link of the overlay", "link"),
            ] {
                if count > 0 {
                    let plural = if count == 1 { "" } else { "s" };
                    cleanup.add(format!("{count} {object}{plural}"), kind);
                }
            }
        }
        Err(error) => cleanup.left.push(("routes to pods of other nodes".to_owned(), error.to_string())),
    }
    let (locations, errors) = ForwardAccept::remove(dry_run);
    for location in locations {
        cleanup.add(format!("rules for traffic of pods in {location}"), "iptables");
    }
    cleanup.left.extend(errors.into_iter().map(|error| ("rules for traffic of pods".to_owned(), error)));
    for table in [egress::TABLE, host_ports::TABLE] {
        let object = format!("table inet {table}");
        match remove_table(table, dry_run) {
            Ok(true) => cleanup.add(object, "nftTable"),
            Ok(false) => {}
            Err(error) => cleanup.left.push((object, error.to_string())),
        }
    }
    cleanup
}

/// Returns false in a network namespace other than that of PID 1, such as those of the lab: the files belong to the node.
fn is_in_network_of_the_node() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    namespace("1").is_none_or(|of_node| namespace("thread-self") == Some(of_node))
}

fn remove_table(table: &str, dry_run: bool) -> portcullis_netlink::Result<bool> {
    let Some(mut socket) = nf_tables::open()? else { return Ok(false) };
    match dry_run {
        true => nf_tables::has_table(&mut socket, TableFamily::Inet, table),
        false => nf_tables::delete_table(&mut socket, TableFamily::Inet, table),
    }
}

impl NodeNetworkCleanup {
    fn add(&mut self, object: String, kind: &'static str) {
        self.removed.push(RemovedObject { object, kind });
    }
}
