//! Random scenarios.

use super::foreign;
use super::objects;
use super::policies;
use super::pools::{ALL_PODS, NAMESPACES, NODE, OTHER_NODE, PODS, SERVICES, ServiceSlot};
use super::random::Random;
use super::scenario::{Scenario, Tools};
use super::step::{ApiFault, Mode, Signal, Step};

/// Number of quiet moments in a scenario.
const ROUNDS: usize = 6;

/// The kinds of scenarios, by the kernel that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The kernel has nf_tables: iptables and nftables mode, with policies.
    NfTables,
    /// User-mode Linux: ipvs and iptables mode with the legacy tools, without policies.
    Ipvs,
}

impl Kernel {
    fn modes(self) -> [Mode; 2] {
        match self {
            Kernel::NfTables => [Mode::Nftables, Mode::Iptables],
            Kernel::Ipvs => [Mode::Ipvs, Mode::Iptables],
        }
    }
}

pub(crate) fn scenario(seed: u64, kernel: Kernel) -> Scenario {
    let mut generator =
        Generator { random: Random::new(seed), kernel, mode: Mode::Nftables, tools: Tools::Nft };
    generator.scenario(seed)
}

struct Generator {
    random: Random,
    kernel: Kernel,
    mode: Mode,
    tools: Tools,
}

impl Generator {
    fn scenario(&mut self, seed: u64) -> Scenario {
        let modes = self.kernel.modes();
        let first = modes[usize::from(self.random.chance(if self.kernel == Kernel::Ipvs { 10 } else { 45 }))];
        let is_legacy = self.kernel == Kernel::Ipvs || self.random.chance(25);
        self.tools = if is_legacy { Tools::Legacy } else { Tools::Nft };
        self.mode = first;
        let policies = self.kernel == Kernel::NfTables;
        let mut steps = self.first_objects(policies);
        steps.push(Step::Packets);
        for round in 0..ROUNDS {
            for _ in 0..1 + self.random.below(6) {
                self.steps(policies, &mut steps);
            }
            steps.push(if round % 3 == 2 { Step::Packets } else { Step::Check });
        }
        Scenario { note: String::new(), seed, mode: first, tools: self.tools, policies, steps }
    }

    fn first_objects(&mut self, policies: bool) -> Vec<Step> {
        let random = &mut self.random;
        let mut objects: Vec<_> = ALL_PODS[..PODS].iter().map(|slot| objects::pod(*slot, "web")).collect();
        objects.extend((0..PODS).map(|_| objects::random_pod(random)));
        for slot in ServiceSlot::all() {
            if random.chance(80) {
                objects.push(objects::random_service(random, &slot));
            }
            objects.extend((0..2).map(|_| objects::random_slice(random, &slot)));
        }
        if policies {
            objects.extend((0..random.below(4)).map(|_| policies::random_network_policy(random)));
            objects.extend((0..random.below(2)).map(|_| policies::random_cluster_network_policy(random)));
        }
        objects.into_iter().map(Step::Apply).collect()
    }

    /// Adds one or a few steps.
    fn steps(&mut self, policies: bool, steps: &mut Vec<Step>) {
        match self.random.below(100) {
            0..=64 => steps.push(self.change(policies)),
            65..=74 => self.restart(policies, steps),
            75..=84 => {
                let command = foreign::random_command(&mut self.random, self.mode, self.tools, policies);
                steps.push(Step::Foreign(command));
            }
            85..=93 => steps.push(Step::Fault(self.fault())),
            94..=96 => steps.push(self.invalidate(policies)),
            _ => steps.push(Step::Wait(self.random.pick(&[10, 50, 200, 1_000]))),
        }
    }

    /// Ends the daemon, changes a few objects, and starts it, sometimes in another mode.
    fn restart(&mut self, policies: bool, steps: &mut Vec<Step>) {
        steps.push(Step::Stop(self.random.pick(&[Signal::Kill, Signal::Term])));
        for _ in 0..self.random.below(3) {
            steps.push(self.change(policies));
        }
        if self.random.chance(40) {
            self.mode = self.random.pick(&self.kernel.modes());
        }
        steps.push(Step::Start(self.mode));
    }

