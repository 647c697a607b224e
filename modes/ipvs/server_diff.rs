//! The changes that bring one virtual server from a known or read configuration to the desired one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use portcullis_netlink::ip_vs::{
    MASQUERADING, RealServer, RealServerState, VirtualServer, VirtualServerConfig,
};

use super::kernel::ServerChange;
use super::service_objects::ServerSpec;
use super::termination::is_graceful;

/// A virtual server as read from the kernel.
#[derive(Clone, Debug)]
pub(super) struct FoundServer {
    pub(super) config: VirtualServerConfig,
    pub(super) real_servers: Vec<RealServerState>,
}

/// Virtual servers as read from the kernel; `None` where there is none.
pub(super) type FoundServers = BTreeMap<VirtualServer, Option<FoundServer>>;

/// The changes of one virtual server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerDiff {
    server: VirtualServer,
    pub(super) changes: Vec<ServerChange>,
    /// The real servers that are draining after the changes: their weight is 0, and they keep their connections.
    pub(super) draining: BTreeSet<SocketAddr>,
}

impl ServerDiff {
    /// Returns the changes from the configuration as last written to the desired one. `draining` are the real servers
    /// that are draining now.
    pub(super) fn from_written(
        server: VirtualServer,
        draining: BTreeSet<SocketAddr>,
        before: Option<&ServerSpec>,
        after: Option<&ServerSpec>,
    ) -> Self {
        let mut diff = ServerDiff { server, changes: Vec::new(), draining };
        match (before, after) {
            (None, None) => {}
            (Some(_), None) => diff.delete(),
            (None, Some(after)) => {
                diff.changes.push(ServerChange::AddServer(server, after.config.clone()));
                diff.change_real_servers(&[], &after.real_servers);
            }
            (Some(before), Some(after)) => {
                if before.config != after.config {
                    diff.changes.push(ServerChange::SetServer(server, after.config.clone()));
                }
                diff.change_real_servers(&before.real_servers, &after.real_servers);
            }
        }
        diff
    }

    /// Returns the changes from the configuration as read from the kernel to the desired one.
    pub(super) fn from_found(
        server: VirtualServer,
        draining: BTreeSet<SocketAddr>,
        found: Option<&FoundServer>,
        after: Option<&ServerSpec>,
    ) -> Self {
        let Some(found) = found else {
            return ServerDiff::from_written(server, BTreeSet::new(), None, after);
        };
        let mut diff = ServerDiff { server, changes: Vec::new(), draining };
        match after {
            None => diff.delete(),
            Some(after) => diff.correct(found, after),
        }
        diff
    }

    fn correct(&mut self, found: &FoundServer, after: &ServerSpec) {
        if found.config != after.config {
            self.changes.push(ServerChange::SetServer(self.server, after.config.clone()));
        }
        for wanted in &after.real_servers {
            let address = wanted.socket_address();
            // Its termination may have begun in a sync that failed before the kernel received it.
            self.draining.remove(&address);
            match found.real_servers.iter().find(|state| state.server.socket_address() == address) {
                None => self.changes.push(ServerChange::AddRealServer(self.server, *wanted)),
                Some(state) if state.server != *wanted || state.forwarding != MASQUERADING => {
                    self.changes.push(ServerChange::SetRealServer(self.server, *wanted));
                }
                Some(_) => {}
            }
        }
        for state in &found.real_servers {
            let address = state.server.socket_address();
            if after.real_servers.iter().any(|wanted| wanted.socket_address() == address) {
                continue;
            }
            if state.server.weight == 0 && is_graceful(&self.server) {
                self.draining.insert(address);
            } else {
                self.remove_real_server(address);
            }
        }
    }

    fn delete(&mut self) {
        self.draining.clear();
        self.changes.push(ServerChange::DeleteServer(self.server));
    }

    /// Adds the changes between two sorted lists of real servers.
    fn change_real_servers(&mut self, mut before: &[RealServer], mut after: &[RealServer]) {
        loop {
            let order = match (before.first(), after.first()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.socket_address().cmp(&new.socket_address()),
            };
            match order {
                Ordering::Less => self.remove_real_server(before[0].socket_address()),
                Ordering::Greater => self.add_real_server(after[0]),
                Ordering::Equal if before[0] != after[0] => {
                    self.changes.push(ServerChange::SetRealServer(self.server, after[0]));
                }
                Ordering::Equal => {}
            }
            before = &before[usize::from(order != Ordering::Greater)..];
            after = &after[usize::from(order != Ordering::Less)..];
        }
    }

    /// Adds a real server, or gives one that is draining its weight back.
    fn add_real_server(&mut self, real_server: RealServer) {
        self.changes.push(match self.draining.remove(&real_server.socket_address()) {
            true => ServerChange::SetRealServer(self.server, real_server),
            false => ServerChange::AddRealServer(self.server, real_server),
        });
    }

