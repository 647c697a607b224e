//! A soak: changes with continuous traffic for a long time, in each mode, and thresholds for losses, memory, descriptors
//! and threads.
//!
//! `make soak SECONDS=3600` divides the time among the three modes. IPVS mode runs in user-mode Linux, without policies,
//! because its kernel has no nf_tables.

mod churn;
mod report;
pub(crate) mod resources;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use portcullis_lab::{Protocol, TrafficGenerator, TrafficOptions};
use portcullis_machines::uml;

use super::model::Client;
use super::node::NodeUnderTest;
use super::pools::{ALL_PODS, CLIENT, DENIED, NODE, STABLE, TCP_PORTS, node_addresses};
use super::quiet;
use super::random_run::{inside_uml_for, number};
use super::runner::LIMIT;
use super::scenario::Tools;
use super::step::{Mode, Signal};
use churn::{Churn, STABLE_NODE_PORT};
use report::Report;
use resources::{Quarters, Sample};

/// Default duration for each mode.
const SECONDS: u64 = 15;

/// Time between two changes.
const CHANGE_INTERVAL: Duration = Duration::from_millis(50);

/// Time between two interruptions of all watches.
const DISCONNECT_INTERVAL: Duration = Duration::from_secs(60);

const ARGUMENTS: [&str; 1] = ["-v=1"];

pub(crate) fn run(mode: Mode) -> Result<(), Failed> {
    let seconds = number("SOAK_SECONDS").map_or(SECONDS, |total| (total / 3).max(1));
    if mode == Mode::Ipvs && !uml::is_inside() {
        return inside_uml_for("soak::ipvs", Duration::from_secs(seconds + 300));
    }
    let report = soak(mode, Duration::from_secs(seconds)).map_err(Failed::from)?;
    println!("{report}");
    let missed = report.missed();
    if missed.is_empty() { Ok(()) } else { Err(Failed::from(missed.join("\n"))) }
}

fn soak(mode: Mode, duration: Duration) -> Result<Report, String> {
    let policies = !uml::is_inside();
    let tools = if uml::is_inside() { Tools::Legacy } else { Tools::Nft };
    let mut node = NodeUnderTest::new(tools, policies, &ARGUMENTS);
    let mut churn = Churn::start(&node.server, policies);
    node.start(mode);
    quiet::wait(&mut node, policies, LIMIT).map_err(|error| format!("{error}\n{}", node.log()))?;
    let traffic = Traffic::start(&node, policies);
    let pid = node.pid().expect("it was started");
    let (start, mut samples) = (Instant::now(), Vec::new());
    let (mut next_sample, mut next_disconnect) = (start, start + DISCONNECT_INTERVAL);
    while start.elapsed() < duration {
        churn.step(&node.server);
        if Instant::now() >= next_sample {
            node.check_running().map_err(|error| format!("{error}\n{}", node.log()))?;
            samples.extend(Sample::read(pid));
            next_sample += Duration::from_secs(1).min(duration / 100);
        }
        if Instant::now() >= next_disconnect {
            node.server.disconnect_all();
            // The server keeps what it needs for a list; its own memory must not grow either.
            node.server.forget_history();
            next_disconnect += DISCONNECT_INTERVAL;
        }
        thread::sleep(if uml::is_inside() { 3 * CHANGE_INTERVAL } else { CHANGE_INTERVAL });
    }
    quiet::wait(&mut node, policies, LIMIT).map_err(|error| format!("{error}\n{}", node.log()))?;
    let [connections, node_port, datagrams, denied] = traffic.stop();
    let diff = node.diff();
    let report = Report {
        mode,
        policies,
        seconds: duration.as_secs(),
        changes: churn.changes,
        connections: [connections[0] + node_port[0], connections[1] + node_port[1]],
        datagrams,
        answered_denied: denied[0] - denied[1],
        denied: denied[0],
        quarters: Quarters::new(&samples).ok_or("too few samples")?,
        diff,
    };
    node.stop(Signal::Term).map_err(|error| error.to_string())?;
    Ok(report)
}

/// Continuous traffic.
struct Traffic {
    /// From a pod and from outside to Services that do not change; datagrams of one flow; connections that a policy denies.
    generators: [Option<TrafficGenerator>; 4],
}

impl Traffic {
    fn start(node: &NodeUnderTest, policies: bool) -> Self {
        let index = ALL_PODS.iter().position(|pod| *pod == CLIENT).expect("the client is a pod");
        let options = |interval, timeout| TrafficOptions {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            max_in_flight: 64,
        };
        let connections = |client, to: SocketAddr, options| {
            let traffic = node.prober(client, true).connections(Protocol::Tcp, to, options);
            traffic.expect("the client exists")
        };
        // Long timeouts, in milliseconds: a busy machine may stop for seconds, and an emulated one for longer.
        let (interval, timeout) = if uml::is_inside() { (60, 40_000) } else { (20, 10_000) };
        let node_port = SocketAddr::new(node_addresses(NODE)[0], STABLE_NODE_PORT);
        let datagrams = node.prober(Client::Pod(index), true).datagrams(
            // Directly to a pod: conntrack keeps the flow, and policies apply.
            (crate::pools::stable_servers()[1].addresses()[0], crate::pools::UDP_PORT).into(),
            options(interval, timeout),
        );
        let denied: SocketAddr = (DENIED.addresses()[0], TCP_PORTS[0]).into();
        Traffic {
            generators: [
                Some(connections(Client::Pod(index), STABLE, options(interval, timeout))),
                Some(connections(Client::Outside, node_port, options(3 * interval, timeout))),
                Some(datagrams.expect("the client exists")),
                policies.then(|| connections(Client::Pod(index), denied, options(200, 300))),
            ],
        }
    }

    /// Returns the numbers of all and of lost probes of each kind.
    fn stop(self) -> [[usize; 2]; 4] {
        self.generators.map(|generator| {
            let Some(log) = generator.map(TrafficGenerator::stop) else { return [0, 0] };
            let lost = log.lost().len();
            // All connections to a pod that policies close are lost.
            if lost > 0 && lost < log.probes.len() {
                println!(
                    "{log} {:?}",
                    log.lost().iter().take(5).map(|probe| &probe.outcome).collect::<Vec<_>>()
                );
            }
            [log.probes.len(), lost]
        })
    }
}
