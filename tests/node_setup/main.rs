//! Tests of the daemon in a network namespace: sysctls, configuration file, ports, Events, logging, and behaviour during
//! failures.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod api_events;
#[path = "../api_server/mod.rs"]
mod api_server;
mod cluster;
mod config_file;
mod daemon;
mod descriptors;
mod failures;
#[path = "../drop_in/http.rs"]
mod http;
mod in_place;
mod kernel_settings;
mod limits;
mod log;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod own_node;
mod ports;
mod service_manager;
mod two_daemons;
mod unreadable;
