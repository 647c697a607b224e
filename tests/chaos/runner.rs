//! Runs a scenario.

use std::time::Duration;

use super::affinity::Affinities;
use super::api_server::{Fault, Streaming};
use super::check::{self, CheckCounts};
use super::cluster::{ModelCluster, key_of};
use super::health::HealthWatcher;
use super::invalid::{self, InvalidObjects};
use super::node::NodeUnderTest;
use super::pools;
use super::quiet;
use super::random::Random;
use super::rules_names;
use super::scenario::Scenario;
use super::step::{ApiFault, Mode, Step, plural};
use super::traffic::{Traffic, TrafficCounts};
use super::violation::{Invariant, Violation};

/// Counts of what was checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: usize,
    pub(crate) checks: CheckCounts,
    pub(crate) traffic: TrafficCounts,
    pub(crate) health: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.steps += other.steps;
        self.health += other.health;
        let (checks, more) = (&mut self.checks, other.checks);
        checks.quiet_moments += more.quiet_moments;
        checks.traced += more.traced;
        checks.routed_to_several += more.routed_to_several;
        checks.denied += more.denied;
        checks.rejected += more.rejected;
        checks.virtual_servers += more.virtual_servers;
        checks.probed += more.probed;
        checks.affine += more.affine;
        let (traffic, more) = (&mut self.traffic, other.traffic);
        traffic.allowed += more.allowed;
        traffic.denied += more.denied;
        traffic.disturbed += more.disturbed;
    }
}

/// A failed invariant.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The step at which it was found.
    pub(crate) step: usize,
    pub(crate) violation: Violation,
    /// The log of the daemon.
    pub(crate) log: String,
}

/// Arguments of the daemon. Drift that is not notified is found once per sync period. Health fails if a sync makes no progress
/// for two periods, which a short period would make a matter of the machine's load.
const ARGUMENTS: [&str; 3] = ["--iptables-sync-period=15s", "--ipvs-sync-period=15s", "-v=2"];

/// Time limit of a quiet moment, and again for its rules. The longest delay after failed requests is 30 s; the rest is for
/// machines that are busy or emulated.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Runs a scenario on a node of its own, with a time limit of quiet moments.
///
/// # Errors
/// An invariant failed.
pub(crate) fn run(scenario: &Scenario, limit: Duration) -> Result<Counts, Failure> {
    let mut node = NodeUnderTest::new(scenario.tools, scenario.policies, &ARGUMENTS);
    let mut run = Run {
        scenario,
        limit,
        cluster: ModelCluster::new(scenario.policies),
        // Another sequence than that of the generator.
        random: Random::new(scenario.seed ^ 0x5eed),
        mode: scenario.mode,
        is_disturbed: false,
        is_server_down: false,
        has_hung: false,
        invalid: InvalidObjects::default(),
        affinities: Affinities::default(),
        traffic: None,
        health: None,
        counts: Counts::default(),
    };
    let failed = run.all_steps(&mut node);
    let ended = run.end();
    let failure = |(step, violation)| Failure { step, violation, log: node.log() };
    failed.and(ended).map_err(failure)?;
    Ok(run.counts)
}

struct Run<'a> {
    scenario: &'a Scenario,
    limit: Duration,
    cluster: ModelCluster,
    random: Random,
    /// The mode of the last start.
    mode: Mode,
    /// Another process has changed rules since the last quiet moment.
    is_disturbed: bool,
    is_server_down: bool,
    /// A request of the daemon may wait for a response for ever.
    has_hung: bool,
    invalid: InvalidObjects,
    affinities: Affinities,
    traffic: Option<Traffic>,
    health: Option<HealthWatcher>,
    counts: Counts,
}

