//! The checks at a quiet moment: rules by the tracer, virtual servers, metrics, and packets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_lab::{ProbeOutcome, ProbeTally, Protocol};

use super::affinity::{self, Affinities, AffinityKey};
use super::cluster::ModelCluster;
use super::connections;
use super::model::{Connection, Expected, Outcome};
use super::node::NodeUnderTest;
use super::pools::{
    ALL_PODS, NODE, NODE_ECHO_PORT, SERVICE_PORTS, SHARED_EXTERNAL_IPS, ServiceSlot, node_addresses,
};
use super::quiet::series;
use super::random::Random;
use super::rules::{NodeRules, VirtualServers};
use super::services::FrontendKind;
use super::step::Mode;
use super::violation::{Invariant, Violation};

/// Numbers of sampled connections.
const TRACED: usize = 500;
const PROBED: usize = 14;
/// Probed connections in addition, to Services with session affinity.
const AFFINE: usize = 6;

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
    /// Probed connections whose endpoint is known by session affinity.
    pub(crate) affine: usize,
}

/// Checks the rules of a quiet moment against the model. `is_disturbed`: another process has
/// changed them; `unreadable`: the number of objects that cannot be read. Repeats with rules read again until they are as expected: the
/// daemon may still restore what another process has changed.
pub(crate) fn rules(
    node: &mut NodeUnderTest,
    cluster: &ModelCluster,
    random: &mut Random,
    counts: &mut CheckCounts,
    is_disturbed: bool,
    unreadable: usize,
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
        let mut found: Vec<String> = found.into_iter().chain(isolated(node, unreadable)).collect();
        if found.is_empty() && is_disturbed {
            // What the model does not have: masquerading, and with ipvs addresses, ipsets and rules. Packets depend on it.
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
    let mut check = |to: SocketAddr, protocol: Protocol| {
        let is_node = node_addresses(NODE).contains(&to.ip());
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
        let found = servers.get(&(to, protocol));
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
                SERVICE_PORTS.into_iter().for_each(|(port, protocol)| check((ip, port).into(), protocol));
            }
            let node = node_addresses(NODE)[family];
            slot.node_ports.into_iter().for_each(|(port, protocol)| check((node, port).into(), protocol));
        }
    }
    wrong
}

/// Returns Services and policies that the daemon has isolated: all versions that it uses are valid. And a wrong number of objects
/// that it cannot read.
fn isolated(node: &NodeUnderTest, unreadable: usize) -> Option<String> {
    let metrics = node.metrics()?;
    let isolated = metrics.lines().filter(|line| {
        let is_isolation = ["portcullis_service_sync_errors{", "portcullis_network_policy_sync_errors"]
            .iter()
            .any(|name| line.starts_with(name));
        is_isolation && !line.ends_with(" 0")
    });
    let isolated: Vec<&str> = isolated.collect();
    let found = series(&metrics, "portcullis_object_problems", "unreadable").sum::<f64>();
    match (isolated.is_empty(), found == unreadable as f64) {
        (true, true) => None,
        (true, false) => {
            Some(format!("the metric counts {found} unreadable objects, but there are {unreadable}"))
        }
        _ => Some(format!("valid objects are isolated: {isolated:?}")),
    }
}

/// Checks some connections by real packets.
pub(crate) fn packets(
    node: &NodeUnderTest,
    cluster: &ModelCluster,
    affinities: &mut Affinities,
    random: &mut Random,
    counts: &mut CheckCounts,
) -> Result<(), Violation> {
    let Some(mode) = node.mode() else { return Ok(()) };
    let probed = sample_of_probes(cluster, affinities, mode, random);
    // Denied connections wait for timeouts, so all run concurrently.
    let tallies: Vec<ProbeTally> = std::thread::scope(|scope| {
        let all: Vec<_> = probed
            .iter()
            .map(|(connection, expected)| scope.spawn(|| probe(node, mode, connection, expected)))
            .collect();
        all.into_iter().map(|one| one.join().expect("a probe does not panic")).collect()
    });
    let mut wrong = Vec::new();
    for ((connection, expected), tally) in probed.iter().zip(&tallies) {
        wrong.extend(wrong_packets(mode, connection, expected, tally));
        if affinity::key(cluster, connection).is_some() && tally.responders().len() > 1 {
            wrong.push(format!("session affinity: {connection}: several endpoints: {tally:?}"));
        }
        for endpoint in
            destinations(expected).filter(|to| tally.responders().contains(responder(*to).as_str()))
        {
            affinities.record(cluster, connection, endpoint);
        }
    }
    counts.probed += probed.len();
    // Each client reaches its endpoint again.
    for (connection, _) in &probed {
        let Some(endpoint) = affinities.expected(cluster, mode, connection) else { continue };
        let expected = BTreeSet::from([Outcome::To(endpoint)]);
        let tally = probe(node, mode, connection, &expected);
        let unexpected = wrong_packets(mode, connection, &expected, &tally);
        wrong.extend(unexpected.map(|text| format!("session affinity: {text}")));
        counts.affine += 1;
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("packets in {} mode:\n  {}", mode.name(), wrong.join("\n  "));
            Err(Violation::new(Invariant::Packets, message))
        }
    }
}

