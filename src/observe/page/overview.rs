//! The overview: the verdict, figures, Services with problems, recent syncs and drift, and facts about the daemon.

use maud::{Markup, html};

use super::format::{self, count, number};
use super::icons::Level;
use super::layout::{Page, Part};
use super::query::link;
use super::table::{self, Caption, Column, table};
use super::verdict::Banner;
use super::{pod_network, services, sources, timeline};
use crate::observe::local_api::documents::{
    DroppingChainStatus, IsolatedStatus, LimitedList, RulesStatus, StatusDocument, TimelineEntry,
};
use crate::service_report::ServiceReport;

/// The number of syncs and of restored changes that the overview lists.
const RECENT: usize = 8;

/// Returns the page. `problems`: the first Services with problems, or why they are not known.
pub(super) fn page(status: &StatusDocument, problems: Result<&ServiceReport, &str>) -> Page {
    let banner = Banner::new(status);
    let content = html! {
        (banner.markup())
        (figures(status))
        section aria-labelledby="problems" {
            h2 #problems { "Services with problems" }
            @match problems {
                Ok(report) => {
                    (services::table_of(Caption::Hidden("Services with errors or warnings"), report, "No Service has a problem."))
                    @if report.total > report.items.len() {
                        p .more {
                            a href=(link(Part::Services.path(), [("problems", "yes")])) {
                                "All " (count(report.total)) " Services with problems"
                            }
                        }
                    }
                }
                Err(reason) => p .empty { "Not known: " (reason) },
            }
        }
        (isolated(&status.isolated))
        (pod_network::section(status.pod_network.as_ref()))
        section aria-labelledby="syncs" {
            h2 #syncs { "Recent syncs" }
            (recent(&status.recent_syncs, "No sync has ended yet."))
            p .more { a href=(Part::Timeline.path()) { "Timeline of all events" } }
        }
        section aria-labelledby="drift" {
            h2 #drift { "Changes by other processes" }
            (recent(&status.recent_drift, "No other process has changed rules."))
        }
        section aria-labelledby="rules" {
            h2 #rules { "Sets of rules" }
            (rules(&status.rules))
        }
        div .columns {
            section aria-labelledby="sources" {
                h2 #sources { "Sources" }
                (source_summary(status))
            }
            section aria-labelledby="daemon" {
                h2 #daemon { "Daemon" }
                (facts(status))
            }
        }
    };
    Page { title: banner.headline, part: Some(Part::Overview), refreshes: true, content }
}

fn figures(status: &StatusDocument) -> Markup {
    let unknown = || "not known".to_owned();
    let services = status.services.as_ref();
    let of_services = |figure: usize| count(figure);
    html! {
        dl .figures {
            div { dt { "Services" } dd { (services.map_or_else(unknown, |one| of_services(one.services))) } }
            div { dt { "Frontends" } dd { (services.map_or_else(unknown, |one| of_services(one.frontends))) } }
            div { dt { "Endpoints" } dd { (services.map_or_else(unknown, |one| of_services(one.endpoints))) } }
            div {
                dt { "Isolated objects" }
                dd { (bad_count(status.isolated.count)) " " small { "rejected or too large" } }
            }
            @if let Some(services) = services {
                div {
                    dt { "Frontends not served" }
                    dd { (bad_count(services.unserved.count)) " " small { "shadowed or not allowed" } }
                }
            }
            @match &status.policies {
                None => div { dt { "Policies" } dd { "off " small { "not enforced" } } },
                Some(policies) => {
                    div {
                        dt { "Policies" }
                        dd {
                            (policies.policies.map_or_else(unknown, count)) " "
                            small { @if policies.audit { "audited, nothing is dropped" } @else { "on pods of this node" } }
                        }
                    }
                    div {
                        dt { "Isolated pods" }
                        dd {
                            (policies.isolated_pods.map_or_else(unknown, count)) " "
                            @if let Some(pods) = policies.pods { small { "of " (count(pods)) " on this node" } }
                        }
                    }
                    div {
                        dt { @if policies.audit { "Audited packets" } @else { "Dropped packets" } }
                        @match &policies.drops {
                            None => dd { "not known" },
                            // The first reading has nothing to compare with.
                            Some(drops) if drops.recent_seconds < 1.0 => dd {
                                (number(drops.packets)) " " small { "since the policies exist" }
                            },
                            Some(drops) => dd {
                                (number(drops.recent_packets)) " "
                                small { "in the last " (format::whole_seconds(drops.recent_seconds as u64)) }
                            },
                        }
                    }
                }
            }
            @if let Some(conntrack) = status.conntrack {
                div {
                    dt { "Tracked connections" }
                    dd { (number(conntrack.count)) " " small { "of " (number(conntrack.max)) } }
                }
            }
        }
    }
}

/// Returns a number of objects of which there should be none.
fn bad_count(number: usize) -> Markup {
    if number == 0 {
        html! { "0" }
    } else {
        Level::Bad.state(&count(number))
    }
}

const ISOLATED: [Column; 4] =
    [table::text("Object"), table::text("Rules"), table::text("Cause"), table::text("Message")];

fn isolated(list: &LimitedList<IsolatedStatus>) -> Markup {
    if list.count == 0 {
        return html! {};
    }
    let rows: Vec<Markup> = list.items.iter().map(isolated_row).collect();
    html! {
        section aria-labelledby="isolated" {
            h2 #isolated { "Isolated objects" }
            (table(Caption::Shown("Objects that could not be programmed; their last accepted rules stay, if there are any, and all others are served"), &ISOLATED, &rows, ""))
            @if list.omitted > 0 { p .more { (count(list.omitted)) " more." } }
        }
    }
}

