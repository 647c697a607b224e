//! All kernel objects of IPVS mode as one value, which `render` prints and `diff` compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::ip_vs::{
    MASQUERADING, PERSISTENT, RealServer, SCHED_1, SCHED_2, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::{SetEntry, SetType};

use super::errors::cannot;
use super::ip_set::IpSet;
use super::kernel::IpvsReader;
use super::options::IpvsOptions;
use super::references::{ReferenceChanges, References};
use super::renderer::Renderer;
use super::rule_sync::TABLES;
use super::rules::{self, Rules};
use super::service_objects::ServerSpec;
use crate::error::SyncError;
use crate::iptables::{IptablesKernel, RuleSet, Table};
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// The kernel objects of IPVS mode for some families, rendered or read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpvsObjects {
    /// The virtual servers.
    pub servers: BTreeMap<VirtualServer, ServerSpec>,
    /// The entries of the ipsets.
    pub sets: BTreeMap<(Family, IpSet), BTreeSet<SetEntry>>,
    /// The addresses of `kube-ipvs0`.
    pub addresses: BTreeSet<IpAddr>,
    /// The iptables rules by family.
    pub rules: BTreeMap<Family, RuleSet>,
    /// The Services of the objects; empty if they were read from the kernel.
    pub owners: Owners,
}

/// The Services that own virtual servers, addresses and entries. The first Service owns an object that several share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Owners of virtual servers.
    pub servers: BTreeMap<VirtualServer, NamespacedName>,
    /// Owners of addresses.
    pub addresses: BTreeMap<IpAddr, NamespacedName>,
    /// Owners of entries.
    pub entries: BTreeMap<(Family, IpSet, SetEntry), NamespacedName>,
}

impl IpvsObjects {
    /// Renders the objects of a desired state.
    pub fn render(
        desired: &Desired,
        families: &[Family],
        ipvs: &IpvsOptions,
        options: &Options,
        facts: &NodeFacts,
    ) -> IpvsObjects {
        let mut objects = IpvsObjects::default();
        for family in families {
            let renderer = Renderer::new(*family, ipvs.scheduler, options, facts);
            objects.render_family(desired, &renderer, options, facts);
        }
        objects
    }

    fn render_family(
        &mut self,
        desired: &Desired,
        renderer: &Renderer,
        options: &Options,
        facts: &NodeFacts,
    ) {
        let family = renderer.family;
        let mut references = References::default();
        for (name, ports) in desired.services() {
            let objects = renderer.service(ports);
            references.add(name, &objects, &mut ReferenceChanges::default());
            for address in &objects.addresses {
                self.owners.addresses.entry(*address).or_insert_with(|| name.clone());
            }
            for (set, entry) in &objects.entries {
                self.owners.entries.entry((family, *set, *entry)).or_insert_with(|| name.clone());
            }
            // Services are sorted by name, and the first one owns a virtual server.
            for (server, spec) in objects.servers {
                self.owners.servers.entry(server).or_insert_with(|| name.clone());
                self.servers.entry(server).or_insert(spec);
            }
        }
        for set in IpSet::ALL {
            self.sets.insert((family, set), references.entries(set).copied().collect());
        }
        self.addresses.extend(references.addresses());
        let out_filter: Vec<&str> = references.out_filter().collect();
        let rules = Rules { family, options, facts, filled: references.filled(), out_filter: &out_filter };
        self.rules.insert(family, rule_set(rules));
    }

    /// Reads the objects from the kernel. Leaves out virtual servers with excluded addresses, real servers that are
    /// draining, and real servers with another forwarding method than this mode's.
    ///
    /// # Errors
    /// The kernel could not be read, or iptables could not be run.
    pub fn read(
        kernel: &mut dyn IpvsReader,
        iptables: &[(Family, Box<dyn IptablesKernel>)],
        ipvs: &IpvsOptions,
    ) -> Result<IpvsObjects, SyncError> {
        let mut objects = IpvsObjects::default();
        let is_in_families =
            |ip: &IpAddr| iptables.iter().any(|(family, _)| *family == Family::from_address(*ip));
        let is_excluded = |ip: &IpAddr| ipvs.exclude_cidrs.iter().any(|net| net.contains(ip));
        let error = cannot("read the virtual servers, ipsets and addresses");
        for (server, config) in kernel.virtual_servers().map_err(&error)? {
            if is_in_families(&server.address) && !is_excluded(&server.address) {
                let mut found = kernel.real_servers(&server).map_err(&error)?;
                found.retain(|state| state.server.weight > 0 && state.forwarding == MASQUERADING);
                let mut real_servers: Vec<RealServer> = found.iter().map(|state| state.server).collect();
                real_servers.sort_unstable();
                objects.servers.insert(server, ServerSpec { config, real_servers });
            }
        }
        let addresses = kernel.addresses().map_err(&error)?;
        objects.addresses = addresses.into_iter().filter(is_in_families).collect();
        for (family, iptables) in iptables {
            for set in IpSet::ALL {
                let entries = kernel.entries(set, *family).map_err(&error)?;
                objects.sets.insert((*family, set), entries.into_iter().collect());
            }
            let is_ours = |table: Table, chain: &str| rules::names(table).contains(&chain);
            let rules = RuleSet::read_chains(&**iptables, &TABLES, is_ours)?;
            objects.rules.insert(*family, rules);
        }
        Ok(objects)
    }

    /// Returns the virtual servers in the format of `ipvsadm -Sn`.
    pub fn ipvsadm(&self) -> String {
        let mut text = String::new();
        for (server, spec) in &self.servers {
            text += &server_lines(server, spec);
        }
        text
    }

    /// Returns the sets in the format of `ipset save`.
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

    /// Returns the addresses of `kube-ipvs0` in the format of `ip address`.
    pub fn address_lines(&self) -> String {
        let mut text = String::new();
        for address in &self.addresses {
            put(&mut text, format_args!("{}\n", address_line(address)));
        }
        text
    }
}

/// Renders all rules of a family, with the built-in chains and their jumps.
fn rule_set(rules: Rules<'_>) -> RuleSet {
    let mut set = RuleSet::default();
    for table in TABLES {
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
    set
}

/// Returns a virtual server and its real servers in the format of `ipvsadm -Sn`.
pub fn server_lines(server: &VirtualServer, spec: &ServerSpec) -> String {
    let option = match i32::from(server.protocol) {
        libc::IPPROTO_TCP => "-t",
        libc::IPPROTO_UDP => "-u",
        _ => "--sctp-service",
    };
    let VirtualServerConfig { scheduler, flags, timeout, .. } = &spec.config;
    let at = SocketAddr::new(server.address, server.port);
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
    for real in &spec.real_servers {
        let to = real.socket_address();
        put(&mut text, format_args!("-a {option} {at} -r {to} -m -w {}\n", real.weight));
    }
    text
}

/// Returns an address in the format of `ip address`.
pub fn address_line(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(_) => format!("inet {address}/32"),
        IpAddr::V6(_) => format!("inet6 {address}/128"),
    }
}

/// Returns the type of a set and its parameters in the format of `ipset save`.
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