    fn change(&mut self, policies: bool) -> Step {
        let random = &mut self.random;
        let slot = ServiceSlot::new(random.below(SERVICES));
        match random.below(if policies { 100 } else { 62 }) {
            0..=29 => Step::Apply(objects::random_slice(random, &slot)),
            30..=46 => Step::Apply(objects::random_service(random, &slot)),
            47..=51 => delete("Service", slot.namespace, &slot.name),
            52..=57 => {
                let name = format!("{}-{}-{}", slot.name, random.pick(&["v4", "v6"]), random.below(2));
                delete("EndpointSlice", slot.namespace, &name)
            }
            58..=61 => {
                if random.chance(15) {
                    return delete("Node", "", OTHER_NODE);
                }
                Step::Apply(objects::random_node(random))
            }
            62..=74 => Step::Apply(objects::random_pod(random)),
            75..=77 => {
                let slot = random.pick(&ALL_PODS[..PODS]);
                delete("Pod", slot.namespace, slot.name)
            }
            78..=80 => {
                if random.chance(20) {
                    return delete("Namespace", "", random.pick(&NAMESPACES));
                }
                Step::Apply(objects::random_namespace(random))
            }
            81..=88 => Step::Apply(policies::random_network_policy(random)),
            89..=91 => delete("NetworkPolicy", random.pick(&NAMESPACES), &format!("n{}", random.below(4))),
            92..=97 => Step::Apply(policies::random_cluster_network_policy(random)),
            _ => delete("ClusterNetworkPolicy", "", &format!("c{}", random.below(3))),
        }
    }

    fn invalidate(&mut self, policies: bool) -> Step {
        let random = &mut self.random;
        let slot = ServiceSlot::new(random.below(SERVICES));
        let (kind, namespace, name) = match random.below(if policies { 8 } else { 5 }) {
            0 | 1 => ("Service", slot.namespace, slot.name),
            2 | 3 => {
                let name = format!("{}-{}-{}", slot.name, random.pick(&["v4", "v6"]), random.below(2));
                ("EndpointSlice", slot.namespace, name)
            }
            // Without policies, the daemon reads only its own node.
            4 => ("Node", "", NODE.to_owned()),
            5 => {
                let slot = random.pick(&ALL_PODS[..PODS]);
                ("Pod", slot.namespace, slot.name.to_owned())
            }
            6 => ("NetworkPolicy", random.pick(&NAMESPACES), format!("n{}", random.below(4))),
            _ => ("ClusterNetworkPolicy", "", format!("c{}", random.below(3))),
        };
        Step::Invalidate { kind: kind.to_owned(), namespace: namespace.to_owned(), name }
    }

    fn fault(&mut self) -> ApiFault {
        let random = &mut self.random;
        let on = random
            .pick(&[
                "/services",
                "/endpointslices",
                "/pods",
                "/networkpolicies",
                "/nodes",
                "/namespaces",
                "/",
            ])
            .to_owned();
        match random.below(12) {
            0 | 1 => ApiFault::Disconnect,
            2 => ApiFault::Close,
            3 | 4 => ApiFault::Compact,
            5 | 6 => ApiFault::Status {
                code: random.pick(&[403, 410, 429, 500, 503, 504]),
                on,
                times: 1 + random.below(3),
            },
            7 => ApiFault::Interrupt { text: random.pick(&["", "{", "{\"items\": [{\"meta"]).to_owned(), on },
            8 => ApiFault::Hang { on },
            9 => ApiFault::Garbage {
                text: random
                    .pick(&[
                        "garbage\n",
                        "{\"type\": \"ADDED\"}\n",
                        "\n",
                        "{\"type\": \"WHAT\", \"object\": {}}\n",
                    ])
                    .to_owned(),
            },
            10 => ApiFault::Streaming { supported: random.chance(50) },
            _ => [ApiFault::Down, ApiFault::Up][random.below(2)].clone(),
        }
    }
}

