//! `portcullis policy matrix` and `portcullis explain` against the truth tables of the policy fixtures, cell by cell. The
//! advice of an explanation must allow the connection.

#[path = "../policy/tests/corpus/mod.rs"]
mod corpus;

use std::collections::BTreeMap;

use corpus::{Case, Cell, Step};
use libtest_mimic::{Arguments, Trial};
use portcullis::commands::explain::{self, ExplainResult};
use portcullis::commands::policy;
use portcullis::config::{AddressFamily, Config, Explain, Matrix, OutputFormat};
use portcullis_cluster::{Event, Family, Index, Kind, NamespacedName, Object, ObjectKey, Protocol};
use serde_json::{Value, json};

/// The objects of a cluster.
struct Cluster {
    index: Index,
    /// The manifests, to which advice is applied.
    objects: BTreeMap<ObjectKey, Value>,
    config: Config,
}

impl Cluster {
    fn from_objects(objects: &[Value]) -> Self {
        let mut cluster =
            Cluster { index: Index::new(), objects: BTreeMap::new(), config: Config::default() };
        objects.iter().for_each(|object| cluster.apply(object));
        cluster
    }

    fn apply(&mut self, object: &Value) {
        let word = |field: &str| object[field].as_str().expect("a whole object");
        let kind = Kind::from_api(word("apiVersion"), word("kind")).expect("a kind that counts");
        let parsed = Object::parse(kind, object.clone()).expect("a well-formed object");
        self.objects.insert(parsed.object.key(), object.clone());
        self.index.handle(Event::Applied(parsed.object));
    }

    fn step(&mut self, step: &Step) {
        step.apply.iter().for_each(|object| self.apply(object));
        for gone in &step.delete {
            let kind =
                Kind::ALL.into_iter().find(|kind| kind.as_str() == gone.kind).expect("a kind that counts");
            let name = NamespacedName::new(&gone.namespace, &gone.name);
            self.index.handle(Event::Deleted(ObjectKey { kind, name }));
        }
    }

    fn matrix(&self, ports: &[String]) -> Value {
        let arguments = Matrix { ports: ports.to_vec(), output: OutputFormat::Json, ..all_pods() };
        let mut out = Vec::new();
        policy::matrix_of_index(&self.config, &self.index, &arguments, &mut out).expect("a matrix");
        serde_json::from_slice(&out).expect("JSON")
    }

    fn explain(&self, cell: &Cell<'_>) -> (bool, Value) {
        let arguments = Explain {
            from: format!("pod/{}", cell.from),
            to: format!("pod/{}:{}/{}", cell.to, cell.port, cell.protocol),
            family: Some(if cell.family == Family::V4 { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 }),
            output: OutputFormat::Json,
            ..Explain::default()
        };
        let mut out = Vec::new();
        let result =
            explain::explain_index(&self.config, &self.index, &arguments, &mut out).expect("an explanation");
        let arrives = result == ExplainResult::Predicted { arrives: true };
        (arrives, serde_json::from_slice(&out).expect("JSON"))
    }

    /// Applies the advice of an explanation.
    fn apply_advice(&mut self, connection: &Value) {
        for advice in connection["advice"].as_array().expect("a list") {
            let yaml = |field: &str| -> Option<Value> {
                advice[field].as_str().map(|text| serde_saphyr::from_str(text).expect("well-formed advice"))
            };
            if let Some(manifest) = yaml("manifest") {
                self.apply(&manifest);
            } else if let Some(rule) = yaml("rule") {
                let direction = advice["direction"].as_str().expect("a direction");
                let decided = &connection["paths"][0][direction]["rule"];
                self.insert(decided, direction, &rule[0]);
            }
        }
    }

    /// Inserts a rule of a ClusterNetworkPolicy before another rule.
    fn insert(&mut self, before: &Value, direction: &str, rule: &Value) {
        let name = before["policy"].as_str().and_then(|name| name.strip_prefix("ClusterNetworkPolicy "));
        let name = name.expect("only these have rules that deny").to_owned();
        let place = before["place"].as_str().and_then(|place| place.split(['[', ']']).nth(1));
        let place: usize = place.and_then(|place| place.parse().ok()).expect("spec.ingress[N]");
        let key = ObjectKey { kind: Kind::ClusterNetworkPolicy, name: NamespacedName::new("", &name) };
        let mut policy = self.objects[&key].clone();
        policy["spec"][direction].as_array_mut().expect("rules").insert(place, rule.clone());
        self.apply(&policy);
    }
}

