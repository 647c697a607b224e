//! Everything that the mode has in the kernel, as one value: what `render` prints and `diff` compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::ip_vs::{
    MASQUERADING, PERSISTENT, RealServer, SCHED_1, SCHED_2, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::{SetEntry, SetType};

use super::ip_set::IpSet;
use super::kernel::IpvsReader;
use super::ledger::{Delta, Ledger};
use super::options::IpvsOptions;
use super::renderer::Renderer;
use super::rules::{self, Rules};
use super::write::asked;
use crate::iptables::{self, RuleSet, Table};
use crate::mode::SyncError;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// A virtual server, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// How it balances.
    pub config: VirtualServerConfig,
    /// What is behind it.
    pub real: BTreeSet<RealServer>,
}

/// What the mode has in the kernel for some families, or should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpvsObjects {
    /// The virtual servers.
    pub servers: BTreeMap<VirtualServer, ServerSpec>,
    /// The entries of the sets, each of which is there once a family.
    pub sets: BTreeMap<(Family, IpSet), BTreeSet<SetEntry>>,
    /// The addresses of `kube-ipvs0`.
    pub addresses: BTreeSet<IpAddr>,
    /// The rules of iptables by family.
    pub rules: BTreeMap<Family, RuleSet>,
    /// Which Service has what, as far as that is known.
    pub owners: Owners,
}

/// Which Service virtual servers, addresses and entries are for. What several Services share is the first one's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Of virtual servers.
    pub servers: BTreeMap<VirtualServer, NamespacedName>,
    /// Of addresses.
    pub addresses: BTreeMap<IpAddr, NamespacedName>,
    /// Of entries.
    pub entries: BTreeMap<(Family, IpSet, SetEntry), NamespacedName>,
}

impl IpvsObjects {
    /// What must be in the kernel for a desired state.
    pub fn render(
        desired: &Desired,
        families: &[Family],
        ipvs: &IpvsOptions,
        options: &Options,
        on: &NodeFacts,
    ) -> IpvsObjects {
        let mut state = IpvsObjects::default();
        for family in families {
            state.render_family(desired, *family, ipvs, options, on);
        }
        state
    }

    fn render_family(
        &mut self,
        desired: &Desired,
        family: Family,
        ipvs: &IpvsOptions,
        options: &Options,
        on: &NodeFacts,
    ) {
        let renderer = Renderer::new(family, ipvs.scheduler, options, on);
        let mut ledger = Ledger::default();
        for (name, ports) in desired.services() {
            let objects = renderer.service(ports);
            ledger.add(name, &objects, &mut Delta::default());
            for address in &objects.addresses {
                self.owners.addresses.entry(*address).or_insert_with(|| name.clone());
            }
            for (set, entry) in &objects.entries {
                self.owners.entries.entry((family, *set, *entry)).or_insert_with(|| name.clone());
            }
            // By name, so the first to come is the one that is served.
            for server in objects.servers {
                self.owners.servers.entry(server.key).or_insert_with(|| name.clone());
                let real = server.real.into_iter().collect();
                self.servers.entry(server.key).or_insert(ServerSpec { config: server.config, real });
            }
        }
        for set in IpSet::ALL {
            self.sets.insert((family, set), ledger.entries(set).copied().collect());
        }
        self.addresses.extend(ledger.addresses());
        let out_filter: Vec<&str> = ledger.out_filter().collect();
        let rules = Rules { family, options, on, filled: ledger.filled(), out_filter: &out_filter };
        let mut set = RuleSet::default();
        for table in super::rule_sync::TABLES {
            for chain in table.built_in() {
                set.chain(table, chain);
            }
        }
        for jump in rules::jumps() {
            set.add(jump.table, jump.from, &jump.rule);
        }
        for chain in rules.chains() {
            set.chain(chain.table, chain.name).extend(chain.lines.lines().map(str::to_owned));
        }
        self.rules.insert(family, set);
    }

