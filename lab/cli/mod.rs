//! The verbs of `portcullis-lab`.

mod arguments;
mod daemon_program;
mod document;
mod junit;
mod man;
mod manifests;
mod policies;
mod progress;

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use arguments::{Arguments, Lab, LabCluster, LabResults};
use clap::Parser;
use document::OutputFormat;
use policies::{POLICY_SYNC_METRIC, Policies, PolicyEvaluator};
use portcullis_lab::{
    ClusterObjects, DaemonSpec, Error, LabOptions, LabRecord, RunOptions, RunResults, background,
};
use progress::Progress;
use serde::Serialize;

/// Exit status if the lab cannot be built or found, or the command line is wrong.
const FAILED: u8 = 2;

/// Timeout of the daemons' first sync.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the command line of this process. Must be called before any thread is started, because it blocks signals.
pub(crate) fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::INFO).init();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| exit(&error));
    run(&arguments.command).unwrap_or_else(|error| fail(&error.to_string()))
}

fn fail(message: &str) -> ExitCode {
    // Nothing can be reported if standard error is closed.
    let _ = writeln!(io::stderr(), "portcullis-lab: {message}");
    ExitCode::from(FAILED)
}

/// Prints the help or the error of a command line, and exits.
fn exit(error: &clap::Error) -> ! {
    match error.print() {
        Err(cause) if !error.use_stderr() && cause.kind() != ErrorKind::BrokenPipe => {
            fail(&format!("cannot print: {cause}"));
            std::process::exit(FAILED.into())
        }
        _ => std::process::exit(error.exit_code()),
    }
}

