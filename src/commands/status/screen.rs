//! The status as text for one screen.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::duration::format;
use super::{Verdict, pod_network};
use crate::observe::local_api::documents::{
    API_SERVER, ConntrackStatus, FailedCheck, LimitedList, PoliciesStatus, RulesStatus, ServicesStatus,
    SourceStatus, StatusDocument, TimelineEntry,
};
use crate::plural::{irregular, plural};
use crate::truncated_list;

/// The number of items of a list that are printed.
const LISTED: usize = 5;

/// The number of kinds of objects in a line, which then has at most 80 columns.
const KINDS_PER_LINE: usize = 3;

/// The column at which the second column starts.
const INDENT: usize = 12;

/// A writer of lines with a label in the first column.
pub(super) struct Screen<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) has_colors: bool,
}

impl Screen<'_> {
    /// Prints a line. Control characters, which messages of other programs may have, are replaced.
    pub(super) fn line(&mut self, label: &str, text: impl Display) -> io::Result<()> {
        let text: String = text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = format!("{label:<INDENT$}{text}");
        writeln!(self.out, "{}", line.trim_end())
    }

    /// Returns text in a style.
    fn styled(&self, style: Style, text: &str) -> String {
        if self.has_colors { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Prints the first items of a list, and the number of the rest.
    pub(super) fn list<T>(&mut self, list: &LimitedList<T>, text: impl Fn(&T) -> String) -> io::Result<()> {
        for item in list.items.iter().take(LISTED) {
            self.line("", format!("  {}", text(item)))?;
        }
        let rest = list.count.saturating_sub(LISTED.min(list.items.len()));
        if rest > 0 {
            self.line("", format!("  and {rest} more (-o json)"))?;
        }
        Ok(())
    }
}

/// Prints a document.
pub(super) fn print(document: &StatusDocument, has_colors: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut screen = Screen { out, has_colors };
    print_verdict(document, &mut screen)?;
    print_program(document, &mut screen)?;
    match &document.services {
        Some(services) => print_services(services, &mut screen)?,
        None if document.event_loop.responded => screen.line("Services", "not listed yet")?,
        None => screen.line("Services", "not known, as the event loop does not respond")?,
    }
    print_isolated(document, &mut screen)?;
    match &document.policies {
        Some(policies) => print_policies(policies, &mut screen)?,
        None => screen.line("Policies", "not enforced (--network-policy is off)")?,
    }
    if let Some(status) = &document.pod_network {
        pod_network::print(status, &mut screen)?;
    }
    print_rules(&document.rules, &mut screen)?;
    print_entries("Syncs", &document.recent_syncs, document, &mut screen)?;
    print_entries("Drift", &document.recent_drift, document, &mut screen)?;
    print_sources(&document.sources, &mut screen)?;
    screen.line("Conntrack", conntrack(document.conntrack))?;
    let mut label = "Proxies";
    for proxy in &document.other_proxies {
        let mode = proxy.mode.as_ref().map(|mode| format!(" in {mode} mode")).unwrap_or_default();
        let text = format!("{} listened on {}{mode} when the daemon started", proxy.name, proxy.address);
        screen.line(std::mem::take(&mut label), text)?;
    }
    if document.dropping_chains.is_none() {
        screen.line("Firewalls", "not known, as the base chains of the kernel cannot be read")?;
    } else if let Some(chains) = document.dropping_chains.as_ref().filter(|chains| chains.count > 0) {
        let number = plural(chains.count, "chain");
        screen.line("Firewalls", format!("{number} of other programs with the policy drop:"))?;
        screen.list(chains, |chain| {
            let hook = chain.hook.as_deref().unwrap_or("unknown");
            let (family, table, name) = (&chain.family, &chain.table, &chain.chain);
            let tool = if chain.legacy { " (legacy iptables)" } else { "" };
            format!("{family} {table} {name}, hook {hook}, priority {}{tool}", chain.priority)
        })?;
    }
    let omitted = document.omitted;
    let parts = [
        (omitted.events, "Events"),
        (omitted.log_lines, "log lines"),
        (omitted.dropped_log_lines, "log lines that standard error did not take"),
    ];
    let parts =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}"));
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        screen.line("Omitted", format!("{} since the start", parts.join(", ")))?;
    }
    Ok(())
}

fn conntrack(conntrack: Option<ConntrackStatus>) -> String {
    match conntrack {
        Some(ConntrackStatus { count, max }) => {
            format!("{count} of {max} entries ({:.1} %)", count as f64 * 100.0 / max.max(1) as f64)
        }
        None => "not known, as the kernel's settings cannot be read".to_owned(),
    }
}

