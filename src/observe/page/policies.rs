//! The policies: namespaces with their policies, and the policies that count dropped packets.

use std::collections::BTreeMap;

use maud::{Markup, html};
use portcullis_cluster::cluster_network_policy::{ClusterNetworkPolicy, Tier};
use portcullis_cluster::{Index, Kind};

use super::format::{count, counted, number as figure};
use super::layout::{Page, Part};
use super::query::{Query, link};
use super::table::{Caption, Column, number, table, text};
use crate::observe::local_api::documents::{DroppedPackets, PoliciesDocument};

/// The number of namespaces that the page lists.
const NAMESPACES: usize = 200;

/// The number of ClusterNetworkPolicies, and of counters of dropped packets, that the page lists.
const POLICIES: usize = 100;

/// What the page shows of the index.
pub(super) struct PolicySummary {
    /// The daemon watches policies.
    pub(super) is_known: bool,
    namespaces: BTreeMap<String, NamespaceCounts>,
    cluster_policies: Vec<ClusterPolicy>,
}

#[derive(Clone, Copy, Default)]
struct NamespaceCounts {
    policies: usize,
    pods: usize,
}

struct ClusterPolicy {
    name: String,
    tier: Tier,
    priority: u16,
    ingress: usize,
    egress: usize,
}

impl PolicySummary {
    /// Reads the index.
    pub(super) fn new(index: &Index) -> Self {
        let mut namespaces: BTreeMap<String, NamespaceCounts> = BTreeMap::new();
        let mut of = |namespace: &str, add: fn(&mut NamespaceCounts)| match namespaces.get_mut(namespace) {
            Some(counts) => add(counts),
            None => add(namespaces.entry(namespace.to_owned()).or_default()),
        };
        for pod in index.pods() {
            of(pod.key.namespace.as_str(), |counts| counts.pods += 1);
        }
        for policy in index.network_policies() {
            of(policy.key.namespace.as_str(), |counts| counts.policies += 1);
        }
        let mut cluster_policies: Vec<&ClusterNetworkPolicy> = index.cluster_network_policies().collect();
        cluster_policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.key));
        let cluster_policy = |policy: &ClusterNetworkPolicy| ClusterPolicy {
            name: policy.key.name.to_string(),
            tier: policy.tier,
            priority: policy.priority,
            ingress: policy.ingress.len(),
            egress: policy.egress.len(),
        };
        PolicySummary {
            is_known: index.is_listed(Kind::NetworkPolicy),
            namespaces,
            cluster_policies: cluster_policies.into_iter().map(cluster_policy).collect(),
        }
    }
}

const NAMESPACE_COLUMNS: [Column; 3] = [text("Namespace"), number("NetworkPolicies"), number("Pods")];

const CLUSTER_COLUMNS: [Column; 5] =
    [text("Policy"), text("Tier"), number("Priority"), number("Ingress rules"), number("Egress rules")];

const DROP_COLUMNS: [Column; 4] = [text("Policies"), text("Direction"), number("Packets"), number("Bytes")];

/// Returns the page. `document`: the policies of the local API, with the packets that they dropped; or why they are not known.
pub(super) fn page(
    request: &Query<'_>,
    summary: &PolicySummary,
    document: Result<&PoliciesDocument, &str>,
) -> Page {
    let is_audit = document.is_ok_and(|document| document.audit);
    let content = html! {
        h1 { "Policies" }
        @if summary.is_known {
            section aria-labelledby="drops" {
                h2 #drops { @if is_audit { "Audited packets" } @else { "Dropped packets" } }
                (drop_table(document, is_audit))
            }
            section aria-labelledby="namespaces" {
                h2 #namespaces { "Namespaces" }
                (namespaces(request, summary))
            }
            section aria-labelledby="cluster-policies" {
                h2 #cluster-policies { "ClusterNetworkPolicies" }
                (cluster_policies(summary))
            }
        } @else {
            p .empty { (NOT_ENFORCED) }
        }
    };
    Page { title: "Policies".to_owned(), part: Some(Part::Policies), refreshes: true, content }
}

/// The reason why nothing is known of policies.
pub(super) const NOT_ENFORCED: &str = "This daemon does not enforce policies (--network-policy is not set), or has not listed them \
    yet. It knows nothing of policies and of the pods to which they apply.";

