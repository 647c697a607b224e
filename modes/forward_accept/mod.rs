//! Rules that let a firewall's iptables chain `FORWARD` accept the traffic of pods.
//!
//! Docker, ufw and others drop forwarded packets: by the policy of the chain `FORWARD`, or by its last rule. An `accept` in an
//! nf_tables table of this program would not help, because each base chain decides for itself. So a chain of this program is added
//! to `FORWARD`, in the flavour of iptables that drops:
//!
//! ```text
//! FORWARD  … rules of the firewall …
//!          -j PORTCULLIS-FORWARD        -s POD-CIDR -j ACCEPT, -d POD-CIDR -j ACCEPT, …
//!          -j REJECT                    (or the policy DROP)
//! ```
//! The jump comes after the firewall's own rules, so what these drop stays dropped. Where nothing is dropped there is no chain,
//! and iptables is not used. NetworkPolicies are enforced at other hooks and stay effective.
//!
//! Base chains of nf_tables that do not belong to iptables cannot be extended without knowledge of their rules. They are
//! reported.

mod plan;

use std::fmt;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::{self, Hook, TableFamily};
use portcullis_netlink::xtables;

use crate::iptables::{Fingerprint, Flavour, Table, ToolError, Tools, in_netlink};
pub use plan::CHAIN;
use plan::{ForwardChains, Plan};

/// The iptables chain `FORWARD` of one flavour and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardLocation {
    /// The flavour.
    pub flavour: Flavour,
    /// The family.
    pub family: Family,
}

impl fmt::Display for ForwardLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let flavour = match self.flavour {
            Flavour::Nft => "nft",
            Flavour::Legacy => "legacy",
        };
        write!(f, "{tool} ({flavour}), chain FORWARD")
    }
}

/// The effects of [`ForwardAccept::sync`].
#[derive(Debug, Default)]
pub struct ForwardAcceptResult {
    /// Chains to which rules were added, or whose rules were changed.
    pub changed: Vec<ForwardLocation>,
    /// Chains from which rules were removed because they no longer drop packets.
    pub removed: Vec<ForwardLocation>,
    /// Chains that drop pods' traffic, or may do so, and cannot be changed; with the reason and the way out.
    pub problems: Vec<String>,
    /// Other base chains of nf_tables that drop forwarded packets which none of their rules accepts. They may accept those of
    /// pods.
    pub other_dropping_chains: Vec<String>,
}

/// An iptables chain `FORWARD` whose rules for traffic of pods differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardDifference {
    /// The chain.
    pub location: ForwardLocation,
    /// The rules of this program that are there.
    pub found: Vec<String>,
    /// The rules of this program that should be there.
    pub wanted: Vec<String>,
}

/// Keeps the rules of one network namespace, that of the calling thread.
#[derive(Debug, Default)]
pub struct ForwardAccept {
    cidrs: Vec<IpNet>,
    /// The fingerprints of the rules that were last found or written.
    seen: Vec<(Flavour, Family, Fingerprint)>,
}

impl ForwardAccept {
    /// Lets all chains that drop forwarded packets accept packets from and to `cidrs`, and removes the rules where they are no longer
    /// needed. Rules that have not changed since the last call are not read. An error of one chain does not stop the others.
    pub fn sync(&mut self, cidrs: &[IpNet]) -> ForwardAcceptResult {
        let cidrs = IpNet::aggregate(&cidrs.to_vec());
        if cidrs != self.cidrs {
            self.seen.clear();
            self.cidrs = cidrs;
        }
        let mut result = ForwardAcceptResult::default();
        for flavour in [Flavour::Nft, Flavour::Legacy] {
            self.sync_flavour(flavour, &mut result);
        }
        result.other_dropping_chains = other_dropping_chains();
        result
    }

    /// Removes the rules, or only finds them if `dry_run`. Returns the chains with rules of this program, and the errors.
    pub fn remove(dry_run: bool) -> (Vec<ForwardLocation>, Vec<String>) {
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        for flavour in [Flavour::Nft, Flavour::Legacy] {
            let Ok(tools) = Tools::of_flavour(flavour) else { continue };
            for family in families_with_filter(flavour) {
                let location = ForwardLocation { flavour, family };
                let done = read(&tools, location).and_then(|chains| match chains.removal() {
                    None => Ok(false),
                    Some(_) if dry_run => Ok(true),
                    Some(script) => restore(&tools, location, &script).map(|()| true),
                });
                match done {
                    Ok(true) => removed.push(location),
                    Ok(false) => {}
                    Err(error) => errors.push(format!("{location}: {error}")),
                }
            }
        }
        (removed, errors)
    }

    /// Compares the rules with those that accept packets from and to `cidrs`. Returns the chains that differ, and the errors. Nothing is
    /// changed.
    pub fn compare(cidrs: &[IpNet]) -> (Vec<ForwardDifference>, Vec<String>) {
        let cidrs = IpNet::aggregate(&cidrs.to_vec());
        let (mut differences, mut errors) = (Vec::new(), Vec::new());
        for flavour in [Flavour::Nft, Flavour::Legacy] {
            let Ok(tools) = Tools::of_flavour(flavour) else { continue };
            for family in families_with_filter(flavour) {
                let location = ForwardLocation { flavour, family };
                match read(&tools, location) {
                    Ok(chains) => {
                        let (found, wanted) = chains.compare(&of_family(&cidrs, family));
                        if found != wanted {
                            differences.push(ForwardDifference { location, found, wanted });
                        }
                    }
                    Err(error) => errors.push(format!("{location}: {error}")),
                }
            }
        }
        (differences, errors)
    }

