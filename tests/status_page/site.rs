//! The page of a daemon in a browser.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::browser::{Browser, DESKTOP, PHONE};
use crate::daemon::{Daemon, Node};

/// The address of the page.
pub(crate) const ADDRESS: &str = "127.0.0.1:10262";

/// The argument that enables the page.
pub(crate) const ENABLED: &str = "--status-page-bind-address=127.0.0.1";

/// Paths of all pages that need no parameter.
pub(crate) const PATHS: [&str; 6] = ["/", "/services", "/policies", "/timeline", "/sources", "/explain"];

const AUDIT: &str = include_str!("audit.js");

/// A browser for the page at an address.
pub(crate) struct Site {
    pub(crate) browser: Browser,
}

impl Site {
    /// Starts a browser in the network namespace of the calling thread.
    pub(crate) fn new() -> Self {
        Site { browser: Browser::start() }
    }

    /// Opens a page and audits it on a wide and on a narrow screen, in light and dark.
    pub(crate) fn open(&mut self, path: &str) -> String {
        self.browser.open(&format!("http://{ADDRESS}{path}"));
        self.audit(path);
        self.browser.text()
    }

    /// Opens a page until its text satisfies a condition, and audits it.
    pub(crate) fn open_until(
        &mut self,
        daemon: &mut Daemon,
        path: &str,
        what: &str,
        condition: impl Fn(&str) -> bool,
    ) -> String {
        let until = std::time::Instant::now() + crate::daemon::PATIENCE;
        // A daemon serves the page a moment after its start, and a browser does not try again.
        while std::net::TcpStream::connect(ADDRESS).is_err() {
            assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.log());
            assert!(std::time::Instant::now() < until, "nothing listens on {ADDRESS}:\n{}", daemon.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        loop {
            self.browser.open(&format!("http://{ADDRESS}{path}"));
            let text = self.browser.text();
            if condition(&text) {
                self.audit(path);
                return text;
            }
            // A page that is not available yet is an error in the browser's log.
            self.browser.take_problems();
            assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.log());
            assert!(
                std::time::Instant::now() < until,
                "{path}: not in time: {what}\n{text}\n{}",
                daemon.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// Asserts that the page has no fault on a wide and on a narrow screen, in light and dark.
    pub(crate) fn audit(&mut self, what: &str) {
        for size in [DESKTOP, PHONE] {
            self.browser.resize(size);
            for is_dark in [true, false] {
                self.browser.prefer_dark(is_dark);
                let faults = self.browser.evaluate(AUDIT);
                assert_eq!(faults, Value::Array(Vec::new()), "{what}, {size:?}, dark: {is_dark}");
            }
        }
        self.browser.resize(DESKTOP);
        assert_eq!(self.browser.take_problems(), [""; 0], "{what}");
    }

    /// Writes a picture of the window, if pictures are requested.
    pub(crate) fn picture(&mut self, name: &str) {
        let picture = self.browser.picture();
        assert!(picture.len() > 5_000, "{name}: an empty window has a picture of {} bytes", picture.len());
        if let Some(folder) = std::env::var_os("SCREENSHOTS") {
            let path = PathBuf::from(folder).join(format!("{name}.png"));
            fs::write(&path, picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Writes a manifest of a node.
pub(crate) fn write(node: &Node, name: &str, text: &str) {
    let folder = node.folder.path();
    // Renamed, so that the daemon does not read half of it.
    let part = folder.join("part");
    fs::write(&part, text).unwrap();
    fs::rename(part, folder.join("manifests").join(name)).unwrap();
}
