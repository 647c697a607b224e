//! Tests of the index.

use serde_json::json;

use super::*;

#[test]
fn an_object_that_cannot_be_read_any_more_survives_a_full_list() {
    let mut index = Index::new();
    let parse = |name: &str| {
        let value = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIP": "10.0.0.1"}});
        Object::parse(Kind::Service, value).expect("a Service").object
    };
    for name in ["kept", "gone"] {
        index.handle(Event::Applied(parse(name)));
    }
    let key = ObjectKey { kind: Kind::Service, name: NamespacedName::new("ns", "kept") };
    for event in
        [Event::ListStarted(Kind::Service), Event::Unreadable(key.clone()), Event::Listed(Kind::Service)]
    {
        index.handle(event);
    }
    assert!(index.service(&key.name).is_some());
    assert_eq!(index.count(Kind::Service), 1);
    assert!(index.unreadable().is_empty(), "its last good version counts");
}

#[test]
fn an_object_is_unread_until_it_is_read_deleted_or_no_longer_listed() {
    let key = |kind, name: &str| ObjectKey { kind, name: NamespacedName::new("ns", name) };
    let service = || key(Kind::Service, "a");
    let readable = json!({"metadata": {"name": "a", "namespace": "ns"}});
    let applied = || Object::parse(Kind::Service, readable.clone()).expect("a Service").object;
    // Case, events, and the kinds of the unreadable objects.
    let rows: [(&str, Vec<Event>, &[Kind]); 9] = [
        ("nothing", vec![], &[]),
        ("unreadable", vec![Event::Unreadable(service())], &[Kind::Service]),
        ("then readable", vec![Event::Unreadable(service()), Event::Applied(applied())], &[]),
        ("then deleted", vec![Event::Unreadable(service()), Event::Deleted(service())], &[]),
        (
            "then not listed",
            vec![
                Event::Unreadable(service()),
                Event::ListStarted(Kind::Service),
                Event::Listed(Kind::Service),
            ],
            &[],
        ),
        ("readable before", vec![Event::Applied(applied()), Event::Unreadable(service())], &[]),
        ("a policy", vec![Event::Unreadable(key(Kind::NetworkPolicy, "p"))], &[Kind::NetworkPolicy]),
        ("a node of any name", vec![Event::Unreadable(ObjectKey::unnamed(Kind::Node))], &[Kind::Node]),
        (
            "which is repaired",
            vec![
                Event::Unreadable(ObjectKey::unnamed(Kind::Node)),
                Event::Deleted(ObjectKey::unnamed(Kind::Node)),
            ],
            &[],
        ),
    ];
    for (about, events, expected) in rows {
        let mut index = Index::new();
        events.into_iter().for_each(|event| _ = index.handle(event));
        let unread = index.unreadable();
        let kinds: Vec<Kind> = unread.iter().map(|key| key.kind).collect();
        assert_eq!(kinds, expected, "{about}");
        assert_eq!(unread.is_empty(), expected.is_empty(), "{about}");
    }
}
