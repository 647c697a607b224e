//! The trace of a packet in one network namespace.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

use portcullis_netlink::nf_tables::{
    Expression, PacketTracer, Rule, TraceEvent, TraceFamily, TraceStep, TracedFlow, list_rules,
};
use portcullis_netlink::route::Link;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::ProbeError;
use super::namespace::links;
use super::step::{HitRule, Place, Step};

/// A trace that collects events.
pub(super) struct Tracing {
    place: Place,
    tracer: PacketTracer,
    /// A socket in the same namespace, to list rules.
    rules: Socket,
    links: Vec<Link>,
    events: Vec<TraceEvent>,
}

impl Tracing {
    /// Starts to trace in the calling thread's network namespace; on a node also the replies.
    pub(super) fn start(place: Place, flow: &TracedFlow) -> Result<Self, ProbeError> {
        Ok(Tracing {
            place,
            tracer: PacketTracer::start(flow, place == Place::Node).map_err(ProbeError::Trace)?,
            rules: Socket::open(NetlinkProtocol::Netfilter)?,
            links: links()?,
            events: Vec::new(),
        })
    }

    /// Collects the events that have arrived. Returns true if the packet was dropped.
    pub(super) fn collect(&mut self) -> Result<bool, ProbeError> {
        self.events.extend(self.tracer.read().map_err(ProbeError::Trace)?);
        Ok(self.events.iter().any(|event| event.step.verdict().is_drop()))
    }

    /// Ends the trace, removes its tables, and returns the steps, with the texts of the rules.
    pub(super) fn finish(self) -> Result<Vec<Step>, ProbeError> {
        let Tracing { place, tracer, mut rules, links, events } = self;
        let own_table = tracer.table().to_owned();
        drop(tracer);
        let mut hit: HashMap<(TraceFamily, &str), HashSet<u64>> = HashMap::new();
        for event in &events {
            if let (TraceStep::Rule { handle, .. }, true) = (&event.step, event.table != own_table) {
                hit.entry((event.family, &event.table)).or_default().insert(*handle);
            }
        }
        let mut texts: HashMap<(TraceFamily, String, u64), HitRule> = HashMap::new();
        for ((family, table), handles) in hit {
            let listed = list_rules(&mut rules, family, table, |listed| {
                if handles.contains(&listed.handle) {
                    let rule = hit_rule(listed.handle, &listed.rule);
                    texts.insert((family, table.to_owned(), listed.handle), rule);
                }
            });
            if let Err(error) = listed {
                ::tracing::debug!(%error, table, "the rules of a traced table cannot be listed");
            }
        }
        let name = |index: Option<u32>| {
            let link = links.iter().find(|link| Some(link.index) == index)?;
            Some(link.name.clone())
        };
        let step = |event: TraceEvent| {
            let rule = match event.step {
                TraceStep::Rule { handle, .. } => {
                    let key = (event.family, event.table.clone(), handle);
                    Some(texts.get(&key).cloned().unwrap_or_else(|| HitRule::unknown(handle)))
                }
                _ => None,
            };
            Step {
                place,
                direction: event.direction,
                family: event.family,
                verdict: event.step.verdict().clone(),
                is_policy: matches!(event.step, TraceStep::Policy(_)),
                input: name(event.input),
                output: name(event.output),
                input_index: event.input,
                mark: event.mark,
                table: event.table,
                chain: event.chain,
                rule,
                marker: event.marker,
                addresses: event.addresses,
            }
        };
        Ok(events.into_iter().map(step).collect())
    }
}

fn hit_rule(handle: u64, rule: &Rule) -> HitRule {
    let rejects = |expression: &Expression| match expression {
        Expression::Reject(_) => true,
        Expression::Unknown(name) => name == "reject" || name.ends_with("REJECT"),
        _ => false,
    };
    HitRule { handle, text: rule.to_string(), rejects: rule.expressions().iter().any(rejects) }
}

impl AsFd for Tracing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tracer.socket().as_fd()
    }
}
