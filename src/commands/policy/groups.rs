//! Pods that reach the same and are reached by the same, as one row and one column.

use super::cells::{End, EndKind, PodEnd, Table};

/// Ends that stand for one another, by their places among all.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) members: Vec<usize>,
}

/// Each end by itself.
pub(super) fn alone(ends: &[End]) -> Vec<Group> {
    let group = |(place, end): (usize, &End)| Group { label: end.name.clone(), members: vec![place] };
    ends.iter().enumerate().map(group).collect()
}

/// The pods for which those in a table stand.
pub(super) struct Represented {
    /// All pods, by namespace and name.
    pub(super) pods: Vec<PodEnd>,
    /// The classes of pods that policies cannot tell apart, by places among all pods.
    pub(super) classes: Vec<Vec<usize>>,
    /// The class of each pod that is in the table.
    pub(super) class_of: Vec<usize>,
}

impl Represented {
    /// A label for the pods of a table at these places, and for those that they stand for.
    fn label(&self, places: &[usize]) -> String {
        let mut classes: Vec<usize> = places.iter().map(|place| self.class_of[*place]).collect();
        classes.dedup();
        let mut members: Vec<usize> = classes.iter().flat_map(|class| self.classes[*class].clone()).collect();
        members.sort_unstable();
        members.dedup();
        label(&self.pods.iter().collect::<Vec<_>>(), &members)
    }
}

/// Groups of rows and of columns. Pods come first in both, in one order, and are grouped alike.
pub(super) fn grouped(
    rows: &[End],
    columns: &[End],
    tables: &[Table],
    represented: &Represented,
) -> (Vec<Group>, Vec<Group>) {
    let pods: Vec<&PodEnd> = columns.iter().map_while(End::pod).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for place in 0..pods.len() {
        let same = |group: &&mut Vec<usize>| {
            represented.class_of[group[0]] == represented.class_of[place]
                || is_alike(rows, columns, tables, group[0], place)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    let labelled =
        |members: &Vec<usize>| Group { label: represented.label(members), members: members.clone() };
    let of = |ends: &[End]| {
        let others = alone(ends).split_off(pods.len());
        groups.iter().map(labelled).chain(others).collect()
    };
    (of(rows), of(columns))
}

/// Whether two pods differ in no cell, except those that are about themselves or the node that one is on.
fn is_alike(rows: &[End], columns: &[End], tables: &[Table], a: usize, b: usize) -> bool {
    let (Some(one), Some(other)) = (columns[a].pod(), columns[b].pod()) else { return false };
    if one.namespace != other.namespace || one.profiles != other.profiles {
        return false;
    }
    let own_node =
        |row: &End| matches!(&row.kind, EndKind::Node(n) if one.node == Some(*n) || other.node == Some(*n));
    tables.iter().all(|Table { cells, .. }| {
        let others = |place: &usize| *place != a && *place != b;
        cells[a][a] == cells[b][b]
            && cells[a][b] == cells[b][a]
            && (0..columns.len()).filter(others).all(|to| cells[a][to] == cells[b][to])
            && (0..rows.len())
                .filter(others)
                .filter(|from| !own_node(&rows[*from]))
                .all(|from| cells[from][a] == cells[from][b])
    })
}

/// A table's cell for two groups.
pub(super) fn cell(table: &Table, rows: &[End], columns: &[End], from: &Group, to: &Group) -> char {
    let (row, column) = (from.members[0], to.members[0]);
    if from.members == to.members && from.members.len() > 1 && rows[row].pod().is_some() {
        return table.cells[row][to.members[1]];
    }
    // A node always reaches its own pods; what it may do elsewhere tells more.
    let elsewhere = |place: &&usize| match (&rows[row].kind, columns[**place].pod()) {
        (EndKind::Node(node), Some(pod)) => pod.node != Some(*node),
        _ => true,
    };
    table.cells[row][to.members.iter().find(elsewhere).copied().unwrap_or(column)]
}

/// How many names a label spells out.
const SPELT: usize = 3;

/// `shop/web-* (×12)` where that names these pods and no others; else their names, or some of them.
fn label(pods: &[&PodEnd], members: &[usize]) -> String {
    let first = pods[members[0]];
    let names: Vec<&str> = members.iter().map(|place| &*pods[*place].name).collect();
    let namespace = first.namespace;
    if names.len() == 1 {
        return format!("{namespace}/{}", names[0]);
    }
    let stem = stem(&names);
    let others = pods.iter().enumerate().filter(|(place, _)| !members.contains(place));
    let catches = |pod: &&PodEnd| pod.namespace == namespace && pod.name.starts_with(stem);
    if !others.map(|(_, pod)| *pod).any(|pod| catches(&pod)) {
        return format!("{namespace}/{stem}* (×{})", names.len());
    }
    match names.len() {
        n if n <= SPELT => format!("{namespace}/{{{}}} (×{n})", names.join(",")),
        n => format!("{namespace}/{{{},…}} (×{n})", names[..SPELT].join(",")),
    }
}

/// What names begin with in common, up to a hyphen or dot.
fn stem<'a>(names: &[&'a str]) -> &'a str {
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
    fn labels_name_the_group_and_nobody_else() {
        let pods = ["web-7d-a", "web-7d-b", "web-7d-c", "web-9f-a", "web-9f-b", "db-0", "cache"];
        let pods = pods.map(|name| PodEnd {
            namespace: Name::new("shop"),
            name: name.into(),
            node: None,
            profiles: [None, None],
        });
        let pods: Vec<&PodEnd> = pods.iter().collect();
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
