//! What is in `deploy/`: manifests that can be read, whose arguments the program takes and whose rights are what it needs;
//! and what a Debian package is made of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chart;
mod helm;
mod kustomize;
mod manifests;
mod package;