    /// What is in the kernel. Virtual servers that belong to others by the operator's word are left out, and so
    /// are real servers that take no new connections, as they only wait for the old ones to end, and those to which
    /// packets are forwarded otherwise than this mode does it.
    ///
    /// # Errors
    /// The kernel or the tool of iptables cannot be asked.
    pub fn read(
        kernel: &mut dyn IpvsReader,
        iptables: &[(Family, Box<dyn iptables::IptablesKernel>)],
        ipvs: &IpvsOptions,
    ) -> Result<IpvsObjects, SyncError> {
        let mut state = IpvsObjects::default();
        let of_family = |ip: &IpAddr| iptables.iter().any(|(family, _)| *family == Family::from_address(*ip));
        let excluded = |ip: &IpAddr| ipvs.exclude_cidrs.iter().any(|net| net.contains(ip));
        let asked = asked("read the virtual servers, ipsets and addresses");
        for (key, config) in kernel.virtual_servers().map_err(&asked)? {
            if of_family(&key.address) && !excluded(&key.address) {
                let found = kernel.real_servers(&key).map_err(&asked)?.into_iter();
                let works = found.filter(|s| s.server.weight > 0 && s.forwarding == MASQUERADING);
                let real = works.map(|s| s.server).collect();
                state.servers.insert(key, ServerSpec { config, real });
            }
        }
        state.addresses = kernel.addresses().map_err(&asked)?.into_iter().filter(of_family).collect();
        for (family, tool) in iptables {
            for set in IpSet::ALL {
                let entries = kernel.entries(set, *family).map_err(&asked)?;
                state.sets.insert((*family, set), entries.into_iter().collect());
            }
            let ours = |table: Table, chain: &str| rules::names(table).contains(&chain);
            let set = RuleSet::read_chains(&**tool, &super::rule_sync::TABLES, ours)?;
            state.rules.insert(*family, set);
        }
        Ok(state)
    }

    /// The virtual servers as `ipvsadm -Sn` prints them.
    pub fn ipvsadm(&self) -> String {
        let mut text = String::new();
        for (key, served) in &self.servers {
            text += &server_lines(key, served);
        }
        text
    }

    /// The sets as `ipset save` prints them.
    pub fn ipset(&self) -> String {
        let mut text = String::new();
        for ((family, set), entries) in &self.sets {
            let name = set.name(*family);
            put(&mut text, format_args!("create {name} {}\n", header(*set, *family)));
            for entry in entries {
                put(&mut text, format_args!("add {name} {entry}\n"));
            }
        }
        text
    }

    /// The addresses of `kube-ipvs0`, as `ip addr` prints them.
    pub fn address_lines(&self) -> String {
        let mut text = String::new();
        for address in &self.addresses {
            put(&mut text, format_args!("{}\n", address_line(address)));
        }
        text
    }
}

/// A virtual server and what is behind it, as `ipvsadm -Sn` prints it.
pub fn server_lines(key: &VirtualServer, served: &ServerSpec) -> String {
    let option = match i32::from(key.protocol) {
        libc::IPPROTO_TCP => "-t",
        libc::IPPROTO_UDP => "-u",
        _ => "--sctp-service",
    };
    let VirtualServerConfig { scheduler, flags, timeout, .. } = &served.config;
    let at = SocketAddr::new(key.address, key.port);
    let mut text = format!("-A {option} {at} -s {scheduler}");
    if flags & PERSISTENT != 0 {
        put(&mut text, format_args!(" -p {timeout}"));
    }
    let names = [(SCHED_1, "fallback"), (SCHED_2, "port")];
    let names: Vec<String> = names
        .into_iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| format!("{scheduler}-{name}"))
        .collect();
    if !names.is_empty() {
        put(&mut text, format_args!(" -b {}", names.join(",")));
    }
    text.push('\n');
    for real in &served.real {
        let to = SocketAddr::new(real.address, real.port);
        put(&mut text, format_args!("-a {option} {at} -r {to} -m -w {}\n", real.weight));
    }
    text
}

/// An address as `ip addr` prints it.
pub fn address_line(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(_) => format!("inet {address}/32"),
        IpAddr::V6(_) => format!("inet6 {address}/128"),
    }
}

/// The type of a set with what it was made with.
fn header(set: IpSet, family: Family) -> String {
    let name = set.set_type().name();
    let family = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    match set.set_type() {
        SetType::BitmapPort => format!("{name} range 0-65535"),
        _ => format!("{name} family {family} hashsize 1024 maxelem 65536 bucketsize 12"),
    }
}

fn put(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string does not fail");
}