fn print_verdict(document: &StatusDocument, screen: &mut Screen<'_>) -> io::Result<()> {
    let bold = |color: AnsiColor| color.on_default().bold();
    let (word, style) = match Verdict::new(document) {
        Verdict::Healthy => ("healthy", bold(AnsiColor::Green)),
        Verdict::Unhealthy => ("UNHEALTHY", bold(AnsiColor::Red)),
        Verdict::Unknown if !document.event_loop.responded => ("UNKNOWN", bold(AnsiColor::Yellow)),
        Verdict::Unknown => ("NOT SYNCED YET", bold(AnsiColor::Yellow)),
    };
    let word = screen.styled(style, word);
    let (warnings, failures): (Vec<_>, Vec<_>) =
        document.problems.iter().partition(|problem| problem.fails == FailedCheck::Nothing);
    let number = |number: usize, what: &str| match number {
        0 => String::new(),
        _ => format!(", {}", plural(number, what)),
    };
    let numbers = number(failures.len(), "problem") + &number(warnings.len(), "warning");
    let eligible = if document.node_eligible { "" } else { "; load balancers send no traffic to this node" };
    writeln!(screen.out, "{word}{numbers}{eligible}")?;
    for problem in failures {
        screen.line("  problem", &problem.text)?;
    }
    for problem in warnings {
        screen.line("  warning", &problem.text)?;
    }
    let event_loop = &document.event_loop;
    if let Some(error) = &event_loop.error {
        let age = event_loop.last_report.as_ref().map(|report| format(report.age_seconds));
        let age =
            age.map_or_else(String::new, |age| format!("; rules and isolated objects are as of {age} ago"));
        screen.line("  problem", format!("{error}{age}"))?;
    }
    Ok(())
}

fn print_program(document: &StatusDocument, screen: &mut Screen<'_>) -> io::Result<()> {
    let (program, node) = (&document.program, &document.node);
    let commit = program.commit.as_ref().map(|commit| format!(" ({commit})")).unwrap_or_default();
    screen.line(
        "Program",
        format!(
            "portcullis {}{commit}, process {}, up {}",
            program.version,
            program.pid,
            format(program.uptime_seconds)
        ),
    )?;
    let families = node.families.join(" and ");
    let article = if node.source == API_SERVER { "the " } else { "" };
    let text =
        format!("{}, {} mode, {families}, objects from {article}{}", node.name, node.mode, node.source);
    screen.line("Node", text)
}

fn print_services(services: &ServicesStatus, screen: &mut Screen<'_>) -> io::Result<()> {
    let ServicesStatus { services: number, ports, frontends, endpoints, unserved, too_large } = services;
    screen.line(
        "Services",
        [(*number, "Service"), (*ports, "port"), (*frontends, "frontend"), (*endpoints, "endpoint")]
            .map(|(number, noun)| plural(number, noun))
            .join(", "),
    )?;
    if unserved.count > 0 {
        screen.line("Not served", format!("{}:", plural(unserved.count, "frontend")))?;
        screen.list(unserved, |unserved| format!("{}: {}", unserved.service, unserved.text))?;
    }
    if too_large.count > 0 {
        screen
            .line("Too large", format!("{}, with its last version:", plural(too_large.count, "Service")))?;
        screen.list(too_large, Clone::clone)?;
    }
    Ok(())
}

fn print_isolated(document: &StatusDocument, screen: &mut Screen<'_>) -> io::Result<()> {
    let isolated = &document.isolated;
    if isolated.count == 0 {
        return Ok(());
    }
    let number = plural(isolated.count, "object");
    screen.line("Isolated", format!("{number}, each with its last accepted rules, if there are any:"))?;
    screen.list(isolated, |isolated| {
        let effect = if isolated.has_rules == Some(false) { "; nothing serves it" } else { "" };
        format!("{} {} ({}): {}{effect}", isolated.kind, isolated.name, isolated.rules, isolated.message)
    })
}

fn print_policies(policies: &PoliciesStatus, screen: &mut Screen<'_>) -> io::Result<()> {
    let mut parts = Vec::new();
    parts.extend(policies.policies.map(|number| irregular(number, "policy", "policies")));
    if let (Some(isolated), Some(pods)) = (policies.isolated_pods, policies.pods) {
        parts.push(format!("{isolated} of {pods} pods of this node isolated"));
    }
    let verb = if policies.audit { "would have been dropped (audit)" } else { "dropped" };
    if let Some(drops) = &policies.drops {
        let window = match drops.recent_seconds {
            // The first reading has nothing to compare with.
            seconds if seconds < 1.0 => String::new(),
            seconds => format!(
                "{} {verb} in the last {}, ",
                irregular(drops.recent_packets, "packet", "packets"),
                format(seconds)
            ),
        };
        parts.push(match window.is_empty() {
            true => format!("{} {verb}", irregular(drops.packets, "packet", "packets")),
            false => format!("{window}{} in all", drops.packets),
        });
    }
    if parts.is_empty() {
        parts.push("not written yet".to_owned());
    }
    screen.line("Policies", parts.join(", "))
}

