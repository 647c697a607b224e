//! Health, metrics and Events of the daemon, derived from the loop and the statuses of its controllers.

use std::sync::Arc;

use portcullis_cluster::{Family, Index, Kind, Name};
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_netlink::nfacct::Counters;
use tokio::sync::watch;

use super::policies::PolicyReporter;
use super::services::ServiceReporter;
use crate::cluster_view::UnreadableObjects;
use crate::config::{self, Config};
use crate::control::{Job, Observer, Status};
use crate::logging;
use crate::moment::Moment;
use crate::observe::api_server_silence::SilenceReporter;
use crate::observe::dropped_lines::DroppedLines;
use crate::observe::health::{FirstSyncsHeld, Health, HealthProblem, Limits};
use crate::observe::health_check_node_port::ServiceHealthServer;
use crate::observe::http::{Addresses, BindError, Diagnostics, Servers, ServiceTraffic};
use crate::observe::metrics::Metrics;
use crate::observe::own_node_reporter::OwnNodeReporter;
use crate::observe::source_problems;
use crate::source::{EventRecorder, Source, SourceHealth};

/// Reports the state of the daemon.
pub(super) struct Telemetry {
    node: Name,
    families: Vec<Family>,
    metrics: Metrics,
    health: Arc<Health>,
    servers: Servers,
    stop: watch::Sender<bool>,
    recorder: EventRecorder,
    silence: SilenceReporter,
    dropped_lines: DroppedLines,
    own_node: OwnNodeReporter,
    source: Arc<SourceHealth>,
    /// The source is an API server.
    has_api_server: bool,
    /// The first syncs that are held back, as last reported.
    held: FirstSyncsHeld,
    /// Policies are enforced without unreadable objects, as last reported.
    lacks_objects: bool,
    started: Moment,
}

