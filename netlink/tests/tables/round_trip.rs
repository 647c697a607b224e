//! Round trips: a read table equals the written one, and prints as `nft` prints it.

use portcullis_netlink::nf_tables::{self, DesiredTable, Table, TableFamily};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use crate::namespace::{inside, run};
use crate::sample::{NAME, sample};

/// Writes a table to a kernel without a table of its name.
pub(crate) fn write(table: &Table, socket: &mut Socket) -> DesiredTable {
    let mut managed = DesiredTable::new(table.family, &table.name);
    if let Some(comment) = &table.comment {
        managed.set_comment(comment);
    }
    table.counters.iter().for_each(|(name, comment)| managed.put_counter(name, comment.as_deref()));
    table.sets.iter().for_each(|(name, set)| managed.put_set(name, set.clone()));
    table.chains.iter().for_each(|(name, chain)| managed.put_chain(name, chain.clone()));
    assert_eq!(managed.desired(), table);
    nf_tables::commit(socket, &mut managed).unwrap();
    managed
}

#[test]
fn every_kind_of_object_survives_a_round_trip() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let managed = write(&sample(), &mut socket);
        let (read, foreign) = nf_tables::read(&mut socket, TableFamily::Inet, NAME).unwrap().unwrap();
        assert_eq!(foreign, Vec::<String>::new());
        assert_eq!(read.to_string(), sample().to_string());
        assert_eq!(read, sample());
        assert!(nf_tables::compare(&mut socket, &managed).unwrap().is_empty());
        assert_eq!(nf_tables::read(&mut socket, TableFamily::Ip, NAME).unwrap(), None);
    });
}

/// Removes intended differences between `nft` and our output.
fn plain(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // nft wraps elements anywhere.
        match lines.last_mut() {
            Some(last) if last.starts_with("elements") && !last.ends_with('}') => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    for line in &mut lines {
        if let Some(elements) = line.strip_prefix("elements = { ").and_then(|rest| rest.strip_suffix(" }")) {
            let mut each: Vec<&str> = elements.split(',').map(str::trim).collect();
            each.sort_unstable();
            *line = format!("elements = {}", each.join(", "));
        }
    }
    lines
}

#[test]
fn the_output_equals_that_of_nft() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        write(&sample(), &mut socket);
        let theirs = run(&format!("nft -y list table inet {NAME}"));
        let ours = sample().to_string();
        let (mut theirs, mut ours) = (plain(&theirs), plain(&ours));
        // nft sorts sets and chains by creation, and we by name.
        theirs.sort();
        ours.sort();
        // It numbers what it counted, and its names for counters' contents.
        theirs.retain(|line| !line.starts_with("packets "));
        for line in &mut theirs {
            *line = line.replace("counter packets 0 bytes 0", "counter");
        }
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        let (theirs_only, ours_only) = (only(&theirs, &ours), only(&ours, &theirs));
        assert_eq!(theirs_only, ours_only, "nft's lines and ours");
    });
}
