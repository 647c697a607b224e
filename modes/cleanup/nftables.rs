//! What nftables modes leave: tables of their own.

use portcullis_netlink::nf_tables::{self, TableFamily, delete_table, list_chains};
use portcullis_netlink::socket::Socket;

use super::{Cleanup, Doing, Removed, Serving};
use crate::nftables::{GUARD_TABLE, TABLE};

/// A table by its family and name.
type Table = (TableFamily, &'static str);

/// kube-proxy's tables.
pub(super) const KUBE_PROXY: [Table; 2] = [(TableFamily::Ip, "kube-proxy"), (TableFamily::Ip6, "kube-proxy")];

/// Our tables.
pub(super) const OURS: [Table; 2] = [(TableFamily::Ip, TABLE), (TableFamily::Ip6, TABLE)];

/// The table that guards loopback addresses while no mode does.
pub(super) const GUARD: Table = (TableFamily::Ip, GUARD_TABLE);

/// kube-proxy's tables, and ours.
pub(super) const ALL: [Table; 4] = [KUBE_PROXY[0], KUBE_PROXY[1], OURS[0], OURS[1]];

/// The tables that are not the serving mode's. Each mode guards loopback addresses itself.
pub(super) fn of_others(serving: Serving) -> &'static [Table] {
    match serving {
        Serving::Nftables => &[KUBE_PROXY[0], KUBE_PROXY[1], GUARD],
        _ => &[KUBE_PROXY[0], KUBE_PROXY[1], OURS[0], OURS[1], GUARD],
    }
}

pub(super) fn go_over(done: &mut Cleanup, tables: &[Table], doing: Doing) {
    let mut socket = match nf_tables::open() {
        Ok(Some(socket)) => socket,
        Ok(None) => return,
        Err(error) => return done.left("nf_tables", error),
    };
    for &(family, name) in tables {
        let table = format!("{} {name}", family.as_str());
        let found = match doing {
            Doing::Remove => delete_table(&mut socket, family, name),
            Doing::Look => is_there(&mut socket, family, name),
        };
        match found {
            Ok(true) => done.removed.push(Removed::NftTable(table)),
            Ok(false) => {}
            Err(error) => done.left(format_args!("nf_tables table {table}"), error),
        }
    }
}

/// Whether a table is there, and has a chain.
fn is_there(socket: &mut Socket, family: TableFamily, name: &str) -> portcullis_netlink::Result<bool> {
    let mut found = false;
    match list_chains(socket, family, |chain| found |= chain.table == name) {
        // The kernel has no such family.
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
        listed => listed.map(|()| found),
    }
}
