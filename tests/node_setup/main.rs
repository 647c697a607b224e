//! Tests of the daemon in a network namespace: sysctls, configuration file, ports, Events, logging, and behaviour during
//! failures.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod api_events;
mod api_faults;
#[path = "../api_server/mod.rs"]
mod api_server;
mod clock;
mod cluster;
mod config_file;
mod counters;
mod daemon;
mod descriptors;
mod exec_plugin_faults;
mod failures;
mod fake_tools;
#[path = "../api_source/fault_table.rs"]
mod fault_table;
mod file_faults;
#[path = "../drop_in/http.rs"]
mod http;
mod in_place;
mod ipvs_tool_faults;
mod kernel_settings;
mod limits;
mod local_api;
mod log;
mod memory;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod own_node;
#[path = "../api_source/plugin.rs"]
mod plugin;
mod ports;
mod privileges;
mod service_manager;
mod stop;
mod tool_faults;
mod two_daemons;
mod unreadable;
