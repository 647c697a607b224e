//! The steps of a packet as the output has them.

use portcullis_netlink::nf_tables::TracedDirection;

use super::explanation::{RuleText, StepExplanation};
use super::step::Step;

/// The hook that a packet of one direction has reached last, and its addresses.
#[derive(Clone, Default)]
struct Reached {
    hook: Option<&'static str>,
    input: Option<String>,
    output: Option<String>,
    addresses: Option<portcullis_netlink::nf_tables::TracedAddresses>,
}

/// Returns the steps without the markers. Addresses are given where they change.
pub(super) fn explain_steps(steps: &[Step]) -> Vec<StepExplanation> {
    let mut shown = Vec::new();
    let mut both = [Reached::default(), Reached::default()];
    for step in steps {
        let is_reply = step.direction == TracedDirection::Reply;
        let reached = &mut both[usize::from(is_reply)];
        if let Some(marker) = step.marker {
            reached.hook = Some(marker.hook.as_str());
            (reached.input, reached.output) = (step.input.clone(), step.output.clone());
            continue;
        }
        let changed = step.addresses.filter(|addresses| reached.addresses != Some(*addresses));
        reached.addresses = step.addresses.or(reached.addresses);
        shown.push(StepExplanation {
            place: step.place.as_str(),
            direction: if is_reply { "reply" } else { "original" },
            hook: reached.hook,
            family: step.family.to_string(),
            table: step.table.clone(),
            chain: step.chain.clone(),
            rule: step.rule.as_ref().map(|rule| RuleText { handle: rule.handle, text: rule.text.clone() }),
            verdict: match step.is_policy {
                true => format!("policy {}", step.verdict),
                false => step.verdict.to_string(),
            },
            source: changed.map(|addresses| addresses.source),
            destination: changed.map(|addresses| addresses.destination),
            input: step.input.clone().or_else(|| reached.input.clone()),
            output: step.output.clone().or_else(|| reached.output.clone()),
        });
    }
    shown
}
