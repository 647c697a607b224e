//! An answer for people: the verdict first, then why, then what to change.

use std::io::{self, Write};

use super::answer::{Advice, Answer, ConnectionAnswer, EndAnswer, PathAnswer, ServiceAnswer, Verdict};
use super::reason::rule_words;

/// Prints an answer.
pub(super) fn print(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    if let Some(reason) = &answer.reason {
        writeln!(out, "UNREACHABLE  {reason}")?;
    }
    let mut printed: Vec<&ConnectionAnswer> = Vec::new();
    if let Some(line) = overview(&answer.connections) {
        writeln!(out, "{line}\n")?;
    }
    for connection in &answer.connections {
        if !printed.is_empty() {
            writeln!(out)?;
        }
        writeln!(out, "{}", headline(answer, connection))?;
        let same =
            |other: &&&ConnectionAnswer| other.family != connection.family && gist(other) == gist(connection);
        match printed.iter().find(same) {
            Some(other) => writeln!(out, "  as by {}", other.family)?,
            None => details(answer, connection, out)?,
        }
        printed.push(connection);
    }
    for note in &answer.notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}

/// Which connections are allowed and which are not, if they differ.
fn overview(connections: &[ConnectionAnswer]) -> Option<String> {
    let first = connections.first()?;
    if connections.iter().all(|connection| connection.verdict == first.verdict) {
        return None;
    }
    let mut parts = Vec::new();
    for verdict in [Verdict::Allowed, Verdict::PartlyAllowed, Verdict::Denied, Verdict::Unreachable] {
        let mut ports: Vec<String> = Vec::new();
        for connection in connections.iter().filter(|connection| connection.verdict == verdict) {
            let same = |other: &&ConnectionAnswer| {
                (other.to.port(), other.protocol) == (connection.to.port(), connection.protocol)
            };
            let alike = connections.iter().filter(same).all(|other| other.verdict == verdict);
            let family = if alike { String::new() } else { format!(" by {}", connection.family) };
            let port = format!("{}/{}{family}", connection.to.port(), connection.protocol);
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        if !ports.is_empty() {
            parts.push(format!("{} {}", word(verdict), ports.join(", ")));
        }
    }
    Some(parts.join("; "))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "ALLOWED",
        Verdict::PartlyAllowed => "PARTLY ALLOWED",
        Verdict::Denied => "DENIED",
        Verdict::Unreachable => "UNREACHABLE",
    }
}

/// The verdict in words.
fn headline(answer: &Answer, connection: &ConnectionAnswer) -> String {
    let word = word(connection.verdict);
    let target = match (&connection.service, connection.paths.first()) {
        (Some(service), _) => service.port.clone(),
        (None, Some(PathAnswer { name: Some(name), .. })) => name.clone(),
        _ => String::new(),
    };
    let at = format!("{}/{}", connection.to, connection.protocol);
    let target = if target.is_empty() { at } else { format!("{target} {at}") };
    format!("{word}  {} to {target}{}", answer.client.name, why(connection))
}

/// The reason in half a line.
fn why(connection: &ConnectionAnswer) -> String {
    if let Some(refusal) = &connection.refusal {
        return format!(": {}", refusal.why);
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
            format!(": {allowed} of {all} endpoints; no answer comes back from the others")
        }
        Verdict::PartlyAllowed => format!(": {allowed} of {all} endpoints; the others are denied {by}"),
        Verdict::Denied => format!(": {by}"),
        Verdict::Unreachable if is_lost => ": no answer comes back".to_owned(),
        _ => String::new(),
    }
}

