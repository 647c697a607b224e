//! Flows of a step: new connections, replies, and connections that an earlier step opened.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use portcullis_lab::{
    ClusterPlan, EchoClient, EchoPort, Families, Family, Lab, MatrixOptions, MatrixPeer, Prober, Result,
};

use crate::case::{Case, Flow, Step, port};
use crate::truth_tables::wait;

/// Number of connections for a flow whose verdict depends on the endpoint.
const MANY: usize = 24;

/// An open connection that a flow of a later step refers to.
pub(crate) struct Open {
    step: usize,
    flow: Flow,
    conversation: Result<EchoClient>,
}

/// Opens the connections of this step that later steps refer to. Steps count from 1.
pub(crate) fn open(lab: &Lab, case: &Case, step: usize) -> Vec<Open> {
    let later = case.steps.iter().skip(step).flat_map(|step| &step.flows);
    let made_now = later.filter(|flow| flow.opened_in_step == Some(step));
    made_now
        .filter_map(|flow| {
            let probe = Probe::from_flow(lab.plan(), flow)?;
            let conversation =
                probe.prober(lab).timeout(Duration::from_secs(2)).open(probe.port.protocol, probe.address());
            Some(Open { step, flow: flow.clone(), conversation })
        })
        .collect()
}

/// Probes the flows of a step, and returns a line for each unexpected result.
pub(crate) fn probe(lab: &Lab, step: &Step, open: &mut [Open]) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    let (old, new): (Vec<&Flow>, Vec<&Flow>) =
        step.flows.iter().partition(|flow| flow.opened_in_step.is_some());
    for flow in old {
        wrong.extend(probe_open(flow, open));
    }
    let lines = thread::scope(|scope| {
        let probes: Vec<_> = new.into_iter().map(|flow| scope.spawn(move || probe_flow(lab, flow))).collect();
        probes.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    wrong.extend(lines.into_iter().flatten());
    wrong
}

fn probe_open(flow: &Flow, open: &mut [Open]) -> Option<String> {
    let same = |open: &&mut Open| {
        let other = &open.flow;
        (Some(open.step), &other.from, &other.to, &other.port, &other.family)
            == (flow.opened_in_step, &flow.from, &flow.to, &flow.port, &flow.family)
    };
    let Some(open) = open.iter_mut().find(same) else {
        return port(&flow.port).map(|_| format!("{flow:?}: no connection was opened for it"));
    };
    let outcome = match &mut open.conversation {
        Ok(conversation) => conversation.exchange("still there"),
        Err(error) => return Some(format!("{flow:?}: {error}")),
    };
    let is_right = match flow.verdict.as_str() {
        "allow" => outcome.responder().is_some(),
        "deny" => outcome.responder().is_none(),
        _ => true,
    };
    (!is_right).then(|| format!("{flow:?}: {outcome}"))
}

fn probe_flow(lab: &Lab, flow: &Flow) -> Option<String> {
    if flow.masqueraded_as.is_some() || flow.via.is_some() {
        return Some(format!("{flow:?}: the runner does not support this path"));
    }
    let probe = Probe::from_flow(lab.plan(), flow)?;
    match flow.verdict.as_str() {
        "either" => None,
        "mixed" => {
            let tally =
                probe.prober(lab).timeout(wait()).probe_many(probe.port.protocol, probe.address(), MANY);
            let is_mixed = (1..MANY).contains(&tally.answered());
            (!is_mixed).then(|| format!("{flow:?}: {} of {MANY} got a reply", tally.answered()))
        }
        verdict => {
            let options = MatrixOptions {
                timeout: wait(),
                ..MatrixOptions::new(vec![probe.from], vec![probe.to], [probe.port])
            };
            let families = if flow.family() == Family::V4 { Families::V4 } else { Families::V6 };
            let matrix = lab.matrix(&options.families(families), |_| Some(verdict == "allow")).unwrap();
            let (_, cell) = matrix.cells().next().unwrap();
            match &cell.outcome {
                None => Some(format!("{flow:?}: an end has no address")),
                Some(outcome) => (!cell.is_as_expected()).then(|| format!("{flow:?}: {outcome}")),
            }
        }
    }
}

/// A flow with resolved ends.
struct Probe {
    from: MatrixPeer,
    to: MatrixPeer,
    port: EchoPort,
    family: Family,
}

impl Probe {
    /// Resolves a flow; `None` for a protocol without sockets. Replies are probed with the connection that they belong
    /// to.
    fn from_flow(plan: &ClusterPlan, flow: &Flow) -> Option<Self> {
        let (from, to, port_text) = match &flow.reply_to {
            None => (flow.from.as_str(), flow.to.as_str(), flow.port.as_str()),
            Some(text) => {
                let words: Vec<&str> = text.split_whitespace().collect();
                let [from, "->", to, port] = words[..] else { panic!("invalid connection: {text:?}") };
                (from, to, port)
            }
        };
        let port = port(port_text)?;
        Some(Self { from: end(plan, from), to: end(plan, to), port, family: flow.family() })
    }

    fn prober(&self, lab: &Lab) -> Prober {
        let source = self.from.address_of(self.family).unwrap();
        lab.prober(self.from.vantage().unwrap().clone()).unwrap().source(source)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.to.address_of(self.family).unwrap(), self.port.port)
    }
}

/// Parses `ns/pod`, `node/NAME`, `external/ADDRESS` or `service/ns/name`.
pub(crate) fn end(plan: &ClusterPlan, text: &str) -> MatrixPeer {
    match text.split_once('/') {
        Some(("node", name)) => MatrixPeer::node(plan, name),
        Some(("service", name)) => MatrixPeer::service(plan, name),
        Some(("external", address)) => Ok(MatrixPeer::outside([address.parse().unwrap()])),
        _ => MatrixPeer::pod(plan, text),
    }
    .unwrap_or_else(|error| panic!("{error}"))
}
