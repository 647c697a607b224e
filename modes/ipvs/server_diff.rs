//! What must change to take a virtual server from what it is to what it must be.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Instant;

use portcullis_netlink::ip_vs::{
    MASQUERADING, RealServer, RealServerState, VirtualServer, VirtualServerConfig,
};

use super::kernel::ServerChange;
use super::service_objects::Server;
use super::termination::{Terminations, is_graceful};

/// A virtual server as the kernel has it.
pub(super) struct Found {
    pub(super) config: VirtualServerConfig,
    pub(super) real: Vec<RealServerState>,
}

/// Collects changes, and keeps the list of real servers that wait for their connections to end.
pub(super) struct Differ<'a> {
    pub(super) changes: &'a mut Vec<ServerChange>,
    pub(super) terminations: &'a mut Terminations,
    pub(super) now: Instant,
}

impl Differ<'_> {
    /// From what we wrote to what is wanted.
    pub(super) fn between(&mut self, key: &VirtualServer, before: Option<&Server>, after: Option<&Server>) {
        let nothing: &[RealServer] = &[];
        match (before, after) {
            (None, None) => {}
            (Some(_), None) => self.delete(key),
            (None, Some(after)) => {
                self.changes.push(ServerChange::AddServer(*key, after.config.clone()));
                self.real(key, nothing, &after.real);
            }
            (Some(before), Some(after)) => {
                if before.config != after.config {
                    self.changes.push(ServerChange::SetServer(*key, after.config.clone()));
                }
                self.real(key, &before.real, &after.real);
            }
        }
    }

    /// From what the kernel has to what is wanted.
    pub(super) fn correct(&mut self, key: &VirtualServer, found: Option<&Found>, after: Option<&Server>) {
        let (found, after) = match (found, after) {
            (None, after) => {
                self.terminations.forget(key);
                return self.between(key, None, after);
            }
            (Some(_), None) => return self.delete(key),
            (Some(found), Some(after)) => (found, after),
        };
        if found.config != after.config {
            self.changes.push(ServerChange::SetServer(*key, after.config.clone()));
        }
        for wanted in &after.real {
            let at = place(wanted);
            // It may wait for its end though the kernel was never told, or was told that it need not.
            self.terminations.end(key, at);
            match found.real.iter().find(|state| place(&state.server) == at) {
                None => self.changes.push(ServerChange::AddRealServer(*key, *wanted)),
                Some(state) if state.server != *wanted || state.forwarding != MASQUERADING => {
                    self.changes.push(ServerChange::SetRealServer(*key, *wanted));
                }
                Some(_) => {}
            }
        }
        for state in &found.real {
            let at = place(&state.server);
            if after.real.iter().any(|wanted| place(wanted) == at) {
                continue;
            }
            if state.server.weight == 0 && is_graceful(key) {
                self.terminations.begin(*key, at, self.now);
            } else {
                self.end(key, at);
            }
        }
    }

    /// From whatever is there to nothing.
    pub(super) fn delete(&mut self, key: &VirtualServer) {
        self.terminations.forget(key);
        self.changes.push(ServerChange::DeleteServer(*key));
    }

    /// Both sorted.
    fn real(&mut self, key: &VirtualServer, mut before: &[RealServer], mut after: &[RealServer]) {
        loop {
            let order = match (before.first(), after.first()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => place(old).cmp(&place(new)),
            };
            match order {
                Ordering::Less => self.end(key, place(&before[0])),
                Ordering::Greater => self.begin(key, after[0]),
                Ordering::Equal if before[0] != after[0] => {
                    self.changes.push(ServerChange::SetRealServer(*key, after[0]));
                }
                Ordering::Equal => {}
            }
            before = &before[usize::from(order != Ordering::Greater)..];
            after = &after[usize::from(order != Ordering::Less)..];
        }
    }

    fn begin(&mut self, key: &VirtualServer, real: RealServer) {
        // One that is still there, without new connections, gets them again.
        match self.terminations.end(key, place(&real)) {
            true => self.changes.push(ServerChange::SetRealServer(*key, real)),
            false => self.changes.push(ServerChange::AddRealServer(*key, real)),
        }
    }

    fn end(&mut self, key: &VirtualServer, at: (IpAddr, u16)) {
        if is_graceful(key) {
            self.terminations.begin(*key, at, self.now);
            self.changes
                .push(ServerChange::SetRealServer(*key, RealServer { address: at.0, port: at.1, weight: 0 }));
        } else {
            self.changes.push(ServerChange::DeleteRealServer(*key, at.0, at.1));
        }
    }
}

/// What tells the real servers of one virtual server apart.
pub(super) fn place(real: &RealServer) -> (IpAddr, u16) {
    (real.address, real.port)
}

#[cfg(test)]
mod tests {
    use portcullis_netlink::Family;
    use portcullis_netlink::ip_vs::PERSISTENT;

    use super::*;

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    fn key(protocol: u8) -> VirtualServer {
        VirtualServer { protocol, address: IpAddr::from([10, 96, 0, 1]), port: 80 }
    }

    fn real(last: u8, weight: u32) -> RealServer {
        RealServer { address: IpAddr::from([10, 244, 0, last]), port: 8080, weight }
    }

    fn server(protocol: u8, persistent: bool, last: &[u8]) -> Server {
        let mut config = VirtualServerConfig::new("rr", Family::V4);
        if persistent {
            (config.flags, config.timeout) = (PERSISTENT, 10);
        }
        Server { key: key(protocol), config, real: last.iter().map(|l| real(*l, 1)).collect() }
    }

