//! Tests of manifest parsing: texts with their documents and errors.

use super::*;

/// `line kind name` for a document, `file:line: message` for an error.
fn read(file: &str, text: &str) -> Vec<String> {
    let show = |result: Result<Document, ManifestError>| match result {
        Ok(d) => {
            let kind = d.kind.map_or("-".to_owned(), |k| k.to_string());
            format!("{} {kind} {}", d.line, d.value["metadata"]["name"].as_str().unwrap_or("?"))
        }
        Err(e) => e.to_string(),
    };
    parse(file, text).map(show).collect()
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n")
}

#[test]
fn documents_have_the_line_they_begin_on() {
    let (a, b, c) = (service("a"), service("b"), service("c"));
    let rows: &[(&str, String, &[&str])] = &[
        ("one", a.clone(), &["1 Service a"]),
        ("nothing", String::new(), &[]),
        ("comments only", "# nothing\n---\n\n# here\n---\n".into(), &[]),
        ("several", format!("---\n{a}---\n{b}---\n{c}"), &["2 Service a", "7 Service b", "12 Service c"]),
        ("comment above", format!("# first\n\n{a}--- # second\n{b}"), &["3 Service a", "8 Service b"]),
        (
            "directive and end marker",
            format!("%YAML 1.2\n---\n{a}...\n---\n{b}"),
            &["3 Service a", "9 Service b"],
        ),
        (
            "windows line ends",
            format!("---\n{a}---\n{b}").replace('\n', "\r\n"),
            &["2 Service a", "7 Service b"],
        ),
        ("byte order mark", format!("\u{feff}{a}"), &["1 Service a"]),
        (
            "content behind the marker",
            "--- {apiVersion: v1, kind: Node, metadata: {name: n1}}\n".into(),
            &["1 Node n1"],
        ),
        ("dashes inside a block are text", format!("{a}data: |\n  ---\n  text\n"), &["1 Service a"]),
        (
            "a kind that we do not use",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n".into(),
            &["1 - d"],
        ),
    ];
    for (case, text, expected) in rows {
        assert_eq!(&read("a.yaml", text), expected, "{case}");
    }
}

#[test]
fn a_bad_document_costs_only_itself() {
    let (a, b) = (service("a"), service("b"));
    let rows: &[(&str, String, &str)] = &[
        ("syntax", "metadata: {name: x\n".into(), "f.yaml:6: malformed YAML"),
        (
            "tab",
            "kind: Service\n\tname: x\n".into(),
            "f.yaml:7: malformed YAML: a tab indents this line, expected spaces",
        ),
        (
            "tab far from where the parser stops",
            "kind: Service\nspec:\n  ports:\n\t- port: 80\n".into(),
            "f.yaml:9: malformed YAML: a tab indents this line, expected spaces",
        ),
        (
            "template",
            "kind: Service\nmetadata:\n  name: {{ .Release.Name }}\n".into(),
            "f.yaml:8: malformed YAML: a template ({{ … }})",
        ),
        (
            "template around a document",
            "{{- if .Values.enabled }}\napiVersion: v1\nkind: Service\n{{- end }}\n".into(),
            "f.yaml:6: malformed YAML: a template ({{ … }})",
        ),
        (
            "template in quotes",
            "apiVersion: v1\nkind: Service\nmetadata: {name: \"{{ .Release.Name }}-web\"}\n".into(),
            "f.yaml:6: metadata.name: a template ({{ … }})",
        ),
        (
            "misspelt kind",
            "apiVersion: v1\nkind: Sevice\nmetadata: {name: x}\n".into(),
            "f.yaml:6: kind: \"Sevice\" is not a kind of v1; did you mean Service?",
        ),
        (
            "kind of another version",
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: x}\n".into(),
            "f.yaml:6: apiVersion: \"discovery.k8s.io/v1beta1\" is not supported for kind EndpointSlice; expected discovery.k8s.io/v1",
        ),
        ("key twice", "kind: Service\nkind: Node\n".into(), "f.yaml:7: malformed YAML"),
        (
            "not an object",
            "- 1\n- 2\n".into(),
            "f.yaml:6: expected an object with apiVersion, kind and metadata",
        ),
        ("no kind", "apiVersion: v1\nmetadata: {name: x}\n".into(), "f.yaml:6: kind is missing"),
        ("no version", "kind: Service\n".into(), "f.yaml:6: apiVersion is missing"),
        (
            "kind of a wrong type",
            "apiVersion: v1\nkind: [Service]\n".into(),
            "f.yaml:6: kind: expected a string, found [\"Service\"]",
        ),
    ];
    for (case, bad, expected) in rows {
        let read = read("f.yaml", &format!("{a}---\n{bad}---\n{b}"));
        assert_eq!(read.len(), 3, "{case}: {read:?}");
        assert_eq!(read[0], "1 Service a", "{case}");
        assert!(read[1].starts_with(expected), "{case}: {}", read[1]);
        assert!(!read[1].contains('\n'), "{case}: an error is one line");
        assert!(read[2].ends_with("Service b"), "{case}");
    }
}

