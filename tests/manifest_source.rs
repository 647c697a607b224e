//! The source that reads manifests: a folder that is edited in all the ways in which people and machines
//! edit folders.

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

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(15);

struct Heard {
    source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    waiting: VecDeque<String>,
}

impl Heard {
    async fn of(path: &Path) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let origin = SourceConfig::Manifests { path: path.to_owned() };
        let source = source::spawn(origin, sink).await.expect("manifests need no access");
        Heard { source, batches, waiting: VecDeque::new() }
    }

    async fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let batch = timeout(PATIENCE, self.batches.recv())
                .await
                .expect("an event comes")
                .expect("the source runs");
            self.waiting.extend(batch.iter().map(words));
        }
        self.waiting.pop_front().expect("the loop above filled it")
    }

    /// The objects of the first list, after checking that it is one of every kind.
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

    async fn expect_silence(&mut self) {
        assert_eq!(self.waiting, [""; 0]);
        let said = timeout(Duration::from_millis(400), self.batches.recv()).await;
        assert!(said.is_err(), "{said:?}");
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
        let deadline = tokio::time::Instant::now() + PATIENCE;
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
fn words(event: &Event) -> String {
    match event {
        Event::Applied(object) => words_of(object),
        Event::Unreadable(key) => format!("={}", key.name.name),
        Event::Deleted(key) => format!("-{}", key.name.name),
        Event::ListStarted(kind) => format!("({kind}"),
        Event::Listed(kind) => format!("{kind})"),
    }
}

fn words_of(object: &Object) -> String {
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

/// A folder with these files.
fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|(name, text)| write(folder.path(), name, text));
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("the folder can be written");
}

/// As careful programs write: beside it, then renamed over it.
fn replace(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!(".{name}.new"));
    fs::write(&new, text).expect("the folder can be written");
    fs::rename(new, folder.join(name)).expect("a file can be renamed");
}

#[tokio::test]
async fn a_folder_is_listed_and_then_only_differences_are_told() {
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
    let mut heard = Heard::of(folder.path()).await;
    assert_eq!(heard.list().await, ["+a=1", "+b=1", "+c=1", "+n1"]);
    heard.eventually("it is synced", |status| status.synced && status.error.is_none()).await;
    assert!(heard.source.health().synced());

    write(folder.path(), "b.yaml", &(service("b", 1) + &service("c", 2)));
    heard.expect(&["+c=2"]).await;
    replace(folder.path(), "b.yaml", &(service("c", 2) + &service("b", 3)));
    heard.expect(&["+b=3"]).await;
    write(folder.path(), "d.yaml", &service("d", 1));
    heard.expect(&["+d=1"]).await;
    fs::remove_file(folder.path().join("a.yml")).expect("it is there");
    heard.expect(&["-a"]).await;
    fs::rename(folder.path().join("b.yaml"), folder.path().join("z.yaml")).expect("it is there");
    heard.expect_silence().await;
    write(folder.path(), ".z.yaml.swp", &service("b", 9));
    write(folder.path(), "notes.txt", "");
    heard.expect_silence().await;
    assert_eq!(heard.status(Kind::Service).lists, 1);
}

#[tokio::test]
async fn a_single_file_is_followed_through_every_way_of_writing_it() {
    let folder = folder(&[("web.conf", service("a", 1)), ("other.yaml", service("other", 1))]);
    let file = folder.path().join("web.conf");
    let mut heard = Heard::of(&file).await;
    assert_eq!(heard.list().await, ["+a=1"]);
    write(folder.path(), "web.conf", &service("a", 2));
    heard.expect(&["+a=2"]).await;
    for port in 3..6 {
        replace(folder.path(), "web.conf", &service("a", port));
        heard.expect(&[&format!("+a={port}")]).await;
    }
    // Gone for a while: what it gave stays, because nobody said that it should go.
    fs::remove_file(&file).expect("it is there");
    heard
        .eventually("the health names it", |status| {
            status.error.is_some_and(|error| error.contains("web.conf"))
        })
        .await;
    write(folder.path(), "web.conf", &(service("a", 5) + &service("b", 1)));
    heard.expect(&["+b=1"]).await;
    heard.eventually("all is well", |status| status.error.is_none()).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_replaced_as_a_whole() {
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
        let mut heard = Heard::of(&path).await;
        let port = heard.list().await.concat().trim_start_matches("+a=").parse::<u16>().expect("one Service");
        version(u32::from(port) + 1, port + 1);
        heard.expect(&[&format!("+a={}", port + 1)]).await;
        version(u32::from(port) + 2, port + 2);
        heard.expect(&[&format!("+a={}", port + 2)]).await;
    }
}

