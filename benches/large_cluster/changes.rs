//! Changes of pods at a fixed rate, as rollouts cause them: pods of workloads are replaced one by one.
//!
//! The replacement of a pod: the new one is created, bound to a node, started with an address, and ready; some get another label;
//! the old one terminates and is deleted. If the workload has a Service, its EndpointSlice follows.

use std::collections::{HashMap, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::api_server::ApiServer;
use super::cluster::{Phase, Pod, REPLICAS, Resource, random};
use super::kernel::{Expected, Kernel};

/// The tables of the daemon.
pub(crate) const SERVICES: &str = portcullis_modes::nftables::TABLE;
pub(crate) const POLICIES: &str = portcullis_policy::table::TABLE;

/// How many replacements are in progress at the same time.
const CONCURRENT: usize = 50;

/// One of this number of pods gets another label.
const RELABELLED: usize = 4;

/// A replacement, and its next step.
struct Replacement {
    number: usize,
    replica: usize,
    new: Pod,
    old: Pod,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Create,
    Schedule,
    Start,
    Ready,
    Relabel,
    Terminate,
    Delete,
}

/// The numbers of changes of pods and of slices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) pods: usize,
    pub(crate) slices: usize,
}

/// The state of the pods that change.
pub(crate) struct Rollout<'a> {
    server: &'a ApiServer,
    kernel: &'a Kernel,
    with_policies: bool,
    /// The pods of the workloads that changed, and whether they are terminating.
    endpoints: HashMap<usize, Vec<(Pod, bool)>>,
    started: usize,
    active: VecDeque<Replacement>,
    revision: u64,
    changes: Changes,
}

impl<'a> Rollout<'a> {
    pub(crate) fn new(server: &'a ApiServer, kernel: &'a Kernel, with_policies: bool) -> Self {
        Rollout {
            server,
            kernel,
            with_policies,
            endpoints: HashMap::new(),
            started: 0,
            active: VecDeque::new(),
            revision: 1,
            changes: Changes::default(),
        }
    }

    /// Makes `rate` changes of pods a second.
    pub(crate) fn run(&mut self, rate: u32, duration: Duration) -> Changes {
        let before = self.changes;
        let begun = Instant::now();
        let mut next = Duration::ZERO;
        while next < duration {
            self.change();
            next += Duration::from_secs(1) / rate;
            sleep(next.saturating_sub(begun.elapsed()));
        }
        Changes { pods: self.changes.pods - before.pods, slices: self.changes.slices - before.slices }
    }

    /// Makes the next change of a pod.
    fn change(&mut self) {
        let mut replacement = match self.active.pop_front() {
            Some(replacement) if self.active.len() + 1 >= CONCURRENT => replacement,
            other => {
                self.active.extend(other);
                self.next_replacement()
            }
        };
        let next = self.make(&replacement);
        if let Some(step) = next {
            replacement.step = step;
            self.active.push_back(replacement);
        }
    }

    fn next_replacement(&mut self) -> Replacement {
        let number = self.started;
        self.started += 1;
        let mut cluster = self.server.cluster_mut();
        let workloads = cluster.count(Resource::Pods) / REPLICAS;
        // Each workload once before one is replaced again.
        let workload = (random(0, workloads) + number * 7_919) % workloads;
        let replica = number / workloads % REPLICAS;
        let old = self
            .endpoints
            .get(&workload)
            .map_or_else(|| cluster.pod(workload, replica), |pods| pods[replica].0);
        let new = cluster.new_pod(workload, REPLICAS + number);
        Replacement { number, replica, new, old, step: Step::Create }
    }

    /// Makes a step, and returns the one after it.
    fn make(&mut self, replacement: &Replacement) -> Option<Step> {
        let Replacement { number, replica, new, old, step } = *replacement;
        match step {
            Step::Create => {
                self.pod("ADDED", new, Phase::Pending, 1);
                Some(Step::Schedule)
            }
            Step::Schedule => {
                self.pod("MODIFIED", new, Phase::Scheduled, 1);
                Some(Step::Start)
            }
            Step::Start => {
                if self.with_policies {
                    self.expect(POLICIES, new, true);
                }
                self.pod("MODIFIED", new, Phase::Started, 1);
                Some(Step::Ready)
            }
            Step::Ready => {
                self.pod("MODIFIED", new, Phase::Ready, 1);
                self.slice(new, |pods| pods.push((new, false)));
                Some(if number.is_multiple_of(RELABELLED) { Step::Relabel } else { Step::Terminate })
            }
            Step::Relabel => {
                self.pod("MODIFIED", new, Phase::Ready, 2);
                Some(Step::Terminate)
            }
            Step::Terminate => {
                self.pod("MODIFIED", old, Phase::Terminating, 1);
                self.slice(old, |pods| pods[replica].1 = true);
                Some(Step::Delete)
            }
            Step::Delete => {
                if self.with_policies {
                    self.expect(POLICIES, old, false);
                }
                self.pod("DELETED", old, Phase::Terminating, 1);
                self.slice(old, |pods| {
                    let new = pods.pop().expect("it was added");
                    pods[replica] = new;
                });
                None
            }
        }
    }

    fn expect(&self, table: &'static str, pod: Pod, is_added: bool) {
        self.kernel.expect(Expected { table, address: pod.address.octets(), is_added });
    }

    fn pod(&mut self, event: &str, pod: Pod, phase: Phase, version: u64) {
        self.revision += 1;
        self.changes.pods += 1;
        let mut object = Vec::new();
        self.server.cluster().write_labelled_pod(pod, phase, self.revision, version, &mut object);
        self.server.send(Resource::Pods, event, &object);
    }

    /// Changes the slice of a pod's workload, if it has a Service.
    fn slice(&mut self, pod: Pod, change: impl FnOnce(&mut Vec<(Pod, bool)>)) {
        let cluster = self.server.cluster();
        let initial = || (0..REPLICAS).map(|replica| (cluster.pod(pod.workload, replica), false)).collect();
        let pods = self.endpoints.entry(pod.workload).or_insert_with(initial);
        let count = pods.len();
        change(pods);
        if !cluster.has_service(pod.workload) {
            return;
        }
        if pods.len() > count {
            self.kernel.expect(Expected { table: SERVICES, address: pod.address.octets(), is_added: true });
        }
        self.revision += 1;
        self.changes.slices += 1;
        let mut object = Vec::new();
        cluster.write_slice(pod.workload, self.revision, pods.iter().copied(), &mut object);
        drop(cluster);
        self.server.send(Resource::EndpointSlices, "MODIFIED", &object);
    }
}
