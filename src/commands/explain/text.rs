//! Prints an explanation as text: the verdict, then the reasons, then suggested changes.

use std::collections::HashSet;
use std::io::{self, Write};

use super::explanation::{
    Advice, ConnectionExplanation, Explanation, NodeRules, PathExplanation, PodNetworkExplanation,
    PolicyExplanation, ServiceExplanation, Verdict,
};
use super::pod_network_text;
use super::policy_decision::describe_rule;
use crate::proxy_modes::ObjectRules;

/// Prints an explanation.
pub(super) fn print(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    if let Some(reason) = &explanation.reason {
        writeln!(out, "UNREACHABLE  {reason}")?;
    }
    let mut printed: Vec<&ConnectionExplanation> = Vec::new();
    let mut shown: HashSet<&ObjectRules> = HashSet::new();
    if let Some(line) = overview(&explanation.connections) {
        writeln!(out, "{line}\n")?;
    }
    for connection in &explanation.connections {
        if !printed.is_empty() {
            writeln!(out)?;
        }
        writeln!(out, "{}", headline(explanation, connection))?;
        let same = |other: &&&ConnectionExplanation| {
            other.family != connection.family && comparable(other) == comparable(connection)
        };
        match printed.iter().find(same) {
            Some(other) => writeln!(out, "  same as {}", other.family)?,
            None => details(explanation, connection, out)?,
        }
        for rules in connection.rules.iter().flatten() {
            node_rules(rules, &mut shown, out)?;
        }
        if let Some(probe) = &connection.probe {
            super::probe::print(probe, connection.protocol, out)?;
        }
        printed.push(connection);
    }
    for note in &explanation.notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}

/// Prints the rules of a node, without those of objects that were `shown` with the same ones: nodes have the same rules for the pods
/// of a workload.
fn node_rules<'a>(
    rules: &'a NodeRules,
    shown: &mut HashSet<&'a ObjectRules>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "  rules    of {} on {}:", rules.subject, rules.node)?;
    if rules.objects.is_empty() {
        writeln!(out, "    none: the node has no rules for it")?;
    }
    for object in &rules.objects {
        if !shown.insert(object) {
            writeln!(out, "    {}, as above", object.object)?;
            continue;
        }
        writeln!(out, "    {}", object.object)?;
        object.lines.iter().try_for_each(|line| writeln!(out, "      {line}"))?;
    }
    Ok(())
}

/// Returns a summary line if the verdicts of the connections differ.
fn overview(connections: &[ConnectionExplanation]) -> Option<String> {
    let first = connections.first()?;
    if connections.iter().all(|connection| connection.verdict == first.verdict) {
        return None;
    }
    let mut parts = Vec::new();
    for verdict in [Verdict::Allowed, Verdict::PartlyAllowed, Verdict::Denied, Verdict::Unreachable] {
        let mut ports: Vec<String> = Vec::new();
        for connection in connections.iter().filter(|connection| connection.verdict == verdict) {
            let same = |other: &&ConnectionExplanation| {
                (other.to.port(), other.protocol) == (connection.to.port(), connection.protocol)
            };
            let is_same = connections.iter().filter(same).all(|other| other.verdict == verdict);
            let family = if is_same { String::new() } else { format!(" by {}", connection.family) };
            let port = format!("{}/{}{family}", connection.to.port(), connection.protocol);
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        if !ports.is_empty() {
            parts.push(format!("{} {}", verdict_name(verdict), ports.join(", ")));
        }
    }
    Some(parts.join("; "))
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "ALLOWED",
        Verdict::PartlyAllowed => "PARTLY ALLOWED",
        Verdict::Denied => "DENIED",
        Verdict::Unreachable => "UNREACHABLE",
    }
}

/// Returns the first line: the verdict, client and destination.
fn headline(explanation: &Explanation, connection: &ConnectionExplanation) -> String {
    let word = verdict_name(connection.verdict);
    let target = match (&connection.service, connection.paths.first()) {
        (Some(service), _) => service.port.clone(),
        (None, Some(PathExplanation { name: Some(name), .. })) => name.clone(),
        _ => String::new(),
    };
    let at = format!("{}/{}", connection.to, connection.protocol);
    let target = if target.is_empty() { at } else { format!("{target} {at}") };
    format!("{word}  {} to {target}{}", explanation.client.name, short_reason(connection))
}