/// Returns the connections to probe with their expected outcomes. A client with session affinity must reach its endpoint again.
fn sample_of_probes(
    cluster: &ModelCluster,
    affinities: &Affinities,
    mode: Mode,
    random: &mut Random,
) -> Vec<(Connection, BTreeSet<Outcome>)> {
    let mut probed: Vec<(Connection, BTreeSet<Outcome>)> = Vec::new();
    let mut clients: BTreeSet<AffinityKey> = BTreeSet::new();
    let mut add = |connection: Connection, most: usize| {
        // Concurrent first connections of a client may reach several endpoints.
        let is_new = affinity::key(cluster, &connection).is_none_or(|key| clients.insert(key));
        if probed.len() >= most || !is_new {
            return;
        }
        let known = affinities.expected(cluster, mode, &connection);
        let expected = match known.map(|endpoint| BTreeSet::from([Outcome::To(endpoint)])) {
            Some(outcomes) => Expected::Exactly(outcomes),
            None => cluster.expected(mode, &connection),
        };
        if let Expected::Exactly(outcomes) = expected
            && is_probed(&connection, &outcomes)
        {
            probed.push((connection, outcomes));
        }
    };
    let known: Vec<Connection> = affinities.connections().collect();
    random.sample(known, AFFINE).into_iter().for_each(|connection| add(connection, AFFINE / 2));
    let sample = connections::sample(random, cluster, PROBED * 20);
    let (affine, others): (Vec<Connection>, Vec<Connection>) =
        sample.into_iter().partition(|connection| affinity::key(cluster, connection).is_some());
    affine.into_iter().for_each(|connection| add(connection, AFFINE));
    others.into_iter().for_each(|connection| add(connection, AFFINE + PROBED));
    probed
}

fn destinations(expected: &BTreeSet<Outcome>) -> impl Iterator<Item = SocketAddr> + '_ {
    expected.iter().filter_map(|outcome| if let Outcome::To(to) = outcome { Some(*to) } else { None })
}

/// Returns true if servers listen at all destinations of a connection, and their replies pass the daemon's node, which
/// translates them.
fn is_probed(connection: &Connection, outcomes: &BTreeSet<Outcome>) -> bool {
    // An SCTP client takes no notice of a rejection, and waits as for a packet that was dropped.
    if connection.protocol == Protocol::Sctp
        && (!Protocol::Sctp.is_supported() || outcomes.contains(&Outcome::Rejected))
    {
        return false;
    }
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

/// Opens a few connections.
fn probe(
    node: &NodeUnderTest,
    mode: Mode,
    connection: &Connection,
    expected: &BTreeSet<Outcome>,
) -> ProbeTally {
    let is_always_answered = destinations(expected).count() == expected.len();
    let timeout = match (is_always_answered, is_rejected(expected)) {
        (true, _) => 10_000,
        (_, true) => 3_000,
        _ => 700,
    };
    let prober =
        node.prober(connection.client, connection.to.is_ipv4()).timeout(Duration::from_millis(timeout));
    let prober = if mode == Mode::Ipvs { prober.unique_source_ports() } else { prober };
    (0..4).map(|_| prober.probe(connection.protocol, connection.to)).collect()
}

fn is_rejected(expected: &BTreeSet<Outcome>) -> bool {
    expected.len() == 1 && expected.contains(&Outcome::Rejected)
}

fn wrong_packets(
    mode: Mode,
    connection: &Connection,
    expected: &BTreeSet<Outcome>,
    tally: &ProbeTally,
) -> Option<String> {
    let names: Vec<String> = destinations(expected).map(responder).collect();
    let unexpected = tally.responders().into_iter().find(|by| !names.iter().any(|name| name == by));
    let silent =
        |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Unreachable);
    let is_right = unexpected.is_none()
        && match (names.len() == expected.len(), is_rejected(expected)) {
            // A connection of IPVS may meet the conntrack entry of another one with its source port.
            (true, _) => tally.failures.values().sum::<usize>() <= usize::from(mode == Mode::Ipvs),
            (_, true) => {
                tally.answered() == 0
                    && tally.failures.keys().any(|outcome| *outcome == ProbeOutcome::Refused)
            }
            _ if names.is_empty() => tally.answered() == 0 && tally.failures.keys().all(silent),
            _ => tally.failures.keys().all(silent),
        };
    (!is_right).then(|| format!("{connection}: expected {expected:?}, found {tally:?}"))
}

/// Returns the name with which the server at an address responds.
fn responder(to: SocketAddr) -> String {
    let pod = ALL_PODS.iter().find(|pod| pod.addresses().contains(&to.ip()));
    pod.map_or_else(|| NODE.to_owned(), |pod| pod.full_name())
}
