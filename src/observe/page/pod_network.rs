//! The pod network of this node on the overview.

use maud::{Markup, html};

use super::format::{count, number};
use super::icons::Level;
use super::table::{self, Caption, Column, table};
use crate::observe::local_api::documents::{PodAddressesStatus, PodNetworkStatus, UnreachableNodeStatus};

/// The number of free addresses above which the exact number tells nothing: pod CIDRs of IPv6.
const PLENTY: u64 = 1_000_000_000;

const UNREACHABLE: [Column; 2] = [table::text("Node"), table::text("Reason")];

/// Returns the section about the pod network; nothing if another program provides it.
pub(super) fn section(status: Option<&PodNetworkStatus>) -> Markup {
    let Some(status) = status else { return html! {} };
    let (level, word) = match status.ready {
        None => (Level::Warning, "not synced yet"),
        Some(true) => (Level::Good, "ready for pods"),
        Some(false) => (Level::Bad, "not ready for pods"),
    };
    let unreachable = &status.unreachable_nodes;
    let rows: Vec<Markup> = unreachable.items.iter().map(unreachable_row).collect();
    html! {
        section aria-labelledby="pod-network" {
            h2 #pod-network { "Pod network" }
            dl .facts {
                dt { "State" }
                dd { (level.state(word)) @if let Some(reason) = &status.reason { ": " (reason) } }
                dt { "Mode" } dd { (status.mode) ", wiring " (status.wiring) }
                dt { "MTU" } dd { (status.mtu.map_or_else(|| "not known".to_owned(), |mtu| mtu.to_string())) }
                dt { "Egress" } dd { @if status.masquerade { "masqueraded" } @else { "not masqueraded" } }
                dt { "Nodes" } dd { (status.nodes.map_or_else(|| "not known".to_owned(), count)) }
                dt { "Addresses" }
                dd { (addresses(status.addresses.as_deref())) }
            }
            @if !rows.is_empty() {
                (table(Caption::Shown("Nodes to whose pods this node has no route, at least of one IP family"), &UNREACHABLE, &rows, ""))
                @if unreachable.omitted > 0 { p .more { (count(unreachable.omitted)) " more." } }
            }
        }
    }
}

fn addresses(all: Option<&[PodAddressesStatus]>) -> Markup {
    let Some(all) = all else { return html! { "not known" } };
    html! {
        @if all.is_empty() { "this node has no pod CIDRs" }
        @else {
            ul .plain {
                @for range in all {
                    li {
                        code { (range.pod_cidr) } ": " (count(range.held)) " held by pods"
                        @if range.other_plugin > 0 { ", " (count(range.other_plugin)) " by pods of another network plugin" }
                        ", "
                        @if range.free == 0 { (Level::Bad.state("none free")) }
                        @else if range.free > PLENTY { "more than a billion free" }
                        @else { (number(range.free)) " free" }
                    }
                }
            }
        }
    }
}

fn unreachable_row(node: &UnreachableNodeStatus) -> Markup {
    html! {
        tr {
            th .name scope="row" { (node.node) }
            td .reason data-label="Reason" { (node.text) }
        }
    }
}