/// Runs a verb.
///
/// # Errors
/// The lab cannot be built or found, or the output cannot be written.
fn run(lab: &Lab) -> Result<ExitCode, Error> {
    match lab {
        Lab::Run { cluster, .. } | Lab::Up { cluster, .. } => manifests::check(&cluster.folder)?,
        Lab::Apply { folder, .. } => manifests::check(folder)?,
        _ => {}
    }
    match lab {
        Lab::Run { cluster, results } => return run_once(cluster, results),
        Lab::Up { name, cluster } => up(name.as_deref(), cluster)?,
        Lab::Keep => background::serve()?,
        Lab::List { output } => print(&list(&LabRecord::all()?, *output))?,
        Lab::Apply { lab, folder } => background::apply(lab.name.as_deref(), folder)?,
        Lab::Down(lab) => {
            let record = background::down(lab.name.as_deref())?;
            print_best_effort(&format!("lab {} removed\n", record.id));
        }
        Lab::Logs { lab, node } => logs(&LabRecord::find(lab.name.as_deref())?, node.as_deref())?,
        Lab::Exec { lab, pod, command } => {
            return Ok(exit_code(background::exec(lab.name.as_deref(), pod, command)?));
        }
        Lab::Explain { lab, arguments } => {
            return Ok(exit_code(background::explain(lab.name.as_deref(), arguments)?));
        }
        Lab::Observe { lab, node, arguments } => {
            let name = lab.name.as_deref();
            return Ok(exit_code(portcullis_lab::observe(name, node.as_deref(), arguments)?));
        }
        Lab::Man(page) => print_with(|out| man::print_page(page, out))?,
        Lab::Completions { shell } => print_with(|out| man::print_completions(*shell, out))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the exit status of a command as that of this process.
fn exit_code(status: i32) -> ExitCode {
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn up(name: Option<&str>, cluster: &LabCluster) -> Result<(), Error> {
    let mut server = Command::new(this_program()?);
    server.arg("keep");
    let mut options = options(cluster)?;
    if Policies::from_objects(&read(cluster)?, &options.plan)?.is_some() {
        enable_network_policy(&mut options);
    }
    let progress = Progress::start("building the cluster and waiting for its daemons");
    let record = background::up_named(name, &cluster.folder, &options, SYNC_TIMEOUT, server)?;
    progress.finish();
    print_best_effort(&format!(
        "lab {0} is up; `portcullis lab exec --name {0} POD -- CMD` runs a command in it, \
         `portcullis lab down --name {0}` removes it\n",
        record.id
    ));
    Ok(())
}

/// Reads the objects of a lab; fails if there are none.
fn read(cluster: &LabCluster) -> Result<ClusterObjects, Error> {
    let objects = ClusterObjects::read(&cluster.folder)?;
    if objects.objects().next().is_none() {
        return Err(Error::Manifest {
            origin: cluster.folder.display().to_string(),
            message: "no Kubernetes object in *.yaml, *.yml or *.json; expected at least one".into(),
        });
    }
    Ok(objects)
}

/// The labs on this machine.
#[derive(Serialize)]
struct LabList<'a> {
    labs: Vec<LabItem<'a>>,
}

/// A lab.
#[derive(Serialize)]
struct LabItem<'a> {
    name: &'a str,
    /// `up`, `run`, or `owner exited`.
    state: &'static str,
    nodes: usize,
    pods: usize,
    folder: &'a Path,
}

impl<'a> LabItem<'a> {
    fn new(lab: &'a LabRecord) -> Self {
        let state = match (lab.has_live_owner(), lab.is_persistent()) {
            (false, _) => "owner exited",
            (true, true) => "up",
            (true, false) => "run",
        };
        LabItem { name: &lab.id, state, nodes: lab.nodes().count(), pods: lab.pods(), folder: &lab.folder }
    }
}

/// Formats labs as a table with one line each, or as a document.
fn list(labs: &[LabRecord], output: OutputFormat) -> String {
    let labs: Vec<LabItem<'_>> = labs.iter().map(LabItem::new).collect();
    let content = LabList { labs };
    if let Some(text) = document::document(output, "LabList", &content) {
        return text;
    }
    let labs = content.labs;
    if labs.is_empty() {
        return "no labs\n".to_owned();
    }
    let width = labs.iter().map(|lab| lab.name.len()).fold(4, usize::max);
    let mut text = format!("{:width$}  {:13}  {:>5}  {:>4}  FOLDER\n", "NAME", "STATE", "NODES", "PODS");
    for lab in labs {
        let LabItem { name, state, nodes, pods, folder } = lab;
        text += &format!("{name:width$}  {state:13}  {nodes:>5}  {pods:>4}  {}\n", folder.display());
    }
    text
}

/// Prints the logs of the daemons, each with the name of its node as a heading if there are several.
fn logs(lab: &LabRecord, node: Option<&str>) -> Result<(), Error> {
    let nodes: Vec<&str> = node.map_or_else(|| lab.nodes().collect(), |node| vec![node]);
    for name in &nodes {
        let path = lab.log_path(name)?;
        let text = std::fs::read(&path);
        let text = text.map_err(|source| Error::File { action: "cannot read", path, source })?;
        if nodes.len() > 1 {
            print(&format!("==> {name} <==\n"))?;
        }
        print(&String::from_utf8_lossy(&text))?;
    }
    Ok(())
}

/// Builds a lab, probes it, prints the results, and removes it.
fn run_once(cluster: &LabCluster, outputs: &LabResults) -> Result<ExitCode, Error> {
    let objects = read(cluster)?;
    let mut lab = options(cluster)?;
    let policies = Policies::from_objects(&objects, &lab.plan)?;
    if let Some(policies) = &policies {
        enable_network_policy(&mut lab);
        policies.add_echo_ports(&mut lab.plan);
    }
    let data_path = cluster.mode.data_path();
    let options = RunOptions { lab, data_path, sync_timeout: SYNC_TIMEOUT, ..RunOptions::default() };
    let is_text = outputs.output == OutputFormat::Text;
    let colors = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    let print_text = |text: &str| {
        if is_text {
            print_best_effort(text);
        }
    };
    let progress = Progress::start("building the cluster and waiting for its daemons");
    let results = portcullis_lab::run_with(objects, &options, |lab| {
        progress.next("connecting to every Service from every client");
        let Some(policies) = &policies else {
            let report = portcullis_lab::probe(lab, &options)?;
            progress.finish();
            print_text(&report.render(colors));
            if report.rows.is_empty() && report.skipped.is_empty() {
                print_text("nothing to probe: no Service and no NetworkPolicy\n");
            }
            return Ok(RunResults::new(&report, None));
        };
        lab.wait_for_metric(POLICY_SYNC_METRIC, SYNC_TIMEOUT)?;
        let evaluator = PolicyEvaluator::read(&lab.manifests())?;
        let allows = |from, to, port| evaluator.allows(from, to, port);
        let report = portcullis_lab::probe_with_policies(lab, &options, Some(&allows))?;
        progress.suspend(|| print_text(&report.render(colors)));
        progress.next("connecting every pod to every pod");
        let matrix = policies.probe(lab, &evaluator)?;
        progress.finish();
        print_text(&format!("\n{}", matrix.render(colors)));
        Ok(RunResults::new(&report, Some(&matrix)))
    })?;
    if let Some(path) = &outputs.junit {
        write_junit(&results, path)?;
    }
    if let Some(text) = document::document(outputs.output, "LabRun", &results) {
        print(&text)?;
    }
    Ok(if results.as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_junit(results: &RunResults, path: &Path) -> Result<(), Error> {
    let text = junit::document(results).map_err(|error| Error::System {
        action: "cannot encode the results as JUnit XML".into(),
        source: io::Error::other(error),
    })?;
    std::fs::write(path, text).map_err(|source| Error::File {
        action: "cannot write",
        path: path.to_owned(),
        source,
    })
}

/// Makes the daemons enforce network policies.
fn enable_network_policy(options: &mut LabOptions) {
    options.daemon.iter_mut().for_each(|daemon| daemon.args.push("--network-policy".to_owned()));
}

/// Daemon flags that the lab sets itself, with what is expected instead.
const RESERVED_FLAGS: [(&str, &str); 10] = [
    ("--manifests", "the lab sets it"),
    ("--hostname-override", "the lab sets it to the node's name"),
    ("--socket", "the lab sets it to a file of the node"),
    ("--mode", "expected before `--`"),
    ("--proxy-mode", "expected --mode before `--`"),
    ("--pod-network", "expected before `--`"),
    ("--pod-network-cni-bin-dir", "the lab sets it to a folder of the node"),
    ("--pod-network-cni-conf-dir", "the lab sets it to a folder of the node"),
    ("--pod-network-state-dir", "the lab sets it to a folder of the node"),
    ("--config", "expected flags, because a file would replace those that the lab sets"),
];

fn options(cluster: &LabCluster) -> Result<LabOptions, Error> {
    let name_of = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
    for flag in cluster.flags.iter().map(name_of) {
        if let Some((_, instead)) = RESERVED_FLAGS.iter().find(|(reserved, _)| *reserved == flag) {
            let message = format!("cannot be set for the daemons of a lab: {instead}");
            return Err(Error::Plan { object: flag, message });
        }
    }
    let mut args = vec![format!("--mode={}", cluster.mode.name()), "--detect-local-mode=NodeCIDR".to_owned()];
    // Changes are synced without delay.
    args.extend(["--iptables-min-sync-period=0s", "--ipvs-min-sync-period=0s"].map(str::to_owned));
    args.extend(cluster.flags.iter().cloned());
    let binary = daemon_program::find(cluster.daemon.as_deref())?;
    // `lab explain` runs it later, from another folder.
    let binary = binary.canonicalize().unwrap_or(binary);
    let daemon = DaemonSpec { binary, args, pod_network: cluster.pod_network, ..DaemonSpec::default() };
    Ok(LabOptions { daemon: Some(daemon), ..LabOptions::default() })
}

fn this_program() -> Result<std::path::PathBuf, Error> {
    let program = std::env::current_exe();
    program.map_err(|source| Error::System { action: "cannot find this program's file".into(), source })
}

/// Prints a command's output. A reader that stops reading (`portcullis-lab list | head -1`) is not an error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Error::System { action: "cannot write to standard output".into(), source })
        }
        _ => Ok(()),
    }
}

/// Prints the output of a function that writes it.
fn print_with(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
    let mut text = Vec::new();
    write(&mut text)?;
    print(&String::from_utf8_lossy(&text))
}

/// Prints text and ignores errors: a closed standard output must not interrupt building or removing a lab.
fn print_best_effort(text: &str) {
    drop(io::stdout().write_all(text.as_bytes()));
}
