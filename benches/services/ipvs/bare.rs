//! The reference of IPVS mode: a loop that sends known objects.

use std::time::Instant;

use ipnet::IpNet;
use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_netlink::Result;
use portcullis_netlink::batches::SEND;
use portcullis_netlink::ip_vs::{IpVs, RealServer, ServerBatch, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::{IpSets, SetEntry};
use portcullis_netlink::route::{AddressBatch, Rtnetlink};

use super::objects::{Objects, Set};
use crate::figures::Spent;
use crate::process;

/// The writes that change one set of objects into another.
#[derive(Default)]
pub(crate) struct Writes {
    /// New, empty sets.
    sets: Vec<(String, Set)>,
    entries: Vec<(String, Vec<SetEntry>, Vec<SetEntry>)>,
    servers: Vec<ServerWrite>,
    bound: Vec<IpNet>,
    unbound: Vec<IpNet>,
}

enum ServerWrite {
    Add(VirtualServer, VirtualServerConfig),
    Delete(VirtualServer),
    AddReal(VirtualServer, RealServer),
    SetReal(VirtualServer, RealServer),
    DeleteReal(VirtualServer, RealServer),
}

impl Writes {
    pub(crate) fn between(before: &Objects, after: &Objects) -> Writes {
        let mut writes = Writes {
            bound: after.addresses.difference(&before.addresses).copied().collect(),
            unbound: before.addresses.difference(&after.addresses).copied().collect(),
            ..Writes::default()
        };
        for (name, set) in &after.sets {
            let old = before.sets.get(name);
            if old.is_none() {
                writes.sets.push((name.clone(), Set { entries: Default::default(), ..set.clone() }));
            }
            let nothing = Default::default();
            let old = old.map_or(&nothing, |old| &old.entries);
            let [added, deleted] = [set.entries.difference(old), old.difference(&set.entries)];
            writes.entries.push((name.clone(), added.copied().collect(), deleted.copied().collect()));
        }
        writes.entries.retain(|(_, added, deleted)| !added.is_empty() || !deleted.is_empty());
        for (key, server) in &after.servers {
            let Some(old) = before.servers.get(key) else {
                writes.servers.push(ServerWrite::Add(*key, server.config.clone()));
                writes.servers.extend(server.real.iter().map(|real| ServerWrite::AddReal(*key, *real)));
                continue;
            };
            let place = |real: &RealServer| (real.address, real.port);
            for real in server.real.difference(&old.real) {
                let there = old.real.iter().any(|old| place(old) == place(real));
                let write = if there { ServerWrite::SetReal } else { ServerWrite::AddReal };
                writes.servers.push(write(*key, *real));
            }
            let gone =
                old.real.iter().filter(|old| !server.real.iter().any(|real| place(real) == place(old)));
            writes.servers.extend(gone.map(|real| ServerWrite::DeleteReal(*key, *real)));
        }
        let gone = before.servers.keys().filter(|key| !after.servers.contains_key(key));
        writes.servers.extend(gone.map(|key| ServerWrite::Delete(*key)));
        writes
    }

    /// Writes to the network namespace of this thread.
    pub(crate) fn carry_out(&self) -> Spent {
        let (start, used) = (Instant::now(), process::of_this_thread());
        self.write().unwrap_or_else(|error| panic!("the bare loop: {error}"));
        Spent { wall: start.elapsed(), processor: process::of_this_thread() - used }
    }

    fn write(&self) -> Result<()> {
        let mut sets = IpSets::open_or_load()?;
        for (name, set) in &self.sets {
            sets.create(name, set.set_type, set.family, set.maxelem)?;
        }
        for (name, added, deleted) in &self.entries {
            sets.change(name, added.iter().copied(), deleted.iter().copied())?;
        }
        let mut servers = IpVs::open()?.expect("the daemon had it");
        let mut batch = ServerBatch::new();
        for write in &self.servers {
            match write {
                ServerWrite::Add(key, config) => batch.add_virtual_server(key, config)?,
                ServerWrite::Delete(key) => batch.delete_virtual_server(key)?,
                ServerWrite::AddReal(key, real) => batch.add_real_server(key, real)?,
                ServerWrite::SetReal(key, real) => batch.set_real_server(key, real)?,
                ServerWrite::DeleteReal(key, real) => {
                    batch.delete_real_server(key, real.address, real.port)?;
                }
            }
            if batch.size() >= SEND {
                servers.send(&mut batch, |_, error| Err(error))?;
                batch.clear();
            }
        }
        servers.send(&mut batch, |_, error| Err(error))?;
        if self.bound.is_empty() && self.unbound.is_empty() {
            return Ok(());
        }
        let mut interfaces = Rtnetlink::open()?;
        let link = interfaces.add_link_dummy(DUMMY_INTERFACE)?;
        let mut batch = AddressBatch::new();
        self.unbound.iter().for_each(|address| batch.delete(link, *address));
        self.bound.iter().for_each(|address| batch.add(link, *address));
        interfaces.change_addresses(&mut batch, |_, error| Err(error))
    }
}
