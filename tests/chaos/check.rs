//! The checks at a quiet moment: rules by the tracer, virtual servers, metrics, and packets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_lab::{ProbeOutcome, ProbeTally, Protocol};

use super::cluster::ModelCluster;
use super::connections;
use super::model::{Connection, Expected, Outcome};
use super::node::NodeUnderTest;
use super::pools::{ALL_PODS, NODE, NODE_ECHO_PORT, SHARED_EXTERNAL_IPS, ServiceSlot, node_addresses};
use super::quiet::series;
use super::random::Random;
use super::rules::{NodeRules, VirtualServers};
use super::services::FrontendKind;
use super::step::Mode;
use super::violation::{Invariant, Violation};

/// Numbers of sampled connections.
const TRACED: usize = 500;
const PROBED: usize = 14;

/// Time for the rules to become as expected. The daemon restores what another process changed by notifications, or once
/// per sync period.
const RETRY: Duration = Duration::from_millis(200);

/// Counts of checks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CheckCounts {
    pub(crate) quiet_moments: usize,
    /// Traced connections, and those among them with a certain expectation.
    pub(crate) traced: usize,
    pub(crate) routed_to_several: usize,
    pub(crate) denied: usize,
    pub(crate) rejected: usize,
    pub(crate) virtual_servers: usize,
    pub(crate) probed: usize,
}

/// Checks the rules of a quiet moment against the model. `is_disturbed`: another process has changed them. Repeats with rules read again until they are as expected: the
/// daemon may still restore what another process has changed.
pub(crate) fn rules(
    node: &mut NodeUnderTest,
    cluster: &ModelCluster,
    random: &mut Random,
    counts: &mut CheckCounts,
    is_disturbed: bool,
    limit: Duration,
) -> Result<(), Violation> {
    let Some(mode) = node.mode() else { return Ok(()) };
    let sample = connections::sample(random, cluster, TRACED);
    let start = Instant::now();
    loop {
        let found = match mode {
            Mode::Ipvs => wrong_virtual_servers(node, cluster, counts),
            _ => wrong_outcomes(node, cluster, mode, &sample),
        };
        let mut found: Vec<String> = found.into_iter().chain(isolated(node)).collect();
        if found.is_empty() && mode == Mode::Ipvs && is_disturbed {
            // Addresses, ipsets and rules, which the model does not have.
            found.extend(node.diff());
        }
        if found.is_empty() {
            break;
        }
        node.check_running()?;
        if start.elapsed() > limit {
            let first = found.iter().take(8).cloned().collect::<Vec<_>>().join("\n  ");
            let health = node.health("/healthz").unwrap_or_default();
            let health = health.split("\r\n\r\n").last().unwrap_or_default();
            let message = format!(
                "rules of {} mode differ from the model after {limit:?}, {} of {}:\n  {first}\n/healthz: {health}",
                mode.name(),
                found.len(),
                sample.len()
            );
            return Err(Violation::new(Invariant::Rules, message));
        }
        std::thread::sleep(RETRY);
    }
    counts.quiet_moments += 1;
    if mode != Mode::Ipvs {
        counts.traced += sample.len();
        for connection in &sample {
            let Expected::Exactly(outcomes) = cluster.expected(mode, connection) else { continue };
            counts.routed_to_several += usize::from(outcomes.len() > 1);
            counts.denied += usize::from(outcomes.contains(&Outcome::Dropped));
            counts.rejected += usize::from(outcomes.contains(&Outcome::Rejected));
        }
    }
    Ok(())
}

fn wrong_outcomes(
    node: &NodeUnderTest,
    cluster: &ModelCluster,
    mode: Mode,
    sample: &[Connection],
) -> Vec<String> {
    let rules = NodeRules::read(&node.netns(), mode, node.tools());
    let wrong = sample.iter().filter_map(|connection| {
        let expected = cluster.expected(mode, connection);
        let found = rules.outcomes(connection);
        (!expected.fits(connection, &found))
            .then(|| format!("{connection}: expected {expected:?}, found {found:?}"))
    });
    wrong.collect()
}