#[tokio::test]
async fn a_folder_that_comes_later_goes_and_comes_again() {
    let parent = folder(&[]);
    let path: PathBuf = parent.path().join("deep/manifests");
    let mut heard = Heard::of(&path).await;
    heard
        .eventually("the health names it", |status| {
            status.error.is_some_and(|error| error.contains("deep/manifests"))
        })
        .await;
    assert!(!heard.source.health().synced(), "nothing is known yet, not even that there is nothing");
    fs::create_dir_all(&path).expect("the folder can be written");
    assert_eq!(heard.list().await, [""; 0]);
    write(&path, "a.yaml", &service("a", 1));
    heard.expect(&["+a=1"]).await;

    fs::rename(&path, parent.path().join("old")).expect("it is there");
    heard.eventually("the health names it", |status| status.error.is_some()).await;
    fs::create_dir(&path).expect("the folder can be written");
    write(&path, "b.yaml", &service("b", 1));
    let mut events = [heard.next().await, heard.next().await];
    events.sort();
    assert_eq!(events, ["+b=1", "-a"]);
    write(&path, "b.yaml", &service("b", 2));
    heard.expect(&["+b=2"]).await;

    // A link that leads elsewhere.
    let other = folder(&[("c.yaml", service("c", 1))]);
    fs::rename(&path, parent.path().join("older")).expect("it is there");
    symlink(other.path(), &path).expect("the folder can be written");
    let mut events = [heard.next().await, heard.next().await];
    events.sort();
    assert_eq!(events, ["+c=1", "-b"]);
    write(other.path(), "c.yaml", &service("c", 2));
    heard.expect(&["+c=2"]).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_keeps_its_last_good_version() {
    let good = service("a", 1) + &service("b", 1);
    // The file after it broke; the error that is reported; what is told of the rest.
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
    for (case, broken, error, told) in rows {
        let folder = folder(&[("web.yaml", good.clone()), ("x.yaml", service("x", 1))]);
        let mut heard = Heard::of(folder.path()).await;
        assert_eq!(heard.list().await, ["+a=1", "+b=1", "+x=1"], "{case}");
        replace(folder.path(), "web.yaml", broken);
        heard.expect(told).await;
        let says = |status: KindStatus| status.error.is_some_and(|says| says.contains(error));
        heard.eventually(&format!("{case}: the health says {error:?}"), says).await;
        heard.expect_silence().await;
        // The others go on meanwhile, and what is repaired is told.
        write(folder.path(), "x.yaml", &service("x", 2));
        heard.expect(&["+x=2"]).await;
        replace(folder.path(), "web.yaml", &service("b", 3));
        heard.expect(&["-a", "+b=3"]).await;
        heard.eventually("all is well", |status| status.error.is_none() && status.unreadable == 0).await;
    }
}

#[tokio::test]
async fn a_deleted_file_is_gone_even_if_it_was_broken() {
    let folder = folder(&[("web.yaml", service("a", 1))]);
    let mut heard = Heard::of(folder.path()).await;
    heard.list().await;
    write(folder.path(), "web.yaml", "{{{");
    heard.eventually("the health says so", |status| status.error.is_some()).await;
    heard.expect_silence().await;
    fs::remove_file(folder.path().join("web.yaml")).expect("it is there");
    heard.expect(&["-a"]).await;
}

#[tokio::test]
async fn of_an_object_that_stands_twice_the_later_one_counts() {
    let folder = folder(&[("1.yaml", service("a", 1)), ("2.yaml", service("a", 2))]);
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(words_of).collect::<Vec<_>>(), ["+a=2"]);
    let warning = read.warnings[0].to_string();
    assert!(warning.contains("2.yaml:2") && warning.contains("1.yaml:2"), "{warning}");

    let mut heard = Heard::of(folder.path()).await;
    assert_eq!(heard.list().await, ["+a=2"]);
    write(folder.path(), "3.yaml", &service("b", 1));
    heard.expect(&["+b=1"]).await;
    write(folder.path(), "1.yaml", &service("a", 9));
    heard.expect_silence().await;
    fs::remove_file(folder.path().join("2.yaml")).expect("it is there");
    heard.expect(&["+a=9"]).await;
}

