//! Tests of `deploy/`: manifests are valid, the program accepts their arguments, and their permissions are exactly the ones it
//! needs; alerts fire; the files of the Debian package exist.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chart;
mod chart_readme;
mod chart_values;
mod helm;
mod image;
mod kustomize;
mod manifests;
mod monitoring;
mod package;
mod release;
