//! The CNI specification as tables: requests, errors, results and versions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod request;

mod configuration;
mod environment;
mod results;
