//! Groups of pods with equal verdicts, shown as one row and one column.

use super::cells::{EndpointKind, MatrixEndpoint, MatrixTable, PodEndpoint};

/// A group of endpoints, as indexes of rows or columns.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) members: Vec<usize>,
}

/// Returns a group for each endpoint.
pub(super) fn ungrouped(endpoints: &[MatrixEndpoint]) -> Vec<Group> {
    let group = |(index, endpoint): (usize, &MatrixEndpoint)| Group {
        label: endpoint.name.clone(),
        members: vec![index],
    };
    endpoints.iter().enumerate().map(group).collect()
}

/// The pods that the pods of a table represent.
pub(super) struct Represented {
    /// All pods, by namespace and name.
    pub(super) pods: Vec<PodEndpoint>,
    /// The equivalence classes, as indexes of all pods.
    pub(super) classes: Vec<Vec<usize>>,
    /// The class of each pod in the table.
    pub(super) class_of: Vec<usize>,
}

impl Represented {
    /// Returns a label for these pods of a table and all pods that they represent.
    fn label(&self, indexes: &[usize]) -> String {
        let mut classes: Vec<usize> = indexes.iter().map(|index| self.class_of[*index]).collect();
        classes.dedup();
        let mut members: Vec<usize> = classes.iter().flat_map(|class| self.classes[*class].clone()).collect();
        members.sort_unstable();
        members.dedup();
        label(&self.pods.iter().collect::<Vec<_>>(), &members)
    }
}

/// Returns the groups of rows and of columns. In both, the same pods come first, and they are grouped equally.
pub(super) fn grouped(
    rows: &[MatrixEndpoint],
    columns: &[MatrixEndpoint],
    tables: &[MatrixTable],
    represented: &Represented,
) -> (Vec<Group>, Vec<Group>) {
    let pods: Vec<&PodEndpoint> = columns.iter().map_while(MatrixEndpoint::pod).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in 0..pods.len() {
        let same = |group: &&mut Vec<usize>| {
            represented.class_of[group[0]] == represented.class_of[index]
                || have_equal_cells(rows, columns, tables, group[0], index)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    let labelled =
        |members: &Vec<usize>| Group { label: represented.label(members), members: members.clone() };
    let with_others = |endpoints: &[MatrixEndpoint]| {
        let others = ungrouped(endpoints).split_off(pods.len());
        groups.iter().map(labelled).chain(others).collect()
    };
    (with_others(rows), with_others(columns))
}

/// Returns true if two pods have equal cells, except those about themselves and about their own nodes.
fn have_equal_cells(
    rows: &[MatrixEndpoint],
    columns: &[MatrixEndpoint],
    tables: &[MatrixTable],
    a: usize,
    b: usize,
) -> bool {
    let (Some(one), Some(other)) = (columns[a].pod(), columns[b].pod()) else { return false };
    if one.namespace != other.namespace || one.profiles != other.profiles {
        return false;
    }
    let is_own_node = |row: &MatrixEndpoint| matches!(&row.kind, EndpointKind::Node(n) if one.node.as_ref() == Some(n) || other.node.as_ref() == Some(n));
    tables.iter().all(|MatrixTable { cells, .. }| {
        let others = |index: &usize| *index != a && *index != b;
        cells[a][a] == cells[b][b]
            && cells[a][b] == cells[b][a]
            && (0..columns.len()).filter(others).all(|to| cells[a][to] == cells[b][to])
            && (0..rows.len())
                .filter(others)
                .filter(|from| !is_own_node(&rows[*from]))
                .all(|from| cells[from][a] == cells[from][b])
    })
}

/// Returns a table's cell for two groups.
pub(super) fn cell(
    table: &MatrixTable,
    rows: &[MatrixEndpoint],
    columns: &[MatrixEndpoint],
    from: &Group,
    to: &Group,
) -> char {
    let (row, column) = (from.members[0], to.members[0]);
    if from.members == to.members && from.members.len() > 1 && rows[row].pod().is_some() {
        return table.cells[row][to.members[1]];
    }
    // A node may always reach its own pods, so the verdict about a pod of another node is shown.
    let on_other_node = |index: &&usize| match (&rows[row].kind, columns[**index].pod()) {
        (EndpointKind::Node(node), Some(pod)) => pod.node.as_ref() != Some(node),
        _ => true,
    };
    table.cells[row][to.members.iter().find(on_other_node).copied().unwrap_or(column)]
}

/// Maximum number of names in a label.
const MAX_NAMES: usize = 3;

/// Returns `shop/web-* (×12)` if the pattern matches these pods and no others, else their names or some of them.
fn label(pods: &[&PodEndpoint], members: &[usize]) -> String {
    let first = pods[members[0]];
    let names: Vec<&str> = members.iter().map(|index| &*pods[*index].name).collect();
    let namespace = &first.namespace;
    if names.len() == 1 {
        return format!("{namespace}/{}", names[0]);
    }
    let prefix = common_prefix(&names);
    let mut others = pods.iter().enumerate().filter(|(index, _)| !members.contains(index));
    let matches = |pod: &PodEndpoint| pod.namespace == *namespace && pod.name.starts_with(prefix);
    if !others.any(|(_, pod)| matches(pod)) {
        return format!("{namespace}/{prefix}* (×{})", names.len());
    }
    match names.len() {
        n if n <= MAX_NAMES => format!("{namespace}/{{{}}} (×{n})", names.join(",")),
        n => format!("{namespace}/{{{},…}} (×{n})", names[..MAX_NAMES].join(",")),
    }
}

/// Returns the common prefix of names, up to a hyphen or dot.
fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let first = names[0];
    let common = names.iter().fold(first.len(), |length, name| {
        first.bytes().zip(name.bytes()).take(length).take_while(|(a, b)| a == b).count()
    });
    let end = first[..common].rfind(['-', '.']).map_or(0, |at| at + 1);
    &first[..end]
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::Name;

    use super::*;

    #[test]
    fn label_matches_the_pods_of_the_group_only() {
        let pods = ["web-7d-a", "web-7d-b", "web-7d-c", "web-9f-a", "web-9f-b", "db-0", "cache"];
        let pods = pods.map(|name| PodEndpoint {
            namespace: Name::new("shop"),
            name: name.into(),
            node: None,
            profiles: [None, None],
        });
        let pods: Vec<&PodEndpoint> = pods.iter().collect();
        for (members, expected) in [
            (&[5][..], "shop/db-0"),
            (&[0, 1, 2], "shop/web-7d-* (×3)"),
            (&[0, 1, 2, 3, 4], "shop/web-* (×5)"),
            (&[0, 3], "shop/{web-7d-a,web-9f-a} (×2)"),
            (&[0, 1, 2, 3], "shop/{web-7d-a,web-7d-b,web-7d-c,…} (×4)"),
            (&[5, 6], "shop/{db-0,cache} (×2)"),
            (&[0, 1, 2, 3, 4, 5, 6], "shop/* (×7)"),
        ] {
            assert_eq!(label(&pods, members), expected);
        }
    }
}
