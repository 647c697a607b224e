//! Files and documents that cannot be read, or only in part: reports and the last readable versions.

use std::fs;

use portcullis::source::{FileErrors, KindStatus, read_manifests};
use portcullis_cluster::Kind;

use crate::test_source::{TestSource, describe_object, folder, replace, service, write};

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
    let errors: Vec<String> = read.errors.iter().flat_map(FileErrors::lines).collect();
    let expected = ["a.yaml:10: expected an object", "b.json:1: malformed JSON", "d.yaml:2: invalid UTF-8"];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error:?} does not have {expected:?}");
    }

    let error = read_manifests(&folder.path().join("none")).expect_err("there is no such path").to_string();
    assert!(error.contains("none") && error.contains("--manifests"), "{error}");
}

#[test]
fn malformed_documents_of_a_file_are_one_line() {
    let folder = folder(&[
        ("a.yaml", service("a", 1) + &"---\na: b: c\n".repeat(20_000)),
        ("b.yaml", service("a", 2) + "---\n7\n"),
    ]);
    let read = read_manifests(folder.path()).expect("the folder is there");
    assert_eq!(read.objects.iter().map(describe_object).collect::<Vec<_>>(), ["+a=2"]);
    let counts: Vec<usize> = read.errors.iter().map(|errors| errors.count).collect();
    assert_eq!(counts, [20_000, 1]);
    let line = read.errors[0].to_string();
    assert!(line.contains("a.yaml:10: malformed YAML") && line.ends_with("; and 19997 more"), "{line}");
    assert!(line.len() < 1_000, "{line}");
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
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
    let other = crate::test_source::folder(&[("a.yaml", service("a", 1)), ("c.yaml", "{{{".into())]);
    let mut source = TestSource::start(other.path()).await;
    assert_eq!(source.list().await, ["+a=1"]);
    fs::remove_file(other.path().join("c.yaml")).expect("it is there");
    source.expect(&["-"; Kind::ALL.len()]).await;
}