/// Returns the reason that follows the verdict on the first line.
fn short_reason(connection: &ConnectionExplanation) -> String {
    if let Some(no_route) = &connection.no_route {
        return format!(": {}", no_route.reason);
    }
    let allowed = connection.paths.iter().filter(|path| path.allowed).count();
    let all = connection.paths.len();
    let (egress, ingress) = (
        connection.paths.iter().any(|path| !path.egress.allowed),
        connection.paths.iter().any(|path| !path.ingress.allowed),
    );
    let is_lost = connection.paths.iter().any(|path| path.lost.is_some());
    let by = match (egress, ingress) {
        (true, true) => "by policies at both ends",
        (true, false) => "by policies at the client (egress)",
        _ => "by policies at the destination (ingress)",
    };
    match connection.verdict {
        Verdict::Allowed if all > 1 => format!(": all {all} endpoints"),
        Verdict::PartlyAllowed if is_lost && !egress && !ingress => {
            format!(": {allowed} of {all} endpoints; replies from the others are lost")
        }
        Verdict::PartlyAllowed if !egress && !ingress => {
            format!(": {allowed} of {all} endpoints; there is no route to the nodes of the others")
        }
        Verdict::PartlyAllowed => format!(": {allowed} of {all} endpoints; the others are denied {by}"),
        Verdict::Denied => format!(": {by}"),
        Verdict::Unreachable if is_lost => ": replies are lost".to_owned(),
        Verdict::Unreachable if connection.paths.iter().any(PathExplanation::lacks_route) => {
            ": there is no route between the nodes".to_owned()
        }
        _ => String::new(),
    }
}

fn details(
    explanation: &Explanation,
    connection: &ConnectionExplanation,
    out: &mut dyn Write,
) -> io::Result<()> {
    client(explanation, connection, out)?;
    if let Some(found) = &connection.service {
        service(found, out)?;
    }
    if let Some(no_route) = &connection.no_route {
        let effect = match no_route.kind {
            "rejected" => "the connection is rejected",
            "dropped" => "the client gets no response",
            _ => "no rule matches it",
        };
        writeln!(out, "  {effect}; {}", no_route.hint)?;
    }
    for path in &connection.paths {
        let is_masqueraded = connection.service.as_ref().is_some_and(|found| found.source == "masqueraded");
        print_path(path, is_masqueraded, out)?;
    }
    for advice in &connection.advice {
        writeln!(out)?;
        print_advice(advice, out)?;
    }
    Ok(())
}

fn client(
    explanation: &Explanation,
    connection: &ConnectionExplanation,
    out: &mut dyn Write,
) -> io::Result<()> {
    let client = &explanation.client;
    let kind = match client.kind {
        "podOnHostNetwork" => " (on the host network)",
        "outside" => " (neither a pod nor a node)",
        _ => "",
    };
    let node = client.node.as_ref().map(|node| format!(", on {node}")).unwrap_or_default();
    let node = if client.kind == "node" { String::new() } else { node };
    writeln!(out, "  client   {}{node}{kind}", connection.from)
}

fn service(found: &ServiceExplanation, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  service  {}, {}, routed by node {}", found.port, found.frontend, found.node)?;
    let local = if found.traffic_policy == "Local" { " (traffic policy Local)" } else { "" };
    match (found.chosen, found.total) {
        (0, _) => {}
        (1, 1) => writeln!(out, "           forwarded to its only endpoint{local}")?,
        (chosen, total) if chosen == total => {
            writeln!(out, "           forwarded to all {total} endpoints{local}")?
        }
        (chosen, total) => {
            writeln!(
                out,
                "           forwarded to {chosen} of {total} endpoints, {} ready{local}",
                found.ready
            )?;
        }
    }
    if let Some(seconds) = found.affinity_seconds {
        writeln!(out, "           session affinity: a client keeps its endpoint for {seconds} s")?;
    }
    for remark in &found.remarks {
        writeln!(out, "           {remark}")?;
    }
    if found.chosen > 0 {
        let why = found.source_reason.map(|why| format!("masqueraded by node {}: {why}", found.node));
        writeln!(out, "           source address {}", why.unwrap_or_else(|| "kept".to_owned()))?;
    }
    Ok(())
}

