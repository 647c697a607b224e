//! The script that replaces the content of a page.

use crate::daemon::Node;
use crate::namespace;
use crate::objects::{SHOP, WITHOUT_ENDPOINTS};
use crate::site::{ENABLED, Site, write};

const STATUS: &str = "document.querySelector('#refresh [role=status]').textContent";

#[test]
fn content_is_replaced_and_keeps_focus_and_position() {
    namespace::inside(|| {
        let node = Node::new();
        write(&node, "shop.yaml", SHOP);
        let mut daemon = node.start(&[ENABLED]);
        daemon.wait_healthy();
        let mut site = Site::new();
        site.open_until(&mut daemon, "/services", "the Services", |text| text.contains("shop/web"));
        assert_eq!(site.browser.evaluate(STATUS), "Updates every 5 s");
        site.browser.evaluate("window.isSamePage = true");
        let link = "a[href='/service?namespace=shop&name=web']";
        site.browser.evaluate(&format!("document.querySelector(\"{link}\").focus()"));
        write(&node, "search.yaml", WITHOUT_ENDPOINTS);
        let has_both = "document.querySelector('main').innerText.includes('shop/search')";
        site.browser.wait_until("the new Service is shown", has_both);
        assert_eq!(site.browser.evaluate("window.isSamePage"), true, "the page was not loaded again");
        assert_eq!(site.browser.evaluate(&format!("document.activeElement.matches(\"{link}\")")), true);
        site.audit("after a refresh");

        // Nothing is replaced below a reader who types.
        site.browser.evaluate("document.querySelector('#q').focus()");
        std::fs::remove_file(node.folder.path().join("manifests/search.yaml")).unwrap();
        let served =
            "fetch(location.href).then(response => response.text()).then(text => !text.includes('>search<'))";
        site.browser.wait_until("the daemon has removed it", served);
        std::thread::sleep(std::time::Duration::from_secs(7));
        assert_eq!(site.browser.evaluate(has_both), true, "the content changed while an input had the focus");
        site.browser.evaluate("document.activeElement.blur()");
        site.browser.wait_until("it is removed", &format!("!{has_both}"));
    });
}

#[test]
fn updates_can_be_paused_and_a_daemon_that_ends_is_reported() {
    namespace::inside(|| {
        let node = Node::new();
        write(&node, "shop.yaml", SHOP);
        let mut daemon = node.start(&[ENABLED]);
        daemon.wait_healthy();
        let mut site = Site::new();
        site.open_until(&mut daemon, "/services", "the Services", |text| text.contains("shop/web"));
        site.browser.evaluate("document.querySelector('#refresh button').click()");
        assert_eq!(site.browser.evaluate(STATUS), "Updates paused");
        // Also on the next page of this tab.
        site.open("/timeline");
        assert_eq!(site.browser.evaluate(STATUS), "Updates paused");
        site.open("/services");
        write(&node, "search.yaml", WITHOUT_ENDPOINTS);
        let served = "fetch(location.href).then(response => response.text()).then(text => text.includes('search</a>'))";
        site.browser.wait_until("the daemon serves it", served);
        std::thread::sleep(std::time::Duration::from_secs(7));
        let has_it = "document.querySelector('main').innerText.includes('shop/search')";
        assert_eq!(site.browser.evaluate(has_it), false, "the content changed although updates are paused");
        site.browser.evaluate("document.querySelector('#refresh button').click()");
        site.browser.wait_until("it is shown", has_it);

        drop(daemon);
        site.browser.wait_until(
            "the page says that it is old",
            &format!("{STATUS}.startsWith('No response from the daemon')"),
        );
        assert_eq!(site.browser.evaluate(has_it), true, "the last content stays");
    });
}