fn isolated_row(object: &IsolatedStatus) -> Markup {
    let cause = match object.cause.as_str() {
        "tooLarge" => "too large",
        other => other,
    };
    html! {
        tr {
            th .name scope="row" {
                @match (object.kind.as_str(), object.name.split_once('/')) {
                    ("Service", Some((namespace, name))) => a href=(services::detail_link(namespace, name)) { (object.name) },
                    _ => { (object.kind) " " (object.name) }
                }
            }
            td data-label="Rules" { (object.rules) }
            td data-label="Cause" { (Level::Bad.state(cause)) }
            td .reason data-label="Message" { (object.message) }
        }
    }
}

fn recent(entries: &[TimelineEntry], if_empty: &str) -> Markup {
    let shown: Vec<&TimelineEntry> = entries.iter().rev().take(RECENT).collect();
    timeline::entries(Caption::Hidden("The last ones, newest first"), &shown, if_empty)
}

const RULES: [Column; 4] =
    [table::text("Rules"), table::text("State"), table::text("Last success"), table::text("Details")];

fn rules(all: &[RulesStatus]) -> Markup {
    let rows: Vec<Markup> = all.iter().map(rules_row).collect();
    table(
        Caption::Hidden("Each set of rules is synced as a whole"),
        &RULES,
        &rows,
        "No set of rules is declared.",
    )
}

fn rules_row(rules: &RulesStatus) -> Markup {
    let (level, word) = match rules {
        RulesStatus { failure: Some(_), .. } => (Level::Bad, "last sync failed"),
        RulesStatus { held_back: true, .. } => (Level::Warning, "held back"),
        RulesStatus { last_success: None, .. } => (Level::Warning, "not synced yet"),
        RulesStatus { contention: Some(_), .. } => (Level::Warning, "changed by another process"),
        RulesStatus { pending_since: Some(_), .. } => (Level::Good, "changes pending"),
        _ => (Level::Good, "in sync"),
    };
    let failure = rules.failure.as_ref().map(|failure| failure.error.as_str());
    let held_back = rules
        .held_back
        .then_some("the first sync waits: objects that cannot be read may have rules in the kernel");
    let details = [failure, held_back, rules.long_sync.as_deref(), rules.contention.as_deref()];
    html! {
        tr {
            th scope="row" { (rules.controller) " · " (rules.rules) }
            td data-label="State" { (level.state(word)) }
            td data-label="Last success" {
                @match &rules.last_success {
                    Some(last) => { (format::time(last.time)) ", " (format::age(last.age_seconds)) }
                    None => "never",
                }
            }
            td .reason data-label="Details" { @for detail in details.iter().flatten() { (detail) " " } }
        }
    }
}

fn source_summary(status: &StatusDocument) -> Markup {
    html! {
        dl .facts {
            @for source in &status.sources {
                @let (level, word) = sources::state(source);
                dt { (source.kind) }
                dd {
                    (level.state(word))
                    @if let Some(seconds) = source.last_contact_age_seconds { ", " (format::age(seconds)) }
                }
            }
            @if status.sources.is_empty() { dt { "Kinds" } dd { "none requested yet" } }
        }
        p .more { a href=(Part::Sources.path()) { "All sources with their errors" } }
    }
}

fn facts(status: &StatusDocument) -> Markup {
    let program = &status.program;
    html! {
        dl .facts {
            dt { "Node" } dd { (status.node.name) }
            dt { "Mode" } dd { (status.node.mode) ", " (status.node.families.join(" and ")) }
            dt { "Version" }
            dd {
                (program.version) @if let Some(commit) = &program.commit { " " code { (commit) } }
                ", for kube-proxy " (program.kube_proxy_version)
            }
            dt { "Started" }
            dd { (format::date(program.started)) ", " (format::age(program.uptime_seconds)) ", process " (program.pid) }
            dt { "Objects from" } dd { (status.node.source) }
            dt { "Other proxies" }
            dd {
                @for proxy in &status.other_proxies {
                    (Level::Warning.state(&proxy.name)) " at " (proxy.address) @if let Some(mode) = &proxy.mode { " (" (mode) ")" } " "
                }
                @if status.other_proxies.is_empty() { "none responded when the daemon started" }
            }
            dt { "Chains that drop" }
            dd { (dropping_chains(status.dropping_chains.as_ref())) }
            @let omitted = status.omitted;
            @if omitted.events + omitted.log_lines + omitted.dropped_log_lines > 0 {
                dt { "Left out" }
                dd {
                    (number(omitted.events)) " Events, " (number(omitted.log_lines + omitted.dropped_log_lines)) " log lines"
                }
            }
        }
    }
}

/// The number of base chains that the overview lists.
const CHAINS: usize = 5;

/// Returns the base chains of other programs that drop what none of their rules accepts.
fn dropping_chains(chains: Option<&LimitedList<DroppingChainStatus>>) -> Markup {
    let Some(chains) = chains else { return html! { "not known" } };
    let omitted = chains.count - chains.items.len().min(CHAINS);
    html! {
        @if chains.count == 0 { "no other program has a base chain with the policy drop" }
        @else {
            ul .plain {
                @for chain in chains.items.iter().take(CHAINS) {
                    li {
                        code { (chain.family) " " (chain.table) " " (chain.chain) }
                        @if let Some(hook) = &chain.hook { " at hook " (hook) ", priority " (chain.priority) }
                        @if chain.legacy { " (legacy iptables)" }
                    }
                }
                @if omitted > 0 { li { (count(omitted)) " more" } }
            }
            "They drop what none of their rules accepts."
        }
    }
}
