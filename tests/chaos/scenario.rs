//! A scenario: how the daemon starts, and steps. Its file is YAML with one step per line.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::step::{Mode, Step};

/// Variant of the iptables tools on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Tools {
    Nft,
    Legacy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The fault that it has shown, for rows in `fixtures/chaos`.
    #[serde(default)]
    pub(crate) note: String,
    /// The seed that generated it; it also selects the sampled connections.
    pub(crate) seed: u64,
    /// The first mode of the daemon.
    pub(crate) mode: Mode,
    pub(crate) tools: Tools,
    /// Policies are enforced.
    pub(crate) policies: bool,
    pub(crate) steps: Vec<Step>,
}

impl Scenario {
    /// Returns true if it needs a kernel with IPVS.
    pub(crate) fn needs_ipvs(&self) -> bool {
        self.mode == Mode::Ipvs || self.steps.contains(&Step::Start(Mode::Ipvs))
    }

    pub(crate) fn read(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value: serde_json::Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Returns the text of its file.
    pub(crate) fn to_yaml(&self) -> String {
        let json = |value: &dyn erased::Json| value.json();
        let mut text = String::new();
        let header: [(&str, &dyn erased::Json); 5] = [
            ("note", &self.note),
            ("seed", &self.seed),
            ("mode", &self.mode),
            ("tools", &self.tools),
            ("policies", &self.policies),
        ];
        for (name, value) in header {
            writeln!(text, "{name}: {}", json(value)).expect("a string can be written to");
        }
        text.push_str("steps:\n");
        for step in &self.steps {
            // JSON is YAML's flow style.
            writeln!(text, "- {}", json(step)).expect("a string can be written to");
        }
        text
    }
}

/// Values of different types in one list.
mod erased {
    pub(super) trait Json {
        fn json(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).expect("its maps have only strings for keys")
        }
    }
}
