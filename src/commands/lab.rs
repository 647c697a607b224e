//! `portcullis lab`: a throwaway cluster, with this program on every node.

mod manifests;
mod policies;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use policies::{ENFORCED, Judge, Policies};
use portcullis_lab::{Cluster, DaemonSpec, Error, LabOptions, Mode, RunOptions, keeper};

use crate::config::{Lab, LabCluster, ProxyMode};

/// How long the nodes may take to serve a new lab.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out a subcommand of `lab`. To be called before there is any other thread: it blocks signals.
///
/// # Errors
/// The lab cannot be built or found, or the output cannot be written.
pub fn run(lab: &Lab) -> Result<ExitCode, Error> {
    match lab {
        Lab::Run(cluster) | Lab::Up(cluster) => manifests::check(&cluster.folder)?,
        Lab::Apply { folder, .. } => manifests::check(folder)?,
        _ => {}
    }
    match lab {
        Lab::Run(cluster) => run_once(cluster),
        Lab::Up(cluster) => {
            let mut keep = Command::new(this_program()?);
            keep.args(["lab", "keep"]);
            let mut options = options(cluster.mode)?;
            if Policies::of(&Cluster::read(&cluster.folder)?, &options.plan)?.is_some() {
                enforce(&mut options);
            }
            let state = keeper::up(&cluster.folder, &options, SYNC_TIMEOUT, keep)?;
            say(&format!(
                "lab {} is up; `portcullis lab exec POD -- CMD` runs a command in it, \
                          `portcullis lab down` ends it\n",
                state.id
            ));
            Ok(ExitCode::SUCCESS)
        }
        Lab::Keep => keeper::keep().map(|()| ExitCode::SUCCESS),
        Lab::Apply { folder } => keeper::apply(None, folder).map(|()| ExitCode::SUCCESS),
        Lab::Down => {
            let state = keeper::down(None)?;
            say(&format!("lab {} is gone\n", state.id));
            Ok(ExitCode::SUCCESS)
        }
        Lab::Exec { pod, command } => {
            let status = keeper::exec(None, pod, command)?;
            Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

/// Builds, probes, prints, takes down.
fn run_once(cluster: &LabCluster) -> Result<ExitCode, Error> {
    let objects = Cluster::read(&cluster.folder)?;
    let mut lab = options(cluster.mode)?;
    let policies = Policies::of(&objects, &lab.plan)?;
    if let Some(policies) = &policies {
        enforce(&mut lab);
        policies.listen_everywhere(&mut lab.plan);
    }
    let mode = match cluster.mode {
        ProxyMode::Iptables | ProxyMode::Nftables => Mode::Rules,
        ProxyMode::Ipvs => Mode::Ipvs,
    };
    let options = RunOptions { lab, mode, sync_timeout: SYNC_TIMEOUT, ..RunOptions::default() };
    let colour = io::stdout().is_terminal();
    let good = portcullis_lab::run_with(objects, &options, |lab| {
        let Some(policies) = &policies else {
            let report = portcullis_lab::probe(lab, &options)?;
            say(&report.render(colour));
            return Ok(report.is_good());
        };
        lab.wait_for_metric(ENFORCED, SYNC_TIMEOUT)?;
        let judge = Judge::of(&lab.manifests())?;
        let allows = |from, to, at| judge.allows(from, to, at);
        let report = portcullis_lab::probe_judged(lab, &options, Some(&allows))?;
        say(&report.render(colour));
        let matrix = policies.probe(lab, &judge)?;
        say(&format!("\n{}", matrix.render(colour)));
        Ok(report.is_good() && matrix.is_good())
    })?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has the daemons enforce policies.
fn enforce(options: &mut LabOptions) {
    options.daemon.iter_mut().for_each(|daemon| daemon.args.push("--network-policy".to_owned()));
}

fn options(mode: ProxyMode) -> Result<LabOptions, Error> {
    let mut args = vec![format!("--mode={}", mode.name()), "--detect-local-mode=NodeCIDR".to_owned()];
    // Nobody who plays wants to wait for more changes.
    args.extend(["--iptables-min-sync-period=0s", "--ipvs-min-sync-period=0s"].map(str::to_owned));
    let daemon = DaemonSpec { binary: this_program()?, args, ..DaemonSpec::default() };
    Ok(LabOptions { daemon: Some(daemon), ..LabOptions::default() })
}

fn this_program() -> Result<std::path::PathBuf, Error> {
    let own = std::env::current_exe();
    own.map_err(|source| Error::System { doing: "find this program's own file".into(), source })
}

fn say(text: &str) {
    // A reader that went away is no reason to leave a lab half built.
    drop(io::stdout().write_all(text.as_bytes()));
}
