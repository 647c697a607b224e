//! The daemon: sets up the node, starts the controllers, and runs the loop until it is stopped.
//!
//! ```text
//! source ─► Index ─┬─► ServiceController ─► ServiceWorker (on a thread): mode, stale flows
//!                  ├─► PolicyController ──► PolicyWorker (on a thread): NetworkPolicy table
//!                  └─► PodNetworkController ► PodNetworkWorker (on a thread): links, routes, egress rules
//!                           │
//!                           └─ Status ─► Telemetry: health, metrics, Events
//! ```

mod address_watch;
mod config_watch;
mod drift_watch;
mod error;
mod first_sync;
mod kernel_progress;
pub(crate) mod mode_setup;
mod node_addresses;
mod node_setup;
mod pod_network;
mod policies;
mod restores;
mod service_manager;
mod services;
mod stop_signals;
mod watch_thread;

use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::{Family, Index, Name};
use portcullis_modes::ServiceEngine;
use portcullis_modes::cleanup::Takeover;
use portcullis_modes::iptables::Flavour;
use portcullis_modes::stale_flows::{KernelFlows, StaleFlows};
use tokio::sync::mpsc;

use crate::cluster_view;
use crate::config::{self, Config, Daemon};
use crate::control::{Declaration, EventLoop, Exit, ITERATION_LIMIT, Progress, Queries, StopReason, Wake};
use crate::moment::Moment;
use crate::node;
use crate::observe::http::{Servers, ServiceTraffic, TrafficRequest};
use crate::observe::local_api::DaemonFacts;
use crate::observe::telemetry::{self, Telemetry};
use crate::observe::traffic_events::DropLogRequests;
use crate::policy_lock::PolicyLock;
use crate::source::{self, EventRecorder, EventReporter, EventType, START, Source, UnreadableObjects};
use crate::termination::Termination;
use crate::{node_network, proxy_modes, truncated_list};
pub use config_watch::ConfigFile;
pub use error::DaemonError;
use kernel_progress::{ReportProgress, with_progress};
use mode_setup::Prerequisites;
use node_addresses::NodeAddresses;
use node_setup::KernelSettings;
use pod_network::PodNetworkController;
use policies::PolicyController;
use service_manager::ServiceManager;
use services::{HealthChecks, MachineFacts, ServiceController, ServiceHandles, ServiceWorker};

/// How long a failed start waits for the creation of its Event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The capacity of the channel of batches of events.
const EVENT_BATCHES: usize = 16;

/// The period at which the loop reports its own progress and that of long syncs.
const TICK: Duration = Duration::from_secs(ITERATION_LIMIT.as_secs() / 12);

/// How many things that could not be written the error of `--once` names. The log has all of them.
const NAMED: usize = 20;

/// How long connections through IPVS may last after another mode serves. With `--once` they are closed immediately.
const DRAIN: Duration = Duration::from_secs(10 * 60);

