//! The page on a telephone, in dark mode, without scripts, and with the keyboard.

use crate::browser::{DESKTOP, PHONE};
use crate::daemon::{Daemon, Node};
use crate::namespace;
use crate::objects::{POLICY, SHOP, WITHOUT_ENDPOINTS};
use crate::site::{ADDRESS, ENABLED, PATHS, Site, write};

fn start() -> (Node, Daemon) {
    let node = Node::new();
    write(&node, "shop.yaml", SHOP);
    write(&node, "policy.yaml", POLICY);
    write(&node, "search.yaml", WITHOUT_ENDPOINTS);
    let mut daemon = node.start(&[ENABLED, "--network-policy"]);
    daemon.wait_healthy();
    (node, daemon)
}

#[test]
fn telephone_and_dark_mode() {
    namespace::inside(|| {
        let (_node, mut daemon) = start();
        let mut site = Site::new();
        site.open_until(&mut daemon, "/", "a Service has a problem", |text| text.contains("shop/search"));
        let background = "getComputedStyle(document.body).backgroundColor";
        site.browser.prefer_dark(false);
        let light = site.browser.evaluate(background);
        site.browser.prefer_dark(true);
        assert_ne!(site.browser.evaluate(background), light);
        site.picture("status-page-dark");
        site.browser.prefer_dark(false);
        site.browser.resize(PHONE);
        // Each row of the table is a card; its cells have the names of their columns.
        let display = "getComputedStyle(document.querySelector('table.cards tr')).display";
        assert_eq!(site.browser.evaluate(display), "block");
        site.picture("status-page-phone");
        site.browser.resize(DESKTOP);
        assert_eq!(site.browser.evaluate(display), "table-row");
    });
}

#[test]
fn every_page_works_without_scripts() {
    namespace::inside(|| {
        let (_node, mut daemon) = start();
        let mut site = Site::new();
        site.browser.allow_scripts(false);
        site.open_until(&mut daemon, "/", "a Service has a problem", |text| text.contains("shop/search"));
        for path in PATHS {
            site.open(path);
            assert_eq!(
                site.browser.evaluate("document.querySelectorAll('#refresh button').length"),
                0,
                "{path}"
            );
            assert!(site.browser.text().contains("As of "), "{path}: the time of the page");
        }
        // A search is a form.
        site.open("/services");
        site.browser.evaluate("document.querySelector('#q').value = 'search'");
        site.browser.follow("form[role=search] button");
        let text = site.browser.text();
        assert!(text.contains("1 to 1 of 1 Service") && !text.contains("shop/web"), "{text}");
        site.open("/explain");
        site.browser.evaluate("document.querySelector('#from').value = 'shop/basket'");
        site.browser.evaluate("document.querySelector('#to').value = 'shop/web'");
        site.browser.follow("form[action='/explain'] button");
        assert!(site.browser.text().contains("The connection is allowed"), "{}", site.browser.text());
    });
}

#[test]
fn the_keyboard_reaches_everything_in_order() {
    namespace::inside(|| {
        let (_node, _daemon) = start();
        let mut site = Site::new();
        site.browser.open(&format!("http://{ADDRESS}/services"));
        let focused = "document.activeElement.textContent.trim() || document.activeElement.name";
        let mut names = Vec::new();
        for _ in 0..12 {
            site.browser.press("Tab");
            // Users of a keyboard must see the focus.
            let outline = "getComputedStyle(document.activeElement).outlineStyle";
            assert_ne!(site.browser.evaluate(outline), "none", "{names:?}");
            names.push(site.browser.evaluate(focused).as_str().unwrap_or_default().to_owned());
        }
        let expected = [
            "Skip to the content",
            "Overview",
            "Services",
            "Policies",
            "Timeline",
            "Sources",
            "Explain",
            "Pause",
            "q",
            "namespace",
            "problems",
            "Search",
        ];
        assert_eq!(names, expected);
    });
}
