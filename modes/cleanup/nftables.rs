//! What nftables modes leave: tables of their own.

use portcullis_netlink::nf_tables::{self, TableFamily, delete_table};

use super::{Cleanup, Removed};
use crate::nftables::TABLE;

/// A table by its family and name.
type Table = (TableFamily, &'static str);

/// kube-proxy's tables.
pub(super) const KUBE_PROXY: [Table; 2] = [(TableFamily::Ip, "kube-proxy"), (TableFamily::Ip6, "kube-proxy")];

/// kube-proxy's tables, and ours.
pub(super) const ALL: [Table; 4] =
    [KUBE_PROXY[0], KUBE_PROXY[1], (TableFamily::Ip, TABLE), (TableFamily::Ip6, TABLE)];

pub(super) fn remove(done: &mut Cleanup, tables: &[Table]) {
    let mut socket = match nf_tables::open() {
        Ok(Some(socket)) => socket,
        Ok(None) => return,
        Err(error) => return done.left("nf_tables", error),
    };
    for &(family, name) in tables {
        let table = format!("{} {name}", family.as_str());
        match delete_table(&mut socket, family, name) {
            Ok(true) => done.removed.push(Removed::NftTable(table)),
            Ok(false) => {}
            Err(error) => done.left(format_args!("nf_tables table {table}"), error),
        }
    }
}