impl Run<'_> {
    fn all_steps(&mut self, node: &mut NodeUnderTest) -> Result<(), (usize, Violation)> {
        for object in pools::fixed_objects() {
            self.cluster.apply(&object);
            node.server.apply(object);
        }
        node.start(self.scenario.mode);
        self.quiet(node).map_err(|violation| (0, violation))?;
        // Traffic begins when its Service and its policy are in effect.
        self.traffic = Some(Traffic::start(node, self.scenario.policies));
        self.health = Some(HealthWatcher::start(node.netns()));
        for (number, step) in self.scenario.steps.iter().enumerate() {
            let failed = |violation| (number, violation);
            self.step(node, step).map_err(failed)?;
            node.check_running().map_err(failed)?;
            self.counts.steps += 1;
            self.check_health().map_err(failed)?;
        }
        self.quiet(node).map_err(|violation| (self.scenario.steps.len(), violation))
    }

    fn step(&mut self, node: &mut NodeUnderTest, step: &Step) -> Result<(), Violation> {
        match step {
            Step::Apply(object) => {
                self.cluster.apply(object);
                self.invalid.record_change(key_of(object));
                self.affinities.update(&self.cluster, self.mode);
                node.server.apply(object.clone());
            }
            Step::Delete { kind, namespace, name } => {
                if self.cluster.delete(kind, namespace, name) {
                    self.invalid.record_change((kind.clone(), namespace.clone(), name.clone()));
                    self.affinities.update(&self.cluster, self.mode);
                    node.server.delete(plural(kind), &invalid::full_name(namespace, name));
                }
            }
            Step::Invalidate { kind, namespace, name } => {
                self.invalid.invalidate(node, &self.cluster, (kind.clone(), namespace.clone(), name.clone()));
            }
            Step::Stop(signal) => {
                return node.stop(*signal);
            }
            Step::Start(mode) => self.start(node, *mode),
            Step::Foreign(command) => self.foreign(node, command),
            Step::Fault(fault) => self.fault(node, fault),
            Step::Wait(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            Step::Check => return self.quiet(node),
            Step::Packets => {
                self.quiet(node)?;
                return check::packets(
                    node,
                    &self.cluster,
                    &mut self.affinities,
                    &mut self.random,
                    &mut self.counts.checks,
                );
            }
        }
        Ok(())
    }

    fn start(&mut self, node: &mut NodeUnderTest, mode: Mode) {
        if node.mode().is_none() {
            if let (Mode::Ipvs, Some(traffic)) = (self.mode, &mut self.traffic)
                && mode != Mode::Ipvs
            {
                traffic.leave_ipvs();
            }
            if mode != self.mode {
                self.affinities.forget();
            }
            self.mode = mode;
            self.invalid.record_start();
            node.start(mode);
        }
    }

    /// Waits for a quiet moment, with a running daemon and a working API server, and checks the rules.
    fn quiet(&mut self, node: &mut NodeUnderTest) -> Result<(), Violation> {
        self.mend_server(node);
        self.start(node, self.mode);
        self.invalid.repair(node, &self.cluster, self.is_disturbed);
        quiet::wait(node, self.scenario.policies, self.limit)?;
        check::rules(
            node,
            &self.cluster,
            &mut self.random,
            &mut self.counts.checks,
            std::mem::take(&mut self.is_disturbed),
            self.invalid.count(),
            self.limit,
        )?;
        self.invalid.settle();
        self.traffic.iter_mut().for_each(Traffic::settle);
        Ok(())
    }

    fn foreign(&mut self, node: &NodeUnderTest, command: &str) {
        self.is_disturbed = true;
        self.affinities.forget();
        self.traffic.iter_mut().for_each(Traffic::disturb);
        let Some(command) = rules_names::fill_in(&node.netns(), command, &mut self.random) else { return };
        let mut shell = node.netns().command("sh");
        // A command that the tool rejects, because the object does not exist, changes nothing.
        let done = shell.args(["-c", &command]).output();
        done.expect("sh can be executed");
    }

    fn fault(&mut self, node: &mut NodeUnderTest, fault: &ApiFault) {
        let server = &mut node.server;
        match fault {
            ApiFault::Status { code, on, times } => server.fail(Fault::status(*code).on(on).times(*times)),
            ApiFault::Interrupt { text, on } => server.fail(Fault::interrupt(text).on(on)),
            ApiFault::Hang { on } => {
                self.has_hung = true;
                server.fail(Fault::hang().on(on));
                server.disconnect_all();
            }
            ApiFault::Disconnect => server.disconnect_all(),
            ApiFault::Close => server.close_all(),
            ApiFault::Compact => {
                server.compact();
                server.disconnect_all();
            }
            ApiFault::Garbage { text } => server.send_raw(text),
            ApiFault::Down => {
                server.stop();
                self.is_server_down = true;
            }
            ApiFault::Up => self.mend_server(node),
            ApiFault::Streaming { supported } => {
                server.set_streaming(if *supported { Streaming::Supported } else { Streaming::EtcdTooOld });
            }
        }
    }

    /// Ends all faults of the API server. Requests without a response end with their connections.
    fn mend_server(&mut self, node: &mut NodeUnderTest) {
        node.server.clear_faults();
        if self.has_hung && !self.is_server_down {
            node.server.stop();
            self.is_server_down = true;
        }
        if self.is_server_down {
            let netns = node.netns();
            netns.run(|| node.server.restart()).expect("the namespace exists");
        }
        (self.is_server_down, self.has_hung) = (false, false);
    }

    fn check_health(&self) -> Result<(), Violation> {
        match self.health.as_ref().and_then(|health| health.violations().pop()) {
            Some(message) => Err(Violation::new(Invariant::Health, message)),
            None => Ok(()),
        }
    }

    /// Stops traffic and watchers, and checks what they have seen.
    fn end(&mut self) -> Result<(), (usize, Violation)> {
        let failed = |violation| (self.scenario.steps.len(), violation);
        let health = self.check_health().map_err(failed);
        self.counts.health = self.health.take().map(HealthWatcher::stop).unwrap_or_default();
        let traffic = self.traffic.take().map(Traffic::stop).transpose().map_err(failed)?;
        self.counts.traffic = traffic.unwrap_or_default();
        health
    }
}
