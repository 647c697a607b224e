//! The pods of the daemon, and the settings with which each runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::PluginError;
use super::arguments::Arguments;
use super::kubectl::{self, KubectlError};

/// Labels of the daemon's pods: those of our manifests, and those of kubeadm's DaemonSet with our image.
const SELECTORS: [&str; 2] = ["app.kubernetes.io/name=portcullis", "k8s-app=kube-proxy"];

/// Flags that only the daemon has, which commands do not accept.
const DAEMON_ONLY: [&str; 5] = ["cleanup", "force", "init-only", "once", "write-config-to"];

/// The pods of the daemon by node.
#[derive(Debug)]
pub(super) struct DaemonPods {
    pub(super) pods: BTreeMap<String, DaemonPod>,
}

/// A pod of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DaemonPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) container: String,
    /// The settings of the daemon, as flags.
    pub(super) settings: Vec<String>,
    is_running: bool,
}

impl DaemonPods {
    /// Requests the pods from the API server.
    ///
    /// # Errors
    /// kubectl failed, or there are no pods.
    pub(super) fn find(arguments: &Arguments) -> Result<Self, PluginError> {
        let selectors: Vec<&str> = match &arguments.selector {
            Some(selector) => vec![selector],
            None => SELECTORS.to_vec(),
        };
        for selector in &selectors {
            let namespace = match &arguments.daemon_namespace {
                Some(namespace) => format!("--namespace={namespace}"),
                None => "--all-namespaces".to_owned(),
            };
            let command = ["get", "pods", &namespace, "--selector", selector, "--output", "json"];
            let text = kubectl::output(arguments, &command)?;
            let list: Value = serde_json::from_str(&text).map_err(KubectlError::Unexpected)?;
            let pods = DaemonPods::new(&list, arguments.container.as_deref());
            if !pods.pods.is_empty() {
                return Ok(pods);
            }
        }
        Err(PluginError::NoPods(selectors.join(" or ")))
    }

    /// Returns the pods of a list. Of several on one node, as during an update, the running one counts.
    fn new(list: &Value, container: Option<&str>) -> Self {
        let mut pods = BTreeMap::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let Some((node, pod)) = DaemonPod::new(pod, container) else { continue };
            let known: &mut DaemonPod = pods.entry(node).or_insert_with(|| pod.clone());
            if pod.is_running && !known.is_running {
                *known = pod;
            }
        }
        DaemonPods { pods }
    }

    /// Returns the pod on a node.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn on_node(&self, node: &str) -> Result<&DaemonPod, PluginError> {
        let missing = || PluginError::NoPodOnNode { node: node.to_owned(), known: self.node_names() };
        self.pods.get(node).ok_or_else(missing)
    }

    /// Returns the names of the first nodes.
    pub(super) fn node_names(&self) -> String {
        const SHOWN: usize = 10;
        let mut names: Vec<&str> = self.pods.keys().take(SHOWN).map(String::as_str).collect();
        let more = self.pods.len().saturating_sub(SHOWN).to_string() + " more";
        if self.pods.len() > SHOWN {
            names.push(&more);
        }
        names.join(", ")
    }
}

impl DaemonPod {
    /// Returns a pod with its node; `None` if it has no node yet.
    fn new(pod: &Value, container: Option<&str>) -> Option<(String, DaemonPod)> {
        let text =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
        let container = containers.iter().find(|one| container.is_none_or(|name| one["name"] == *name))?;
        let is_deleted = pod.pointer("/metadata/deletionTimestamp").is_some();
        let node = Some(text("/spec/nodeName")).filter(|node| !node.is_empty())?;
        let daemon = DaemonPod {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            container: container["name"].as_str().unwrap_or_default().to_owned(),
            settings: settings(pod, container),
            is_running: text("/status/phase") == "Running" && !is_deleted,
        };
        Some((node, daemon))
    }

