//! The daemon: from events to rules, for as long as it lives.
//!
//! ```text
//! source ─► Index ─► Desired ─┐                     ┌─► health, metrics
//! addresses ──────────────────┼─► Worker (a thread) ┤
//! clock ──────────────────────┘    one sync at a    └─► health check ports
//!                                  time
//! ```
//!
//! While a sync runs, events are taken in; what they change is for the next one.

mod address_watch;
mod api_server_silence;
mod config_watch;
mod drift_watch;
mod dropped_lines;
mod first_sync;
mod isolation_health;
mod kernel_progress;
pub(crate) mod mode_setup;
mod own_node_reporter;
mod policies;
mod repairs;
mod running_sync;
mod schedule;
mod service_manager;
mod source_problems;
mod telemetry;
pub(crate) mod unserved;
mod watch_thread;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, Kind, Name};
use portcullis_modes::ServiceEngine;
use portcullis_modes::cleanup::{self, Takeover};
use portcullis_modes::iptables::{Flavour, ToolError, Tools};
use portcullis_modes::ipvs::{self, IpvsPrerequisiteError};
use portcullis_modes::nftables;
use portcullis_modes::stale_flows::{KernelFlows, StaleFlows};
use portcullis_modes::{NodeFacts, Options};
use portcullis_policy::table::{EnforceError, Enforcer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;

use crate::cluster_view::UnreadableObjects;
use crate::config::{self, Config, Daemon, ProxyMode};
use crate::http::{BindError, FirstSyncsHeld, ITERATION_LIMIT, Job, Servers, ServiceTraffic, TrafficRequest};
use crate::policy_lock::{PolicyLock, PolicyLockError};
use crate::source::{self, AccessError, EventRecorder, EventReporter, EventType, PathError, START, Source};
use crate::{cluster_view, conntrack_settings, host, memory, node, oom_score, other_proxies};
use config_watch::ConfigChange;
pub use config_watch::ConfigFile;
use drift_watch::Drift;
use first_sync::FirstSync;
use kernel_progress::with_progress;
use policies::{Policies, PolicySyncResult, PolicyWorker, RunningPolicies};
use repairs::{Repairs, Unlogged};
use schedule::{Due, Schedule};
use service_manager::ServiceManager;
use telemetry::{CONTENDED_POLICIES, CONTENDED_SERVICES, Telemetry};
use worker::{ServiceSyncRequest, ServiceSyncResult, Worker};

/// How long a start that fails may take to say why as an Event.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often `route_localnet` is read, where rules depend on it.
const LOOPBACK_CHECK: Duration = Duration::from_secs(2);

/// How many batches of events may wait for the loop.
const EVENT_BATCHES: usize = 16;

/// How often the loop wakes up to report what follows from the time that passes, above all that it goes on.
const TICK: Duration = Duration::from_secs(ITERATION_LIMIT.as_secs() / 12);

/// How often a process with `--once` checks whether the API server still answers.
const LISTENING: Duration = Duration::from_millis(100);

/// How long connections through IPVS may last after another mode serves. With `--once` they end at once.
const DRAIN: Duration = Duration::from_secs(10 * 60);

/// Why the daemon cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This node's name is not known.
    #[error("cannot determine this node's name: {0}")]
    NodeName(std::io::Error),
    /// There are no tools, or they cannot reach the kernel.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// The kernel lacks what ipvs mode needs.
    #[error(transparent)]
    Requirement(#[from] IpvsPrerequisiteError),
    /// The kernel lacks what nftables mode needs.
    #[error(transparent)]
    NftablesPrerequisite(#[from] nftables::NftablesPrerequisiteError),
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Policies cannot be enforced here.
    #[error("NetworkPolicies cannot be enforced (--network-policy): {0}")]
    Policies(#[from] EnforceError),
    /// Another process enforces policies.
    #[error("NetworkPolicies cannot be enforced (--network-policy): {0}")]
    PolicyLock(#[from] PolicyLockError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Serve(#[from] BindError),
    /// A signal handler or thread could not be set up.
    #[error("system error: {0}")]
    System(#[from] std::io::Error),
    /// A sync task panicked.
    #[error("sync task panicked: {0}")]
    BrokeOff(#[from] JoinError),
    /// The configuration file changed, which requires a restart.
    #[error("{} was changed; exiting, to be restarted with the new configuration", .0.display())]
    Reconfigured(PathBuf),
    /// With `--once`: not everything could be read.
    #[error("{}: {unreadable}", if *.held { "nothing was written, as some objects could not be read and the kernel has rules that may serve them" } else { "incomplete, as some objects could not be read" })]
    Unreadable {
        /// Nothing was written.
        held: bool,
        /// What could not be read.
        unreadable: UnreadableObjects,
    },
    /// With `--once`: the manifests cannot be read at all.
    #[error(transparent)]
    Manifests(#[from] PathError),
    /// With `--once`: the API server does not answer.
    #[error("no response from the API server for {0:?} (--request-timeout): {1}")]
    Silent(Duration, String),
    /// With `--once`: not everything could be written.
    #[error("some rules could not be written: {0}")]
    Incomplete(String),
}

/// Runs until a signal ends it; with `--once`, until everything is written once. The rules stay.
/// `configuration` is the configuration as a `KubeProxyConfiguration` in JSON, for who asks over HTTP; `file` is followed,
/// if it was read from one.
///
/// # Errors
/// It cannot start; with `--once`, also if anything could not be written; [`DaemonError::Reconfigured`].
pub async fn run(
    config: Config,
    configuration: String,
    options: &Daemon,
    file: Option<ConfigFile>,
) -> Result<(), DaemonError> {
    let start = Instant::now();
    tracing::info!(mode = config.mode.name(), "starting {}", crate::version());
    // Everything that can fail is checked before anything is written to the node: a daemon that cannot start changes nothing.
    let name = node::name(&config).map_err(DaemonError::NodeName)?;
    let mut means = mode_setup::check_prerequisites(config.mode)?;
    if config.mode == ProxyMode::Ipvs {
        ipvs::check_prerequisites(config.ipvs.scheduler)?;
    }
    if options.init_only {
        ready_kernel(&config);
        mode_setup::prepare_node(&config)?;
        tracing::info!("the node is set up; ending, as --init-only asks for");
        return Ok(());
    }
    if let (true, config::Source::Manifests(path)) = (options.once, &config.source) {
        // The daemon waits for a path that is not there yet.
        source::check_path(path)?;
    }
    let enforcer = config.network_policy.as_ref().map(Policies::enforcer).transpose()?;
    if enforcer.is_some() {
        let force = options.force;
        tokio::task::spawn_blocking(move || PolicyLock::acquire(force)).await??.keep()?;
    }
    let (sink, events) = mpsc::channel(EVENT_BATCHES);
    let source = source::spawn_with_events(
        cluster_view::source_config(&config, name),
        sink,
        Some(EventReporter::new(name)),
    )
    .await?;
    let recorder = source.recorder().clone();
    let families: Vec<Family> = means.families.clone();
    tell_of_others(&config, &recorder).await?;
    if let Err(error) = Servers::check(telemetry::addresses(&config), &recorder).await {
        recorder.flush(LAST_WORDS).await;
        return Err(error.into());
    }
    // Health answers only once the node is set up.
    let kernel = ready_kernel(&config);
    tell_of_refused(&recorder, &kernel.refused);
    let (service_traffic, inquiries) = ServiceTraffic::channel();
    let telemetry = Telemetry::start(&config, configuration, &source, name, &families, service_traffic);
    let mut telemetry = match telemetry.await {
        Ok(telemetry) => telemetry,
        Err(error) => {
            recorder.flush(LAST_WORDS).await;
            return Err(error.into());
        }
    };
    means.kernels = with_progress(means.kernels, &telemetry.step_of(Job::Services));
    let options_now = node::options(&config, None);
    let accepts_loopback = host::accepts_loopback(&options_now);
    let inherits_guard =
        accepts_loopback && config.mode == ProxyMode::Ipvs && cleanup::has_iptables_loopback_guard();
    let facts = Facts {
        tools: means.tools.clone(),
        nfacct: kernel.nfacct,
        addresses: host::addresses(),
        accepts_loopback: accepts_loopback && !inherits_guard,
        inherits_guard,
    };
    let host_now = facts.host(&config, &Index::new(), name, &options_now);
    let (mode, news) = mode_setup::start_mode(&config, options_now, host_now, means)?;
    telemetry.read_progress(mode.progress());
    mode_setup::route_localhost(&config);
    tracing::info!(node = %name, ?families, "serving Services by {}", mode.name());
    let starting = format!("Starting portcullis {} in {} mode", env!("CARGO_PKG_VERSION"), mode.name());
    recorder.node_event(EventType::Normal, ["Starting", START], &starting);
    let flows = StaleFlows::new(KernelFlows::default());
    // Without tools there are no rules of iptables that could stay.
    let flavour = facts.tools.as_ref().map_or(Flavour::Nft, |tools| tools.flavour);
    let drain = if options.once { Duration::ZERO } else { DRAIN };
    let takeover = Takeover::new(config.mode, flavour, drain);
    let desired = Desired::new(name).with_external_cidrs(&config.external_address_cidrs);
    let worker = Worker::new(ServiceEngine::new(mode, takeover, flows), desired);
    let (policies, drift) = match config.network_policy.zip(enforcer) {
        Some((policy, enforcer)) => {
            let (policies, drift) = Policies::start(policy, name, enforcer, options.once);
            telemetry.expect_policies(policy.audit);
            (Some(policies), Some(drift))
        }
        None => {
            forget_policies(options).await?;
            (None, None)
        }
    };
    let links = policies.as_ref().filter(|_| !options.once).map(|_| policies::watch_links());
    let followed = file.filter(|_| !options.once).map(|file| {
        let path = file.path.clone();
        Followed { path, news: config_watch::follow(file, config.clone()) }
    });
    let now = Instant::now();
    let schedule = Schedule::new(config.sync.min_period, config.sync.period, now);
    let daemon = Loop {
        config,
        name,
        facts,
        index: Index::for_node(name),
        schedule,
        telemetry,
        worker: Some(worker),
        suspect: false,
        repairs: Repairs::new(now),
        changed_at: news.generation,
        policies,
        first_services: FirstSync::of_services(),
        first_policies: FirstSync::of_policies(),
        policies_lack_objects: false,
        source,
        first_sync: Some(start),
    };
    let service_manager = ServiceManager::notify_of(daemon.telemetry.health());
    let heard = Heard { events, inquiries, mode_drift: news.drift, policy_drift: drift, links, followed };
    daemon.run(heard, options.once, service_manager).await
}

/// Logs what the first sync that succeeded serves.
fn log_first_sync(desired: &Desired, outcome: &ServiceSyncResult, start: Instant) {
    let (services, ports) = (desired.services().len(), desired.ports().count());
    let endpoints: usize = desired.ports().map(|port| port.endpoints.serving().len()).sum();
    let isolated: usize = outcome.reports.iter().map(|report| report.isolated.len()).sum();
    tracing::info!(
        services,
        ports,
        endpoints,
        isolated,
        took = ?outcome.took,
        since_start = ?start.elapsed(),
        "first sync is done"
    );
}

/// What [`ready_kernel`] found.
struct ReadyKernel {
    /// The counters that rules of iptables name are there.
    nfacct: bool,
    refused: Vec<conntrack_settings::RejectedSetting>,
}

/// Writes the settings of this process and of the kernel that do not depend on the mode.
fn ready_kernel(config: &Config) -> ReadyKernel {
    oom_score::set(config.oom_score_adj);
    // Only rules of iptables name its counters.
    let nfacct = config.mode != ProxyMode::Nftables && host::ensure_nfacct();
    ReadyKernel { nfacct, refused: conntrack_settings::set(&config.conntrack) }
}

/// Tells of what the kernel did not take of the settings of connection tracking, as upstream does where `/sys` is
/// read-only.
fn tell_of_refused(recorder: &EventRecorder, refused: &[conntrack_settings::RejectedSetting]) {
    if refused.is_empty() {
        return;
    }
    let read_only = refused.iter().any(conntrack_settings::RejectedSetting::is_read_only);
    let reason = if read_only { "readOnlySysFS" } else { "KernelSettingRefused" };
    let told: Vec<String> = refused.iter().map(ToString::to_string).collect();
    recorder.node_event(EventType::Warning, [reason, START], &told.join("; "));
}

/// Says so where another proxy runs on this node. It is asked before this one answers at the same addresses.
async fn tell_of_others(config: &Config, recorder: &EventRecorder) -> Result<(), JoinError> {
    let config = config.clone();
    let others = tokio::task::spawn_blocking(move || other_proxies::detect(&config)).await?;
    for proxy in others {
        let told = format!("{proxy}: two proxies on one node undo each other's work; stop one of them");
        tracing::error!("{told}");
        recorder.node_event(EventType::Warning, ["AnotherProxy", START], &told);
    }
    Ok(())
}

/// Removes the table of an earlier daemon that enforced policies, as no process follows them any more; a process that does
/// keeps its table, unless it ends within seconds.
async fn forget_policies(options: &Daemon) -> Result<(), JoinError> {
    let _lock = match PolicyLock::try_acquire() {
        Err(PolicyLockError::Held(_)) if !options.force => {
            let waiting = tokio::task::spawn_blocking(|| match PolicyLock::acquire(false) {
                Err(error) => {
                    tracing::error!(%error, "the NetworkPolicy table stays as the other process wants it")
                }
                _lock => remove_policies(),
            });
            // The daemon need not wait.
            return if options.once { waiting.await } else { Ok(()) };
        }
        lock => lock,
    };
    remove_policies();
    Ok(())
}

fn remove_policies() {
    match Enforcer::remove() {
        Ok(families) if families.is_empty() => {}
        Ok(_) => tracing::info!("NetworkPolicies are not enforced any more (--network-policy is off)"),
        Err(EnforceError::NoTables) => {}
        Err(error) => {
            tracing::warn!(%error, "what an earlier daemon enforced of NetworkPolicies may be left")
        }
    }
}

/// What is known of this machine.
struct Facts {
    tools: Option<Tools>,
    nfacct: bool,
    addresses: Vec<IpAddr>,
    /// See [`host::accepts_loopback`]. False while rules are inherited that guard.
    accepts_loopback: bool,
    /// Rules of iptables mode guard loopback addresses until this mode serves.
    inherits_guard: bool,
}

impl Facts {
    fn host(&self, config: &Config, index: &Index, name: Name, options: &Options) -> NodeFacts {
        NodeFacts {
            addresses: host::addresses_in_rules(config.mode, options, &self.addresses),
            node_ips: node::primary_ips(config, index.node(name), host::default_route_source),
            iptables: portcullis_modes::iptables::IptablesFeatures {
                random_fully: self.tools.as_ref().is_none_or(Tools::random_fully),
                nfacct: self.nfacct,
            },
            service_cidrs: node::service_cidrs(config.mode, index),
            route_localnet: self.accepts_loopback,
        }
    }
}

/// What the loop listens to beside signals.
struct Heard {
    events: mpsc::Receiver<Vec<Event>>,
    inquiries: mpsc::Receiver<TrafficRequest>,
    mode_drift: Option<mpsc::Receiver<Drift>>,
    policy_drift: Option<mpsc::Receiver<Drift>>,
    links: Option<mpsc::Receiver<()>>,
    followed: Option<Followed>,
}

struct Loop {
    config: Config,
    name: Name,
    facts: Facts,
    index: Index,
    schedule: Schedule,
    telemetry: Telemetry,
    /// `None` while it syncs or reads.
    worker: Option<Worker>,
    /// Somebody else changed what the mode wrote.
    suspect: bool,
    /// External changes of what the mode wrote.
    repairs: Repairs,
    /// The generation of nf_tables that the latest reported change made; 0 where it is not known.
    changed_at: Arc<AtomicU32>,
    /// Where policies are enforced.
    policies: Option<Policies>,
    first_services: FirstSync,
    first_policies: FirstSync,
    /// Policies are enforced without objects that were never read.
    policies_lack_objects: bool,
    source: Source,
    /// When the daemon started, until the first sync has succeeded.
    first_sync: Option<Instant>,
}

type Running = JoinHandle<(Worker, ServiceSyncResult)>;

impl Loop {
    async fn run(
        mut self,
        heard: Heard,
        once: bool,
        service_manager: ServiceManager,
    ) -> Result<(), DaemonError> {
        let Heard { mut events, mut inquiries, mut mode_drift, mut policy_drift, mut links, mut followed } =
            heard;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut addresses = address_watch::watch();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut loopback_check = tokio::time::interval(LOOPBACK_CHECK);
        loopback_check.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut patience = tokio::time::interval(LISTENING);
        patience.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running: Option<Running> = None;
        let mut judging: Option<RunningPolicies> = None;
        let mut reading: Option<JoinHandle<Worker>> = None;
        let (mut served, mut judged) = (None, None);
        let mut reconfigured = None;
        loop {
            if judging.is_none() {
                judging = self.start_policies();
            }
            if running.is_none() {
                running = self.start_if_due();
            }
            let next = self.schedule.next();
            let next_policies = self.policies.as_ref().filter(|_| judging.is_none()).and_then(Policies::next);
            let policy_timer = sleep_until(next_policies);
            let contention_timer = sleep_until(self.report_contention(Instant::now()));
            let timer = tokio::time::sleep_until(next.into());
            tokio::select! {
                Some(batch) = events.recv() => self.take_in(batch),
                ended = ended(&mut running), if running.is_some() => {
                    running = None;
                    served = Some(self.finish(ended?));
                }
                ended = ended(&mut judging), if judging.is_some() => {
                    judging = None;
                    judged = Some(self.finish_policies(ended?));
                }
                Some(drift) = received(mode_drift.as_mut()), if self.worker.is_some() => {
                    let changed_at = self.changed_at.load(Relaxed);
                    if changed_at != 0 && self.worker.as_ref().is_some_and(|w| w.has_synced_since(changed_at)) {
                        continue;
                    }
                    tracing::debug!(by = %drift.0, "our table was changed");
                    self.suspect = true;
                    self.schedule.check_at(self.repairs.changed_by(&drift.0, Instant::now()));
                }
                Some(drift) = received(policy_drift.as_mut()) => {
                    let now = Instant::now();
                    self.policies.iter_mut().for_each(|policies| policies.drifted(&drift, now));
                }
                Some(()) = received(links.as_mut()) => {
                    self.policies.iter_mut().for_each(|policies| policies.links_changed(Instant::now()));
                }
                () = contention_timer => {}
                Some(inquiry) = inquiries.recv(), if self.worker.is_some() => {
                    reading = self.read_traffic(inquiry);
                }
                worker = ended(&mut reading), if reading.is_some() => {
                    reading = None;
                    self.telemetry.job_ended(Job::Services);
                    self.worker = Some(worker?);
                }
                () = policy_timer => {}
                _ = tick.tick() => self.telemetry.tick(),
                _ = patience.tick(), if once && !self.all_listed() => self.check_answers()?,
                Some(()) = addresses.recv() => self.addresses_changed(),
                _ = loopback_check.tick() => self.check_loopback(),
                Some(news) = received(followed.as_mut().map(|followed| &mut followed.news)) => {
                    if self.told_of_configuration(&news) {
                        reconfigured = followed.map(|followed| followed.path);
                        break;
                    }
                }
                () = timer, if self.worker.is_some() && self.may_sync() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            if once && self.all_listed() {
                if self.first_services.is_held() || self.first_policies.is_held() {
                    let unreadable = UnreadableObjects(self.source.health().unreadable());
                    return Err(DaemonError::Unreadable { held: true, unreadable });
                }
                if let Some(outcome) = &served
                    && (self.policies.is_none() || judged.is_some())
                {
                    return self.end_once(outcome, judged.as_ref());
                }
            }
        }
        tracing::info!("ending; the rules stay");
        service_manager.stopping().await;
        if let Some(running) = running {
            // A restore is all or nothing, but its end should not go unnoticed.
            let (worker, outcome) = running.await?;
            self.telemetry.synced(&outcome, worker.desired.services().len());
        }
        if let Some(judging) = judging {
            let (_, outcome) = judging.await?;
            self.telemetry.policies_synced(&outcome, None);
        }
        self.telemetry.stop().await;
        self.source.stop().await;
        reconfigured.map_or(Ok(()), |path| Err(DaemonError::Reconfigured(path)))
    }

    /// Whether it is time to end for what the file of `--config` says now.
    fn told_of_configuration(&self, news: &ConfigChange) -> bool {
        match news {
            ConfigChange::Changed => return true,
            ConfigChange::Restored => {
                tracing::info!("the configuration file can be used again, and says what holds");
                self.telemetry.configuration_is(None);
            }
            ConfigChange::Invalid(errors) => {
                tracing::error!(
                    "the configuration file cannot be used; what was read at the start holds on:\n{errors}"
                );
                self.telemetry.configuration_is(Some(errors));
            }
        }
        false
    }

    /// Whether all is known that rules need. Before that, rules would take away what is still wanted.
    fn all_listed(&self) -> bool {
        [Kind::Node, Kind::Service, Kind::EndpointSlice].into_iter().all(|kind| self.index.is_listed(kind))
    }

    /// Whether the kernel may be made what is known.
    fn may_sync(&self) -> bool {
        self.all_listed() && !self.first_services.is_held()
    }

    fn take_in(&mut self, batch: Vec<Event>) {
        let was_listed = self.all_listed();
        for event in batch {
            self.index.handle(event);
        }
        self.telemetry.own_node(&self.index);
        self.review_first_syncs();
        if !self.index.dirty_services().is_empty_for(self.name) || (!was_listed && self.all_listed()) {
            self.telemetry.queued(&self.index);
            self.schedule.want();
        }
    }

    /// Holds first syncs back, or no longer, by what could not be read.
    fn review_first_syncs(&mut self) {
        let unread = self.index.unreadable();
        let (services, policies) = (unread.may_concern_services(self.name), unread.may_concern_policies());
        let mut changed = self.first_services.review(services);
        changed |= self.policies.is_some() && self.first_policies.review(policies);
        self.report_unread_policies(policies);
        if !changed {
            return;
        }
        let held = FirstSyncsHeld {
            services: self.first_services.is_held(),
            policies: self.first_policies.is_held(),
        };
        let of = match (held.services, held.policies) {
            (true, true) => "Services and policies",
            (true, false) => "Services",
            (false, true) => "policies",
            (false, false) => {
                tracing::info!("every object was read once; the first sync is no longer held back");
                return self.telemetry.first_syncs_are_held(held, None);
            }
        };
        let unreadable = UnreadableObjects(self.source.health().unreadable());
        let reason = format!(
            "the rules of {of} stay as an earlier proxy left them, as they may serve what cannot be read: {unreadable}; \
             repair or remove it"
        );
        tracing::error!("the first sync is held back: {reason}");
        self.telemetry.first_syncs_are_held(held, Some(reason));
    }

    /// Reports that policies are enforced without objects that were never read. Nothing in the kernel restricts in their
    /// place, as the first sync would be held back otherwise.
    fn report_unread_policies(&mut self, unread: bool) {
        let lack = unread && self.policies.is_some() && !self.first_policies.is_held();
        let lacked = std::mem::replace(&mut self.policies_lack_objects, lack);
        if !lack && !lacked {
            return;
        }
        let reason = lack.then(|| {
            let unreadable = UnreadableObjects(self.source.health().unreadable());
            format!("enforced without what was never read, so they may allow too much: {unreadable}; repair or remove it")
        });
        if let Some(reason) = reason.as_ref().filter(|_| !lacked) {
            tracing::error!("policies are {reason}");
        }
        self.telemetry.policies_lack_objects(reason);
    }

    fn addresses_changed(&mut self) {
        let addresses = host::addresses();
        if addresses != self.facts.addresses {
            self.facts.addresses = addresses;
            self.schedule.want();
        }
        // Who makes interfaces may set it on them.
        self.check_loopback();
        mode_setup::route_localhost(&self.config);
    }

    /// Fails when the API server has been silent for longer than a process that ends by itself waits.
    fn check_answers(&self) -> Result<(), DaemonError> {
        let (crate::config::Source::ApiServer(api), Some(start)) = (&self.config.source, self.first_sync)
        else {
            return Ok(());
        };
        match self.source.health().list_timeout(start, api.request_timeout) {
            Some(reason) => Err(DaemonError::Silent(api.request_timeout, reason)),
            None => Ok(()),
        }
    }

    /// Has the rules follow `route_localnet`, of whose changes the kernel does not notify.
    fn check_loopback(&mut self) {
        if self.facts.inherits_guard {
            return;
        }
        let options = node::options(&self.config, self.index.node(self.name));
        let accepts = host::accepts_loopback(&options);
        if accepts != self.facts.accepts_loopback {
            let change =
                if accepts { "set; packets from other hosts to 127.0.0.0/8 are dropped" } else { "0" };
            tracing::info!("the sysctl route_localnet is now {change}");
            self.facts.accepts_loopback = accepts;
            self.schedule.want();
        }
    }

    fn start_if_due(&mut self) -> Option<Running> {
        let now = Instant::now();
        let due = self.schedule.due(now).filter(|_| self.may_sync())?;
        let mut worker = self.worker.take()?;
        self.first_services.started();
        self.schedule.started(due, now);
        if due == Due::Check && self.suspect {
            self.repairs.started(now);
        }
        let touched = self.index.take_dirty_services();
        self.telemetry.started(&touched);
        let changes = worker.desired.update(&self.index, touched);
        self.telemetry.resolved(&mut worker.desired);
        let options = node::options(&self.config, self.index.node(self.name));
        let request = ServiceSyncRequest {
            host: self.facts.host(&self.config, &self.index, self.name, &options),
            addresses: self.facts.addresses.clone(),
            due,
            suspect: std::mem::take(&mut self.suspect),
            inherits_guard: self.facts.inherits_guard,
            changes,
            options,
        };
        self.telemetry.job_started(Job::Services);
        Some(tokio::task::spawn_blocking(move || {
            let outcome = worker.sync(request);
            if outcome.reports.iter().any(|report| report.is_full) {
                memory::release();
            }
            (worker, outcome)
        }))
    }

    /// Answers what Services have served, by who writes their rules.
    fn read_traffic(&mut self, inquiry: TrafficRequest) -> Option<JoinHandle<Worker>> {
        let mut worker = self.worker.take()?;
        self.telemetry.job_started(Job::Services);
        Some(tokio::task::spawn_blocking(move || {
            let served = worker.traffic();
            // Who asked may have lost patience.
            let _ = inquiry.send(served);
            worker
        }))
    }

    fn finish(&mut self, (worker, outcome): (Worker, ServiceSyncResult)) -> ServiceSyncResult {
        self.telemetry.job_ended(Job::Services);
        let error = outcome.error();
        self.telemetry.sync_ended(error.is_none());
        let was_failing = self.schedule.is_retrying();
        self.schedule.ended(error.is_some() || outcome.flows.is_err(), Instant::now());
        self.schedule.upkeep(outcome.next_due);
        if error.is_none() && std::mem::take(&mut self.facts.inherits_guard) {
            self.check_loopback();
        }
        if outcome.is_idle && !was_failing {
            self.worker = Some(worker);
            return outcome;
        }
        if let Some(error) = error {
            tracing::error!(%error, "sync failed; the last good rules stay, and it is tried again");
        }
        if let Err(error) = &outcome.flows {
            tracing::error!(%error);
        }
        for report in &outcome.reports {
            tracing::debug!(family = %report.family, full = report.is_full, lines = report.written, took = ?report.duration, "synced");
            if outcome.drifted && report.is_full && report.restored == 0 {
                tracing::debug!(family = %report.family, "others changed rules, but none of ours");
            }
        }
        let repaired = outcome.reports.iter().map(|report| report.restored).sum();
        if repaired > 0
            && let Some(unlogged) = self.repairs.repaired(repaired, Instant::now())
        {
            log_repairs(unlogged, self.repairs.process());
        }
        if outcome.error().is_none()
            && let Some(start) = self.first_sync.take()
        {
            log_first_sync(&worker.desired, &outcome, start);
        }
        self.telemetry.synced(&outcome, worker.desired.services().len());
        let served = worker.node_port_addresses(&self.facts.addresses);
        self.telemetry.serve_health_checks(&worker.desired, worker.options(), served, outcome.local);
        self.worker = Some(worker);
        outcome
    }

    /// Reports tables that another process keeps changing, and repairs that were not logged yet. Returns when there is
    /// more to report, though nothing else happens.
    fn report_contention(&mut self, now: Instant) -> Option<Instant> {
        if let Some(unlogged) = self.repairs.due_log(now) {
            log_repairs(unlogged, self.repairs.process());
        }
        self.policies.iter_mut().for_each(|policies| policies.log_repairs(now));
        let policies = self.policies.as_ref().map(Policies::repairs);
        let tables = [(CONTENDED_SERVICES, Some(&self.repairs)), (CONTENDED_POLICIES, policies)];
        let ends = tables.map(|(table, repairs)| {
            let contention = repairs.and_then(|repairs| repairs.contention(now));
            let end = repairs.filter(|_| contention.is_some()).and_then(Repairs::contention_ends);
            self.telemetry.contention(table, contention);
            end.into_iter().chain(repairs.and_then(Repairs::next_log)).min()
        });
        ends.into_iter().flatten().min()
    }

    fn start_policies(&mut self) -> Option<RunningPolicies> {
        match &mut self.policies {
            Some(_) if self.first_policies.is_held() => None,
            Some(policies) => {
                let running =
                    policies.start_if_due(&mut self.index, &self.facts.addresses, Instant::now())?;
                self.first_policies.started();
                self.telemetry.job_started(Job::Policies);
                Some(running)
            }
            None => {
                // Manifests tell of pods, too; nobody asks.
                self.index.take_dirty_policy_objects();
                None
            }
        }
    }

    fn finish_policies(&mut self, (worker, outcome): (PolicyWorker, PolicySyncResult)) -> PolicySyncResult {
        self.telemetry.job_ended(Job::Policies);
        if let Some(policies) = &mut self.policies {
            policies.finish(worker, &outcome, Instant::now());
            self.telemetry.policies_synced(&outcome, policies.labels());
        }
        outcome
    }

    /// The result of `--once`, after Services were synced, and policies where they are enforced.
    fn end_once(
        &self,
        outcome: &ServiceSyncResult,
        policies: Option<&PolicySyncResult>,
    ) -> Result<(), DaemonError> {
        let written = all_written(outcome, policies);
        let unreadable = UnreadableObjects(self.source.health().unreadable());
        if unreadable.0.is_empty() {
            return written;
        }
        if let Err(error) = written {
            tracing::error!("{error}");
        }
        Err(DaemonError::Unreadable { held: false, unreadable })
    }
}

fn log_repairs(Unlogged { repairs, objects }: Unlogged, process: &str) {
    tracing::warn!(repairs, objects, by = process, "another process changed the rules; restored them");
}

/// Whether the syncs of `--once` wrote everything.
fn all_written(outcome: &ServiceSyncResult, policies: Option<&PolicySyncResult>) -> Result<(), DaemonError> {
    let errors = outcome.error().map(ToString::to_string).into_iter();
    let isolated = outcome.reports.iter().flat_map(|r| &r.isolated).map(ToString::to_string);
    let flows = outcome.flows.as_ref().err().map(ToString::to_string);
    let policies = policies.and_then(|policies| policies.error.clone());
    let all: Vec<String> = errors.chain(isolated).chain(flows).chain(policies).collect();
    if all.is_empty() {
        tracing::info!(took = ?outcome.took, "everything is written");
        return Ok(());
    }
    Err(DaemonError::Incomplete(all.join("; ")))
}

/// The file of the configuration.
struct Followed {
    path: PathBuf,
    news: mpsc::Receiver<ConfigChange>,
}

/// The next of a channel; without one, never.
async fn received<T>(channel: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn ended<T>(running: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}
