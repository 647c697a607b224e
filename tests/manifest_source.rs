//! The manifest source: folders and files that are changed in all usual ways.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::source::{self, KindStatus, Source, SourceConfig, read_manifests};
use portcullis_cluster::{Event, Kind, Object};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The longest wait for an event or a condition.
const TIMEOUT: Duration = Duration::from_secs(15);

struct TestSource {
    source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    waiting: VecDeque<String>,
}

impl TestSource {
    async fn start(path: &Path) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let origin = SourceConfig::Manifests { path: path.to_owned() };
        let source = source::spawn(origin, sink).await.expect("manifests need no access");
        TestSource { source, batches, waiting: VecDeque::new() }
    }

    async fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let batch = timeout(TIMEOUT, self.batches.recv())
                .await
                .expect("an event comes")
                .expect("the source runs");
            self.waiting.extend(batch.iter().map(describe));
        }
        self.waiting.pop_front().expect("the loop above filled it")
    }

    /// Returns the objects of the first list, and asserts that it lists every kind.
    async fn list(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        let last = Kind::ALL.last().map(|kind| format!("{kind})"));
        while events.last() != last.as_ref() {
            events.push(self.next().await);
        }
        for kind in Kind::ALL {
            assert!(
                events.contains(&format!("({kind}")) && events.contains(&format!("{kind})")),
                "{events:?}"
            );
        }
        events.retain(|event| event.starts_with('+'));
        events
    }

    #[track_caller]
    fn expect<'a>(&'a mut self, expected: &'a [&str]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for expected_event in expected {
                assert_eq!(&self.next().await, expected_event, "of {expected:?}, expected at {caller}");
            }
        }
    }

    async fn expect_no_events(&mut self) {
        assert_eq!(self.waiting, [""; 0]);
        let received = timeout(Duration::from_millis(400), self.batches.recv()).await;
        assert!(received.is_err(), "{received:?}");
    }

    fn status(&self, kind: Kind) -> KindStatus {
        self.source
            .health()
            .snapshot()
            .into_iter()
            .find(|status| status.kind == kind)
            .expect("all kinds are followed")
    }

    async fn eventually(&self, what: &str, holds: impl Fn(KindStatus) -> bool) {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while !holds(self.status(Kind::Service)) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never: {what}; {:?}",
                self.status(Kind::Service)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// `+a=1` is Service `a` with port 1.
fn describe(event: &Event) -> String {
    match event {
        Event::Applied(object) => describe_object(object),
        Event::Unreadable(key) => format!("={}", key.name.name),
        Event::Deleted(key) => format!("-{}", key.name.name),
        Event::ListStarted(kind) => format!("({kind}"),
        Event::Listed(kind) => format!("{kind})"),
    }
}

fn describe_object(object: &Object) -> String {
    let name = object.key().name.name;
    match object {
        Object::Service(service) => {
            format!("+{name}={}", service.ports.first().map_or(0, |port| port.port.into()))
        }
        _ => format!("+{name}"),
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )
}

/// Creates a folder with these files.
fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|(name, text)| write(folder.path(), name, text));
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("the folder can be written");
}

/// Replaces a file by renaming a new one.
fn replace(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!(".{name}.new"));
    fs::write(&new, text).expect("the folder can be written");
    fs::rename(new, folder.join(name)).expect("a file can be renamed");
}

#[tokio::test]
async fn folder_is_listed_and_then_only_changes_are_sent() {
    let folder = folder(&[
        ("b.yaml", service("b", 1) + &service("c", 1)),
        ("a.yml", service("a", 1)),
        ("n.json", r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}"#.into()),
        (
            "config.yaml",
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n".into(),
        ),
        (".hidden.yaml", service("hidden", 1)),
        ("notes.txt", service("text", 1)),
        ("b.yaml~", service("backup", 1)),
    ]);
    fs::create_dir(folder.path().join("within.yaml")).expect("the folder can be written");
    let mut source = TestSource::start(folder.path()).await;
    assert_eq!(source.list().await, ["+a=1", "+b=1", "+c=1", "+n1"]);
    source.eventually("it is synced", |status| status.synced && status.error.is_none()).await;
    assert!(source.source.health().synced());

    write(folder.path(), "b.yaml", &(service("b", 1) + &service("c", 2)));
    source.expect(&["+c=2"]).await;
    replace(folder.path(), "b.yaml", &(service("c", 2) + &service("b", 3)));
    source.expect(&["+b=3"]).await;
    write(folder.path(), "d.yaml", &service("d", 1));
    source.expect(&["+d=1"]).await;
    fs::remove_file(folder.path().join("a.yml")).expect("it is there");
    source.expect(&["-a"]).await;
    fs::rename(folder.path().join("b.yaml"), folder.path().join("z.yaml")).expect("it is there");
    source.expect_no_events().await;
    write(folder.path(), ".z.yaml.swp", &service("b", 9));
    write(folder.path(), "notes.txt", "");
    source.expect_no_events().await;
    assert_eq!(source.status(Kind::Service).lists, 1);
}

