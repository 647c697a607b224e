//! Health, metrics and Events of the daemon, derived from the loop and the statuses of its controllers.

use std::sync::Arc;

use portcullis_cluster::{Index, Kind, Name};
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_netlink::nfacct::Counters;
use tokio::sync::watch;

use super::api_server_silence::SilenceReporter;
use super::controller_statuses::ControllerStatuses;
use super::dropped_lines::DroppedLines;
use super::health::{Health, HealthProblem, Limits};
use super::health_check_node_port::ServiceHealthServer;
use super::http::{Addresses, BindError, ConnectionLimits, Diagnostics, Servers, ServiceTraffic};
use super::local_api::{self, ApiSources, DaemonFacts, LocalApi, LocalApiServer};
use super::metrics::Metrics;
use super::own_node_reporter::OwnNodeReporter;
use super::traffic_events::{ControllerEnds, TrafficEvents};
use super::{page, source_problems};
use crate::config::{self, Config};
use crate::control::{Declaration, Observer, Progress, Queries, Status, SyncHistory, Wake};
use crate::file_descriptors;
use crate::logging;
use crate::moment::Moment;
use crate::source::{EventRecorder, Source, SourceHealth};

/// Reports the state of the daemon.
pub(crate) struct Telemetry {
    node: Name,
    controllers: ControllerStatuses,
    metrics: Metrics,
    health: Arc<Health>,
    servers: Servers,
    local_api: Option<LocalApiServer>,
    stop: watch::Sender<bool>,
    recorder: EventRecorder,
    silence: SilenceReporter,
    dropped_lines: DroppedLines,
    own_node: OwnNodeReporter,
    source: Arc<SourceHealth>,
    /// The source is an API server.
    has_api_server: bool,
    /// The number of omitted Events, as last reported.
    omitted_events: u64,
}

impl Telemetry {
    /// Starts the servers. `configuration` is the configuration as JSON, for `/configz`. An address that cannot be bound is
    /// also reported as an Event. `declarations` are those of all controllers, of which the loop records `progress`.
    pub(crate) async fn start(
        config: &Config,
        configuration: String,
        source: &Source,
        node: Name,
        declarations: &[Declaration],
        progress: Arc<Progress>,
        service_traffic: ServiceTraffic,
    ) -> Result<Self, BindError> {
        let started = Moment::now();
        let has_api_server = matches!(config.source, config::Source::ApiServer(_));
        let metrics = Metrics::new(config.mode);
        let source_health = Arc::clone(source.health());
        let status = Arc::clone(&source_health);
        metrics.read_source(move || status.snapshot());
        metrics.read_dropped_log_lines(logging::dropped_lines);
        let events = source.recorder().clone();
        metrics.read_omitted(logging::omitted_lines, move || events.omitted());
        metrics.read_packet_counters(
            || packets(NFACCT_INVALID_DROPPED),
            || packets(NFACCT_LOCALHOST_NODE_PORTS),
        );
        let limits = Limits::new(config.sync.period, has_api_server);
        let health = Arc::new(Health::new(limits, started, progress));
        for Declaration { name, rules, .. } in declarations {
            metrics.declare_syncs(*name, rules);
            health.set_syncs(*name, rules.iter().map(|rules| SyncHistory::new(rules)).collect(), false);
        }
        let status = Arc::clone(&source_health);
        health.watch_source(move || status.last_contact());
        let status = Arc::clone(&source_health);
        health.read_problems("source", move || unreadable_problems(&status.unreadable()));
        let (stop, stopping) = watch::channel(false);
        let diagnostics = Diagnostics {
            proxy_mode: config.mode.name(),
            configuration,
            flags: config::Invocation::flag_values(std::env::args_os()),
            started,
            version: env!("CARGO_PKG_VERSION"),
            service_traffic,
        };
        let recorder = source.recorder().clone();
        let servers = Servers::start(
            addresses(config),
            ConnectionLimits::for_descriptors(file_descriptors::limit()),
            Arc::clone(&health),
            metrics.clone(),
            diagnostics,
            stopping,
            &recorder,
        )
        .await?;
        let controllers = ControllerStatuses::new(
            metrics.clone(),
            Arc::clone(&health),
            recorder.clone(),
            Arc::clone(&source_health),
        );
        if let Some(policy) = &config.network_policy {
            controllers.read_policy_drops(policy.audit);
        }
        Ok(Telemetry {
            node: node.clone(),
            controllers,
            metrics,
            health,
            servers,
            local_api: None,
            stop,
            recorder,
            silence: SilenceReporter::default(),
            dropped_lines: DroppedLines::default(),
            own_node: OwnNodeReporter::new(node, has_api_server),
            source: source_health,
            has_api_server,
            omitted_events: 0,
        })
    }

