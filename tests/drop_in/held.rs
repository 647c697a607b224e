//! What the kernel holds of that which was recorded: how it is read, and made to compare.

use std::fs;
use std::process::Command;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::nftables;
use portcullis_netlink::nf_tables::{self, TableFamily};

use crate::services::{Case, bring, ipvs, normalised};

/// One thing that was recorded of the kernel, and that it is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// What it is, as a rule the file of the recording.
    pub(crate) file: &'static str,
    /// What it must be.
    wanted: fn(&Case, usize, &str) -> String,
    /// Reads it from the kernel, in this network namespace; given the recording, for what that names.
    read: fn(&str) -> String,
    /// Leaves out what is fixed by no one.
    normalised: fn(&str) -> String,
}

/// All tables of IPv4.
pub(crate) const IPV4_RULES: Held =
    Held { file: "v4.save", wanted: as_recorded, read: |_| output(&["iptables-save"]), normalised };

/// All tables of IPv6.
pub(crate) const IPV6_RULES: Held =
    Held { file: "v6.save", wanted: as_recorded, read: |_| output(&["ip6tables-save"]), normalised };

/// The same on a node where somebody else served before. Tables stay when all that was in them goes; and jumps that
/// both have stay where they were, below new ones.
pub(crate) const INHERITED_IPV4_RULES: Held = Held { normalised: inherited, ..IPV4_RULES };

/// The same for IPv6.
pub(crate) const INHERITED_IPV6_RULES: Held = Held { normalised: inherited, ..IPV6_RULES };

/// The virtual servers and their real servers.
pub(crate) const VIRTUAL_SERVERS: Held = Held {
    file: "ipvsadm.save",
    wanted: as_recorded,
    read: |_| output(&["ipvsadm", "-Sn"]),
    normalised: ipvs::virtual_servers,
};

/// The sets that rules look into.
pub(crate) const SETS: Held = Held {
    file: "ipset.save",
    wanted: as_recorded,
    read: |_| output(&["ipset", "save"]),
    normalised: ipvs::sets,
};

/// The addresses that make the node take packets to Services for its own.
pub(crate) const ADDRESSES: Held = Held {
    file: "addrs",
    wanted: as_recorded,
    read: |_| ipvs::addresses(&output(&["ip", "-o", "address", "show", "dev", "kube-ipvs0"])),
    normalised: str::to_owned,
};

/// The switches of the kernel that the mode may turn.
pub(crate) const SYSCTLS: Held =
    Held { file: "sysctls", wanted: as_recorded, read: sysctls, normalised: str::to_owned };

impl Held {
    /// What was recorded of kube-proxy in a step, or is wanted where it programs otherwise.
    pub(crate) fn recorded(&self, case: &Case, step: usize) -> String {
        (self.normalised)(&(self.wanted)(case, step, self.file))
    }

    /// What the kernel holds now, as the recording of a case has it.
    pub(crate) fn found(&self, recorded: &str) -> String {
        (self.normalised)(&(self.read)(recorded))
    }
}

fn as_recorded(case: &Case, step: usize, file: &str) -> String {
    case.recorded(step, file)
}

/// The table of nftables mode in both families, as it is rendered.
pub(crate) const TABLES: Held =
    Held { file: "tables", wanted: rendered_tables, read: |_| found_tables(), normalised: str::to_owned };

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

/// What is in the kernel of other modes, and of kube-proxy.
pub(crate) const NOTHING_ELSE: Held = Held {
    file: "what other modes leave",
    wanted: |_, _, _| String::new(),
    read: |_| {
        let listings = [["iptables-save"].as_slice(), &["ip6tables-save"], &["nft", "list", "tables"]];
        let all = listings.map(output).concat();
        all.lines()
            .filter(|line| line.contains("KUBE-") || line.contains("kube"))
            .fold(String::new(), |all, line| all + line + "\n")
    },
    normalised: str::to_owned,
};

/// What a command prints: nothing while there is nothing to be listed, which some say by failing.
pub(crate) fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("the tool is installed");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A dump of rules without the tables that have none, nor chains but those of the kernel, and with the rules of the
/// kernel's chains in order.
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

/// The switches that a recording names, a line each.
fn sysctls(recorded: &str) -> String {
    let value = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).map_or("not there".to_owned(), |value| value.trim().to_owned())
    };
    let names = recorded.lines().filter_map(|line| line.split_once('='));
    names.map(|(name, _)| format!("{name}={}\n", value(name))).collect()
}