#[tokio::test]
async fn single_file_is_followed_however_it_is_written() {
    let folder = folder(&[("web.conf", service("a", 1)), ("other.yaml", service("other", 1))]);
    let file = folder.path().join("web.conf");
    let mut source = TestSource::start(&file).await;
    assert_eq!(source.list().await, ["+a=1"]);
    write(folder.path(), "web.conf", &service("a", 2));
    source.expect(&["+a=2"]).await;
    for port in 3..6 {
        replace(folder.path(), "web.conf", &service("a", port));
        source.expect(&[&format!("+a={port}")]).await;
    }
    // While the file does not exist, its objects stay.
    fs::remove_file(&file).expect("it is there");
    source
        .eventually("the health names it", |status| {
            status.error.is_some_and(|error| error.contains("web.conf"))
        })
        .await;
    write(folder.path(), "web.conf", &(service("a", 5) + &service("b", 1)));
    source.expect(&["+b=1"]).await;
    source.eventually("no error remains", |status| status.error.is_none()).await;
}

#[tokio::test]
async fn mounted_config_map_is_replaced_atomically() {
    let folder = folder(&[]);
    let version = |number: u32, port: u16| {
        let name = format!("..2026_{number}");
        fs::create_dir(folder.path().join(&name)).expect("the folder can be written");
        write(&folder.path().join(&name), "web.yaml", &service("a", port));
        symlink(&name, folder.path().join("..data_tmp")).expect("the folder can be written");
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"))
            .expect("a link can be renamed");
    };
    version(1, 1);
    symlink("..data/web.yaml", folder.path().join("web.yaml")).expect("the folder can be written");
    for path in [folder.path().to_owned(), folder.path().join("web.yaml")] {
        let mut source = TestSource::start(&path).await;
        let port =
            source.list().await.concat().trim_start_matches("+a=").parse::<u16>().expect("one Service");
        version(u32::from(port) + 1, port + 1);
        source.expect(&[&format!("+a={}", port + 1)]).await;
        version(u32::from(port) + 2, port + 2);
        source.expect(&[&format!("+a={}", port + 2)]).await;
    }
}

#[tokio::test]
async fn folder_may_be_created_deleted_and_replaced() {
    let parent = folder(&[]);
    let path: PathBuf = parent.path().join("deep/manifests");
    let mut source = TestSource::start(&path).await;
    source
        .eventually("the health names it", |status| {
            status.error.is_some_and(|error| error.contains("deep/manifests"))
        })
        .await;
    assert!(!source.source.health().synced(), "nothing is listed yet");
    fs::create_dir_all(&path).expect("the folder can be written");
    assert_eq!(source.list().await, [""; 0]);
    write(&path, "a.yaml", &service("a", 1));
    source.expect(&["+a=1"]).await;

    fs::rename(&path, parent.path().join("old")).expect("it is there");
    source.eventually("the health names it", |status| status.error.is_some()).await;
    fs::create_dir(&path).expect("the folder can be written");
    write(&path, "b.yaml", &service("b", 1));
    let mut events = [source.next().await, source.next().await];
    events.sort();
    assert_eq!(events, ["+b=1", "-a"]);
    write(&path, "b.yaml", &service("b", 2));
    source.expect(&["+b=2"]).await;

    // A link to another folder.
    let other = folder(&[("c.yaml", service("c", 1))]);
    fs::rename(&path, parent.path().join("older")).expect("it is there");
    symlink(other.path(), &path).expect("the folder can be written");
    let mut events = [source.next().await, source.next().await];
    events.sort();
    assert_eq!(events, ["+c=1", "-b"]);
    write(other.path(), "c.yaml", &service("c", 2));
    source.expect(&["+c=2"]).await;
}