/// Compares the real servers of every frontend of the changing Services.
fn wrong_virtual_servers(
    node: &NodeUnderTest,
    cluster: &ModelCluster,
    counts: &mut CheckCounts,
) -> Vec<String> {
    let VirtualServers(servers) = VirtualServers::read(&node.netns());
    let mut wrong = Vec::new();
    let mut check = |to: SocketAddr, is_udp: bool| {
        let is_node = node_addresses(NODE).contains(&to.ip());
        let protocol = if is_udp { "UDP" } else { "TCP" };
        let frontend = cluster.frontend(to, protocol, is_node);
        let endpoints = frontend.map(|frontend| cluster.endpoints(frontend, to.is_ipv4()));
        let expected = frontend.zip(endpoints).map(|(frontend, endpoints)| {
            let has_none = frontend.is_local() && endpoints.local.is_empty();
            match (frontend.is_local(), frontend.kind) {
                // As kube-proxy: a Service that is also external has its endpoints on all nodes then.
                (true, FrontendKind::ClusterIp) if has_none && frontend.is_external_service() => {
                    endpoints.cluster
                }
                (true, FrontendKind::ClusterIp) => endpoints.local,
                (true, _) if !has_none => endpoints.local,
                _ => endpoints.cluster,
            }
        });
        let found = servers.get(&(to, is_udp));
        counts.virtual_servers += 1;
        if expected.clone().unwrap_or_default() != found.cloned().unwrap_or_default() {
            wrong.push(format!("virtual server {to}/{protocol}: expected {expected:?}, found {found:?}"));
        }
    };
    for slot in ServiceSlot::all() {
        for (family, shared) in SHARED_EXTERNAL_IPS.into_iter().enumerate() {
            let shared = shared.parse().expect("an address");
            let virtual_ips = [slot.load_balancer_ips[family], slot.external_ips[family], shared];
            for ip in virtual_ips.into_iter().chain([slot.cluster_ips[family]]) {
                [80, 81].into_iter().for_each(|port| check((ip, port).into(), false));
                check((ip, 53).into(), true);
            }
            let node = node_addresses(NODE)[family];
            check((node, slot.node_ports[0]).into(), false);
            check((node, slot.node_ports[1]).into(), true);
        }
    }
    wrong
}

/// Returns Services and policies that the daemon has isolated: all objects of a scenario are valid.
fn isolated(node: &NodeUnderTest) -> Option<String> {
    let metrics = node.metrics()?;
    let isolated = metrics.lines().filter(|line| {
        let is_isolation = ["portcullis_service_sync_errors{", "portcullis_network_policy_sync_errors"]
            .iter()
            .any(|name| line.starts_with(name));
        is_isolation && !line.ends_with(" 0")
    });
    let isolated: Vec<&str> = isolated.collect();
    let unreadable = series(&metrics, "portcullis_object_problems", "unreadable").sum::<f64>();
    match (isolated.is_empty(), unreadable == 0.0) {
        (true, true) => None,
        (true, false) => Some(format!("{unreadable} objects are unreadable, but all are valid")),
        _ => Some(format!("valid objects are isolated: {isolated:?}")),
    }
}