fn drop_table(document: Result<&PoliciesDocument, &str>, is_audit: bool) -> Markup {
    let drops = match document.map(|document| &document.drops) {
        Err(reason) => return html! { p .empty { "Not known: " (reason) } },
        Ok(None) => return html! { p .empty { "Not known: the counters of the kernel cannot be read." } },
        Ok(Some(drops)) => drops,
    };
    let dropped: Vec<&DroppedPackets> = drops.items.iter().filter(|drops| drops.packets > 0).collect();
    let omitted = dropped.len().saturating_sub(POLICIES) + drops.omitted;
    let rows: Vec<Markup> = dropped.iter().take(POLICIES).map(|drops| drop_row(drops)).collect();
    let (caption, if_empty) = match is_audit {
        true => (
            "Packets that policies would drop, since the policies were written",
            "No packet would have been dropped.",
        ),
        false => (
            "Packets since the policies were written, by the policies that isolate the pod or deny the packet",
            "No packet was dropped.",
        ),
    };
    html! {
        (table(Caption::Shown(caption), &DROP_COLUMNS, &rows, if_empty))
        @if omitted > 0 { p .note { (count(omitted)) " more; /metrics has them all." } }
    }
}

fn drop_row(drops: &DroppedPackets) -> Markup {
    html! {
        tr {
            th .name scope="row" { (drops.policies) }
            td data-label="Direction" { @if let Some(direction) = &drops.direction { (direction) } }
            td .number data-label="Packets" { (figure(drops.packets)) }
            td .number data-label="Bytes" { (figure(drops.bytes)) }
        }
    }
}

fn namespaces(request: &Query<'_>, summary: &PolicySummary) -> Markup {
    let search = request.text("q");
    let matching: Vec<(&String, &NamespaceCounts)> =
        summary.namespaces.iter().filter(|(name, _)| name.contains(search)).collect();
    let rows: Vec<Markup> =
        matching.iter().take(NAMESPACES).map(|(name, counts)| namespace_row(name, counts)).collect();
    let omitted = matching.len() - rows.len();
    let if_empty =
        if search.is_empty() { "No namespace has pods or policies." } else { "No namespace matches." };
    html! {
        form .filter method="get" action=(Part::Policies.path()) role="search" {
            div {
                label for="q" { "Namespace" }
                input #q type="search" name="q" value=(search) maxlength="63" autocomplete="off" spellcheck="false";
            }
            div { button type="submit" { "Search" } }
        }
        (table(Caption::Shown(&counted(matching.len(), "namespace")), &NAMESPACE_COLUMNS, &rows, if_empty))
        @if omitted > 0 { p .note { (counted(omitted, "more namespace")) "; search for a part of the name." } }
    }
}

/// Returns the address of the page of a namespace.
pub(super) fn namespace_link(namespace: &str) -> String {
    link("/policies/namespace", [("namespace", namespace)])
}

fn namespace_row(name: &str, counts: &NamespaceCounts) -> Markup {
    html! {
        tr {
            th .name scope="row" { a href=(namespace_link(name)) { (name) } }
            td .number data-label="NetworkPolicies" {
                @if counts.policies == 0 { "none" } @else { (count(counts.policies)) }
            }
            td .number data-label="Pods" { (count(counts.pods)) }
        }
    }
}

fn cluster_policies(summary: &PolicySummary) -> Markup {
    let all = &summary.cluster_policies;
    let rows: Vec<Markup> = all.iter().take(POLICIES).map(cluster_policy_row).collect();
    let omitted = all.len() - rows.len();
    html! {
        (table(Caption::Shown("In the order of their evaluation"), &CLUSTER_COLUMNS, &rows, "There are none."))
        @if omitted > 0 { p .note { (count(omitted)) " more." } }
    }
}

fn cluster_policy_row(policy: &ClusterPolicy) -> Markup {
    let tier = match policy.tier {
        Tier::Admin => "Admin",
        Tier::Baseline => "Baseline",
    };
    html! {
        tr {
            th .name scope="row" { (policy.name) }
            td data-label="Tier" { (tier) }
            td .number data-label="Priority" { (policy.priority) }
            td .number data-label="Ingress rules" { (count(policy.ingress)) }
            td .number data-label="Egress rules" { (count(policy.egress)) }
        }
    }
}