fn print_path(path: &PathExplanation, is_masqueraded: bool, out: &mut dyn Write) -> io::Result<()> {
    let mark = if path.allowed { '✓' } else { '✗' };
    let share = if path.one_in > 1 { format!(" 1/{}", path.one_in) } else { String::new() };
    let name = path.name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
    let node = path.node.as_ref().filter(|_| !name.contains("  node ")).map(|node| format!(" on {node}"));
    writeln!(out, "{mark}{share} {}{name}{}", path.to, node.unwrap_or_default())?;
    end("egress", &path.egress, out)?;
    if let Some(network) = &path.pod_network {
        pod_network_text::print(network, out)?;
    }
    end("ingress", &path.ingress, out)?;
    if let Some(note) = &path.undeclared_port {
        writeln!(out, "           {note}")?;
    }
    if let Some(lost) = &path.lost {
        writeln!(out, "  reply    LOST: {lost}")?;
    }
    if let Some(node) = path.masqueraded_by.as_ref().filter(|_| !is_masqueraded) {
        writeln!(out, "           hairpin connection: masqueraded by node {node}")?;
    }
    if let Some(seen_as) = path.seen_as.filter(|_| path.ingress.reason != "notEvaluated") {
        writeln!(
            out,
            "           policies there see a source address of the routing node, assumed to be {seen_as}"
        )?;
    }
    Ok(())
}

fn end(which: &str, explanation: &PolicyExplanation, out: &mut dyn Write) -> io::Result<()> {
    for rule in &explanation.passed {
        writeln!(out, "  {which:<8} passed by {}", describe_rule(rule))?;
    }
    let decision = match explanation.reason {
        "notEvaluated" => "no policy applies",
        _ if explanation.allowed => "allowed",
        _ => "DENIED",
    };
    writeln!(out, "  {which:<8} {decision}: {}", explanation.text)
}

fn print_advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    let mut instructions = advice.instructions.iter().peekable();
    while let Some(line) = instructions.next_if(|line| !line.ends_with(':')) {
        writeln!(out, "{line}")?;
    }
    if let Some(line) = instructions.next() {
        writeln!(out, "{line}")?;
    }
    for text in [&advice.manifest, &advice.rule].into_iter().flatten() {
        text.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    instructions.try_for_each(|line| writeln!(out, "{line}"))
}

/// Returns the parts of an explanation that do not depend on addresses: if they are equal in both families, they are printed
/// once.
fn comparable(connection: &ConnectionExplanation) -> impl PartialEq + use<'_> {
    let service = connection.service.as_ref().map(|service| {
        (
            &service.port,
            service.frontend,
            &service.node,
            service.traffic_policy,
            service.source,
            &service.remarks,
        )
    });
    let paths: Vec<_> = connection
        .paths
        .iter()
        .map(|path| {
            let ends = (&path.egress.text, &path.ingress.text);
            (&path.name, path.to.port(), path.one_in, ends, path.pod_network.as_ref().map(comparable_network))
        })
        .collect();
    let no_route = connection.no_route.as_ref().map(|no_route| (no_route.kind, &no_route.reason));
    // Advice that contains addresses differs.
    (
        connection.verdict,
        connection.protocol,
        connection.to.port(),
        service,
        paths,
        no_route,
        &connection.advice,
    )
}

/// Returns the parts that do not depend on addresses.
fn comparable_network(network: &PodNetworkExplanation) -> impl PartialEq + use<'_> {
    let PodNetworkExplanation { host_port_of, masqueraded_by, route, no_route } = network;
    let way = route.as_ref().map(|route| (&route.from, &route.to, route.way));
    (host_port_of, masqueraded_by, way, no_route.is_some())
}