#[tokio::test]
async fn one_object_of_a_list_changes_alone() {
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
    let mut heard = Heard::of(folder.path()).await;
    assert_eq!(heard.list().await, ["+a=1", "+b=1", "+c=1"]);
    replace(folder.path(), "l.json", &list([1, 2, 1]));
    heard.expect(&["+b=2"]).await;
    heard.expect_silence().await;
}

#[tokio::test]
async fn fields_that_are_ignored_are_counted() {
    let odd = service("a", 1).replace("spec:\n", "spec:\n  clusterIP: nonsense\n");
    let folder = folder(&[("web.yaml", odd.clone())]);
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!((read.objects.len(), read.problems.len(), read.errors.len()), (1, 1, 0), "{read:?}");
    assert!(read.problems[0].1.value.contains("nonsense"), "{:?}", read.problems);
    let mut heard = Heard::of(folder.path()).await;
    assert_eq!(heard.list().await, ["+a=1"]);
    heard.eventually("it is counted", |status| status.with_problems == 1).await;
    // Still counted when it is not parsed again.
    write(folder.path(), "x.yaml", &service("x", 1));
    heard.expect(&["+x=1"]).await;
    heard.eventually("it is counted", |status| status.with_problems == 1).await;
}

#[test]
fn reading_once_tells_all_that_is_wrong() {
    let folder = folder(&[
        ("a.yaml", service("a", 1) + "---\n7\n" + &service("b", 1)),
        ("b.json", "{\"kind\": }".into()),
        ("c.yaml", service("c", 1) + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"),
    ]);
    fs::write(folder.path().join("d.yaml"), b"a: 1\nb: \xff\n").expect("the folder can be written");
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(words_of).collect::<Vec<_>>(), ["+a=1", "+b=1", "+c=1"]);
    assert_eq!(read.ignored.iter().collect::<Vec<_>>(), ["apps/v1 Deployment"]);
    let errors: Vec<String> = read.errors.iter().map(ToString::to_string).collect();
    let expected =
        ["a.yaml:10: expected an object", "b.json:1: malformed JSON", "d.yaml:2: this is no UTF-8 text"];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
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
    assert_eq!(read.objects.iter().map(words_of).collect::<Vec<_>>(), ["+a=1"]);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    assert_eq!(read.skipped.len(), 2, "{:?}", read.skipped);
    for (skipped, expected) in
        read.skipped.iter().zip(["kustomization.yaml: this kustomization", "sub: this sub-folder"])
    {
        assert!(skipped.contains(expected), "{skipped:?} does not say {expected:?}");
    }
}

#[tokio::test]
async fn objects_that_were_never_read_are_told_until_they_are() {
    let broken = "---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: 1}\n";
    let folder = folder(&[("a.yaml", service("a", 1)), ("b.yaml", broken.into())]);
    let mut heard = Heard::of(folder.path()).await;
    while heard.next().await != "=b" {}
    while heard.next().await != format!("{})", Kind::ALL[7]) {}
    heard.expect_silence().await;
    assert!(heard.source.health().unreadable()[0].contains("b.yaml:2: Service default/b: field spec.ports"));
    replace(folder.path(), "b.yaml", &service("b", 1));
    heard.expect(&["+b=1"]).await;
    // Its last good version counts from now on.
    replace(folder.path(), "b.yaml", broken);
    heard.eventually("the health says so", |status| status.error.is_some()).await;
    heard.expect_silence().await;
    assert_eq!(heard.source.health().unreadable().len(), 1);
    // Of a document that cannot be read, objects of any kind may be unread; they are no longer when it is gone.
    let other = self::folder(&[("a.yaml", service("a", 1)), ("c.yaml", "{{{".into())]);
    let mut heard = Heard::of(other.path()).await;
    assert_eq!(heard.list().await, ["+a=1"]);
    fs::remove_file(other.path().join("c.yaml")).expect("it is there");
    heard.expect(&["-"; Kind::ALL.len()]).await;
}
