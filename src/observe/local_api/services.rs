//! The Service report of the running daemon, which a query computes on the loop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Kind, NamespacedName};
use portcullis_modes::{IsolationCause, NodeFacts};

use super::LocalApi;
use crate::config::Source;
use crate::control::{DaemonState, QueryError};
use crate::moment::Moment;
use crate::observe::health::FailedChecks;
use crate::observe::reported_statuses::LastReport;
use crate::service_report::{Isolation, NotFound, ReportInput, ServiceQuery, ServiceReport, report};
use crate::{host, node};

/// The time that a request waits for the loop.
const LIMIT: Duration = Duration::from_secs(5);

/// The start of health problems of the source.
const SOURCE: &str = "source: ";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServicesError {
    /// A Service or namespace does not exist.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The objects are not listed yet.
    #[error("the daemon has not listed all Services and EndpointSlices yet")]
    NotListed,
    /// The loop does not respond.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// What a report needs and the loop does not know.
struct Facts {
    /// The addresses of this machine.
    addresses: Vec<IpAddr>,
    /// The source addresses of its default routes.
    default_routes: Vec<IpAddr>,
    isolated: BTreeMap<NamespacedName, Isolation>,
    notes: Vec<String>,
}

impl LocalApi {
    /// Returns the Services that match a query.
    pub(crate) async fn services(&self, query: ServiceQuery) -> Result<ServiceReport, ServicesError> {
        let read_host = || {
            let routes = Family::BOTH.into_iter().filter_map(host::default_route_source);
            (host::addresses(), routes.collect())
        };
        let (addresses, default_routes) = tokio::task::spawn_blocking(read_host).await.unwrap_or_default();
        let last = self.0.sources.reported.get();
        let facts = Facts { addresses, default_routes, isolated: isolated(&last), notes: self.notes(&last) };
        let api = self.clone();
        let read = move |state: &DaemonState<'_>| Some(api.read_services(state, &facts, &query));
        self.queries().ask(LIMIT, read).await?
    }

    fn read_services(
        &self,
        state: &DaemonState<'_>,
        facts: &Facts,
        query: &ServiceQuery,
    ) -> Result<ServiceReport, ServicesError> {
        let desired: &Desired = state.desired.filter(|_| state.is_ready).ok_or(ServicesError::NotListed)?;
        let daemon = self.facts();
        let (config, index) = (&daemon.config, state.index);
        let object = index.node(&daemon.node);
        let options = node::options(config, object);
        let health_check_failures =
            state.health_checks.map(|health_checks| health_checks.failures()).unwrap_or_default();
        let default_route =
            |family| facts.default_routes.iter().copied().find(|ip| Family::from_address(*ip) == family);
        let node_facts = NodeFacts {
            addresses: host::addresses_in_rules(config.mode, &options, &facts.addresses),
            node_ips: node::primary_ips(config, object, default_route),
            ..NodeFacts::default()
        };
        let input = ReportInput {
            index,
            desired,
            mode: config.mode,
            scheduler: config.ipvs.scheduler,
            options: &options,
            facts: &node_facts,
            families: &daemon.families,
            node_port_addresses: Some(&options.node_port_addresses_among(&facts.addresses, &node_facts)),
            // Policies need the pods.
            has_pods: index.is_listed(Kind::Pod),
            has_all_services: matches!(config.source, Source::Manifests(_)),
            has_endpoints_v1: &|_| false,
            isolated: &facts.isolated,
            pending: &state.pending,
            health_check_failures: &health_check_failures,
            notes: facts.notes.clone(),
        };
        Ok(report(&input, query)?)
    }

    /// Returns the reasons why what the report says may not be what the kernel does.
    fn notes(&self, last: &LastReport) -> Vec<String> {
        let services = last.statuses.iter().filter(|status| status.name.is_service_proxy);
        let unwritten = services.flat_map(|status| &status.syncs).filter(|sync| sync.last_success.is_none());
        let unwritten = unwritten.map(|sync| {
            format!(
                "{}: the daemon has written no rules since its start, so this is what it will serve",
                sync.rules
            )
        });
        let health = self.0.sources.health.status(Moment::now());
        // Objects that cannot be read fail no health check.
        let problems = health
            .all_problems()
            .filter(|problem| problem.fails != FailedChecks::Nothing || problem.text.starts_with(SOURCE));
        unwritten.chain(problems.map(|problem| problem.text)).collect()
    }
}

/// Returns the Services that the kernel rejects. Those that are too large are known to the desired state.
fn isolated(last: &LastReport) -> BTreeMap<NamespacedName, Isolation> {
    let mut all = BTreeMap::new();
    for (rules, objects) in &last.isolated {
        let rejected = objects.iter().filter(|isolated| isolated.cause == IsolationCause::Rejected);
        for isolated in rejected.filter(|isolated| isolated.object.kind == Kind::Service) {
            let Some(since) = last.isolated_since.get(rules).and_then(|all| all.get(&isolated.object)) else {
                continue;
            };
            let name = &isolated.object.name;
            let message = isolated.text.strip_prefix(&format!("{name}: ")).unwrap_or(&isolated.text);
            let isolation = all.entry(name.clone()).or_insert_with(|| Isolation {
                message: message.to_owned(),
                since: *since,
                without_rules: Vec::new(),
            });
            if isolated.has_rules == Some(false) {
                let (_, rules) = rules;
                let families = Family::BOTH.into_iter().filter(|family| family.as_str() == *rules);
                isolation.without_rules.extend(families);
            }
        }
    }
    all
}
