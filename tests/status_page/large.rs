//! A cluster with 10,000 Services.

use std::fmt::Write as _;

use crate::daemon::Node;
use crate::namespace;
use crate::site::{ENABLED, Site, write};

const SERVICES: usize = 10_000;

/// The largest page, in bytes: one of 50 Services.
const MAX_PAGE: u64 = 150_000;

fn manifests() -> String {
    let mut text = String::new();
    for number in 0..SERVICES {
        let (high, low) = (number / 250, number % 250 + 1);
        // Each hundredth Service has no endpoints.
        writeln!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{number:05}, namespace: n{}}}, \
             spec: {{clusterIP: 10.97.{high}.{low}, ports: [{{port: 80}}]}}}}",
            number % 10
        )
        .unwrap();
        if number % 100 != 0 {
            writeln!(
                text,
                "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: s{number}, \
                 namespace: n{}, labels: {{kubernetes.io/service-name: s{number:05}}}}}, ports: [{{port: 8080}}], \
                 endpoints: [{{addresses: [10.98.{high}.{low}], conditions: {{ready: true}}}}]}}",
                number % 10
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn search_and_paging_of_ten_thousand_services() {
    namespace::inside(|| {
        let node = Node::new();
        write(&node, "services.yaml", &manifests());
        let mut daemon = node.start(&[ENABLED]);
        daemon.wait_healthy();
        let mut site = Site::new();
        let text = site.open_until(&mut daemon, "/services", "all Services", |text| {
            text.contains("1 to 50 of 10\u{202f}000 Services")
        });
        assert!(text.contains("Page 1 of 200"), "{text}");
        let size = "document.documentElement.outerHTML.length";
        let rows = "document.querySelectorAll('tbody tr').length";
        let first = "document.querySelector('tbody a').textContent";
        assert!(site.browser.evaluate(size).as_u64().unwrap() < MAX_PAGE);
        assert_eq!(site.browser.evaluate(rows), 50);
        site.browser.follow("a[rel=next]");
        assert!(site.browser.text().contains("51 to 100 of"), "{}", site.browser.text());
        assert_eq!(site.browser.evaluate(first), "n0/s00500");
        site.open("/services?page=200");
        assert_eq!(site.browser.evaluate(rows), 50);
        assert_eq!(site.browser.evaluate("document.querySelector('a[rel=next]') === null"), true);
        let text = site.open("/services?page=201");
        assert!(text.contains("There is no such page of the result."), "{text}");

        // Search by name, address and namespace.
        site.open("/services");
        site.browser.evaluate("document.querySelector('#q').value = 's0123'");
        site.browser.follow("form[role=search] button");
        assert_eq!(site.browser.evaluate(rows), 10);
        site.open_until(&mut daemon, "/services?q=s0123", "rules are written", |text| {
            !text.contains("has written no rules")
        });
        site.picture("status-page-search");
        let text = site.open("/services?q=10.97.4.5");
        assert!(text.contains("1 to 1 of 1 Service") && text.contains("s01004"), "{text}");
        let text = site.open("/services?namespace=n3&q=s0001");
        assert!(text.contains("1 to 1 of 1 Service") && text.contains("n3/s00013"), "{text}");
        let text = site.open("/services?problems=yes");
        assert!(text.contains("1 to 50 of 100 Services") && text.contains("not serving"), "{text}");
        let text = site.open("/");
        assert!(text.contains("All 100 Services with problems"), "{text}");
    });
}
