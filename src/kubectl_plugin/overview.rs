//! `kubectl portcullis status`: the state of the daemons of all nodes, one line for each node, worst first.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use portcullis_modes::external_program;
use serde::Serialize;
use serde_json::Value;

use super::PluginError;
use super::arguments::Arguments;
use super::kubectl::{self, KubectlError};
use super::pods::{DaemonPod, DaemonPods};
use crate::config::OutputFormat;
use crate::document::Document;
use crate::output::Output;
use crate::progress_bar;

/// The number of nodes that are queried at a time.
const WORKERS: usize = 8;

/// The time limit for one node.
const NODE_LIMIT: Duration = Duration::from_secs(30);

/// The arguments of `status` for all nodes.
#[derive(Args, Clone, Copy, Debug)]
struct OverviewArguments {
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// The states of all nodes, worst first.
#[derive(Serialize)]
struct Overview {
    nodes: Vec<NodeState>,
}

/// The state of the daemon on a node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    node: String,
    state: State,
    /// The first problem.
    problem: Option<String>,
    /// The number of problems.
    problems: usize,
    /// The document of `portcullis status` on the node.
    status: Option<Value>,
}

/// The state of a daemon, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// The node has no pod of the daemon.
    NoPod,
    /// The daemon did not respond.
    Unknown,
    /// It reports that it is not healthy.
    Unhealthy,
    /// It is healthy, with problems.
    Warning,
    /// It is healthy.
    Healthy,
}

/// Prints the states. The exit status is 0 if all nodes are healthy, 1 if a node is not, 2 if the state of a node is unknown.
///
/// # Errors
/// kubectl failed, or the output cannot be written.
pub(super) fn run(arguments: &Arguments, pods: &DaemonPods) -> Result<ExitCode, PluginError> {
    let parser =
        OverviewArguments::augment_args(Command::new("status").bin_name("kubectl portcullis status"));
    let words = ["status".to_owned()].into_iter().chain(arguments.command_arguments.iter().cloned());
    let parsed =
        parser.try_get_matches_from(words).and_then(|matches| OverviewArguments::from_arg_matches(&matches));
    let parsed = parsed.unwrap_or_else(|error| crate::config::exit(&error));
    external_program::set_time_limit(NODE_LIMIT);
    let mut nodes = nodes_without_pods(arguments, pods)?;
    progress_bar::start_steps(pods.pods.len(), "asking the daemons of all nodes");
    nodes.extend(query_all(arguments, pods));
    progress_bar::finish();
    nodes.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
    let worst = nodes.first().map_or(State::Unknown, |node| node.state);
    let mut out = Output::stdout();
    match parsed.output.document_format() {
        Some(format) => Document::new("StatusOverview", Overview { nodes }).print(format, &mut out)?,
        None => print(&nodes, &mut out)?,
    }
    out.flush()?;
    Ok(match worst {
        State::Healthy | State::Warning => ExitCode::SUCCESS,
        State::Unhealthy => ExitCode::FAILURE,
        State::NoPod | State::Unknown => ExitCode::from(crate::FAILED),
    })
}

/// Returns the Linux nodes without a pod of the daemon, which nothing serves.
fn nodes_without_pods(arguments: &Arguments, pods: &DaemonPods) -> Result<Vec<NodeState>, PluginError> {
    let text = kubectl::output(arguments, &["get", "nodes", "--output", "json"])?;
    let list: Value = serde_json::from_str(&text).map_err(KubectlError::Unexpected)?;
    let is_served = |node: &&Value| {
        node.pointer("/metadata/labels/kubernetes.io~1os").is_none_or(|system| system == "linux")
    };
    let nodes = list["items"].as_array().into_iter().flatten().filter(is_served);
    let names = nodes.filter_map(|node| node.pointer("/metadata/name")?.as_str());
    let without = names.filter(|name| !pods.pods.contains_key(*name));
    Ok(without
        .map(|name| NodeState {
            node: name.to_owned(),
            state: State::NoPod,
            problem: Some("no pod of the daemon runs on this node".to_owned()),
            problems: 1,
            status: None,
        })
        .collect())
}

