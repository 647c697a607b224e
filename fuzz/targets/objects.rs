//! Objects of the API, and the rules that follow from them.

use portcullis_cluster::desired::Desired;
use portcullis_cluster::object::{ObjectError, parse_text};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_modes::iptables::RuleSet;
use portcullis_modes::{ipvs, nftables};
use portcullis_policy::table::{PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::Value;

use super::sample_cluster::{node, options};

/// Parses a sequence of JSON objects, and renders the rules of the cluster that they make in all modes.
pub(crate) fn cluster(input: &[u8]) {
    let mut index = Index::new();
    for value in serde_json::Deserializer::from_slice(input).into_iter::<Value>() {
        // Everything after malformed JSON is lost, as in a file.
        let Ok(value) = value else { break };
        for event in parse(&value) {
            index.handle(event);
        }
    }
    let text = input.len();
    let desired = Desired::from_index(&index, Name::new("node-a"));
    // Rules grow with the product of ports, addresses and endpoints, which limits of their own bound.
    if desired.ports().map(|port| port.endpoints.total() + 1).sum::<usize>() > text {
        return;
    }
    let (options, node) = (options(), node());
    for family in Family::BOTH {
        let _ = RuleSet::render(&desired, family, &options, &node).to_string();
        let _ = nftables::render(&desired, family, &options, &node).to_string();
    }
    let ipvs_options = ipvs::IpvsOptions::default();
    let objects = ipvs::IpvsObjects::render(&desired, &Family::BOTH, &ipvs_options, &options, &node);
    let _ = (objects.ipvsadm().to_string(), objects.ipset().to_string());
    let compiler = Compiler::from_index(Scope::Node(Name::new("node-a")), &index);
    let table = PolicyTable::from_compiled(PolicyOptions::default(), compiler.compiled());
    let _ = (table.table().desired().to_string(), table.bridge().desired().to_string());
}

/// Returns the events of an object; of one without a known kind, as an object of every kind.
pub(super) fn parse(value: &Value) -> Vec<Event> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let kinds = match Kind::from_api(text("apiVersion"), text("kind")) {
        Some(kind) => vec![kind],
        None => Kind::ALL.to_vec(),
    };
    let text = value.to_string();
    let parsed = kinds.into_iter().map(|kind| {
        let parsed = Object::parse(kind, value.clone());
        if let Some(from_text) = parse_text(kind, text.as_bytes()) {
            assert_eq!(parsed.as_ref(), Ok(&from_text), "the text is parsed differently");
        }
        parsed
    });
    parsed
        .filter_map(|result| match result {
            Ok(parsed) => {
                for problem in &parsed.problems {
                    assert!(!problem.field.is_empty(), "{problem}");
                }
                Some(Event::Applied(parsed.object))
            }
            Err(error) => {
                let named = match &error {
                    ObjectError::Field { field, .. } => !field.is_empty(),
                    _ => true,
                };
                let length = error.to_string().chars().count();
                assert!(named && (1..2_000).contains(&length), "{error:?} does not name a field, or is long");
                None
            }
        })
        .collect()
}