    fn sync_flavour(&mut self, flavour: Flavour, result: &mut ForwardAcceptResult) {
        let families = families_with_filter(flavour);
        if families.is_empty() {
            return;
        }
        let tools = match Tools::of_flavour(flavour) {
            Ok(tools) => tools,
            Err(error) => {
                let chains = families.into_iter().map(|family| ForwardLocation { flavour, family });
                // Whether a legacy chain drops packets is known to its tools only.
                let dropping = chains
                    .filter(|location| flavour == Flavour::Legacy || drops_in_nf_tables(location.family));
                result.problems.extend(dropping.map(|location| {
                    format!("{location} may drop traffic of pods, and its tools are missing: {error}")
                }));
                return;
            }
        };
        for family in families {
            let location = ForwardLocation { flavour, family };
            let fingerprint = tools.kernel(family).fingerprint();
            let is_seen = |seen: &(Flavour, Family, Fingerprint)| {
                (seen.0, seen.1) == (flavour, family) && Some(&seen.2) == fingerprint.as_ref()
            };
            if self.seen.iter().any(is_seen) {
                continue;
            }
            self.seen.retain(|seen| (seen.0, seen.1) != (flavour, family));
            match self.sync_chain(&tools, location) {
                Ok(plan) => {
                    match plan {
                        Plan::Nothing => {}
                        Plan::Write(_) => result.changed.push(location),
                        Plan::Remove(_) => result.removed.push(location),
                    }
                    let written = tools.kernel(family).fingerprint();
                    self.seen.extend(written.map(|fingerprint| (flavour, family, fingerprint)));
                }
                Err(error) => {
                    result.problems.push(format!("{location} may drop traffic of pods: {error}"));
                }
            }
        }
    }

    fn sync_chain(&self, tools: &Tools, location: ForwardLocation) -> Result<Plan, ToolError> {
        let plan = read(tools, location)?.plan(&of_family(&self.cidrs, location.family));
        if let Plan::Write(script) | Plan::Remove(script) = &plan {
            restore(tools, location, script)?;
        }
        Ok(plan)
    }
}

fn of_family(cidrs: &[IpNet], family: Family) -> Vec<IpNet> {
    cidrs.iter().copied().filter(|cidr| Family::from_net(cidr) == family).collect()
}

/// Returns the families whose table `filter` exists. The tools would create it.
fn families_with_filter(flavour: Flavour) -> Vec<Family> {
    let has_filter = |family: &Family| match flavour {
        Flavour::Legacy => xtables::tables(in_netlink(*family))
            .is_ok_and(|tables| tables.iter().any(|table| table == "filter")),
        Flavour::Nft => nf_tables::open().ok().flatten().is_some_and(|mut socket| {
            nf_tables::has_table(&mut socket, in_nf_tables(*family), "filter").unwrap_or(false)
        }),
    };
    Family::BOTH.into_iter().filter(has_filter).collect()
}

fn in_nf_tables(family: Family) -> TableFamily {
    match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    }
}

fn read(tools: &Tools, location: ForwardLocation) -> Result<ForwardChains, ToolError> {
    let mut chains = ForwardChains::default();
    tools.dump(location.family, Table::Filter, |line| chains.read_line(line))?;
    Ok(chains)
}

fn restore(tools: &Tools, location: ForwardLocation, script: &str) -> Result<(), ToolError> {
    tools.kernel(location.family).restore(&mut |out| out.write_all(script.as_bytes()))
}

/// Returns true if the policy of iptables-nft's chain `FORWARD` is `DROP`.
fn drops_in_nf_tables(family: Family) -> bool {
    dropping_forward_chains().iter().any(|chain| {
        chain.family == in_nf_tables(family) && chain.table == "filter" && chain.name == "FORWARD"
    })
}

fn other_dropping_chains() -> Vec<String> {
    let is_of_iptables = |chain: &nf_tables::DroppingChain| {
        matches!(chain.family, TableFamily::Ip | TableFamily::Ip6)
            && chain.name == "FORWARD"
            && chain.table == "filter"
    };
    let others = dropping_forward_chains().into_iter().filter(|chain| !is_of_iptables(chain));
    others.map(|chain| format!("{} {} {}", chain.family.as_str(), chain.table, chain.name)).collect()
}

/// Tables of proxies, whose chains at the hook are many and drop packets on purpose.
const PROXY_TABLES: [&str; 2] = ["portcullis", "kube-proxy"];

/// Returns the chains with the policy `drop`, and those whose last rule drops or rejects all packets, such as firewalld's.
fn dropping_forward_chains() -> Vec<nf_tables::DroppingChain> {
    let Ok(Some(mut socket)) = nf_tables::open() else { return Vec::new() };
    let mut chains = nf_tables::dropping_chains(&mut socket, |_| false).unwrap_or_default();
    let is_of_proxy = |table: &str| PROXY_TABLES.iter().any(|name| table.starts_with(name));
    let ending = nf_tables::chains_that_end_with_a_drop(&mut socket, Hook::Forward, is_of_proxy);
    chains.extend(ending.unwrap_or_default());
    chains.retain(|chain| chain.hook == Some(Hook::Forward) && chain.family != TableFamily::Bridge);
    chains.dedup();
    chains
}
