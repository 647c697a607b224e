//! Prints the explanation of a probe as text.

use std::io::{self, Write};

use super::explanation::{Agreement, ProbeExplanation, StepExplanation};

/// Prints a probe.
pub(in super::super) fn print(
    probe: &ProbeExplanation,
    protocol: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let kind = match protocol {
        "tcp" => "TCP SYN",
        "udp" => "UDP datagram",
        _ => "SCTP INIT",
    };
    let from = match probe.namespace.as_str() {
        this @ "this node's" => format!("{this} network namespace"),
        path => format!("network namespace {path}"),
    };
    writeln!(out, "  probe    {kind} from {}, sent from {from}", probe.from)?;
    let mut group = None;
    for step in &probe.steps {
        let this = (step.place, step.direction, step.hook);
        if group != Some(this) {
            group = Some(this);
            writeln!(out, "           {}", heading(step))?;
        }
        print_step(step, out)?;
    }
    writeln!(out, "  result   {}: {}", probe.result.kind.as_str(), probe.result.text)?;
    let agreement = match probe.agreement {
        Agreement::Agrees => "AGREES with the prediction",
        Agreement::Disagrees => "DISAGREES with the prediction",
        Agreement::NotDetermined => "NOT DETERMINED",
    };
    writeln!(out, "           {agreement}: {}", probe.agreement_reason)?;
    for part in &probe.not_visible {
        writeln!(out, "           not visible: {part}")?;
    }
    Ok(())
}

/// Returns the line above the chains of a hook.
fn heading(step: &StepExplanation) -> String {
    let mut line = step.hook.unwrap_or("before the first marker").to_owned();
    if step.direction == "reply" {
        line.push_str(" of the reply");
    }
    if step.place == "pod" {
        line.push_str(" in the pod's network namespace");
    }
    if let Some(input) = &step.input {
        line.push_str(&format!(", from {input}"));
    }
    if let Some(output) = &step.output {
        line.push_str(&format!(", to {output}"));
    }
    if let (Some(source), Some(destination)) = (step.source, step.destination) {
        line.push_str(&format!(": {source} to {destination}"));
    }
    line
}

fn print_step(step: &StepExplanation, out: &mut dyn Write) -> io::Result<()> {
    let chain = format!("{} {} {}", step.family, step.table, step.chain);
    match &step.rule {
        None => writeln!(out, "             {chain}: {}", step.verdict),
        Some(rule) if rule.text.is_empty() => {
            writeln!(out, "             {chain}: rule with handle {}: {}", rule.handle, step.verdict)
        }
        Some(rule) if rule.text.ends_with(&step.verdict) => {
            writeln!(out, "             {chain}: {}", rule.text)
        }
        Some(rule) if step.verdict == "continue" => writeln!(out, "             {chain}: {}", rule.text),
        Some(rule) => writeln!(out, "             {chain}: {} → {}", rule.text, step.verdict),
    }
}
