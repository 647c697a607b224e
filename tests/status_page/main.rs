//! Tests of the status page in headless Chromium (Debian package `chromium`), with the real daemon in a network namespace.
//!
//! Each page is checked on a wide screen, on a telephone, and in dark mode, for contrast, names of controls, errors of scripts
//! and violations of its content security policy. With `SCREENSHOTS=FOLDER`, the tests write the pictures of
//! docs/status-page.md there (`make screenshots`).

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../api_server/mod.rs"]
mod api_server;
mod browser;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../node_setup/daemon.rs"]
mod daemon;
mod dropped;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../drop_in/http.rs"]
mod http;
mod large;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod objects;
mod refresh;
mod requests;
mod site;
mod states;
mod views;