#[tokio::test]
async fn unreadable_document_is_reported_and_keeps_its_last_readable_version() {
    let good = service("a", 1) + &service("b", 1);
    // The invalid file; the error that is reported; the events of the other documents.
    let rows: &[(&str, String, &str, &[&str])] = &[
        (
            "a field of a wrong type",
            service("a", 2) + &service("b", 1).replace("- port: 1", "- port: many"),
            "web.yaml:10: Service default/b: field spec.ports[0].port",
            &["+a=2"],
        ),
        ("malformed", service("a", 2) + "---\nkind: [Service\n", "web.yaml:10: malformed YAML", &["+a=2"]),
        (
            "no name",
            service("a", 2) + &service("b", 1).replace("name", "nam"),
            "web.yaml:10: Service: metadata.name is missing",
            &["+a=2"],
        ),
        (
            "the first one malformed",
            "a: }\n".to_owned() + &service("b", 2),
            "web.yaml:1: malformed YAML",
            &["+b=2"],
        ),
        ("all of it", "{{{".to_owned(), "web.yaml:1: malformed YAML", &[]),
    ];
    for (case, invalid, error, events) in rows {
        let folder = folder(&[("web.yaml", good.clone()), ("x.yaml", service("x", 1))]);
        let mut source = TestSource::start(folder.path()).await;
        assert_eq!(source.list().await, ["+a=1", "+b=1", "+x=1"], "{case}");
        replace(folder.path(), "web.yaml", invalid);
        source.expect(events).await;
        let has_error = |status: KindStatus| status.error.is_some_and(|found| found.contains(error));
        source.eventually(&format!("{case}: the health has {error:?}"), has_error).await;
        source.expect_no_events().await;
        // Other files are followed meanwhile, and changes are sent once the file is valid.
        write(folder.path(), "x.yaml", &service("x", 2));
        source.expect(&["+x=2"]).await;
        replace(folder.path(), "web.yaml", &service("b", 3));
        source.expect(&["-a", "+b=3"]).await;
        source
            .eventually("no error remains", |status| status.error.is_none() && status.unreadable == 0)
            .await;
    }
}

#[tokio::test]
async fn objects_of_a_deleted_file_are_deleted_even_if_it_was_invalid() {
    let folder = folder(&[("web.yaml", service("a", 1))]);
    let mut source = TestSource::start(folder.path()).await;
    source.list().await;
    write(folder.path(), "web.yaml", "{{{");
    source.eventually("the health has the error", |status| status.error.is_some()).await;
    source.expect_no_events().await;
    fs::remove_file(folder.path().join("web.yaml")).expect("it is there");
    source.expect(&["-a"]).await;
}

#[tokio::test]
async fn last_manifest_of_an_object_is_used() {
    let folder = folder(&[("1.yaml", service("a", 1)), ("2.yaml", service("a", 2))]);
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(describe_object).collect::<Vec<_>>(), ["+a=2"]);
    let warning = read.warnings[0].to_string();
    assert!(warning.contains("2.yaml:2") && warning.contains("1.yaml:2"), "{warning}");

    let mut source = TestSource::start(folder.path()).await;
    assert_eq!(source.list().await, ["+a=2"]);
    write(folder.path(), "3.yaml", &service("b", 1));
    source.expect(&["+b=1"]).await;
    write(folder.path(), "1.yaml", &service("a", 9));
    source.expect_no_events().await;
    fs::remove_file(folder.path().join("2.yaml")).expect("it is there");
    source.expect(&["+a=9"]).await;
}

#[tokio::test]
async fn only_the_changed_object_of_a_list_is_sent() {
    let list = |ports: [u16; 3]| {
        let item = |(name, port): (&str, u16)| {
            format!(
                "{{\"metadata\": {{\"name\": \"{name}\"}}, \"spec\": {{\"ports\": [{{\"port\": {port}}}]}}}}"
            )
        };
        let items: Vec<String> = ["a", "b", "c"].into_iter().zip(ports).map(item).collect();
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"ServiceList\", \"items\": [{}]}}", items.join(",\n"))
    };
    let folder = folder(&[("l.json", list([1, 1, 1]))]);
    let mut source = TestSource::start(folder.path()).await;
    assert_eq!(source.list().await, ["+a=1", "+b=1", "+c=1"]);
    replace(folder.path(), "l.json", &list([1, 2, 1]));
    source.expect(&["+b=2"]).await;
    source.expect_no_events().await;
}

