//! The policies of a namespace, and the matrix of its pods.

use maud::{Markup, html};
use portcullis_cluster::Index;
use portcullis_cluster::network_policy::NetworkPolicy;

use super::evaluation::KnownCluster;
use super::explain::problem;
use super::format::{count, counted};
use super::layout::{Page, Part};
use super::policies::NOT_ENFORCED;
use super::query::Query;
use super::table::{Caption, Column, number, table, text};
use crate::commands::policy::PolicyMatrix;
use crate::config::{Config, Matrix};

/// The number of policies that the page lists.
const POLICIES: usize = 200;

/// The largest number of rows, and of columns, of a table of the matrix.
const MAX_SIDE: usize = 100;

/// The largest number of cells of all tables but the first.
const MAX_CELLS: usize = 20_000;

/// The namespace that a request asks for.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) namespace: String,
    port: String,
}

/// What the page shows.
pub(super) struct NamespaceView {
    policies: Vec<PolicyView>,
    matrix: Result<MatrixView, String>,
}

struct PolicyView {
    name: String,
    selector: String,
    pods: usize,
    ingress: Option<usize>,
    egress: Option<usize>,
}

struct MatrixView {
    rows: Vec<String>,
    columns: Vec<String>,
    tables: Vec<(String, Vec<Vec<char>>)>,
    notes: Vec<String>,
}

impl Selection {
    pub(super) fn new(request: &Query<'_>) -> Option<Self> {
        let namespace = request.given("namespace")?.to_owned();
        Some(Selection { namespace, port: request.text("port").to_owned() })
    }

    /// Reads the policies and evaluates the matrix.
    pub(super) fn evaluate(&self, config: &Config, cluster: &KnownCluster) -> NamespaceView {
        let policies = policies(&cluster.index, &self.namespace);
        let matrix = match cluster.has_policies() {
            false => Err(NOT_ENFORCED.to_owned()),
            true => {
                let port = Some(self.port.as_str()).filter(|port| !port.is_empty());
                let command = Matrix::of_namespace(&self.namespace, port);
                let matrix = PolicyMatrix::new(config, &cluster.index, &command);
                matrix.map(MatrixView::from).map_err(|error| error.to_string())
            }
        };
        NamespaceView { policies, matrix }
    }
}

fn policies(index: &Index, namespace: &str) -> Vec<PolicyView> {
    let is_here = |policy: &&NetworkPolicy| policy.key.namespace.as_str() == namespace;
    let mut policies: Vec<&NetworkPolicy> = index.network_policies().filter(is_here).collect();
    policies.sort_by_key(|policy| &policy.key);
    let pods: Vec<_> = index
        .pods()
        .filter(|pod| pod.key.namespace.as_str() == namespace && !pod.is_finished && !pod.host_network)
        .collect();
    let view = |policy: &NetworkPolicy| PolicyView {
        name: policy.key.name.to_string(),
        selector: match policy.pod_selector.selects_all() {
            true => "all pods".to_owned(),
            false => policy.pod_selector.to_string(),
        },
        pods: pods.iter().filter(|pod| policy.pod_selector.matches(&pod.labels)).count(),
        ingress: policy.ingress.as_ref().map(|rules| rules.len()),
        egress: policy.egress.as_ref().map(|rules| rules.len()),
    };
    policies.into_iter().map(view).collect()
}

impl From<PolicyMatrix> for MatrixView {
    fn from(matrix: PolicyMatrix) -> Self {
        let (rows, columns) = matrix.labels();
        MatrixView {
            rows: rows.into_iter().map(str::to_owned).collect(),
            columns: columns.into_iter().map(str::to_owned).collect(),
            tables: matrix.tables().collect(),
            notes: matrix.notes,
        }
    }
}

const COLUMNS: [Column; 5] =
    [text("Policy"), text("Pods"), number("Selected pods"), text("Ingress"), text("Egress")];