impl Telemetry {
    /// Starts the servers. `configuration` is the configuration as JSON, for `/configz`. An address that cannot be bound is
    /// also reported as an Event.
    pub(super) async fn start(
        config: &Config,
        configuration: String,
        source: &Source,
        node: Name,
        families: &[Family],
        service_traffic: ServiceTraffic,
    ) -> Result<Self, BindError> {
        let started = Moment::now();
        let has_api_server = matches!(config.source, config::Source::ApiServer(_));
        let metrics = Metrics::new(config.mode);
        let source_health = Arc::clone(source.health());
        let status = Arc::clone(&source_health);
        metrics.read_source(move || status.snapshot());
        metrics.read_dropped_log_lines(logging::dropped_lines);
        metrics.read_packet_counters(
            || packets(NFACCT_INVALID_DROPPED),
            || packets(NFACCT_LOCALHOST_NODE_PORTS),
        );
        let limits = Limits::new(config.sync.period, has_api_server);
        let health = Arc::new(Health::new(limits, families.iter().copied(), started));
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
            Arc::clone(&health),
            metrics.clone(),
            diagnostics,
            stopping,
            &recorder,
        )
        .await?;
        Ok(Telemetry {
            node: node.clone(),
            families: families.to_vec(),
            metrics,
            health,
            servers,
            stop,
            recorder,
            silence: SilenceReporter::default(),
            dropped_lines: DroppedLines::default(),
            own_node: OwnNodeReporter::new(node, has_api_server),
            source: source_health,
            has_api_server,
            held: FirstSyncsHeld::default(),
            lacks_objects: false,
            started,
        })
    }

    /// Returns the health that the servers serve.
    pub(super) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Returns a function that records a step of a job, to be called from its thread.
    pub(super) fn step_of(&self, job: Job) -> Arc<dyn Fn() + Send + Sync> {
        let health = self.health();
        Arc::new(move || health.job_stepped(job, Moment::now()))
    }

    /// Returns a function that reports whether the configuration file is invalid, with its errors.
    pub(super) fn configuration_reporter(&self) -> impl Fn(Option<&str>) + Send + 'static {
        let (metrics, health) = (self.metrics.clone(), self.health());
        move |errors| {
            metrics.configuration_unusable(errors.is_some());
            health.warn(errors.map(|errors| format!("the configuration file is invalid: {errors}")));
        }
    }

    /// Creates the reporter of the controller of Services, with the server of health check ports.
    pub(super) fn service_reporter(&self) -> ServiceReporter {
        let health_checks =
            ServiceHealthServer::start(self.health(), self.stop.subscribe(), self.recorder.clone());
        ServiceReporter::new(
            self.families.clone(),
            self.metrics.clone(),
            self.health(),
            self.recorder.clone(),
            health_checks,
            self.started.wall(),
        )
    }

    /// Creates the reporter of the controller of policies.
    pub(super) fn policy_reporter(&self, audit: bool) -> PolicyReporter {
        PolicyReporter::new(self.metrics.clone(), self.health(), audit)
    }

    /// Stops the servers, after the current responses.
    pub(super) async fn stop(self) {
        // Fails if no server runs.
        let _ = self.stop.send(true);
        self.servers.stopped().await;
    }

    fn unreadable(&self) -> UnreadableObjects {
        UnreadableObjects(self.source.unreadable())
    }

    fn report_held_back(&mut self, held: FirstSyncsHeld) {
        if held == self.held {
            return;
        }
        self.held = held;
        self.health.hold_first_syncs(held);
        let rules = match (held.services, held.policies) {
            (true, true) => "Services and policies",
            (true, false) => "Services",
            (false, true) => "policies",
            (false, false) => {
                tracing::info!("all objects have been read; the first sync is no longer held back");
                self.health.set_problems("first sync", Vec::new());
                return;
            }
        };
        let reason = format!(
            "keeping the rules of {rules} that an earlier proxy left, as they may serve objects that cannot be read: {}; \
             repair or remove them",
            self.unreadable()
        );
        tracing::error!("the first sync is held back: {reason}");
        self.health.set_problems("first sync", vec![HealthProblem::not_ready(reason)]);
    }

    /// Reports that policies are enforced without unreadable objects. The kernel had no earlier policies in their place, as
    /// the first sync would be held back otherwise.
    fn report_lacking_objects(&mut self, lacks_objects: bool) {
        let reported = std::mem::replace(&mut self.lacks_objects, lacks_objects);
        if !lacks_objects {
            if reported {
                self.health.set_problems("policies", Vec::new());
            }
            return;
        }
        let reason = format!(
            "enforced without objects that cannot be read, so they may allow too much: {}; repair or remove them",
            self.unreadable()
        );
        if !reported {
            tracing::error!("policies are {reason}");
        }
        self.health.set_problems("policies", vec![HealthProblem::not_ready(reason)]);
    }

    /// Reports that another process keeps changing rules. It fails `/healthz`, as the rules are wrong for a part of the time,
    /// and not `/livez`, as a restart does not stop the other process.
    fn report_contention(&self, status: &Status) {
        let (component, label) = match status.job {
            Job::Services => ("rules of Services", "services"),
            Job::Policies => ("NetworkPolicy table", "policies"),
        };
        self.metrics.set_contention(label, status.contention.is_some());
        let problem = status.contention.clone().map(HealthProblem::not_ready);
        self.health.set_problems(component, problem.into_iter().collect());
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
        let is_held = |job| statuses.iter().any(|status| status.job == job && status.is_held_back);
        self.report_held_back(FirstSyncsHeld {
            services: is_held(Job::Services),
            policies: is_held(Job::Policies),
        });
        self.report_lacking_objects(statuses.iter().any(|status| status.lacks_objects));
        statuses.iter().for_each(|status| self.report_contention(status));
    }

    fn tick(&mut self) {
        let now = Moment::now();
        self.health.loop_iterated(now);
        let dropped = self.dropped_lines.problem(logging::dropped_lines(), now);
        self.health.set_problems("log", dropped.into_iter().collect());
        let kinds = if self.has_api_server { self.source.snapshot() } else { Vec::new() };
        self.health.set_problems("API server", source_problems::from_kinds(&kinds, now.monotonic()));
        let silence = self.health.status(now).silence;
        self.silence.observe(silence.as_deref(), now.monotonic(), &self.recorder);
    }

    fn work_started(&mut self, job: Job) {
        self.health.job_started(job, Moment::now());
    }

    fn work_ended(&mut self, job: Job) {
        self.health.job_ended(job);
    }
}

/// Returns the listening addresses of a configuration.
pub(super) fn addresses(config: &Config) -> Addresses {
    Addresses {
        healthz: config.healthz_bind_address,
        metrics: config.metrics_bind_address,
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

/// Returns the packets of a counter in the kernel; `None` if there is no such counter.
fn packets(name: &str) -> Option<u64> {
    Counters::open().and_then(|mut counters| counters.get(name)).ok().flatten().map(|counter| counter.packets)
}
