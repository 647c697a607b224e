//! Lists of ipset.

use portcullis_netlink::Family;
use portcullis_netlink::ipset::{IpSets, SetEntry, SetType};

use super::replay::with_responses;

/// Lists names, headers, entries and ports, and reads the responses to changes.
pub(crate) fn lists(input: &[u8]) {
    with_responses(input, || {
        let Ok(mut sets) = IpSets::open_or_load() else { return };
        let names = sets.names().unwrap_or_default();
        assert!(names.len() <= input.len() / 4, "each name is an attribute");
        for name in names.iter().map(String::as_str).chain(["KUBE-CLUSTER-IP"]) {
            if let Ok(Some(header)) = sets.header(name) {
                let _ = (header.is(SetType::HashIpPort, Family::V4), format!("{header:?}"));
            }
            let mut entries: Vec<SetEntry> = Vec::new();
            let _ = sets.entries(name, |entry| {
                entries.push(entry);
                Ok(())
            });
            entries.iter().for_each(|entry| _ = entry.to_string());
            let _ = (sets.ports(name), sets.change(name, entries.clone(), entries));
        }
    });
}