    fn remove_real_server(&mut self, address: SocketAddr) {
        if is_graceful(&self.server) {
            self.draining.insert(address);
            let drained = RealServer { address: address.ip(), port: address.port(), weight: 0 };
            self.changes.push(ServerChange::SetRealServer(self.server, drained));
        } else {
            self.changes.push(ServerChange::DeleteRealServer(self.server, address));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portcullis_netlink::Family;
    use portcullis_netlink::ip_vs::PERSISTENT;

    use super::super::test_services::print_changes;
    use super::*;

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    fn server(protocol: u8) -> VirtualServer {
        VirtualServer { protocol, address: IpAddr::from([10, 96, 0, 1]), port: 80 }
    }

    fn real(last: u8, weight: u32) -> RealServer {
        RealServer { address: IpAddr::from([10, 244, 0, last]), port: 8080, weight }
    }

    fn spec(persistent: bool, last: &[u8]) -> ServerSpec {
        let mut config = VirtualServerConfig::new("rr", Family::V4);
        if persistent {
            (config.flags, config.timeout) = (PERSISTENT, 10);
        }
        ServerSpec { config, real_servers: last.iter().map(|l| real(*l, 1)).collect() }
    }

    fn addresses(last: &[u8]) -> BTreeSet<SocketAddr> {
        last.iter().map(|last| real(*last, 1).socket_address()).collect()
    }

    /// A virtual server in short: whether it is persistent, and the last bytes of its real servers.
    type Short<'a> = Option<(bool, &'a [u8])>;

    /// A real server as read from the kernel in short: the last byte of its address, its weight, its forwarding method.
    type ShortReal = (u8, u32, u32);

    type WrittenRow<'a> = (&'a str, u8, Short<'a>, &'a [u8], Short<'a>, &'a str, &'a [u8]);
    type FoundRow<'a> = (&'a str, Option<&'a [ShortReal]>, Option<&'a [u8]>, &'a str, &'a [u8]);

    #[test]
    fn changes_from_the_written_configuration_are_minimal() {
        #[rustfmt::skip]
        let rows: [WrittenRow<'_>; 10] = [
            // name; protocol; before; draining; after; changes; draining after
            ("new", TCP, None, &[], Some((false, &[1, 2])), "+vs +1 +2", &[]),
            ("removed", TCP, Some((false, &[1, 2])), &[3], None, "-vs", &[]),
            ("unchanged", TCP, Some((false, &[1, 2])), &[], Some((false, &[1, 2])), "", &[]),
            ("added", TCP, Some((false, &[1, 3])), &[], Some((false, &[1, 2, 3])), "+2", &[]),
            ("TCP drains", TCP, Some((false, &[1, 2, 3])), &[], Some((false, &[1, 3])), "2=0", &[2]),
            ("UDP does not drain", UDP, Some((false, &[1, 2])), &[], Some((false, &[2])), "-1", &[]),
            ("added while it drains", TCP, Some((false, &[1])), &[2], Some((false, &[1, 2])), "2=1", &[]),
            ("replaced", TCP, Some((false, &[1])), &[], Some((false, &[2])), "1=0 +2", &[1]),
            ("affinity", TCP, Some((false, &[1])), &[], Some((true, &[1])), "~vs", &[]),
            ("all of these", TCP, Some((true, &[1, 4])), &[5], Some((false, &[4, 5, 6])), "~vs 1=0 5=1 +6", &[1]),
        ];
        for (name, protocol, before, draining, after, expected, draining_after) in rows {
            let spec = |short: Short<'_>| short.map(|(persistent, last)| spec(persistent, last));
            let (before, after) = (spec(before), spec(after));
            let draining = addresses(draining);
            let diff = ServerDiff::from_written(server(protocol), draining, before.as_ref(), after.as_ref());
            assert_eq!(print_changes(&diff.changes), expected, "{name}");
            assert_eq!(diff.draining, addresses(draining_after), "{name}");
        }
    }

    #[test]
    fn changes_from_a_found_configuration_restore_the_desired_one() {
        #[rustfmt::skip]
        let rows: [FoundRow<'_>; 7] = [
            // name; found; desired; changes; draining after
            ("missing", None, Some(&[1]), "+vs +1", &[]),
            ("as desired", Some(&[(1, 1, 0), (2, 1, 0)]), Some(&[1, 2]), "", &[]),
            ("a weight of 0 is restored", Some(&[(1, 0, 0)]), Some(&[1]), "1=1", &[]),
            ("an unknown real server drains", Some(&[(1, 1, 0), (2, 1, 0)]), Some(&[1]), "2=0", &[2]),
            ("a draining real server goes on draining", Some(&[(1, 1, 0), (2, 0, 0)]), Some(&[1]), "", &[2]),
            ("direct routing is replaced", Some(&[(1, 1, 3)]), Some(&[1]), "1=1", &[]),
            ("not desired", Some(&[(1, 1, 0)]), None, "-vs", &[]),
        ];
        for (name, found, desired, expected, draining_after) in rows {
            let state = |&(last, weight, forwarding): &ShortReal| RealServerState {
                server: real(last, weight),
                forwarding,
                active: 0,
                inactive: 0,
                persistent: 0,
            };
            let found = found.map(|states| FoundServer {
                config: VirtualServerConfig::new("rr", Family::V4),
                real_servers: states.iter().map(state).collect(),
            });
            let desired = desired.map(|last| spec(false, last));
            let diff = ServerDiff::from_found(server(TCP), BTreeSet::new(), found.as_ref(), desired.as_ref());
            assert_eq!(print_changes(&diff.changes), expected, "{name}");
            assert_eq!(diff.draining, addresses(draining_after), "{name}");
        }
    }
}
