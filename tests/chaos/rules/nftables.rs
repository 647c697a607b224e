//! nf_tables tables of Services and policies, traced by the tracer of `portcullis-netlink`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use portcullis_lab::{NetNs, Protocol};
use portcullis_netlink::nf_tables::{self, Fate, Packet, Table, TableFamily, TracedHost};

use crate::model::{Client, Connection, Outcome};
use crate::pools::{NODE, local_addresses};

/// The tables, and the indexes of the interfaces through which packets come.
pub(super) struct NftablesTables {
    tables: Vec<Table>,
    bridge: u32,
    uplink: u32,
}

impl NftablesTables {
    pub(super) fn read(netns: &NetNs) -> Self {
        let read = || {
            let mut socket = nf_tables::open().ok().flatten()?;
            let names = [
                (TableFamily::Ip, "portcullis"),
                (TableFamily::Ip6, "portcullis"),
                (TableFamily::Inet, "portcullis-policy"),
            ];
            let mut read =
                |(family, name)| nf_tables::read(&mut socket, family, name).expect("a table can be read");
            Some(names.map(&mut read).into_iter().flatten().map(|(table, _)| table).collect())
        };
        let index = |name: &str| {
            let name = std::ffi::CString::new(name).expect("a name without NUL");
            // SAFETY: the name is a C string that outlives the call.
            unsafe { libc::if_nametoindex(name.as_ptr()) }
        };
        let inside = netns.run(|| (read().unwrap_or_default(), index("cni0"), index("eth0")));
        let (tables, bridge, uplink) = inside.expect("the namespace exists");
        NftablesTables { tables, bridge, uplink }
    }

    /// Returns the outcomes of a connection whose packets arrive with a destination.
    pub(super) fn outcomes(&self, connection: &Connection, to: SocketAddr) -> BTreeSet<Outcome> {
        let own = local_addresses();
        let of_family: Vec<&Table> = self
            .tables
            .iter()
            .filter(|table| match table.family {
                TableFamily::Ip => to.is_ipv4(),
                TableFamily::Ip6 => to.is_ipv6(),
                _ => true,
            })
            .collect();
        let protocol = match connection.protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::Sctp => libc::IPPROTO_SCTP,
        };
        let packet = Packet::new(connection.from(), to.ip(), protocol as u8, to.port());
        let input = match connection.client {
            Client::Node => None,
            Client::Pod(index) if crate::pools::ALL_PODS[index].node == NODE => {
                Some((self.bridge, "cni0".to_owned()))
            }
            _ => Some((self.uplink, "eth0".to_owned())),
        };
        let host = TracedHost { tables: &of_family, is_local: &|ip| own.contains(&ip) };
        let paths = host.paths(Packet { input, ..packet });
        let outcome = |fate: &Fate, packet: &Packet| match fate {
            Fate::Dropped => Outcome::Dropped,
            Fate::Rejected(_) => Outcome::Rejected,
            Fate::Accepted => Outcome::To(SocketAddr::new(packet.destination, packet.destination_port)),
        };
        paths.iter().map(|(path, _)| outcome(&path.fate, &path.packet)).collect()
    }
}