/// Returns the command for a matrix of all pods and ports.
fn all_pods() -> Matrix {
    Matrix {
        namespaces: Vec::new(),
        selector: None,
        ports: Vec::new(),
        external: Vec::new(),
        family: None,
        no_group: false,
        output: OutputFormat::Text,
    }
}

/// Returns the cells of a printed matrix by family, port, source and destination.
fn cells_of(matrix: &Value) -> BTreeMap<(Family, String, String, String), char> {
    let columns = matrix["columns"].as_array().expect("columns");
    let mut cells = BTreeMap::new();
    for table in matrix["tables"].as_array().expect("tables") {
        for sort in table["connections"].as_array().expect("connections") {
            let family = if sort["family"] == "IPv4" { Family::V4 } else { Family::V6 };
            let port = format!("{}/{}", sort["port"], sort["protocol"].as_str().expect("a protocol"));
            for row in table["rows"].as_array().expect("rows") {
                let from = row["from"].as_str().expect("a name");
                for (cell, to) in row["to"].as_str().expect("characters").chars().zip(columns) {
                    let to = to.as_str().expect("a name").to_owned();
                    cells.insert((family, port.clone(), from.to_owned(), to), cell);
                }
            }
        }
    }
    cells
}

fn name(port: u16, protocol: Protocol) -> String {
    format!("{port}/{protocol}")
}

fn check_matrix(cluster: &Cluster, step: &Step, place: &str) {
    let expected = step.expect.cells();
    let mut ports: Vec<String> = expected.iter().map(|cell| name(cell.port, cell.protocol)).collect();
    ports.sort();
    ports.dedup();
    let found = cells_of(&cluster.matrix(&ports));
    for cell in &expected {
        let port = name(cell.port, cell.protocol);
        let key = (cell.family, port, cell.from.to_owned(), cell.to.to_owned());
        assert_eq!(found.get(&key), Some(&cell.expected), "{place}: {key:?}");
    }
}

/// Explains a cell, applies the advice if it is denied, and explains it again.
fn check_explanation(cluster: &mut Cluster, cell: &Cell<'_>, place: &str) {
    let (arrives, answer) = cluster.explain(cell);
    let connection = &answer["connections"][0];
    let ends = ["egress", "ingress"].map(|end| connection["paths"][0][end]["allowed"] != json!(false));
    let found = match (connection.is_null(), ends) {
        (true, _) => '-',
        (_, [true, true]) => '.',
        (_, [false, true]) => 'E',
        (_, [true, false]) => 'I',
        (_, [false, false]) => 'B',
    };
    let about = format!("{place}: {} → {} {}/{}", cell.from, cell.to, cell.port, cell.protocol);
    assert_eq!((found, arrives), (cell.expected, cell.expected == '.'), "{about}: {answer:#}");
    if matches!(found, 'E' | 'I' | 'B') {
        cluster.apply_advice(connection);
        let (arrives, after) = cluster.explain(cell);
        assert!(arrives, "{about}: still denied after the advice: {answer:#} {after:#}");
    }
}

