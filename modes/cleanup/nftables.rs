//! What nftables modes leave: tables of their own.

use portcullis_netlink::nf_tables::{self, TableFamily, delete_table};

use super::{Cleanup, Removed};

/// kube-proxy's tables, and ours.
const TABLES: [(TableFamily, &str); 3] =
    [(TableFamily::Ip, "kube-proxy"), (TableFamily::Ip6, "kube-proxy"), (TableFamily::Inet, "portcullis")];

pub(super) fn remove(done: &mut Cleanup) {
    let mut socket = match nf_tables::open() {
        Ok(Some(socket)) => socket,
        Ok(None) => return,
        Err(error) => return done.left("nf_tables", error),
    };
    for (family, name) in TABLES {
        let table = format!("{} {name}", family.as_str());
        match delete_table(&mut socket, family, name) {
            Ok(true) => done.removed.push(Removed::NftTable(table)),
            Ok(false) => {}
            Err(error) => done.left(format_args!("nf_tables table {table}"), error),
        }
    }
}