/// Returns the page.
pub(super) fn page(selection: &Selection, view: &NamespaceView) -> Page {
    let Selection { namespace, port } = selection;
    let rows: Vec<Markup> = view.policies.iter().take(POLICIES).map(policy_row).collect();
    let omitted = view.policies.len() - rows.len();
    let content = html! {
        h1 { "Policies of namespace " (namespace) }
        section aria-labelledby="policies" {
            h2 #policies { "NetworkPolicies" }
            (table(Caption::Hidden("NetworkPolicies in the order of their names"), &COLUMNS, &rows, "The namespace has none: no NetworkPolicy isolates its pods."))
            @if omitted > 0 { p .note { (count(omitted)) " more." } }
        }
        section aria-labelledby="matrix" {
            h2 #matrix { "Matrix" }
            p .note {
                "Verdicts about connections from each row to each column, by all policies of the cluster. Pods with the same \
                 verdicts share a row and a column, which have the same number."
            }
            form .filter method="get" action="/policies/namespace" {
                input type="hidden" name="namespace" value=(namespace);
                div {
                    label for="port" { "Only port" }
                    input #port type="text" name="port" value=(port) maxlength="20" size="12" autocomplete="off"
                        spellcheck="false" placeholder="80 or 53/udp";
                }
                div { button type="submit" { "Show" } }
            }
            @match &view.matrix {
                Ok(matrix) => (matrix_tables(matrix)),
                Err(message) => (problem("No matrix", message)),
            }
        }
    };
    Page { title: format!("Policies of {namespace}"), part: Some(Part::Policies), refreshes: false, content }
}

fn policy_row(policy: &PolicyView) -> Markup {
    let direction = |rules: Option<usize>| match rules {
        None => "not isolated".to_owned(),
        Some(0) => "isolated, nothing allowed".to_owned(),
        Some(rules) => format!("isolated, {}", counted(rules, "rule")),
    };
    html! {
        tr {
            th .name scope="row" { (policy.name) }
            td .name data-label="Pods" { (policy.selector) }
            td .number data-label="Selected pods" { (count(policy.pods)) }
            td data-label="Ingress" { (direction(policy.ingress)) }
            td data-label="Egress" { (direction(policy.egress)) }
        }
    }
}

fn matrix_tables(matrix: &MatrixView) -> Markup {
    let (rows, columns) = (matrix.rows.len().min(MAX_SIDE), matrix.columns.len().min(MAX_SIDE));
    let shown = (MAX_CELLS / (rows * columns).max(1)).max(1);
    let omitted = matrix.tables.len().saturating_sub(shown);
    let (more_rows, more_columns) = (matrix.rows.len() - rows, matrix.columns.len() - columns);
    html! {
        @for (heading, cells) in matrix.tables.iter().take(shown) { (matrix_table(matrix, heading, cells)) }
        p .note {
            "✓ allowed · I denied by the destination's policies (ingress) · E by the source's (egress) · B by both · "
            "– not applicable: neither end is a pod, or one has no address of the family"
        }
        @if omitted > 0 {
            p .note { (counted(omitted, "more table")) " for other ports: choose a port, or use portcullis policy matrix." }
        }
        @if more_rows + more_columns > 0 {
            p .note {
                (counted(more_rows, "more row")) " and " (counted(more_columns, "more column"))
                ": portcullis policy matrix shows them."
            }
        }
        @for note in &matrix.notes { p .note { (note) } }
    }
}

fn matrix_table(matrix: &MatrixView, heading: &str, cells: &[Vec<char>]) -> Markup {
    let columns = || matrix.columns.iter().take(MAX_SIDE);
    html! {
        h3 { (heading) }
        div .scroll .matrix tabindex="0" role="region" aria-label={ "Matrix for " (heading) } {
            table {
                caption .hidden { "Verdicts for " (heading) ", from the row to the column" }
                thead {
                    tr {
                        th scope="col" { "From" }
                        @for (at, label) in columns().enumerate() {
                            th scope="col" { abbr title=(label) { (at + 1) } }
                        }
                    }
                }
                tbody {
                    @for (label, row) in matrix.rows.iter().zip(cells).take(MAX_SIDE) {
                        tr {
                            th scope="row" {
                                @if let Some(at) = matrix.columns.iter().position(|column| column == label) { (at + 1) ". " }
                                (label)
                            }
                            @for (verdict, to) in row.iter().zip(columns()) { (cell(*verdict, label, to)) }
                        }
                    }
                }
            }
        }
    }
}

fn cell(verdict: char, from: &str, to: &str) -> Markup {
    let (class, sign, words) = match verdict {
        '.' => (Some("allowed"), '✓', "allowed"),
        'I' => (Some("denied"), 'I', "denied by the destination's policies"),
        'E' => (Some("denied"), 'E', "denied by the source's policies"),
        'B' => (Some("denied"), 'B', "denied by the policies of both"),
        _ => (None, '–', "not applicable"),
    };
    html! { td class=[class] title={ (from) " to " (to) ": " (words) } { (sign) } }
}
