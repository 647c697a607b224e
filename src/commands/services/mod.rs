//! `portcullis services`: what a node serves, and why a Service does not answer.

mod columns;
mod details;
mod offline;
mod pages;
mod text;

use std::io::{self, Write};

use crate::cluster_view::LoadError;
use crate::config::{Config, Services, ServicesFormat};
use crate::local_client::LocalClient;
use crate::service_report::{NotFound, ServiceQuery, ServiceReport, report};

/// The alternative to a running daemon.
const WITHOUT_DAEMON: &str = "to read the cluster without a daemon, set --manifests, --kubeconfig or --master, or name a node by --node";

/// An error that prevents showing Services.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The cluster state cannot be read.
    #[error(transparent)]
    State(#[from] LoadError),
    /// The configuration has no socket.
    #[error("the local API is disabled (--socket is empty); {WITHOUT_DAEMON}")]
    Disabled,
    /// The daemon does not run or respond.
    #[error("{0}; {WITHOUT_DAEMON}")]
    NoDaemon(String),
    /// A Service or namespace does not exist.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// An argument is invalid.
    #[error("{flag}: {message}")]
    Argument {
        /// The argument.
        flag: &'static str,
        /// What was expected.
        message: String,
    },
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints the Services that the arguments select. Returns false if `--problems` is set and there are problems.
///
/// # Errors
/// The Services cannot be read, or an argument names an object that does not exist.
pub fn run(config: &Config, arguments: &Services, out: &mut dyn Write) -> Result<bool, ServicesError> {
    // Malformed arguments are reported before anything is read.
    let query = query(arguments, "default")?;
    // A daemon serves its own node, from the source of its own configuration.
    let is_offline = arguments.has_source || arguments.node.is_some() || arguments.host.is_some();
    let found = if is_offline {
        let offline = offline::load(config, arguments)?;
        let query = match &offline.default_namespace {
            Some(namespace) => self::query(arguments, namespace)?,
            None => query,
        };
        let found = all_pages(query, |query| report(&offline.input(config), query))?;
        print(&found, arguments, out)?;
        offline.unreadable.check()?;
        found
    } else {
        let client = LocalClient::new(config.socket.as_deref().ok_or(ServicesError::Disabled)?);
        let mut found: Option<ServiceReport> = None;
        pages::request_all(&client, &query, |page| match &mut found {
            Some(all) => append(all, page),
            None => found = Some(page),
        })?;
        let found = found.expect("there is a first page, or an error");
        print(&found, arguments, out)?;
        found
    };
    Ok(!arguments.problems || found.items.is_empty())
}

/// Returns the query for the arguments. `default`: the namespace without one on the command line.
fn query(arguments: &Services, default: &str) -> Result<ServiceQuery, ServicesError> {
    let of_argument = |flag, message: &str| ServicesError::Argument { flag, message: message.to_owned() };
    let (namespace, name) = match arguments.name.as_deref().map(|name| name.split_once('/').ok_or(name)) {
        Some(Ok(_)) if arguments.namespace.is_some() => {
            return Err(of_argument("NAME", "expected a name without a namespace, as --namespace is set"));
        }
        Some(Ok((namespace, name))) => (Some(namespace), Some(name)),
        Some(Err(name)) => (arguments.namespace.as_deref(), Some(name)),
        None => (arguments.namespace.as_deref(), None),
    };
    if name.is_some() && arguments.all_namespaces {
        return Err(of_argument("--all-namespaces", "a Service is named; use NAMESPACE/NAME or --namespace"));
    }
    let namespace = (!arguments.all_namespaces).then(|| namespace.unwrap_or(default).to_owned());
    let lists_endpoints =
        name.is_some() || matches!(arguments.output, ServicesFormat::Json | ServicesFormat::Yaml);
    Ok(ServiceQuery {
        namespace,
        name: name.map(str::to_owned),
        search: arguments.search.clone(),
        problems: arguments.problems,
        endpoints: lists_endpoints,
        ..ServiceQuery::default()
    })
}

/// Reads all pages of a query from the cluster's objects.
fn all_pages(
    mut query: ServiceQuery,
    read: impl Fn(&ServiceQuery) -> Result<ServiceReport, NotFound>,
) -> Result<ServiceReport, NotFound> {
    let mut all = read(&query)?;
    while let Some(next) = all.next.take() {
        query.after = Some(next);
        append(&mut all, read(&query)?);
    }
    Ok(all)
}

/// Adds the next page to a report. Services may have been added or deleted between pages.
fn append(all: &mut ServiceReport, page: ServiceReport) {
    all.items.extend(page.items);
    all.total = all.items.len();
    all.next = page.next;
}

fn print(found: &ServiceReport, arguments: &Services, out: &mut dyn Write) -> io::Result<()> {
    match arguments.output {
        ServicesFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, found)?;
            writeln!(out)
        }
        ServicesFormat::Yaml => {
            let text = serde_saphyr::to_string(found).map_err(io::Error::other)?;
            write!(out, "{text}")
        }
        ServicesFormat::Text | ServicesFormat::Wide => {
            let is_wide = arguments.output == ServicesFormat::Wide;
            match &arguments.name {
                Some(_) => found.items.iter().try_for_each(|item| details::print(item, out))?,
                None if arguments.problems => text::print_problems(found, out)?,
                None => text::print(found, arguments.all_namespaces, is_wide, out)?,
            }
            found.notes.iter().try_for_each(|note| writeln!(out, "\nnote: {note}"))
        }
    }
}