fn print_rules(rules: &[RulesStatus], screen: &mut Screen<'_>) -> io::Result<()> {
    let mut label = "Rules";
    if rules.is_empty() {
        return screen.line(label, "the event loop has not started");
    }
    for rules in rules {
        let synced = match &rules.last_success {
            Some(at) => format!("last synced {} ago", format(at.age_seconds)),
            None => "never synced".to_owned(),
        };
        let failure = rules
            .failure
            .as_ref()
            .map(|failure| format!("failed {} ago: {}", format(failure.at.age_seconds), failure.error));
        let pending = rules.pending_since.as_ref().filter(|_| rules.failure.is_none());
        let pending = pending.map(|at| format!("changes waiting for {}", format(at.age_seconds)));
        let held_back = rules.held_back.then(|| "held back".to_owned());
        let more = [failure, pending, held_back, rules.long_sync.clone(), rules.contention.clone()];
        let texts: Vec<String> = std::iter::once(synced).chain(more.into_iter().flatten()).collect();
        screen.line(std::mem::take(&mut label), format!("{}: {}", rules.rules, texts.join("; ")))?;
    }
    Ok(())
}

fn print_entries(
    label: &str,
    entries: &[TimelineEntry],
    document: &StatusDocument,
    screen: &mut Screen<'_>,
) -> io::Result<()> {
    let mut label = label;
    // The latest first.
    for entry in entries.iter().rev() {
        let age = document.time.duration_since(entry.time).as_secs_f64();
        let rules = entry.rules.as_deref().unwrap_or(&entry.component);
        screen.line(std::mem::take(&mut label), format!("{} ago {rules}: {}", format(age), entry.text))?;
    }
    Ok(())
}

fn print_sources(sources: &[SourceStatus], screen: &mut Screen<'_>) -> io::Result<()> {
    let (failing, working): (Vec<_>, Vec<_>) = sources.iter().partition(|source| source.error.is_some());
    let age = |source: &SourceStatus| match source.last_contact_age_seconds {
        _ if source.unserved => "not served by the API server".to_owned(),
        Some(seconds) => format!("{} ago", format(seconds)),
        None => "never".to_owned(),
    };
    let of_kind = |source: &&SourceStatus| {
        let unreadable = match source.unreadable {
            0 => String::new(),
            number => format!(" ({number} unreadable)"),
        };
        format!("{} {}{unreadable}", source.kind, age(source))
    };
    let mut label = "Sources";
    let mut lines = working.chunks(KINDS_PER_LINE).peekable();
    while let Some(kinds) = lines.next() {
        let comma = if lines.peek().is_some() { "," } else { "" };
        let kinds = truncated_list::names(kinds.iter().map(of_kind), usize::MAX);
        screen.line(std::mem::take(&mut label), format!("{kinds}{comma}"))?;
    }
    // Most kinds fail for the same reason.
    let mut by_error: BTreeMap<&str, Vec<&SourceStatus>> = BTreeMap::new();
    for source in failing {
        by_error.entry(source.error.as_deref().unwrap_or_default()).or_default().push(source);
    }
    for (error, sources) in by_error {
        let failures: u64 = sources.iter().map(|source| source.failures).sum();
        let kinds = truncated_list::names(sources.iter().map(of_kind), usize::MAX);
        screen.line(std::mem::take(&mut label), format!("{kinds}: {error} (failures: {failures})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated_docs::assert_current;
    use crate::observe::local_api::documents::samples;

    fn printed(document: &StatusDocument, has_colors: bool) -> String {
        let mut text = Vec::new();
        print(document, has_colors, &mut text).expect("a Vec takes everything");
        String::from_utf8(text).expect("it prints UTF-8")
    }

    #[test]
    fn status_is_one_screen() {
        let document = samples::status();
        let text = printed(&document, false);
        assert!(text.lines().count() <= 40, "{text}");
        assert_current("fixtures/local-api/status.txt", &text);
        let page = include_str!("../../../docs/operating.md");
        assert!(
            page.contains(&format!("# portcullis status\n{text}```\n")),
            "docs/operating.md has:\n{text}"
        );
        let json = serde_json::to_string_pretty(&document).expect("it can be encoded");
        assert_current("fixtures/local-api/status.json", &format!("{json}\n"));
    }

    #[test]
    fn what_the_loop_does_not_say_is_not_shown_as_healthy() {
        let mut document = samples::status();
        (document.healthy, document.problems) = (true, Vec::new());
        document.event_loop.responded = false;
        document.event_loop.error = Some("the event loop of the daemon did not respond within 1s".into());
        document.services = None;
        let text = printed(&document, false);
        assert!(
            text.starts_with(
                "UNKNOWN; load balancers send no traffic to this node\n  problem   the event loop"
            ),
            "{text}"
        );
        assert!(text.contains("Services    not known"), "{text}");
    }

    #[test]
    fn control_characters_of_messages_are_replaced() {
        let mut document = samples::status();
        document.isolated.items[0].message = "a\n\x1b[31mb".into();
        let text = printed(&document, false);
        assert!(text.contains("(IPv4): a  [31mb; nothing serves it\n"), "{text}");
        assert!(printed(&document, true).starts_with("\x1b["), "the verdict has a color");
    }
}
