//! How two states differ, told Service by Service. Rules are compared as in
//! [iptables mode](crate::iptables::differences).

use std::collections::{BTreeMap, BTreeSet};

use portcullis_cluster::NamespacedName;

use super::kernel::DUMMY_INTERFACE;
use super::objects::{IpvsObjects, address_line, server_lines};

/// What differs of one Service in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDifference {
    /// The Service; `None` for what no Service wants.
    pub service: Option<NamespacedName>,
    /// Where: virtual servers, a set, the link.
    pub place: String,
    /// The lines that should be there.
    pub wanted: Vec<String>,
    /// The lines that are.
    pub found: Vec<String>,
}

/// Lines that should be there, and lines that are.
type Sides = (Vec<String>, Vec<String>);

/// How `found` differs from `wanted`, by Service and place: what no Service wants comes first. In sets and on the
/// link, what is as it should be is left out; of a virtual server that differs, all is shown.
pub fn object_differences(wanted: &IpvsObjects, found: &IpvsObjects) -> Vec<ObjectDifference> {
    let mut all: BTreeMap<(Option<NamespacedName>, String), Sides> = BTreeMap::new();
    let mut note = |service: Option<&NamespacedName>, place: String, line: String, is_wanted: bool| {
        let (wanted, found) = all.entry((service.cloned(), place)).or_default();
        if is_wanted { wanted.push(line) } else { found.push(line) }
    };
    let owners = &wanted.owners;
    for key in keys(&wanted.servers, &found.servers) {
        let sides = [(wanted.servers.get(key), true), (found.servers.get(key), false)];
        if sides[0].0 == sides[1].0 {
            continue;
        }
        for (served, is_wanted) in sides {
            for line in served.iter().flat_map(|s| lines(&server_lines(key, s))) {
                note(owners.servers.get(key), "virtual servers".into(), line, is_wanted);
            }
        }
    }
    for address in wanted.addresses.symmetric_difference(&found.addresses) {
        let is_wanted = wanted.addresses.contains(address);
        note(
            owners.addresses.get(address),
            format!("addresses of {DUMMY_INTERFACE}"),
            address_line(address),
            is_wanted,
        );
    }
    let nothing = BTreeSet::new();
    for key in keys(&wanted.sets, &found.sets) {
        let (family, set) = *key;
        let (wanted, found) =
            (wanted.sets.get(key).unwrap_or(&nothing), found.sets.get(key).unwrap_or(&nothing));
        for entry in wanted.symmetric_difference(found) {
            let name = set.name(family);
            let line = format!("add {name} {entry}");
            let owner = owners.entries.get(&(family, set, *entry));
            note(owner, format!("ipset {name}"), line, wanted.contains(entry));
        }
    }
    let difference = |((service, place), (wanted, found))| ObjectDifference { service, place, wanted, found };
    all.into_iter().map(difference).collect()
}

fn keys<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portcullis_netlink::ip_vs::{RealServer, VirtualServer, VirtualServerConfig};
    use portcullis_netlink::ipset::SetEntry;

    use portcullis_cluster::Family;

    use super::super::ip_set::IpSet;
    use super::super::objects::ServerSpec;
    use super::*;

    /// A virtual server with these behind it, and a ClusterIP that is bound and in its set if it is to be.
    fn state(behind: &[u8], bound: bool) -> IpvsObjects {
        let mut state = IpvsObjects::default();
        let address = IpAddr::from([10, 96, 0, 1]);
        let key = VirtualServer { protocol: 6, address, port: 80 };
        let real = |last: &u8| RealServer { address: IpAddr::from([10, 0, 0, *last]), port: 8080, weight: 1 };
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        state.servers.insert(key, ServerSpec { config, real: behind.iter().map(real).collect() });
        let entry = SetEntry::Ip(address);
        if bound {
            state.addresses.insert(address);
            state.sets.insert((Family::V4, IpSet::IpvsIps), [entry].into());
        }
        let service = NamespacedName::new("default", "web");
        state.owners.servers.insert(key, service.clone());
        state.owners.addresses.insert(address, service.clone());
        state.owners.entries.insert((Family::V4, IpSet::IpvsIps, entry), service);
        state
    }

    fn told(wanted: &IpvsObjects, found: &IpvsObjects) -> Vec<String> {
        let line = |d: ObjectDifference| {
            let service = d.service.map_or("-".to_owned(), |s| s.to_string());
            format!("{service} | {} | {} | {}", d.place, d.wanted.join(", "), d.found.join(", "))
        };
        object_differences(wanted, found).into_iter().map(line).collect()
    }

    #[test]
    fn differences_are_told_by_service() {
        assert_eq!(told(&state(&[1], true), &state(&[1], true)), [""; 0]);
        assert_eq!(
            told(&state(&[1], true), &state(&[2], false)),
            [
                "default/web | addresses of kube-ipvs0 | inet 10.96.0.1/32 | ",
                "default/web | ipset KUBE-IPVS-IPS | add KUBE-IPVS-IPS 10.96.0.1 | ",
                "default/web | virtual servers | -A -t 10.96.0.1:80 -s rr, \
                 -a -t 10.96.0.1:80 -r 10.0.0.1:8080 -m -w 1 | -A -t 10.96.0.1:80 -s rr, \
                 -a -t 10.96.0.1:80 -r 10.0.0.2:8080 -m -w 1",
            ]
        );
        let mut more = state(&[1], true);
        more.addresses.insert(IpAddr::from([10, 96, 0, 9]));
        assert_eq!(told(&state(&[1], true), &more), ["- | addresses of kube-ipvs0 |  | inet 10.96.0.9/32"]);
    }
}
