//! The differences between rendered objects and those of the kernel, by Service. Rules are compared as in
//! iptables mode (`iptables/diff.rs`).

use std::collections::{BTreeMap, BTreeSet};

use portcullis_cluster::NamespacedName;

use super::kernel::DUMMY_INTERFACE;
use super::objects::{IpvsObjects, address_line, server_lines};

/// The differences of one Service in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDifference {
    /// The Service; `None` for objects that no Service needs.
    pub service: Option<NamespacedName>,
    /// The place: the virtual servers, a set, or the dummy interface.
    pub place: String,
    /// The rendered lines.
    pub wanted: Vec<String>,
    /// The lines of the kernel.
    pub found: Vec<String>,
}

/// Rendered lines, and lines of the kernel.
type Sides = (Vec<String>, Vec<String>);

/// Returns the differences between `wanted` and `found`, by Service and place; objects that no Service needs come first.
/// A virtual server that differs is shown as a whole; of sets and addresses, only the differences are shown.
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
        for (spec, is_wanted) in sides {
            for line in spec.iter().flat_map(|spec| lines(&server_lines(key, spec))) {
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
    let empty = BTreeSet::new();
    for key in keys(&wanted.sets, &found.sets) {
        let (family, set) = *key;
        let (wanted, found) = (wanted.sets.get(key).unwrap_or(&empty), found.sets.get(key).unwrap_or(&empty));
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
    use super::super::service_objects::ServerSpec;
    use super::*;

    /// A virtual server with these real servers. Its address is on the dummy interface and in a set if `has_address`.
    fn objects(real_servers: &[u8], has_address: bool) -> IpvsObjects {
        let mut objects = IpvsObjects::default();
        let address = IpAddr::from([10, 96, 0, 1]);
        let key = VirtualServer { protocol: 6, address, port: 80 };
        let real = |last: &u8| RealServer { address: IpAddr::from([10, 0, 0, *last]), port: 8080, weight: 1 };
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        let real_servers = real_servers.iter().map(real).collect();
        objects.servers.insert(key, ServerSpec { config, real_servers });
        let entry = SetEntry::Ip(address);
        if has_address {
            objects.addresses.insert(address);
            objects.sets.insert((Family::V4, IpSet::IpvsIps), [entry].into());
        }
        let service = NamespacedName::new("default", "web");
        objects.owners.servers.insert(key, service.clone());
        objects.owners.addresses.insert(address, service.clone());
        objects.owners.entries.insert((Family::V4, IpSet::IpvsIps, entry), service);
        objects
    }

    fn lines_of(wanted: &IpvsObjects, found: &IpvsObjects) -> Vec<String> {
        let line = |d: ObjectDifference| {
            let service = d.service.map_or("-".to_owned(), |s| s.to_string());
            format!("{service} | {} | {} | {}", d.place, d.wanted.join(", "), d.found.join(", "))
        };
        object_differences(wanted, found).into_iter().map(line).collect()
    }

    #[test]
    fn differences_are_grouped_by_service() {
        assert_eq!(lines_of(&objects(&[1], true), &objects(&[1], true)), [""; 0]);
        assert_eq!(
            lines_of(&objects(&[1], true), &objects(&[2], false)),
            [
                "default/web | addresses of kube-ipvs0 | inet 10.96.0.1/32 | ",
                "default/web | ipset KUBE-IPVS-IPS | add KUBE-IPVS-IPS 10.96.0.1 | ",
                "default/web | virtual servers | -A -t 10.96.0.1:80 -s rr, \
                 -a -t 10.96.0.1:80 -r 10.0.0.1:8080 -m -w 1 | -A -t 10.96.0.1:80 -s rr, \
                 -a -t 10.96.0.1:80 -r 10.0.0.2:8080 -m -w 1",
            ]
        );
        let mut more = objects(&[1], true);
        more.addresses.insert(IpAddr::from([10, 96, 0, 9]));
        assert_eq!(
            lines_of(&objects(&[1], true), &more),
            ["- | addresses of kube-ipvs0 |  | inet 10.96.0.9/32"]
        );
    }
}
