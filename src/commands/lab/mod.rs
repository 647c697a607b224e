//! `portcullis lab`: a throwaway cluster, with this program on every node.

mod manifests;
mod policies;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use policies::{ENFORCED, Judge, Policies};
use portcullis_lab::{Cluster, DaemonSpec, Error, LabOptions, LabState, Mode, RunOptions, keeper};

use crate::config::{Lab, LabCluster, ProxyMode};
use crate::output::Output;

/// How long the nodes may take to serve a new lab.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out a subcommand of `lab`. To be called before there is any other thread: it blocks signals.
///
/// # Errors
/// The lab cannot be built or found, or the output cannot be written.
pub fn run(lab: &Lab) -> Result<ExitCode, Error> {
    match lab {
        Lab::Run(cluster) | Lab::Up { cluster, .. } => manifests::check(&cluster.folder)?,
        Lab::Apply { folder, .. } => manifests::check(folder)?,
        _ => {}
    }
    match lab {
        Lab::Run(cluster) => return run_once(cluster),
        Lab::Up { name, cluster } => up(name.as_deref(), cluster)?,
        Lab::Keep => keeper::keep()?,
        Lab::List => print(&list(&LabState::all()?))?,
        Lab::Apply { lab, folder } => keeper::apply(lab.name.as_deref(), folder)?,
        Lab::Down(lab) => {
            let state = keeper::down(lab.name.as_deref())?;
            say(&format!("lab {} is gone\n", state.id));
        }
        Lab::Logs { lab, node } => logs(&LabState::find(lab.name.as_deref())?, node.as_deref())?,
        Lab::Exec { lab, pod, command } => {
            let status = keeper::exec(lab.name.as_deref(), pod, command)?;
            return Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: Option<&str>, cluster: &LabCluster) -> Result<(), Error> {
    let mut keep = Command::new(this_program()?);
    keep.args(["lab", "keep"]);
    let mut options = options(cluster)?;
    if Policies::of(&read(cluster)?, &options.plan)?.is_some() {
        enforce(&mut options);
    }
    let state = keeper::up_named(name, &cluster.folder, &options, SYNC_TIMEOUT, keep)?;
    say(&format!(
        "lab {0} is up; `portcullis lab exec --name {0} POD -- CMD` runs a command in it, \
         `portcullis lab down --name {0}` ends it\n",
        state.id
    ));
    Ok(())
}

/// The objects of a lab, of which there is at least one.
fn read(cluster: &LabCluster) -> Result<Cluster, Error> {
    let objects = Cluster::read(&cluster.folder)?;
    if objects.objects().next().is_none() {
        return Err(Error::Manifest {
            origin: cluster.folder.display().to_string(),
            message: "no Kubernetes object in *.yaml, *.yml or *.json; expected at least one".into(),
        });
    }
    Ok(objects)
}

/// A line a lab.
fn list(labs: &[LabState]) -> String {
    if labs.is_empty() {
        return "no labs\n".to_owned();
    }
    let width = labs.iter().map(|lab| lab.id.len()).fold(4, usize::max);
    let mut text = format!("{:width$}  {:13}  {:>5}  {:>4}  FOLDER\n", "NAME", "STATE", "NODES", "PODS");
    for lab in labs {
        let state = match (lab.is_owned(), lab.is_kept()) {
            (false, _) => "owner is gone",
            (true, true) => "up",
            (true, false) => "run",
        };
        let (nodes, pods, folder) = (lab.nodes().count(), lab.pods(), lab.folder.display());
        text += &format!("{:width$}  {state:13}  {nodes:>5}  {pods:>4}  {folder}\n", lab.id);
    }
    text
}

/// Prints the logs of the daemons, each below the name of its node if there are several.
fn logs(lab: &LabState, node: Option<&str>) -> Result<(), Error> {
    let nodes: Vec<&str> = node.map_or_else(|| lab.nodes().collect(), |node| vec![node]);
    for name in &nodes {
        let path = lab.log_of(name)?;
        let text = std::fs::read(&path);
        let text = text.map_err(|source| Error::File { doing: "cannot read", path, source })?;
        if nodes.len() > 1 {
            print(&format!("==> {name} <==\n"))?;
        }
        print(&String::from_utf8_lossy(&text))?;
    }
    Ok(())
}

/// Builds, probes, prints, takes down.
fn run_once(cluster: &LabCluster) -> Result<ExitCode, Error> {
    let objects = read(cluster)?;
    let mut lab = options(cluster)?;
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
            if report.rows.is_empty() && report.unprobed.is_empty() {
                say("nothing to probe: no Service and no NetworkPolicy\n");
                return Ok(false);
            }
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

/// Flags of the daemons that the lab sets itself, and where they come from.
const OWN_FLAGS: [(&str, &str); 5] = [
    ("--manifests", "the lab's own"),
    ("--hostname-override", "the node's name"),
    ("--mode", "given before `--`"),
    ("--proxy-mode", "--mode, given before `--`"),
    ("--config", "flags, as a file would replace those that the lab sets"),
];

fn options(cluster: &LabCluster) -> Result<LabOptions, Error> {
    let name_of = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
    for flag in cluster.flags.iter().map(name_of) {
        if let Some((_, instead)) = OWN_FLAGS.iter().find(|(own, _)| *own == flag) {
            let message = format!("cannot be given to the daemons of a lab: expected {instead}");
            return Err(Error::Plan { object: flag, message });
        }
    }
    let mut args = vec![format!("--mode={}", cluster.mode.name()), "--detect-local-mode=NodeCIDR".to_owned()];
    // Changes are served without delay.
    args.extend(["--iptables-min-sync-period=0s", "--ipvs-min-sync-period=0s"].map(str::to_owned));
    args.extend(cluster.flags.iter().cloned());
    let daemon = DaemonSpec { binary: this_program()?, args, ..DaemonSpec::default() };
    Ok(LabOptions { daemon: Some(daemon), ..LabOptions::default() })
}

fn this_program() -> Result<std::path::PathBuf, Error> {
    let own = std::env::current_exe();
    own.map_err(|source| Error::System { doing: "find this program's own file".into(), source })
}

/// Prints a command's output.
fn print(text: &str) -> Result<(), Error> {
    let mut out = Output::new(io::stdout());
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| Error::System { doing: "write to standard output".into(), source })
}

fn say(text: &str) {
    // A reader that went away is no reason to leave a lab half built.
    drop(io::stdout().write_all(text.as_bytes()));
}