    /// A virtual server in short: whether it is persistent, and the last bytes of its real servers.
    type Drawn<'a> = Option<(bool, &'a [u8])>;

    /// A real server in short: the last byte of its address, its weight, how it is forwarded to.
    type Seen = (u8, u32, u32);

    type Step<'a> = (&'a str, u8, Drawn<'a>, &'a [u8], Drawn<'a>, &'a str, &'a [u8]);
    type Sight<'a> = (&'a str, Option<&'a [Seen]>, Option<&'a [u8]>, &'a str, &'a [u8]);

    /// Changes in few letters: `+vs`, `~vs`, `-vs` for the virtual server, `+1`, `1=0`, `-1` for real ones.
    fn letters(changes: &[ServerChange]) -> String {
        let last = |ip: &IpAddr| ip.to_string().rsplit('.').next().unwrap_or_default().to_owned();
        let letters = changes.iter().map(|change| match change {
            ServerChange::AddServer(..) => "+vs".to_owned(),
            ServerChange::SetServer(..) => "~vs".to_owned(),
            ServerChange::DeleteServer(_) => "-vs".to_owned(),
            ServerChange::AddRealServer(_, r) => format!("+{}", last(&r.address)),
            ServerChange::SetRealServer(_, r) => format!("{}={}", last(&r.address), r.weight),
            ServerChange::DeleteRealServer(_, ip, _) => format!("-{}", last(ip)),
        });
        letters.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_change_costs_what_it_changes() {
        let at = |last: u8| place(&real(last, 1));
        #[rustfmt::skip]
        let rows: [Step<'_>; 10] = [
            // what; protocol; before; waiting; after; changes; waiting after
            ("new", TCP, None, &[], Some((false, &[1, 2])), "+vs +1 +2", &[]),
            ("gone", TCP, Some((false, &[1, 2])), &[3], None, "-vs", &[]),
            ("nothing", TCP, Some((false, &[1, 2])), &[], Some((false, &[1, 2])), "", &[]),
            ("one more", TCP, Some((false, &[1, 3])), &[], Some((false, &[1, 2, 3])), "+2", &[]),
            ("one less waits", TCP, Some((false, &[1, 2, 3])), &[], Some((false, &[1, 3])), "2=0", &[2]),
            ("UDP does not wait", UDP, Some((false, &[1, 2])), &[], Some((false, &[2])), "-1", &[]),
            ("back before it went", TCP, Some((false, &[1])), &[2], Some((false, &[1, 2])), "2=1", &[]),
            ("replaced", TCP, Some((false, &[1])), &[], Some((false, &[2])), "1=0 +2", &[1]),
            ("affinity", TCP, Some((false, &[1])), &[], Some((true, &[1])), "~vs", &[]),
            ("all at once", TCP, Some((true, &[1, 4])), &[5], Some((false, &[4, 5, 6])), "~vs 1=0 5=1 +6", &[1]),
        ];
        for (what, protocol, before, waiting, after, expected, left) in rows {
            let now = Instant::now();
            let (mut changes, mut terminations) = (Vec::new(), Terminations::default());
            waiting.iter().for_each(|last| terminations.begin(key(protocol), at(*last), now));
            let of = |state: Drawn<'_>| state.map(|(p, last)| server(protocol, p, last));
            let mut differ = Differ { changes: &mut changes, terminations: &mut terminations, now };
            differ.between(&key(protocol), of(before).as_ref(), of(after).as_ref());
            assert_eq!(letters(&changes), expected, "{what}");
            for last in 1..10 {
                assert_eq!(
                    terminations.holds(&key(protocol), at(last)),
                    left.contains(&last),
                    "{what}: {last}"
                );
            }
        }
    }

    #[test]
    fn what_is_found_is_put_right() {
        let at = |last: u8| place(&real(last, 1));
        #[rustfmt::skip]
        let rows: [Sight<'_>; 7] = [
            // what; found; wanted; changes; waiting after
            ("nothing there", None, Some(&[1]), "+vs +1", &[]),
            ("as it must be", Some(&[(1, 1, 0), (2, 1, 0)]), Some(&[1, 2]), "", &[]),
            ("a weight of 0 is restored", Some(&[(1, 0, 0)]), Some(&[1]), "1=1", &[]),
            ("one too many ends gracefully", Some(&[(1, 1, 0), (2, 1, 0)]), Some(&[1]), "2=0", &[2]),
            ("one that was ending goes on ending", Some(&[(1, 1, 0), (2, 0, 0)]), Some(&[1]), "", &[2]),
            ("direct routing is not ours", Some(&[(1, 1, 3)]), Some(&[1]), "1=1", &[]),
            ("not wanted", Some(&[(1, 1, 0)]), None, "-vs", &[]),
        ];
        for (what, found, wanted, expected, waiting) in rows {
            let now = Instant::now();
            let (mut changes, mut terminations) = (Vec::new(), Terminations::default());
            let state = |&(last, weight, forwarding): &Seen| RealServerState {
                server: real(last, weight),
                forwarding,
                active: 0,
                inactive: 0,
                persistent: 0,
            };
            let found = found.map(|states| Found {
                config: VirtualServerConfig::new("rr", Family::V4),
                real: states.iter().map(state).collect(),
            });
            let wanted = wanted.map(|last| server(TCP, false, last));
            let mut differ = Differ { changes: &mut changes, terminations: &mut terminations, now };
            differ.correct(&key(TCP), found.as_ref(), wanted.as_ref());
            assert_eq!(letters(&changes), expected, "{what}");
            for last in 1..10 {
                assert_eq!(
                    terminations.holds(&key(TCP), at(last)),
                    waiting.contains(&last),
                    "{what}: {last}"
                );
            }
        }
    }
}