fn delete(kind: &str, namespace: &str, name: &str) -> Step {
    Step::Delete { kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

pub(crate) mod tests {
    use std::collections::BTreeMap;

    use portcullis_lab::Protocol;

    use super::*;
    use crate::affinity;
    use crate::cluster::ModelCluster;
    use crate::connections;
    use crate::model::{Client, Expected, Outcome};
    use crate::pools::{self, NODE, node_addresses};
    use crate::services::FrontendKind;

    /// Every rule of the model decides about connections at quiet moments of a few scenarios.
    pub(crate) fn scenarios_cover_the_model() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for seed in 0..24 {
            let mut cluster = ModelCluster::new(true);
            pools::fixed_objects().iter().for_each(|object| cluster.apply(object));
            for step in scenario(seed, Kernel::NfTables).steps {
                match step {
                    Step::Apply(object) => cluster.apply(&object),
                    Step::Delete { kind, namespace, name } => _ = cluster.delete(&kind, &namespace, &name),
                    Step::Invalidate { .. } => *counts.entry("invalid objects").or_default() += 1,
                    Step::Check | Step::Packets => count(&cluster, seed, &mut counts),
                    _ => {}
                }
            }
        }
        println!("{counts:#?}");
        let expected = [
            "cluster IP",
            "node port",
            "load balancer",
            "external IP",
            "hinted",
            "terminating",
            "local",
            "no local endpoint",
            "no endpoint",
            "source ranges",
            "denied by policy",
            "some denied by policy",
            "several endpoints",
            "SCTP",
            "session affinity",
        ];
        for name in expected {
            let count = counts.get(name).copied().unwrap_or_default();
            assert!(count >= 100, "{name}: {count} connections");
        }
        assert!(counts["invalid objects"] >= 10, "{} invalid objects", counts["invalid objects"]);
    }

    fn count(cluster: &ModelCluster, seed: u64, counts: &mut BTreeMap<&'static str, usize>) {
        for connection in connections::sample(&mut Random::new(seed), cluster, 500) {
            let Expected::Exactly(outcomes) = cluster.expected(Mode::Nftables, &connection) else { continue };
            let mut add = |name| *counts.entry(name).or_default() += 1;
            if outcomes.len() > 1 {
                add("several endpoints");
            }
            let is_node = node_addresses(NODE).contains(&connection.to.ip());
            let is_dropped = outcomes.contains(&Outcome::Dropped);
            let Some(frontend) = cluster.frontend(connection.to, connection.protocol, is_node) else {
                is_dropped.then(|| add("denied by policy"));
                continue;
            };
            let endpoints = cluster.endpoints(frontend, connection.to.is_ipv4());
            add(match frontend.kind {
                FrontendKind::ClusterIp => "cluster IP",
                FrontendKind::NodePort => "node port",
                FrontendKind::LoadBalancer => "load balancer",
                FrontendKind::ExternalIp => "external IP",
            });
            let is_local = frontend.is_local()
                && (frontend.kind == FrontendKind::ClusterIp || connection.client == Client::Outside);
            for (name, is) in [
                ("hinted", endpoints.are_hinted && !is_local),
                ("terminating", endpoints.are_terminating && !is_local),
                ("local", is_local && endpoints.local != endpoints.cluster && !endpoints.local.is_empty()),
                ("no local endpoint", is_local && endpoints.exist && endpoints.local.is_empty()),
                ("no endpoint", !endpoints.exist),
                ("source ranges", !frontend.admits(connection.from())),
                ("some denied by policy", is_dropped && outcomes.len() > 1),
                ("SCTP", connection.protocol == Protocol::Sctp),
                ("session affinity", outcomes.len() > 1 && affinity::key(cluster, &connection).is_some()),
            ] {
                is.then(|| add(name));
            }
        }
    }
}