#[test]
fn lists_give_their_items() {
    let plain = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n";
    assert_eq!(read("l.yaml", &format!("---\n{plain}")), ["5 Node n1", "9 Service a"]);
    let typed = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n- metadata: {name: a-1}\n- metadata: {name: a-2}\n";
    assert_eq!(read("l.yaml", typed), ["4 EndpointSlice a-1", "5 EndpointSlice a-2"]);
    assert_eq!(read("l.yaml", "apiVersion: v1\nkind: List\nitems: []\n"), [""; 0]);
    let one_bad = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n- 7\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n2}\n";
    assert_eq!(
        read("l.yaml", one_bad),
        ["4 Node n1", "l.yaml:7: expected an object with apiVersion, kind and metadata", "8 Node n2"]
    );
}

#[test]
fn json_is_read_from_either_kind_of_file() {
    let list = "{\n \"apiVersion\": \"v1\",\n \"kind\": \"ServiceList\",\n \"items\": [\n  {\"metadata\": {\"name\": \"a\"}},\n\n  {\"metadata\": {\"name\": \"b\"}}\n ]\n}\n";
    for file in ["l.json", "l.yaml"] {
        assert_eq!(read(file, list), ["5 Service a", "7 Service b"], "{file}");
    }
    let node = |name: &str| {
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"Node\",\n \"metadata\": {{\"name\": \"{name}\"}}}}\n")
    };
    assert_eq!(read("n.json", &format!("{}\n{}", node("n1"), node("n2"))), ["1 Node n1", "4 Node n2"]);
    assert_eq!(
        read("n.json", &format!("{}{{\"kind\": Service}}\n{}", node("n1"), node("n2"))),
        ["1 Node n1", "n.json:3: malformed JSON: expected value, column 10"]
    );
    assert_eq!(read("n.json", "  \n"), [""; 0]);
}

#[test]
fn text_that_looks_like_another_type_stays_what_kubernetes_takes_it_for() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, ports: [{port: 0x50}, {port: 80}], externalIPs: [10.0.0.1]}\n";
    let documents: Vec<_> = parse("a.yaml", text).collect::<Result<_, _>>().expect("it is well formed");
    let spec = &documents[0].value["spec"];
    assert_eq!(spec["clusterIP"], "None");
    assert_eq!(spec["ports"], serde_json::json!([{"port": 80}, {"port": 80}]));
    assert_eq!(spec["externalIPs"][0], "10.0.0.1");
}

#[test]
fn words_are_booleans_in_boolean_fields_only() {
    let text = "apiVersion: v1\nkind: Service\n\
        metadata: {name: y, namespace: n, labels: {on: yes, ready: no}}\n\
        spec: {publishNotReadyAddresses: yes, selector: {ready: on}}\n\
        items: [{conditions: {ready: off, serving: true}}]\n";
    let value = parse("a.yaml", text).next().expect("a document").expect("it can be read").value;
    let expected = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "y", "namespace": "n", "labels": {"on": "yes", "ready": "no"}},
        "spec": {"publishNotReadyAddresses": true, "selector": {"ready": "on"}},
        "items": [{"conditions": {"ready": false, "serving": true}}],
    });
    assert_eq!(value, expected);
}

/// Returns an object of which an annotation of `size` bytes is used `uses` times.
fn with_aliases(size: usize, uses: usize) -> String {
    let text = "x".repeat(size);
    let uses: String = (0..uses).map(|n| format!("    a{n}: *text\n")).collect();
    format!("{}  annotations:\n    first: &text {text}\n{uses}", service("a"))
}

/// Returns an object in which nine aliases each refer to the level before, in this number of levels.
fn nested_aliases(levels: usize) -> String {
    let mut text = format!("{}extra:\n  l0: &l0 [a, b, c, d, e, f, g, h, i]\n", service("a"));
    for level in 1..=levels {
        let items = vec![format!("*l{}", level - 1); 9].join(", ");
        text.push_str(&format!("  l{level}: &l{level} [{items}]\n"));
    }
    text
}

#[test]
fn aliases_add_a_limited_number_of_values_and_bytes() {
    let rows = [
        (with_aliases(100, 100), ""),
        // 140 kB that would take 1.4 GB.
        (
            with_aliases(70_000, 20_000),
            "its aliases expand to too much, expected at most 10000 values and 1 MiB of text",
        ),
        (nested_aliases(2), ""),
        (nested_aliases(8), "its aliases expand to too much"),
        // Without aliases, only the size of the file is limited.
        (format!("{}items: [{}]\n", service("a"), "1, ".repeat(50_000)), ""),
    ];
    for (text, expected) in rows {
        let found = read("big.yaml", &format!("---\n{}---\n{text}", service("before")));
        assert_eq!(found[0], "2 Service before");
        match expected {
            "" => assert_eq!(found[1], "7 Service a"),
            _ => assert!(found[1].starts_with("big.yaml:") && found[1].contains(expected), "{}", found[1]),
        }
    }
}

#[test]
fn documents_of_a_file_are_limited() {
    for (file, document) in [("a.yaml", "---\na\n"), ("a.json", "1\n")] {
        let found = read(file, &document.repeat(MAX_DOCUMENTS + 5));
        assert_eq!(found.len(), 1, "nothing of the file is read");
        assert!(found[0].contains("expected at most 200000 documents in a file"), "{}", found[0]);
    }
}

#[test]
fn lines_of_messages_are_those_of_the_file() {
    let malformed = "a: 1\nb: 2\n  c: 3\n";
    let found = read("a.yaml", &format!("---\n{}---\n{malformed}", service("a")));
    assert!(found[1].starts_with("a.yaml:9: malformed YAML"), "{}", found[1]);
    assert!(!found[1].contains("line 3"), "a line of the document: {}", found[1]);
}