/// Checks some connections by real packets.
pub(crate) fn packets(
    node: &NodeUnderTest,
    cluster: &ModelCluster,
    random: &mut Random,
    counts: &mut CheckCounts,
) -> Result<(), Violation> {
    let Some(mode) = node.mode() else { return Ok(()) };
    let sample = connections::sample(random, cluster, PROBED * 4);
    let mut probed: Vec<(Connection, BTreeSet<Outcome>)> = Vec::new();
    for connection in sample {
        if let Expected::Exactly(outcomes) = cluster.expected(mode, &connection)
            && probed.len() < PROBED
            && is_probed(&connection, &outcomes)
        {
            probed.push((connection, outcomes));
        }
    }
    // Denied connections wait for timeouts, so all run concurrently.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = probed
            .iter()
            .map(|(connection, expected)| scope.spawn(|| wrong_packets(node, mode, connection, expected)))
            .collect();
        all.into_iter().filter_map(|one| one.join().expect("a probe does not panic")).collect()
    });
    counts.probed += probed.len();
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("packets in {} mode:\n  {}", mode.name(), wrong.join("\n  "));
            Err(Violation::new(Invariant::Packets, message))
        }
    }
}

/// Returns true if servers listen at all destinations of a connection, and their replies pass the daemon's node, which
/// translates them.
fn is_probed(connection: &Connection, outcomes: &BTreeSet<Outcome>) -> bool {
    let is_closed = |to: &SocketAddr| node_addresses(NODE).contains(&to.ip()) && to.port() != NODE_ECHO_PORT;
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::To(to) if is_closed(to))) {
        return false;
    }
    let Some(client) = connection.client.pod() else { return true };
    // A pod of the other node gets replies of endpoints there directly, unless the connection was masqueraded.
    let is_on_node =
        |to: &SocketAddr| ALL_PODS.iter().all(|pod| pod.node == NODE || !pod.addresses().contains(&to.ip()));
    let mut destinations =
        outcomes.iter().filter_map(|outcome| if let Outcome::To(to) = outcome { Some(to) } else { None });
    // A pod that connects to its own address does not leave its namespace.
    !client.addresses().contains(&connection.to.ip()) && (client.node == NODE || destinations.all(is_on_node))
}

fn wrong_packets(
    node: &NodeUnderTest,
    mode: Mode,
    connection: &Connection,
    expected: &BTreeSet<Outcome>,
) -> Option<String> {
    let protocol = if connection.is_udp { Protocol::Udp } else { Protocol::Tcp };
    let destinations: Vec<SocketAddr> = expected
        .iter()
        .filter_map(|outcome| if let Outcome::To(to) = outcome { Some(*to) } else { None })
        .collect();
    let is_always_answered = destinations.len() == expected.len();
    let is_rejected = expected.len() == 1 && expected.contains(&Outcome::Rejected);
    let timeout = match (is_always_answered, is_rejected) {
        (true, _) => 10_000,
        (_, true) => 3_000,
        _ => 700,
    };
    let prober =
        node.prober(connection.client, connection.to.is_ipv4()).timeout(Duration::from_millis(timeout));
    let prober = if mode == Mode::Ipvs { prober.unique_source_ports() } else { prober };
    let tally: ProbeTally = (0..4).map(|_| prober.probe(protocol, connection.to)).collect();
    let names: Vec<String> = destinations.iter().map(|to| responder(*to)).collect();
    let unexpected = tally.responders().into_iter().find(|by| !names.iter().any(|name| name == by));
    let silent =
        |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Unreachable);
    let is_right = unexpected.is_none()
        && match (is_always_answered, is_rejected) {
            // A connection of IPVS may meet the conntrack entry of another one with its source port.
            (true, _) => tally.failures.values().sum::<usize>() <= usize::from(mode == Mode::Ipvs),
            (_, true) => {
                tally.answered() == 0
                    && tally.failures.keys().any(|outcome| *outcome == ProbeOutcome::Refused)
            }
            _ if destinations.is_empty() => tally.answered() == 0 && tally.failures.keys().all(silent),
            _ => tally.failures.keys().all(silent),
        };
    (!is_right).then(|| format!("{connection}: expected {expected:?}, found {tally:?}"))
}

/// Returns the name with which the server at an address responds.
fn responder(to: SocketAddr) -> String {
    let pod = ALL_PODS.iter().find(|pod| pod.addresses().contains(&to.ip()));
    pod.map_or_else(|| NODE.to_owned(), |pod| pod.full_name())
}
