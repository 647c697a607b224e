//! Changes of files and folders, and the events that the source sends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use portcullis::source::read_manifests;
use portcullis_cluster::Kind;

use crate::test_source::{TestSource, describe_object, folder, replace, service, write};

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
