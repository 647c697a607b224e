//! Queries for Services and namespaces that do not exist.

use std::collections::BTreeSet;

use portcullis_cluster::{Name, NamespacedName};

use super::input::ReportInput;
use super::query::ServiceQuery;
use crate::config::nearest;
use crate::truncated_list::listed;
use crate::unknown_object;

/// A Service or namespace that a query names does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// Checks that the Service or namespace of a query without results exists.
pub(super) fn check(input: &ReportInput<'_>, query: &ServiceQuery) -> Result<(), NotFound> {
    let Some(namespace) = &query.namespace else { return Ok(()) };
    let services = || input.index.services().map(|service| &service.key);
    if let Some(name) = &query.name {
        let name = NamespacedName::new(namespace, name);
        if input.index.service(&name).is_some() {
            return Ok(());
        }
        let mut message = unknown_object::message("Service", &name, &services().collect::<Vec<_>>());
        if !input.has_all_services {
            message.push_str(
                "; the daemon does not know headless Services and Services with the label \
                 service.kubernetes.io/service-proxy-name",
            );
        }
        return Err(not_found(input, message));
    }
    let exists = input.index.namespace(&Name::new(namespace)).is_some()
        || services().any(|key| key.namespace.as_str() == namespace);
    if exists {
        return Ok(());
    }
    let known = input.index.namespaces().map(|namespace| &namespace.name);
    let names: BTreeSet<&str> =
        known.chain(services().map(|key| &key.namespace)).map(|name| name.as_str()).collect();
    let suggestion = match nearest(namespace, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "nor in any other".to_owned(),
        None => format!("namespaces with Services are {}", listed(names)),
    };
    Err(not_found(input, format!("there is no Service in namespace {namespace}; {suggestion}")))
}

/// Adds the remarks about the whole report, which may be the reason.
fn not_found(input: &ReportInput<'_>, message: String) -> NotFound {
    let notes = input.notes.iter().map(|note| format!(" ({note})"));
    NotFound(message + &notes.collect::<String>())
}
