//! Removal of the nf_tables tables of kube-proxy and of Portcullis.

use portcullis_netlink::nf_tables::{self, TableFamily, delete_table, has_table};

use super::result::{Action, CleanupResult, RemovedObject};
use crate::nftables::{GUARD_TABLE, TABLE};
use crate::proxy_mode::ProxyMode;

/// A table by its family and name.
type Table = (TableFamily, &'static str);

/// kube-proxy's tables.
pub(super) const KUBE_PROXY: [Table; 2] = [(TableFamily::Ip, "kube-proxy"), (TableFamily::Ip6, "kube-proxy")];

/// Our tables.
pub(super) const PORTCULLIS: [Table; 2] = [(TableFamily::Ip, TABLE), (TableFamily::Ip6, TABLE)];

/// The table that drops packets to loopback addresses from other hosts while no mode does.
pub(super) const GUARD: Table = (TableFamily::Ip, GUARD_TABLE);

/// kube-proxy's tables, and ours.
pub(super) const ALL: [Table; 4] = [KUBE_PROXY[0], KUBE_PROXY[1], PORTCULLIS[0], PORTCULLIS[1]];

/// Returns the tables of other modes than the active one. Each mode drops packets to loopback addresses itself.
pub(super) fn of_other_modes(active: ProxyMode) -> &'static [Table] {
    match active {
        ProxyMode::Nftables => &[KUBE_PROXY[0], KUBE_PROXY[1], GUARD],
        _ => &[KUBE_PROXY[0], KUBE_PROXY[1], PORTCULLIS[0], PORTCULLIS[1], GUARD],
    }
}

pub(super) fn clean(result: &mut CleanupResult, tables: &[Table], action: Action) {
    let mut socket = match nf_tables::open() {
        Ok(Some(socket)) => socket,
        Ok(None) => return,
        Err(error) => return result.add_failure("nf_tables", error),
    };
    for &(family, name) in tables {
        let table = format!("{} {name}", family.as_str());
        let found = match action {
            Action::Remove => delete_table(&mut socket, family, name),
            Action::Find => has_table(&mut socket, family, name),
        };
        match found {
            Ok(true) => result.removed.push(RemovedObject::NftTable(table)),
            Ok(false) => {}
            Err(error) => result.add_failure(format_args!("nf_tables table {table}"), error),
        }
    }
}