/// Checks all matrices of a case, and one or two explanations.
fn check_case(objects: &[Value], case: &Case, turn: usize) {
    let mut cluster = Cluster::from_objects(objects);
    for (n, step) in case.steps.iter().enumerate() {
        let place = format!("{} step {}", case.name, n + 1);
        cluster.step(step);
        check_matrix(&cluster, step, &place);
        if n + 1 == case.steps.len() {
            let all = step.expect.cells();
            let (denied, other): (Vec<_>, Vec<_>) =
                all.iter().partition(|cell| "IEB".contains(cell.expected));
            let sample = |cells: &[&Cell<'_>]| (!cells.is_empty()).then(|| (turn * 7919) % cells.len());
            // Denied cells come last, as their advice changes the cluster.
            for (cells, at) in [(&other, sample(&other)), (&denied, sample(&denied))] {
                if let Some(at) = at {
                    check_explanation(&mut cluster, cells[at], &place);
                }
            }
        }
    }
}

/// Returns a cluster of 3,000 pods: Deployments and StatefulSets in 60 namespaces, each with its own policies.
fn large_cluster() -> Cluster {
    let mut objects = Vec::new();
    for node in 0..10 {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{node}")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{}", node + 1)}]},
        }));
    }
    for namespace in 0..60 {
        let name = format!("team-{namespace}");
        for pod in 0..50 {
            let app = pod / 10;
            let own = match app {
                0 => json!({"app": "db", "statefulset.kubernetes.io/pod-name": format!("db-{pod}")}),
                _ => json!({"app": format!("app-{app}"), "pod-template-hash": format!("{namespace}x{app}")}),
            };
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("app-{app}-{pod}"), "namespace": name, "labels": own},
                "spec": {"nodeName": format!("node-{}", pod % 10), "containers": [{"name": "c", "ports": [
                    {"name": "http", "containerPort": 8000 + app}, {"name": "metrics", "containerPort": 9090},
                ]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.{namespace}.{app}.{}", pod + 1)}]},
            }));
        }
        for app in 1..5 {
            objects.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": format!("app-{app}"), "namespace": name},
                "spec": {"podSelector": {"matchLabels": {"app": format!("app-{app}")}}, "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": format!("app-{}", app - 1)}}}], "ports": [{"port": "http"}]},
                ]},
            }));
        }
    }
    Cluster::from_objects(&objects)
}

fn matrix_of_a_large_cluster_is_bounded_in_size_and_time() {
    let cluster = large_cluster();
    // Namespaces, expected number of row groups, expected note
    for (namespaces, groups, note) in [
        (vec![], 100, Some("groups of pods, with 2000 pods, are omitted")),
        (vec!["team-7".to_owned()], 5, None),
    ] {
        let arguments = Matrix { namespaces, ports: Vec::new(), output: OutputFormat::Text, ..all_pods() };
        let (mut out, started) = (Vec::new(), std::time::Instant::now());
        policy::matrix_of_index(&cluster.config, &cluster.index, &arguments, &mut out).expect("a matrix");
        let (text, took) = (String::from_utf8(out).expect("it prints UTF-8"), started.elapsed());
        assert!(took.as_secs() < 60, "it took {took:?}");
        assert!(text.lines().count() < 1_000, "{} lines", text.lines().count());
        let rows = text.lines().take_while(|line| !line.is_empty()).filter(|line| line.contains("team-"));
        assert_eq!(rows.count(), groups, "{text}");
        assert_eq!(note.is_some(), text.contains("are omitted"), "{text}");
        assert!(note.is_none_or(|note| text.contains(note)), "{text}");
    }
    for arguments in [
        Matrix { no_group: true, output: OutputFormat::Text, ..all_pods() },
        Matrix { output: OutputFormat::Json, ..all_pods() },
    ] {
        let result = policy::matrix_of_index(&cluster.config, &cluster.index, &arguments, &mut Vec::new());
        let message = result.expect_err("3,000 rows are too many").to_string();
        assert!(message.contains("3000 pods") && message.contains("--namespace"), "{message}");
    }
}

/// One test for each case.
fn main() {
    let mut trials = vec![Trial::test("matrix_of_a_large_cluster_is_bounded_in_size_and_time", || {
        matrix_of_a_large_cluster_is_bounded_in_size_and_time();
        Ok(())
    })];
    for (folder, at_least) in [(corpus::NETWORK_POLICY, 400_000), (corpus::CLUSTER_NETWORK_POLICY, 36_000)] {
        trials.extend(corpus::case_names(folder).into_iter().enumerate().map(|(turn, name)| {
            Trial::test(format!("{folder}::{name}"), move || {
                check_case(&corpus::cluster(folder), &corpus::case(folder, &name), turn);
                Ok(())
            })
        }));
        trials.push(Trial::test(format!("totals::{folder}"), move || {
            let corpus = corpus::read(folder);
            let steps = corpus.cases.iter().flat_map(|case| &case.steps);
            let cells: usize = steps.map(|step| step.expect.cells().len()).sum();
            assert!(cells >= at_least, "only {cells} cells");
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