/// Queries the daemons of all pods.
fn query_all(arguments: &Arguments, pods: &DaemonPods) -> Vec<NodeState> {
    let pods: Vec<(&String, &DaemonPod)> = pods.pods.iter().collect();
    let (next, states) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(pods.len()) {
            scope.spawn(|| {
                while let Some((node, pod)) = pods.get(next.fetch_add(1, Relaxed)) {
                    let state = query(arguments, node, pod);
                    progress_bar::step();
                    states.lock().expect("no thread panics while it holds the lock").push(state);
                }
            });
        }
    });
    states.into_inner().expect("no thread panics while it holds the lock")
}

fn query(arguments: &Arguments, node: &str, pod: &DaemonPod) -> NodeState {
    let words = pod.exec_arguments("status", &["--output=json".to_owned()], false);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let unknown = |problem: String| NodeState {
        node: node.to_owned(),
        state: State::Unknown,
        problem: Some(problem),
        problems: 1,
        status: None,
    };
    let (text, failure) = match kubectl::output_and_status(arguments, &words) {
        Ok(output) => output,
        Err(error) => return unknown(error.to_string()),
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(status) if status["kind"] == "Status" => NodeState::new(node, status),
        _ => unknown(failure.map_or_else(|| "its output is no status".to_owned(), |(_, message)| message)),
    }
}

impl NodeState {
    fn new(node: &str, status: Value) -> Self {
        let problems = status["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
        let state = match (status["healthy"].as_bool(), problems) {
            (Some(true), []) => State::Healthy,
            (Some(true), _) => State::Warning,
            (Some(false), _) => State::Unhealthy,
            (None, _) => State::Unknown,
        };
        // Problems that fail a health check come first.
        let fails = |problem: &&Value| problem["fails"].as_str().is_some_and(|check| check != "nothing");
        let first = problems.iter().find(fails).or(problems.first());
        let problem = first.and_then(|problem| problem["text"].as_str()).map(str::to_owned);
        NodeState { node: node.to_owned(), state, problem, problems: problems.len(), status: Some(status) }
    }

    fn cells(&self) -> [String; 5] {
        let text = |pointer: &str| {
            let value = self.status.as_ref().and_then(|status| status.pointer(pointer)?.as_str());
            value.unwrap_or("-").to_owned()
        };
        let state = match self.state {
            State::NoPod => "no pod",
            State::Unknown => "unknown",
            State::Unhealthy => "unhealthy",
            State::Warning => "warning",
            State::Healthy => "healthy",
        };
        let more = self.problems.saturating_sub(1);
        let problem = match (&self.problem, more) {
            (None, _) => String::new(),
            (Some(problem), 0) => problem.replace('\n', "; "),
            (Some(problem), more) => format!("{} (and {more} more)", problem.replace('\n', "; ")),
        };
        [self.node.clone(), state.to_owned(), text("/program/version"), text("/node/mode"), problem]
    }
}

/// Prints a table.
fn print(nodes: &[NodeState], out: &mut dyn Write) -> io::Result<()> {
    let head = ["NODE", "STATE", "VERSION", "MODE", "PROBLEM"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(nodes.iter().map(NodeState::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..4).map(width).collect();
    for [node, state, version, mode, problem] in &rows {
        let line = format!(
            "{node:0$}  {state:1$}  {version:2$}  {mode:3$}  {problem}",
            widths[0], widths[1], widths[2], widths[3]
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn worst_node_comes_first_with_its_worst_problem() {
        let status = |healthy: bool, problems: Value| {
            json!({"kind": "Status", "healthy": healthy, "problems": problems,
                "program": {"version": "0.1.0"}, "node": {"mode": "nftables"}})
        };
        let warning = json!({"text": "log: 5 lines were dropped", "fails": "nothing"});
        let failure = json!({"text": "IPv4: the last sync failed", "fails": "healthz"});
        let mut nodes = vec![
            NodeState::new("node-1", status(true, json!([]))),
            NodeState::new("node-2", status(true, json!([warning]))),
            NodeState::new("node-3", status(false, json!([warning, failure]))),
            NodeState {
                node: "node-4".into(),
                state: State::NoPod,
                problem: Some("none".into()),
                problems: 1,
                status: None,
            },
        ];
        nodes.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
        let mut out = Vec::new();
        print(&nodes, &mut out).expect("writing to memory");
        let expected = "\
NODE    STATE      VERSION  MODE      PROBLEM
node-4  no pod     -        -         none
node-3  unhealthy  0.1.0    nftables  IPv4: the last sync failed (and 1 more)
node-2  warning    0.1.0    nftables  log: 5 lines were dropped
node-1  healthy    0.1.0    nftables
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
