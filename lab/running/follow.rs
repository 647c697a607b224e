//! A lab that changes: objects come and go, pods with them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Lab, now};
use crate::cluster::{Cluster, Object, ObjectRef};
use crate::error::{Error, Result};
use crate::plan::{FrontKind, Plan, PodPlan};
use crate::wiring;

impl Lab {
    /// Adds or replaces objects, and follows: pods come and go, slices are made anew, daemons see the new manifests.
    ///
    /// # Errors
    /// When the objects make no cluster; then nothing has changed. When the system refuses; then the lab is best
    /// dropped.
    pub fn apply(&mut self, objects: impl IntoIterator<Item = Object>) -> Result<()> {
        self.update(|cluster| cluster.extend(objects))
    }

    /// [`apply`](Self::apply) for YAML or JSON text.
    ///
    /// # Errors
    /// As `apply`, and when the text is malformed.
    pub fn apply_text(&mut self, manifests: &str) -> Result<()> {
        self.apply(crate::manifests::parse(manifests, "manifest")?)
    }

    /// Deletes an object that was given to the lab. The pods of a Deployment go with it, or by its `replicas`.
    ///
    /// # Errors
    /// When there is no such object; otherwise as [`apply`](Self::apply).
    pub fn delete(&mut self, object: &ObjectRef) -> Result<()> {
        let names: Vec<String> = self.cluster.objects().map(|object| object.name().to_string()).collect();
        if self.cluster.get(object).is_none() {
            return Err(Error::unknown("object", &object.to_string(), &names));
        }
        self.update(|cluster| {
            cluster.delete(object);
        })
    }

    /// Changes the objects in any way, and follows once.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn update(&mut self, change: impl FnOnce(&mut Cluster)) -> Result<()> {
        let mut cluster = self.cluster.clone();
        change(&mut cluster);
        let plan = cluster.plan_after(&self.plan, &self.options.plan)?;
        let names = |plan: &Plan| plan.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        if let Some(new) = names(&plan).into_iter().find(|name| self.plan.node(name).is_none()) {
            let message = "cannot join a lab that runs; give it when the lab is built";
            return Err(Error::plan(format!("Node {new}"), message));
        }
        let before = std::mem::replace(&mut self.plan, plan);
        self.cluster = cluster;
        self.follow(&before)
    }

    /// Makes the namespaces and the manifests what the plan says now.
    fn follow(&mut self, before: &Plan) -> Result<()> {
        let stays = |pod: &PodPlan, plan: &Plan| {
            plan.pod(&pod.name).is_some_and(|twin| {
                (&twin.node, &twin.addresses, twin.runs, twin.host_network)
                    == (&pod.node, &pod.addresses, pod.runs, pod.host_network)
            })
        };
        let gone: Vec<&PodPlan> = before.pods.iter().filter(|pod| !stays(pod, &self.plan)).collect();
        let new: Vec<&PodPlan> = self.plan.pods.iter().filter(|pod| !stays(pod, before)).collect();
        let echo = self.echo.as_ref().expect("the echo servers end with the lab");
        gone.iter().for_each(|pod| echo.close(&pod.name));
        wiring::remove_pods(&wired(gone), &self.names, &mut self.wires)?;
        wiring::add_pods(&wired(new), &self.plan, &self.names, &mut self.wires)?;
        for pod in self.plan.pods.iter().filter(|pod| pod.runs) {
            let known = before.pod(&pod.name).filter(|twin| stays(twin, &self.plan));
            let served = known.map(|twin| twin.ports.clone()).unwrap_or_default();
            let wanted = pod.ports.clone();
            if served.difference(&wanted).next().is_some() {
                echo.close_ports(&pod.name, move |port| !wanted.contains(&port));
            }
            let fresh: Vec<_> = pod.ports.difference(&served).copied().collect();
            echo.serve(&pod.name, &self.names.pod(pod), &pod.addresses, fresh)?;
        }
        self.route_fronts()?;
        if self.plan.services != before.services || self.plan.slices != before.slices {
            self.changed = now();
        }
        self.write_manifests()?;
        self.write_state()
    }

    /// Sets a pod's readiness, as its kubelet would.
    ///
    /// # Errors
    /// When there is no such pod; otherwise as [`apply`](Self::apply).
    pub fn set_ready(&mut self, pod: &str, ready: bool) -> Result<()> {
        self.change_pod(pod, |pod| {
            let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.retain(|condition| condition.type_ != "Ready");
            let status = if ready { "True" } else { "False" };
            conditions.push(PodCondition {
                type_: "Ready".into(),
                status: status.into(),
                ..Default::default()
            });
        })
    }

    /// Marks a pod as terminating: it still answers, as pods do in their grace period.
    ///
    /// # Errors
    /// As [`set_ready`](Self::set_ready).
    pub fn terminate(&mut self, pod: &str) -> Result<()> {
        let now = Timestamp::from_second(now() as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        self.change_pod(pod, |pod| pod.metadata.deletion_timestamp = Some(Time(now)))
    }

    fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) -> Result<()> {
        let mut pod = self.pod(name)?.object.clone();
        change(&mut pod);
        self.apply([pod.into()])
    }

    /// Sends what the host outside has for an address through this node, from now on.
    ///
    /// # Errors
    /// When there is no such node, or it has no address of that family.
    pub fn route_from_outside(&mut self, to: IpAddr, node: &str) -> Result<()> {
        let node = self.node(node)?.clone();
        wiring::route_from_outside(&self.names, to.into(), &node)?;
        self.routed_by_hand.insert(to.into(), node.name);
        Ok(())
    }

    /// Leads outside traffic for load balancers' and external addresses to a node, as a cloud or a router would.
    pub(super) fn route_fronts(&mut self) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for service in &self.plan.services {
            let fronts = self.plan.fronts(service);
            let routed =
                fronts.iter().filter(|f| matches!(f.kind, FrontKind::LoadBalancer | FrontKind::ExternalIp));
            for front in routed {
                let node = self.plan.entry_node(service);
                wanted.insert(IpNet::from(front.address.ip()), node.to_owned());
            }
        }
        wanted.extend(self.routed_by_hand.clone());
        for (net, node) in &wanted {
            if self.routed.get(net) != Some(node) {
                wiring::route_from_outside(&self.names, *net, self.node(node)?)?;
            }
        }
        self.routed = wanted;
        Ok(())
    }
}

/// The pods that have a namespace and a wire of their own.
fn wired(pods: Vec<&PodPlan>) -> Vec<&PodPlan> {
    pods.into_iter().filter(|pod| pod.is_wired()).collect()
}