    /// Returns the health that the servers serve.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Returns a function that reports whether the configuration file is invalid, with its errors.
    pub(crate) fn configuration_reporter(&self) -> impl Fn(Option<&str>) + Send + 'static {
        let (metrics, health) = (self.metrics.clone(), self.health());
        move |errors| {
            metrics.configuration_unusable(errors.is_some());
            health.warn(errors.map(|errors| format!("the configuration file is invalid: {errors}")));
        }
    }

    /// Starts the hub of traffic events. `has_policies`: policies are enforced.
    pub(crate) fn start_traffic_events(
        &self,
        has_policies: bool,
        queries: Queries,
        wake: &Wake,
    ) -> (TrafficEvents, ControllerEnds) {
        TrafficEvents::start(self.node.clone(), has_policies, queries, self.metrics.traffic_events(), wake)
    }

    /// Starts the local API, if the configuration has a socket for it, and the status page, if it has an address.
    ///
    /// # Errors
    /// With `--bind-address-hard-fail`, the address of the status page cannot be bound.
    pub(crate) async fn start_local_api(
        &mut self,
        facts: DaemonFacts,
        queries: Queries,
        events: TrafficEvents,
    ) -> Result<(), BindError> {
        let (path, addresses) = (facts.config.socket.clone(), addresses(&facts.config));
        if path.is_none() && addresses.page.is_none() {
            return Ok(());
        }
        self.controllers.timeline().add_start(facts.config.mode, facts.started);
        let sources = ApiSources {
            queries,
            events,
            health: self.health(),
            reported: self.controllers.reported().clone(),
            timeline: self.controllers.timeline().clone(),
            source: Arc::clone(&self.source),
            drops: self.controllers.drops().clone(),
            recorder: self.recorder.clone(),
        };
        let api = LocalApi::new(facts, sources);
        let limits = ConnectionLimits::for_descriptors(file_descriptors::limit());
        self.local_api = path.map(|path| {
            LocalApiServer::start(
                path,
                local_api::router(api.clone()),
                limits.local_api,
                self.health(),
                self.metrics.clone(),
                self.stop.subscribe(),
            )
        });
        let page = |address| page::router(api, address);
        let stop = self.stop.subscribe();
        self.servers.start_page(addresses, limits, page, &self.metrics, stop, &self.recorder).await
    }

    /// Starts the server of the health check ports of Services.
    pub(crate) fn service_health_server(&self) -> ServiceHealthServer {
        ServiceHealthServer::start(
            self.health(),
            ConnectionLimits::for_descriptors(file_descriptors::limit()),
            &self.metrics,
            self.stop.subscribe(),
            self.recorder.clone(),
        )
    }

    /// Logs how many Events were omitted since the last call.
    fn report_omitted_events(&mut self) {
        let omitted = self.recorder.omitted();
        let new = omitted - std::mem::replace(&mut self.omitted_events, omitted);
        if new > 0 {
            tracing::warn!(
                events = new,
                "omitted {new} Events, as there were too many; the log and metrics report all problems"
            );
        }
    }

    /// Stops the servers, after the current responses.
    pub(crate) async fn stop(self) {
        // Fails if no server runs.
        let _ = self.stop.send(true);
        self.servers.stopped().await;
        if let Some(server) = self.local_api {
            server.stopped().await;
        }
    }
}

impl Observer for Telemetry {
    fn index_changed(&mut self, index: &Index) {
        self.own_node.observe(index, &self.health);
        let node = index.node(&self.node);
        let is_known = node.is_some() || !index.is_listed(Kind::Node) || index.count(Kind::Node) == 0;
        self.health.set_node_eligible(is_known && node.is_none_or(|node| !node.is_to_be_deleted));
    }

    fn observe(&mut self, statuses: &[Status]) {
        self.controllers.observe(statuses);
    }

    fn tick(&mut self) {
        let now = Moment::now();
        logging::report_omitted_lines();
        self.report_omitted_events();
        let dropped = self.dropped_lines.problem(logging::dropped_lines(), now);
        self.health.set_problems("log", dropped.into_iter().collect());
        let kinds = if self.has_api_server { self.source.snapshot() } else { Vec::new() };
        let mut problems = source_problems::from_kinds(&kinds, now.monotonic());
        let credentials = self.source.credentials_problem();
        self.metrics.credentials_unusable(credentials.is_some());
        problems.extend(credentials.map(HealthProblem::warning));
        self.health.set_problems("API server", problems);
        self.controllers.timeline().add_sources(&self.source.snapshot(), now);
        if self.controllers.drops().needs_sample(now.monotonic()) {
            let drops = self.controllers.drops().clone();
            // The kernel is not asked on the loop.
            drop(tokio::task::spawn_blocking(move || drops.read()));
        }
        let silence = self.health.status(now).silence;
        self.silence.observe(silence.as_deref(), now.monotonic(), &self.recorder);
    }
}

/// Returns the listening addresses of a configuration.
pub(crate) fn addresses(config: &Config) -> Addresses {
    Addresses {
        healthz: config.healthz_bind_address,
        metrics: config.metrics_bind_address,
        page: config.status_page_bind_address,
        hard_fail: config.bind_address_hard_fail,
    }
}

/// How many unreadable objects health lists.
const LISTED: usize = 10;

/// Returns the health problems of unreadable objects. They fail no health check: all other objects are served, and taking
/// the node out of service would not repair the object.
fn unreadable_problems(reasons: &[String]) -> Vec<HealthProblem> {
    let more = reasons.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("{more} more objects or documents cannot be read"));
    reasons.iter().take(LISTED).cloned().chain(more).map(HealthProblem::warning).collect()
}

/// Returns the packets of a counter in the kernel: 0 before the first sync creates it; `None` if the kernel has no such counters.
fn packets(name: &str) -> Option<u64> {
    let counter = Counters::open().and_then(|mut counters| counters.get(name)).ok()?;
    Some(counter.map_or(0, |counter| counter.packets))
}