    /// Returns the arguments of `kubectl exec` for a command in this pod.
    pub(super) fn exec_arguments(&self, command: &str, arguments: &[String], has_input: bool) -> Vec<String> {
        let mut words = vec!["exec".to_owned(), format!("--namespace={}", self.namespace), self.name.clone()];
        words.push(format!("--container={}", self.container));
        if has_input {
            words.push("--stdin".to_owned());
        }
        words.extend(["--".to_owned(), "portcullis".to_owned(), command.to_owned()]);
        // `policy matrix` has its settings after both words.
        let (first, rest) = match (command, arguments.split_first()) {
            ("policy", Some((first, rest))) => (Some(first), rest),
            _ => (None, arguments),
        };
        words.extend(first.cloned());
        if crate::config::has_settings(command) {
            words.extend(self.settings.iter().cloned());
        }
        words.extend(rest.iter().cloned());
        words
    }
}

/// Returns the flags of the daemon in a container, with the values of variables, without those that only the daemon has.
fn settings(pod: &Value, container: &Value) -> Vec<String> {
    let words = |key: &str| -> Vec<String> {
        let list = container[key].as_array().into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let (command, arguments) = (words("command"), words("args"));
    let variables = variables(pod, container);
    let mut settings = Vec::new();
    let mut words = command.into_iter().skip(1).chain(arguments).map(|word| expand(&word, &variables));
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default().replace('_', "-");
        if !DAEMON_ONLY.contains(&name.as_str()) {
            settings.push(word);
        } else if name == "write-config-to" && !word.contains('=') {
            words.next();
        }
    }
    settings
}

/// Returns the variables of a container whose values are in the pod.
fn variables(pod: &Value, container: &Value) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let field = variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str);
        let value = match (variable["value"].as_str(), field) {
            (Some(value), _) => Some(value),
            (None, Some(path)) => {
                pod.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str)
            }
            (None, None) => None,
        };
        if let (Some(name), Some(value)) = (variable["name"].as_str(), value) {
            let value = expand(value, &variables);
            variables.insert(name.to_owned(), value);
        }
    }
    variables
}

/// Replaces `$(NAME)` as the kubelet does: `$$` is `$`, and an unknown name stays.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|name| name.split_once(')'));
        match name.and_then(|(name, after)| Some((variables.get(name)?, after))) {
            Some((value, after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, arguments: &[&str]) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"nodeName": "node-1", "containers": [{
                "name": "portcullis",
                "command": ["/usr/local/bin/portcullis", "--config=/etc/portcullis/config.yaml"],
                "args": arguments,
                "env": [
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "PREFIX", "value": "of-$(NODE_NAME)"},
                ],
            }]},
            "status": {"phase": phase},
        })
    }

    #[test]
    fn commands_get_the_settings_of_the_daemon() {
        let arguments = [
            "--hostname-override=$(NODE_NAME)",
            "--v=$$(A)$(UNKNOWN)$(PREFIX)",
            "--once",
            "--write-config-to",
            "a",
            "-v4",
        ];
        let list = json!({"items": [pod("a", "Running", &arguments)]});
        let pods = DaemonPods::new(&list, None);
        let pod = pods.on_node("node-1").expect("it is there");
        assert_eq!(
            pod.settings,
            [
                "--config=/etc/portcullis/config.yaml",
                "--hostname-override=node-1",
                "--v=$(A)$(UNKNOWN)of-node-1",
                "-v4"
            ]
        );
        let words = |command: &str, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
            pod.exec_arguments(command, &arguments, false).join(" ")
        };
        let head = "exec --namespace=kube-system a --container=portcullis -- portcullis";
        let settings = pod.settings.join(" ");
        assert_eq!(words("diff", &["--family", "ipv4"]), format!("{head} diff {settings} --family ipv4"));
        assert_eq!(words("policy", &["matrix", "-n", "a"]), format!("{head} policy matrix {settings} -n a"));
        assert_eq!(words("version", &["-o", "json"]), format!("{head} version -o json"));
    }

    #[test]
    fn of_several_pods_on_a_node_the_running_one_counts() {
        let mut ending = pod("ending", "Running", &[]);
        ending["metadata"]["deletionTimestamp"] = json!("2026-11-30T10:00:00Z");
        let list = json!({"items": [pod("failed", "Failed", &[]), ending, pod("new", "Running", &[]), {"spec": {}}]});
        let pods = DaemonPods::new(&list, None);
        assert_eq!(pods.on_node("node-1").expect("it is there").name, "new");
        let error = pods.on_node("node-2").expect_err("there is none").to_string();
        assert!(error.ends_with("there are some on node-1"), "{error}");
    }
}