/// Runs until it is stopped by a signal; with `--once`, until everything is written once. The rules stay in the kernel.
/// `configuration` is the configuration as a `KubeProxyConfiguration` in JSON, for `/configz`. `file` is the configuration
/// file, of which changes are followed.
///
/// # Errors
/// It cannot start; with `--once`, also if something could not be written; [`DaemonError::Reconfigured`].
pub async fn run(
    config: Config,
    configuration: String,
    options: &Daemon,
    file: Option<ConfigFile>,
    termination: &Termination,
) -> Result<(), DaemonError> {
    let start = Moment::now();
    tracing::info!(mode = config.mode.name(), "starting {}", crate::version::version());
    // Everything that can fail is checked before anything is written to the node: a daemon that cannot start changes nothing.
    let name = node::name(&config).map_err(DaemonError::NodeName)?;
    let prerequisites = mode_setup::check_prerequisites(config.mode)?;
    proxy_modes::driver(config.mode).check_kernel(&config)?;
    if options.init_only {
        node_setup::configure_kernel(&config);
        mode_setup::prepare_node(&config)?;
        if let Some(network) = &config.pod_network {
            let set_up = node_network::set_up_node(network);
            set_up.map_err(|error| DaemonError::PodNetwork(error.to_string()))?;
        }
        tracing::info!("the node is set up; exiting (--init-only)");
        return Ok(());
    }
    if let (true, config::Source::Manifests(path)) = (options.once, &config.source) {
        // Without `--once`, the daemon waits until the path exists.
        source::check_path(path)?;
    }
    let mut enforcer = config.network_policy.as_ref().map(PolicyController::open).transpose()?;
    if enforcer.is_some() {
        let force = options.force;
        tokio::task::spawn_blocking(move || PolicyLock::acquire(force)).await??.keep()?;
    }
    node_setup::restore_reachability(&config, enforcer.as_mut(), prerequisites.tools.as_ref());
    let (sink, events) = mpsc::channel(EVENT_BATCHES);
    let declarations = declarations(&config, &name, &prerequisites.families);
    let source_config = cluster_view::source_config(&config, &declarations, options.once);
    let source =
        source::spawn_with_events(source_config, sink, Some(EventReporter::new(name.clone()))).await?;
    let recorder = source.recorder().clone();
    let other_proxies = node_setup::warn_about_other_proxies(&config, &recorder).await?;
    if let Err(error) = Servers::check(telemetry::addresses(&config), &recorder).await {
        recorder.flush(EVENT_TIMEOUT).await;
        return Err(error.into());
    }
    // Before the servers: health responds once the node is set up.
    let kernel = node_setup::configure_kernel(&config);
    kernel.report_rejected(&recorder);
    let (service_traffic, traffic) = ServiceTraffic::channel();
    let progress = Arc::<Progress>::default();
    let telemetry = Telemetry::start(
        &config,
        configuration,
        &source,
        name.clone(),
        &declarations,
        progress.clone(),
        service_traffic,
    );
    let mut telemetry = match telemetry.await {
        Ok(telemetry) => telemetry,
        Err(error) => {
            recorder.flush(EVENT_TIMEOUT).await;
            return Err(error.into());
        }
    };

    let families = prerequisites.families.clone();
    let wake = Wake::default();
    let addresses = NodeAddresses::read();
    let (queries, receiver) = Queries::channel();
    let has_readers = config.socket.is_some() || config.status_page_bind_address.is_some();
    let observation = (!options.once && has_readers).then(|| {
        node_setup::remove_drop_log();
        telemetry.start_traffic_events(config.network_policy.is_some(), queries.clone(), &wake)
    });
    let (traffic_events, drop_logs) = observation.unzip();
    let (policy_drop_log, source_range_log) =
        drop_logs.map(|ends| (ends.policies, ends.source_ranges)).unzip();
    let setup = Setup {
        config: &config,
        name: &name,
        options,
        start,
        wake: &wake,
        addresses: &addresses,
        progress: &progress,
    };
    let services = setup.services(prerequisites, &kernel, traffic, source_range_log, &telemetry)?;
    let pod_network = setup.pod_network(recorder.clone())?;
    let starting =
        format!("Starting portcullis {} in {} mode", env!("CARGO_PKG_VERSION"), config.mode.name());
    recorder.node_event(EventType::Normal, ["Starting", START], &starting);
    let policies = config.network_policy.zip(enforcer).map(|(policy, enforcer)| {
        PolicyController::new(
            policy,
            name.clone(),
            addresses.clone(),
            enforcer,
            options.once,
            policy_drop_log.flatten(),
            &wake,
        )
    });
    if policies.is_none() {
        node_setup::remove_policies(options).await?;
    }
    if config.pod_network.is_none() {
        node_setup::warn_about_pod_network(&config).await?;
    }
    let stop = setup.stop_signals(&source, file, &telemetry, termination);
    let service_manager = ServiceManager::start(telemetry.health());
    if let Some(traffic_events) = traffic_events {
        let facts = DaemonFacts {
            config: config.clone(),
            node: name.clone(),
            families,
            started: start,
            other_proxies,
        };
        if let Err(error) = telemetry.start_local_api(facts, queries, traffic_events).await {
            recorder.flush(EVENT_TIMEOUT).await;
            return Err(error.into());
        }
    }

    let mut event_loop =
        EventLoop::new(Index::for_node(name.clone()), events, wake, stop, progress, &mut telemetry);
    event_loop.tick = TICK;
    event_loop.queries = Some(receiver);
    event_loop.once = options.once;
    event_loop.add(Box::new(services));
    if let Some(pod_network) = pod_network {
        event_loop.add(Box::new(pod_network));
    }
    if let Some(policies) = policies {
        event_loop.add(Box::new(policies));
    }
    termination.loop_started();
    let reason = match event_loop.run().await? {
        Exit::Stopped(StopReason::NoResponse(timeout, reason)) => {
            return Err(DaemonError::NoResponse(timeout, reason));
        }
        Exit::Stopped(_) if options.once => return Err(DaemonError::Stopped),
        Exit::Stopped(reason) => reason,
        Exit::HeldBack => {
            let unreadable = UnreadableObjects(source.health().unreadable());
            return Err(DaemonError::Unreadable { held: true, unreadable });
        }
        Exit::Synced(unwritten) => return once_result(&unwritten, &source),
    };
    tracing::info!("stopping; keeping the rules");
    service_manager.stopping().await;
    tokio::select! {
        ended = event_loop.drain() => ended?,
        () = termination.drain_limit() => tracing::error!("a sync has not ended; exiting without it"),
    }
    drop(event_loop);
    let stopped = async {
        telemetry.stop().await;
        source.stop().await;
    };
    tokio::select! {
        () = stopped => {}
        () = termination.drain_limit() => tracing::error!("requests have not ended; exiting without them"),
    }
    match reason {
        StopReason::Reconfigured(path) => Err(DaemonError::Reconfigured(path)),
        StopReason::Signal | StopReason::NoResponse(..) => Ok(()),
    }
}

