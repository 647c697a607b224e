//! The flows of a step: connections that are new, that answer others, or that were opened in an earlier step.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use portcullis_lab::{
    Conversation, EchoPort, End, Families, Family, Lab, MatrixOptions, Plan, Prober, Result,
};

use crate::case::{Case, Flow, Step, port};
use crate::tables::wait;

/// How many connections a flow with several outcomes gets.
const MANY: usize = 24;

/// Connections that later steps speak of, and the flow that does.
pub(crate) struct Open {
    step: usize,
    flow: Flow,
    conversation: Result<Conversation>,
}

/// Opens the connections of which later steps say that they were made in this one; steps count from 1.
pub(crate) fn open(lab: &Lab, case: &Case, step: usize) -> Vec<Open> {
    let later = case.steps.iter().skip(step).flat_map(|step| &step.flows);
    let made_now = later.filter(|flow| flow.opened_in_step == Some(step));
    made_now
        .filter_map(|flow| {
            let way = Way::of(lab.plan(), flow)?;
            let conversation =
                way.prober(lab).timeout(Duration::from_secs(2)).open(way.port.protocol, way.address());
            Some(Open { step, flow: flow.clone(), conversation })
        })
        .collect()
}

/// Probes the flows of a step; gives a line for each that is not as it must be.
pub(crate) fn probe(lab: &Lab, step: &Step, open: &mut [Open]) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    let (old, new): (Vec<&Flow>, Vec<&Flow>) =
        step.flows.iter().partition(|flow| flow.opened_in_step.is_some());
    for flow in old {
        wrong.extend(ask_open(flow, open));
    }
    let lines = thread::scope(|scope| {
        let asked: Vec<_> = new.into_iter().map(|flow| scope.spawn(move || ask(lab, flow))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    wrong.extend(lines.into_iter().flatten());
    wrong
}

fn ask_open(flow: &Flow, open: &mut [Open]) -> Option<String> {
    let same = |open: &&mut Open| {
        let other = &open.flow;
        (Some(open.step), &other.from, &other.to, &other.port, &other.family)
            == (flow.opened_in_step, &flow.from, &flow.to, &flow.port, &flow.family)
    };
    let Some(open) = open.iter_mut().find(same) else {
        return port(&flow.port).map(|_| format!("{flow:?}: nothing was opened for it"));
    };
    let outcome = match &mut open.conversation {
        Ok(conversation) => conversation.ask("still there"),
        Err(error) => return Some(format!("{flow:?}: {error}")),
    };
    let is_right = match flow.verdict.as_str() {
        "allow" => outcome.by().is_some(),
        "deny" => outcome.by().is_none(),
        _ => true,
    };
    (!is_right).then(|| format!("{flow:?}: {outcome}"))
}

fn ask(lab: &Lab, flow: &Flow) -> Option<String> {
    if flow.masqueraded_as.is_some() || flow.via.is_some() {
        return Some(format!("{flow:?}: the runner does not know this way in"));
    }
    let way = Way::of(lab.plan(), flow)?;
    match flow.verdict.as_str() {
        "either" => None,
        "mixed" => {
            let tally = way.prober(lab).timeout(wait()).probe_many(way.port.protocol, way.address(), MANY);
            let is_mixed = (1..MANY).contains(&tally.answered());
            (!is_mixed).then(|| format!("{flow:?}: {} of {MANY} were answered", tally.answered()))
        }
        verdict => {
            let options = MatrixOptions {
                patience: wait(),
                ..MatrixOptions::new(vec![way.from], vec![way.to], [way.port])
            };
            let families = if flow.family() == Family::V4 { Families::V4 } else { Families::V6 };
            let matrix = lab.matrix(&options.families(families), |_| Some(verdict == "allow")).unwrap();
            let (_, cell) = matrix.cells().next().unwrap();
            match &cell.seen {
                None => Some(format!("{flow:?}: an end has no address")),
                Some(outcome) => (!cell.is_right()).then(|| format!("{flow:?}: {outcome}")),
            }
        }
    }
}

/// A flow as something that can be probed.
struct Way {
    from: End,
    to: End,
    port: EchoPort,
    family: Family,
}

impl Way {
    /// `None` for a protocol without sockets. Answers are probed by the connection that they answer.
    fn of(plan: &Plan, flow: &Flow) -> Option<Self> {
        let (from, to, port_text) = match &flow.reply_to {
            None => (flow.from.as_str(), flow.to.as_str(), flow.port.as_str()),
            Some(text) => {
                let words: Vec<&str> = text.split_whitespace().collect();
                let [from, "->", to, port] = words[..] else { panic!("{text:?} is no connection") };
                (from, to, port)
            }
        };
        let port = port(port_text)?;
        Some(Self { from: end(plan, from), to: end(plan, to), port, family: flow.family() })
    }

    fn prober(&self, lab: &Lab) -> Prober {
        let source = self.from.address_of(self.family).unwrap();
        lab.from(self.from.vantage().unwrap().clone()).unwrap().source(source)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.to.address_of(self.family).unwrap(), self.port.port)
    }
}

/// `ns/pod`, `node/NAME`, `external/ADDRESS`, `service/ns/name`.
pub(crate) fn end(plan: &Plan, text: &str) -> End {
    match text.split_once('/') {
        Some(("node", name)) => End::node(plan, name),
        Some(("service", name)) => End::service(plan, name),
        Some(("external", address)) => Ok(End::outside([address.parse().unwrap()])),
        _ => End::pod(plan, text),
    }
    .unwrap_or_else(|error| panic!("{error}"))
}
