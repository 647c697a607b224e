//! Kinds of recorded kernel objects: how each is read from the kernel, and normalised for comparison.

use std::fs;
use std::process::Command;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::nftables;
use portcullis_netlink::nf_tables::{self, TableFamily};

use crate::services::{Case, bring, ipvs, normalised};

/// One kind of recorded kernel objects.
#[derive(Clone, Copy)]
pub(crate) struct RecordedObjects {
    /// The file of the recording, or a description.
    pub(crate) file: &'static str,
    /// Returns the expected objects.
    expected: fn(&Case, usize, &str) -> String,
    /// Reads the objects of this network namespace from the kernel. The argument is the recording, which has the names of
    /// sysctls.
    read: fn(&str) -> String,
    /// Removes parts that may differ.
    normalise: fn(&str) -> String,
}

/// All iptables tables of IPv4.
pub(crate) const IPV4_RULES: RecordedObjects = RecordedObjects {
    file: "v4.save",
    expected: as_recorded,
    read: |_| output(&["iptables-save"]),
    normalise: normalised,
};

/// All iptables tables of IPv6.
pub(crate) const IPV6_RULES: RecordedObjects = RecordedObjects {
    file: "v6.save",
    expected: as_recorded,
    read: |_| output(&["ip6tables-save"]),
    normalise: normalised,
};

/// All iptables tables of IPv4, on a node with another mode before. Empty tables remain, and jumps of both modes keep their
/// position below new ones.
pub(crate) const INHERITED_IPV4_RULES: RecordedObjects =
    RecordedObjects { normalise: inherited, ..IPV4_RULES };

/// All iptables tables of IPv6, on a node with another mode before.
pub(crate) const INHERITED_IPV6_RULES: RecordedObjects =
    RecordedObjects { normalise: inherited, ..IPV6_RULES };

/// The virtual servers and their real servers.
pub(crate) const VIRTUAL_SERVERS: RecordedObjects = RecordedObjects {
    file: "ipvsadm.save",
    expected: as_recorded,
    read: |_| output(&["ipvsadm", "-Sn"]),
    normalise: ipvs::virtual_servers,
};

/// The ipsets.
pub(crate) const SETS: RecordedObjects = RecordedObjects {
    file: "ipset.save",
    expected: as_recorded,
    read: |_| output(&["ipset", "save"]),
    normalise: ipvs::sets,
};

/// The addresses of the dummy interface.
pub(crate) const ADDRESSES: RecordedObjects = RecordedObjects {
    file: "addrs",
    expected: as_recorded,
    read: |_| ipvs::addresses(&output(&["ip", "-o", "address", "show", "dev", "kube-ipvs0"])),
    normalise: str::to_owned,
};

/// The sysctls that the mode may set.
pub(crate) const SYSCTLS: RecordedObjects =
    RecordedObjects { file: "sysctls", expected: as_recorded, read: sysctls, normalise: str::to_owned };

impl RecordedObjects {
    /// Returns the recorded objects of kube-proxy after a step, or the expected ones where we differ.
    pub(crate) fn recorded(&self, case: &Case, step: usize) -> String {
        (self.normalise)(&(self.expected)(case, step, self.file))
    }

    /// Returns the current objects of the kernel, in the format of the recording.
    pub(crate) fn read(&self, recorded: &str) -> String {
        (self.normalise)(&(self.read)(recorded))
    }
}

fn as_recorded(case: &Case, step: usize, file: &str) -> String {
    case.recorded(step, file)
}

/// The tables of nftables mode in both families.
pub(crate) const TABLES: RecordedObjects = RecordedObjects {
    file: "tables",
    expected: rendered_tables,
    read: |_| found_tables(),
    normalise: str::to_owned,
};

fn rendered_tables(case: &Case, step: usize, _: &str) -> String {
    let mut index = Index::new();
    bring(&mut index, &case.states()[step - 1]);
    let desired = Desired::from_index(&index, case.node());
    let (options, host) = case.facts(&index);
    Family::BOTH.map(|family| nftables::render(&desired, family, &options, &host).to_string()).concat()
}

fn found_tables() -> String {
    let mut socket = nf_tables::open().expect("root").expect("nf_tables");
    let mut read = |family| nf_tables::read(&mut socket, family, nftables::TABLE).expect("it can be read");
    let tables = [TableFamily::Ip, TableFamily::Ip6].map(|family| match read(family) {
        None => "no table\n".to_owned(),
        Some((table, foreign)) if foreign.is_empty() => table.to_string(),
        Some((_, foreign)) => format!("{foreign:?}\n"),
    });
    tables.concat()
}

/// Objects of other modes and of kube-proxy; there must be none.
pub(crate) const NOTHING_ELSE: RecordedObjects = RecordedObjects {
    file: "objects of other modes",
    expected: |_, _, _| String::new(),
    read: |_| {
        let listings = [["iptables-save"].as_slice(), &["ip6tables-save"], &["nft", "list", "tables"]];
        let all = listings.map(output).concat();
        all.lines()
            .filter(|line| line.contains("KUBE-") || line.contains("kube"))
            .fold(String::new(), |all, line| all + line + "\n")
    },
    normalise: str::to_owned,
};

/// Returns the output of a command. Some commands fail if there is nothing to list, which is no error.
pub(crate) fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("the tool is installed");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Removes empty tables from a dump of rules, and sorts the rules of built-in chains.
fn inherited(dump: &str) -> String {
    let dump = normalised(dump);
    let tables = dump.split_inclusive('\n').fold(Vec::<String>::new(), |mut tables, line| {
        match tables.last_mut() {
            Some(table) if !line.starts_with('*') => table.push_str(line),
            _ => tables.push(line.to_owned()),
        }
        tables
    });
    let is_used = |table: &String| table.lines().any(|l| l.starts_with("-A ") || l.contains(" - ["));
    tables.into_iter().filter(is_used).map(|table| with_sorted_jumps(&table)).collect()
}

fn with_sorted_jumps(table: &str) -> String {
    let (mut jumps, others): (Vec<&str>, Vec<&str>) =
        table.lines().partition(|line| line.starts_with("-A ") && !line.starts_with("-A KUBE-"));
    jumps.sort_unstable();
    others.into_iter().chain(jumps).fold(String::new(), |all, line| all + line + "\n")
}

/// Returns the values of the sysctls in a recording, one per line.
fn sysctls(recorded: &str) -> String {
    let value = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).map_or("missing".to_owned(), |value| value.trim().to_owned())
    };
    let names = recorded.lines().filter_map(|line| line.split_once('='));
    names.map(|(name, _)| format!("{name}={}\n", value(name))).collect()
}