#[tokio::test]
async fn invalid_fields_are_counted() {
    let invalid = service("a", 1).replace("spec:\n", "spec:\n  clusterIP: nonsense\n");
    let folder = folder(&[("web.yaml", invalid.clone())]);
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!((read.objects.len(), read.problems.len(), read.errors.len()), (1, 1, 0), "{read:?}");
    assert!(read.problems[0].1.value.contains("nonsense"), "{:?}", read.problems);
    let mut source = TestSource::start(folder.path()).await;
    assert_eq!(source.list().await, ["+a=1"]);
    source.eventually("it is counted", |status| status.with_problems == 1).await;
    // Still counted when it is not parsed again.
    write(folder.path(), "x.yaml", &service("x", 1));
    source.expect(&["+x=1"]).await;
    source.eventually("it is counted", |status| status.with_problems == 1).await;
}

#[test]
fn reading_once_returns_all_errors() {
    let folder = folder(&[
        ("a.yaml", service("a", 1) + "---\n7\n" + &service("b", 1)),
        ("b.json", "{\"kind\": }".into()),
        ("c.yaml", service("c", 1) + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"),
    ]);
    fs::write(folder.path().join("d.yaml"), b"a: 1\nb: \xff\n").expect("the folder can be written");
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(describe_object).collect::<Vec<_>>(), ["+a=1", "+b=1", "+c=1"]);
    assert_eq!(read.ignored.iter().collect::<Vec<_>>(), ["apps/v1 Deployment"]);
    let errors: Vec<String> = read.errors.iter().map(ToString::to_string).collect();
    let expected = ["a.yaml:10: expected an object", "b.json:1: malformed JSON", "d.yaml:2: invalid UTF-8"];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error:?} does not have {expected:?}");
    }

    let error = read_manifests(&folder.path().join("none")).expect_err("there is no such path").to_string();
    assert!(error.contains("none") && error.contains("--manifests"), "{error}");
}

#[test]
fn sub_folders_and_kustomizations_are_reported() {
    let folder = folder(&[
        ("a.yaml", service("a", 1)),
        ("kustomization.yaml", "resources: [a.yaml]\n".into()),
        ("notes.txt", "{{{".into()),
    ]);
    for (file, text) in
        [("sub/b.yaml", service("b", 1)), ("empty/c.txt", String::new()), ("..data/d.yaml", service("d", 1))]
    {
        let file = folder.path().join(file);
        fs::create_dir(file.parent().expect("it is in a folder")).expect("it can be made");
        fs::write(file, text).expect("it can be written");
    }
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(describe_object).collect::<Vec<_>>(), ["+a=1"]);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    assert_eq!(read.skipped.len(), 2, "{:?}", read.skipped);
    for (skipped, expected) in read
        .skipped
        .iter()
        .zip(["kustomization.yaml: skipping this kustomization", "sub: skipping this sub-folder"])
    {
        assert!(skipped.contains(expected), "{skipped:?} does not have {expected:?}");
    }
}

#[tokio::test]
async fn unreadable_objects_are_reported_until_they_are_read() {
    let unreadable = "---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: 1}\n";
    let folder = folder(&[("a.yaml", service("a", 1)), ("b.yaml", unreadable.into())]);
    let mut source = TestSource::start(folder.path()).await;
    while source.next().await != "=b" {}
    while source.next().await != format!("{})", Kind::ALL[7]) {}
    source.expect_no_events().await;
    assert!(source.source.health().unreadable()[0].contains("b.yaml:2: Service default/b: field spec.ports"));
    replace(folder.path(), "b.yaml", &service("b", 1));
    source.expect(&["+b=1"]).await;
    // From now on, its last readable version is kept.
    replace(folder.path(), "b.yaml", unreadable);
    source.eventually("the health has the error", |status| status.error.is_some()).await;
    source.expect_no_events().await;
    assert_eq!(source.source.health().unreadable().len(), 1);
    // An unreadable document may have objects of any kind. They are reported as deleted when its file is.
    let other = self::folder(&[("a.yaml", service("a", 1)), ("c.yaml", "{{{".into())]);
    let mut source = TestSource::start(other.path()).await;
    assert_eq!(source.list().await, ["+a=1"]);
    fs::remove_file(other.path().join("c.yaml")).expect("it is there");
    source.expect(&["-"; Kind::ALL.len()]).await;
}