fn details(answer: &Answer, connection: &ConnectionAnswer, out: &mut dyn Write) -> io::Result<()> {
    client(answer, connection, out)?;
    if let Some(found) = &connection.service {
        service(found, out)?;
    }
    if let Some(refusal) = &connection.refusal {
        let how = match refusal.how {
            "rejected" => "the client is refused at once",
            "dropped" => "the client gets no answer",
            _ => "no rule leads it anywhere",
        };
        writeln!(out, "  {how}; {}", refusal.way_out)?;
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

fn client(answer: &Answer, connection: &ConnectionAnswer, out: &mut dyn Write) -> io::Result<()> {
    let client = &answer.client;
    let kind = match client.kind {
        "podOnHostNetwork" => " (on the host network)",
        "outside" => " (neither a pod nor a node)",
        _ => "",
    };
    let node = client.node.as_ref().map(|node| format!(", on {node}")).unwrap_or_default();
    let node = if client.kind == "node" { String::new() } else { node };
    writeln!(out, "  client   {}{node}{kind}", connection.from)
}

fn service(found: &ServiceAnswer, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  service  {} by its {}, led by node {}", found.port, found.entry, found.node)?;
    let local = if found.traffic_policy == "Local" { ", by traffic policy Local" } else { "" };
    match (found.chosen, found.total) {
        (0, _) => {}
        (1, 1) => writeln!(out, "           led to its one endpoint{local}")?,
        (chosen, total) if chosen == total => {
            writeln!(out, "           led to all {total} endpoints{local}")?
        }
        (chosen, total) => {
            writeln!(out, "           led to {chosen} of {total} endpoints ({} ready){local}", found.ready)?;
        }
    }
    if let Some(seconds) = found.affinity_seconds {
        writeln!(out, "           a client keeps its endpoint for {seconds} s (session affinity)")?;
    }
    for remark in &found.remarks {
        writeln!(out, "           {remark}")?;
    }
    if found.chosen > 0 {
        let why = found.source_reason.map(|why| format!("replaced by one of node {}: {why}", found.node));
        writeln!(out, "           source address {}", why.unwrap_or_else(|| "kept".to_owned()))?;
    }
    Ok(())
}

fn print_path(path: &PathAnswer, is_masqueraded: bool, out: &mut dyn Write) -> io::Result<()> {
    let mark = if path.allowed { '✓' } else { '✗' };
    let share = if path.one_in > 1 { format!(" 1/{}", path.one_in) } else { String::new() };
    let name = path.name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
    let node = path.node.as_ref().filter(|_| !name.contains("  node ")).map(|node| format!(" on {node}"));
    writeln!(out, "{mark}{share} {}{name}{}", path.to, node.unwrap_or_default())?;
    end("egress", &path.egress, out)?;
    end("ingress", &path.ingress, out)?;
    if let Some(lost) = &path.lost {
        writeln!(out, "  answer   LOST: {lost}")?;
    }
    if let Some(node) = path.masqueraded_by.as_ref().filter(|_| !is_masqueraded) {
        writeln!(
            out,
            "           the pod's connection to itself: its source is replaced by an address of node {node}"
        )?;
    }
    if let Some(seen_as) = path.seen_as {
        writeln!(
            out,
            "           its source by then is an address of the node that led it, taken to be {seen_as}"
        )?;
    }
    Ok(())
}

fn end(which: &str, answer: &EndAnswer, out: &mut dyn Write) -> io::Result<()> {
    for rule in &answer.passed {
        writeln!(out, "  {which:<8} passed on: {}", rule_words(rule))?;
    }
    let word = match answer.reason {
        "notJudged" => "not judged",
        _ if answer.allowed => "allowed",
        _ => "DENIED",
    };
    writeln!(out, "  {which:<8} {word}: {}", answer.words)
}

fn print_advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    let mut words = advice.words.iter().peekable();
    while let Some(line) = words.next_if(|line| !line.ends_with(':')) {
        writeln!(out, "{line}")?;
    }
    if let Some(line) = words.next() {
        writeln!(out, "{line}")?;
    }
    for text in [&advice.manifest, &advice.rule].into_iter().flatten() {
        text.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    words.try_for_each(|line| writeln!(out, "{line}"))
}

/// What an explanation says apart from addresses: if it is the same, it need not be said twice.
fn gist(connection: &ConnectionAnswer) -> impl PartialEq + use<'_> {
    let service = connection.service.as_ref().map(|service| {
        (
            &service.port,
            service.entry,
            &service.node,
            service.traffic_policy,
            service.source,
            &service.remarks,
        )
    });
    let paths: Vec<_> = connection
        .paths
        .iter()
        .map(|path| (&path.name, path.to.port(), path.one_in, &path.egress.words, &path.ingress.words))
        .collect();
    let refusal = connection.refusal.as_ref().map(|refusal| (refusal.how, &refusal.why));
    // Advice with addresses in it differs.
    (
        connection.verdict,
        connection.protocol,
        connection.to.port(),
        service,
        paths,
        refusal,
        &connection.advice,
    )
}
