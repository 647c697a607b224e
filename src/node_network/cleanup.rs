//! Removal of everything that the pod network has on this node, except the interfaces of pods.

use std::fs;

use portcullis_modes::forward_accept::ForwardAccept;
use portcullis_netlink::nf_tables::{self, TableFamily};
use portcullis_podnet::installation::Installation;
use portcullis_podnet::{egress, host_ports, links, source_check};

/// The tables of the pod network, of the family `inet`.
pub(crate) const TABLES: [&str; 3] = [egress::TABLE, source_check::TABLE, host_ports::TABLE];

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

/// Finds what an earlier run with a pod network has left, except for rules of iptables, whose tools take long on large tables.
pub fn find_leftovers(installation: &Installation) -> Vec<String> {
    let mut leftovers = Vec::new();
    if has_files_of_the_node(installation) {
        leftovers.extend(installation.remove(true).0.iter().map(|path| path.display().to_string()));
    }
    if let Ok(found) = links::remove(true) {
        let counted =
            [(found.routes, "routes to pods of other nodes"), (found.links, "links of the overlay")];
        leftovers
            .extend(counted.iter().filter(|(count, _)| *count > 0).map(|(_, objects)| (*objects).to_owned()));
    }
    let tables = TABLES.into_iter().filter(|table| remove_table(table, true).unwrap_or(false));
    leftovers.extend(tables.map(|table| format!("table inet {table}")));
    leftovers
}

/// Removes the CNI configuration and plugin, then links, routes and rules; or only finds them. Interfaces of pods and their
/// records stay: the container runtime removes these with the pods.
pub fn remove(installation: &Installation, dry_run: bool) -> NodeNetworkCleanup {
    let mut cleanup = NodeNetworkCleanup::default();
    if has_files_of_the_node(installation) {
        let (files, errors) = installation.remove(dry_run);
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
    for table in TABLES {
        let object = format!("table inet {table}");
        match remove_table(table, dry_run) {
            Ok(true) => cleanup.add(object, "nftTable"),
            Ok(false) => {}
            Err(error) => cleanup.left.push((object, error.to_string())),
        }
    }
    cleanup
}

/// Returns false for the default folders in a network namespace other than that of PID 1, such as those of the lab: these belong to the
/// node. Other folders were configured on purpose.
fn has_files_of_the_node(installation: &Installation) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let is_in_network_of_the_node =
        || namespace("1").is_none_or(|of_node| namespace("thread-self") == Some(of_node));
    *installation != Installation::default() || is_in_network_of_the_node()
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
