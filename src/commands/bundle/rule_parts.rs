//! Parts about rules: the kernel's, the wanted ones, and their differences.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use portcullis_cluster::Family;
use portcullis_modes::cleanup;
use portcullis_modes::external_program::{ExternalProgram, ProgramErrorKind};
use portcullis_modes::iptables::{Flavour, IptablesKernel, Table, Tools};
use portcullis_modes::ipvs::{IpvsObjects, NetlinkKernel};
use portcullis_netlink::nf_tables::{self, TableFamily};
use portcullis_netlink::xtables;

use super::part::{Part, PartBuffer, PartError};
use crate::commands::{diff, render};
use crate::config::{Config, Diff, OutputFormat, Render};
use crate::node;

/// Tables of nf_tables that are read without a tool: ours, and kube-proxy's.
const TABLES: [(TableFamily, &str); 6] = [
    (TableFamily::Ip, "portcullis"),
    (TableFamily::Ip6, "portcullis"),
    (TableFamily::Inet, "portcullis-policy"),
    (TableFamily::Bridge, "portcullis-policy"),
    (TableFamily::Ip, "kube-proxy"),
    (TableFamily::Ip6, "kube-proxy"),
];

/// Returns the parts.
pub(super) fn parts(config: &Arc<Config>, is_valid: bool) -> Vec<Part> {
    let (of_render, of_diff, of_ipvs) = (Arc::clone(config), Arc::clone(config), Arc::clone(config));
    let check_configuration = move || match is_valid {
        true => Ok(()),
        false => Err(PartError::failed("the configuration is invalid; see configuration/errors.txt")),
    };
    vec![
        Part::new("rules/wanted.txt", "rules that the kernel should have (portcullis render)", move |out| {
            check_configuration()?;
            let render =
                Render { host: None, family: None, only_policies: false, output: OutputFormat::Text };
            render::run(&of_render, &render, out).map_err(PartError::failed)
        }),
        Part::new(
            "rules/diff.txt",
            "differences between the kernel's rules and the wanted ones",
            move |out| {
                check_configuration()?;
                let diff = Diff { host: None, family: None, output: OutputFormat::Text };
                diff::run(&of_diff, &diff, false, out).map(drop).map_err(PartError::failed)
            },
        ),
        Part::new("rules/modes.txt", "proxy modes whose rules are in the kernel", write_modes),
        Part::new("rules/nf_tables.txt", "tables of Portcullis and of kube-proxy in nf_tables", write_tables),
        Part::new("rules/nft.txt", "all tables of nf_tables (nft list ruleset)", write_ruleset),
        Part::new("rules/iptables-nft.txt", "rules of iptables, nft variant", |out| {
            write_iptables(Flavour::Nft, out)
        }),
        Part::new("rules/iptables-legacy.txt", "rules of iptables, legacy variant", |out| {
            write_iptables(Flavour::Legacy, out)
        }),
        Part::new("rules/ipvs.txt", "virtual servers, ipsets and addresses of IPVS mode", move |out| {
            write_ipvs(&of_ipvs, out)
        }),
    ]
}

fn write_modes(out: &mut PartBuffer) -> Result<(), PartError> {
    let (modes, failed) = cleanup::detect_modes();
    if modes.is_empty() {
        writeln!(out, "no rules of a proxy mode")?;
    }
    for detected in modes {
        writeln!(out, "{} mode, rules of {:?}", detected.mode.name(), detected.implementation)?;
        detected.evidence.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    if failed.is_empty() { Ok(()) } else { Err(PartError::Failed(failed.join("; "))) }
}

fn write_tables(out: &mut PartBuffer) -> Result<(), PartError> {
    let socket = nf_tables::open().map_err(PartError::failed)?;
    let Some(mut socket) = socket else {
        return Err(PartError::not_applicable("this kernel has no nf_tables"));
    };
    let mut failed = Vec::new();
    for (family, name) in TABLES {
        match nf_tables::read(&mut socket, family, name) {
            Ok(None) => {}
            Ok(Some((table, unknown))) => {
                write!(out, "{table}")?;
                unknown.iter().try_for_each(|object| writeln!(out, "# unknown: {object}"))?;
            }
            // The kernel has no such family.
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => failed.push(format!("{} {name}: {error}", family.as_str())),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(PartError::Failed(failed.join("; "))) }
}

fn write_ruleset(out: &mut PartBuffer) -> Result<(), PartError> {
    let mut written = Ok(());
    let program = ExternalProgram::new("nft").with_arguments(["--handle", "--numeric", "list", "ruleset"]);
    let end = program.read_lines(&mut |line| {
        if written.is_ok() {
            written = writeln!(out, "{}", line.trim_end_matches('\n'));
        }
    });
    match end {
        Err(error) if matches!(error.kind, ProgramErrorKind::CannotStart(_)) => {
            Err(PartError::not_applicable(
                "there is no program nft; rules/nf_tables.txt has the tables of proxies",
            ))
        }
        Err(error) => Err(PartError::failed(error)),
        Ok(end) if !end.status.success() => Err(PartError::Failed(format!("nft: {}", end.message))),
        Ok(_) => Ok(written?),
    }
}

fn write_iptables(flavour: Flavour, out: &mut PartBuffer) -> Result<(), PartError> {
    // To read legacy tables creates them, so only those that exist are read.
    let mut legacy = Vec::new();
    if flavour == Flavour::Legacy {
        for family in portcullis_netlink::Family::ALL {
            legacy.extend(xtables::tables(family).map_err(PartError::failed)?);
        }
        if legacy.is_empty() {
            return Err(PartError::not_applicable("there are no legacy tables"));
        }
    }
    let tools = Tools::of_flavour(flavour).map_err(|error| {
        let has_rules = flavour == Flavour::Legacy;
        if has_rules { PartError::failed(error) } else { PartError::not_applicable(error) }
    })?;
    let mut failed = Vec::new();
    for family in Family::BOTH {
        let kernel = tools.kernel(family);
        for table in [Table::Mangle, Table::Filter, Table::Nat] {
            let (mut text, mut is_empty) = (String::new(), true);
            let dumped = kernel.dump(table, &mut |line| {
                is_empty = false;
                let _ = writeln!(text, "{}", line.trim_end_matches('\n'));
            });
            if !is_empty {
                write!(out, "# {family}, table {table}\n{text}")?;
            }
            failed.extend(dumped.err().map(|error| format!("{family}, table {table}: {error}")));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(PartError::Failed(failed.join("; "))) }
}

fn write_ipvs(config: &Config, out: &mut PartBuffer) -> Result<(), PartError> {
    let kernel = NetlinkKernel::open().map_err(PartError::failed)?;
    let Some(mut kernel) = kernel else {
        return Err(PartError::not_applicable("the kernel module ip_vs is not loaded"));
    };
    // The rules of iptables are parts of their own.
    let without_rules: Vec<(Family, Box<dyn IptablesKernel>)> = Vec::new();
    let found = IpvsObjects::read(&mut kernel, &without_rules, &node::ipvs_options(config));
    let found = found.map_err(PartError::failed)?;
    write!(out, "# ipvsadm\n{}", found.ipvsadm())?;
    write!(out, "# ipset\n{}", found.ipset())?;
    write!(out, "# addresses\n{}", found.address_lines())?;
    Ok(())
}
