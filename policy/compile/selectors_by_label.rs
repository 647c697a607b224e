//! Label selectors by a label that they require, so that only a few of thousands are evaluated for an object.

use std::collections::{BTreeSet, HashMap};

use portcullis_cluster::Name;
use portcullis_cluster::label_selector::{LabelSelector, LabelSelectorOperator};
use portcullis_cluster::labels::Labels;

/// Selectors, each with a value.
pub(super) struct SelectorsByLabel<'a, T> {
    /// Selectors that require one of several values of a label, by each of the labels.
    required: HashMap<(&'a Name, &'a Name), Vec<(&'a LabelSelector, T)>>,
    others: Vec<(&'a LabelSelector, T)>,
}

impl<'a, T: Copy + Ord> SelectorsByLabel<'a, T> {
    pub(super) fn new(selectors: impl IntoIterator<Item = (&'a LabelSelector, T)>) -> Self {
        let mut this = SelectorsByLabel { required: HashMap::new(), others: Vec::new() };
        for (selector, value) in selectors {
            let mut requirements = selector.requirements().iter();
            match requirements.find(|requirement| requirement.operator == LabelSelectorOperator::In) {
                Some(requirement) => {
                    for label in &requirement.values {
                        let of_label = this.required.entry((&requirement.key, label)).or_default();
                        of_label.push((selector, value));
                    }
                }
                None => this.others.push((selector, value)),
            }
        }
        this
    }

    pub(super) fn is_empty(&self) -> bool {
        self.required.is_empty() && self.others.is_empty()
    }

    /// Returns the values of all selectors that match labels.
    pub(super) fn matching(&self, labels: &Labels) -> BTreeSet<T> {
        let by_label = labels.pairs().iter().filter_map(|(key, value)| self.required.get(&(key, value)));
        let all = by_label.flatten().chain(&self.others);
        all.filter(|(selector, _)| selector.matches(labels)).map(|(_, value)| *value).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portcullis_cluster::{Event, Index, Kind, Object};
    use serde_json::{Value, json};

    use super::*;

    fn selector(text: &str) -> LabelSelector {
        let selector: Value = serde_json::from_str(text).expect("a row of this table");
        let policy = json!({"metadata": {"namespace": "x", "name": "p"}, "spec": {"podSelector": selector}});
        let mut index = Index::new();
        let policy = Object::parse(Kind::NetworkPolicy, policy).expect("a policy");
        index.handle(Event::Applied(policy.object));
        index.network_policies().next().expect("it was added").pod_selector.clone()
    }

    #[test]
    fn matching_selectors_are_those_that_match_one_by_one() {
        let selectors = [
            r#"{}"#,
            r#"{"matchLabels": {"app": "web"}}"#,
            r#"{"matchLabels": {"app": "db", "tier": "back"}}"#,
            r#"{"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}"#,
            r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}"#,
            r#"{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}"#,
            r#"{"matchExpressions": [{"key": "app", "operator": "Near"}]}"#,
        ];
        let selectors: Vec<LabelSelector> = selectors.map(selector).into();
        let index = SelectorsByLabel::new(selectors.iter().zip(0..));
        let rows: [&[(&str, &str)]; 5] = [
            &[],
            &[("app", "web")],
            &[("app", "db")],
            &[("app", "db"), ("tier", "back")],
            &[("tier", "web")],
        ];
        for row in rows {
            let labels: BTreeMap<String, String> =
                row.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let labels = Labels::from(labels);
            let one_by_one = (0..selectors.len()).filter(|at| selectors[*at].matches(&labels));
            assert_eq!(index.matching(&labels), one_by_one.collect(), "{row:?}");
        }
    }
}
