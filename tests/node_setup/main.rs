//! What the daemon does on a node beside its rules: kernel settings, its configuration file, its ports. The real program,
//! in a network namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api_events;
#[path = "../api_server/mod.rs"]
mod api_server;
mod cluster;
mod config_file;
mod daemon;
mod failures;
#[path = "../drop_in/http.rs"]
mod http;
mod in_place;
mod kernel_settings;
mod log;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod own_node;
mod ports;
mod service_manager;
mod two_daemons;
mod unreadable;