/// The context in which the controllers are created.
struct Setup<'a> {
    config: &'a Config,
    name: &'a Name,
    options: &'a Daemon,
    start: Moment,
    wake: &'a Wake,
    addresses: &'a NodeAddresses,
    progress: &'a Arc<Progress>,
}

impl Setup<'_> {
    /// Starts the mode, and creates the controller of Services.
    fn services(
        &self,
        mut prerequisites: Prerequisites,
        kernel: &KernelSettings,
        traffic: mpsc::Receiver<TrafficRequest>,
        drop_log: Option<DropLogRequests>,
        telemetry: &Telemetry,
    ) -> Result<ServiceController, DaemonError> {
        let Setup { config, name, options, start, wake, addresses, progress } = *self;
        prerequisites.kernels = with_progress(prerequisites.kernels, &step_of_services(progress));
        let mode_options = node::options(config, None);
        let facts = MachineFacts::read(config, &mode_options, prerequisites.tools.clone(), kernel.has_nfacct);
        let node_facts = facts.node_facts(config, &Index::new(), name, &mode_options, &addresses.get());
        // Without tools there are no iptables rules that could remain.
        let flavour = facts.tools.as_ref().map_or(Flavour::Nft, |tools| tools.flavour);
        let families = prerequisites.families.clone();
        let (mode, drift_events) =
            proxy_modes::driver(config.mode).start(config, mode_options, node_facts, prerequisites, wake)?;
        mode_setup::route_localhost(config);
        tracing::info!(node = %name, ?families, "serving Services by {}", mode.proxy_mode().name());
        let drain = if options.once { Duration::ZERO } else { DRAIN };
        let takeover = Takeover::new(config.mode, flavour, drain);
        let counters = mode.progress();
        let engine = ServiceEngine::new(mode, takeover, StaleFlows::new(KernelFlows::default()));
        let handles = ServiceHandles {
            addresses: addresses.clone(),
            address_changes: address_watch::watch(wake),
            drift: drift_events.drift,
            generation: drift_events.generation,
            traffic: wake.forward(traffic),
            health_checks: HealthChecks::new(telemetry.service_health_server(), families.clone()),
            progress: Arc::clone(progress),
            drop_log,
        };
        Ok(ServiceController::new(
            config.clone(),
            name.clone(),
            services::declaration(config, name, &families),
            facts,
            handles,
            ServiceWorker::new(engine, counters),
            start,
        ))
    }

    /// Creates the controller of the pod network, if it is on.
    fn pod_network(&self, recorder: EventRecorder) -> Result<Option<PodNetworkController>, DaemonError> {
        let is_on = self.config.pod_network.is_some();
        let controller =
            is_on.then(|| PodNetworkController::new(self.config, self.name.clone(), recorder, self.wake));
        controller.transpose().map_err(DaemonError::PodNetwork)
    }

    /// Starts the tasks that stop the loop.
    fn stop_signals(
        &self,
        source: &Source,
        file: Option<ConfigFile>,
        telemetry: &Telemetry,
        termination: &Termination,
    ) -> mpsc::Receiver<StopReason> {
        let (sender, stop) = mpsc::channel(1);
        stop_signals::stop_on_signal(termination.clone(), sender.clone());
        if let (true, config::Source::ApiServer(api)) = (self.options.once, &self.config.source) {
            let health = Arc::clone(source.health());
            stop_signals::stop_without_response(
                health,
                self.start.monotonic(),
                api.request_timeout,
                sender.clone(),
            );
        }
        if let Some(file) = file.filter(|_| !self.options.once) {
            let report = telemetry.configuration_reporter();
            stop_signals::stop_on_new_configuration(file, self.config.clone(), report, sender);
        }
        stop
    }
}

/// Returns the declarations of the controllers of a configuration, for a node that serves these families.
pub(crate) fn declarations(config: &Config, node: &Name, families: &[Family]) -> Vec<Declaration> {
    let policies = config.network_policy.as_ref().map(|_| policies::declaration());
    let pod_network = config.pod_network.as_ref().map(|_| pod_network::declaration());
    [services::declaration(config, node, families)].into_iter().chain(policies).chain(pod_network).collect()
}

/// Returns a function that records a step of the sync of Services.
fn step_of_services(progress: &Arc<Progress>) -> ReportProgress {
    let progress = Arc::clone(progress);
    Arc::new(move || progress.stepped(services::NAME, Moment::now()))
}

/// Returns the result of `--once` after every controller has synced. `unwritten`: what could not be written.
fn once_result(unwritten: &[String], source: &Source) -> Result<(), DaemonError> {
    let written = match unwritten {
        [] => Ok(()),
        _ => Err(DaemonError::Incomplete(truncated_list::clauses(unwritten, NAMED))),
    };
    let unreadable = UnreadableObjects(source.health().unreadable());
    if unreadable.0.is_empty() {
        if written.is_ok() {
            tracing::info!("all rules are written");
        }
        return written;
    }
    if let Err(error) = written {
        tracing::error!("{error}");
    }
    Err(DaemonError::Unreadable { held: false, unreadable })
}
