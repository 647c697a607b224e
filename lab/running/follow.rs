//! Changing the objects of a running lab.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Lab, now};
use crate::cluster_objects::{ClusterObjects, LabObject, ObjectRef};
use crate::error::{Error, Result};
use crate::network;
use crate::plan::{ClusterPlan, FrontendKind, PodPlan};

impl Lab {
    /// Adds or replaces objects and updates the lab: pods, EndpointSlices, and the daemons' manifests.
    ///
    /// # Errors
    /// No cluster can be made from the objects; then nothing has changed. A system call or tool failed; then the lab
    /// may be changed in part and should be dropped.
    pub fn apply(&mut self, objects: impl IntoIterator<Item = LabObject>) -> Result<()> {
        self.update(|cluster| cluster.extend(objects))
    }

    /// Parses YAML or JSON text and [applies](Self::apply) its objects.
    ///
    /// # Errors
    /// As `apply`, and when the text is malformed.
    pub fn apply_text(&mut self, manifests: &str) -> Result<()> {
        self.apply(crate::manifests::parse(manifests, "manifest")?)
    }

    /// Deletes an object of the user. The pods of a workload are deleted with it; single replicas are deleted by
    /// reducing `replicas`.
    ///
    /// # Errors
    /// No such object; otherwise as [`apply`](Self::apply).
    pub fn delete(&mut self, object: &ObjectRef) -> Result<()> {
        let names: Vec<String> = self.cluster.objects().map(|object| object.name().to_string()).collect();
        if self.cluster.get(object).is_none() {
            return Err(Error::not_found("object", &object.to_string(), &names));
        }
        self.update(|cluster| {
            cluster.delete(object);
        })
    }

    /// Changes the objects by a closure and updates the lab once.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn update(&mut self, change: impl FnOnce(&mut ClusterObjects)) -> Result<()> {
        let mut cluster = self.cluster.clone();
        change(&mut cluster);
        let plan = cluster.plan_after(&self.plan, &self.options.plan)?;
        let names = |plan: &ClusterPlan| plan.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        if let Some(new) = names(&plan).into_iter().find(|name| self.plan.node(name).is_none()) {
            let message = "cannot be added to a running lab; expected in the manifests that build the lab";
            return Err(Error::plan(format!("Node {new}"), message));
        }
        let before = std::mem::replace(&mut self.plan, plan);
        self.cluster = cluster;
        self.apply_plan(&before)
    }

    /// Updates namespaces, echo servers, routes and manifests from a previous plan to the current one.
    fn apply_plan(&mut self, before: &ClusterPlan) -> Result<()> {
        let is_unchanged = |pod: &PodPlan, plan: &ClusterPlan| {
            plan.pod(&pod.name).is_some_and(|other| {
                (&other.node, &other.addresses, other.is_running, other.host_network)
                    == (&pod.node, &pod.addresses, pod.is_running, pod.host_network)
            })
        };
        let removed: Vec<&PodPlan> =
            before.pods.iter().filter(|pod| !is_unchanged(pod, &self.plan)).collect();
        let added: Vec<&PodPlan> = self.plan.pods.iter().filter(|pod| !is_unchanged(pod, before)).collect();
        let echo = self.echo.as_ref().expect("the echo servers run until the lab ends");
        removed.iter().for_each(|pod| echo.close(&pod.name));
        network::remove_pods(&with_own_netns(removed), &self.names, &mut self.wiring)?;
        network::add_pods(&with_own_netns(added), &self.plan, &self.names, &mut self.wiring)?;
        for pod in self.plan.pods.iter().filter(|pod| pod.is_running) {
            let previous = before.pod(&pod.name).filter(|previous| is_unchanged(previous, &self.plan));
            let served = previous.map(|previous| previous.ports.clone()).unwrap_or_default();
            let wanted = pod.ports.clone();
            if served.difference(&wanted).next().is_some() {
                echo.close_ports(&pod.name, move |port| !wanted.contains(&port));
            }
            let new_ports: Vec<_> = pod.ports.difference(&served).copied().collect();
            echo.serve(&pod.name, &self.names.pod(pod), &pod.addresses, new_ports)?;
        }
        self.route_external_addresses()?;
        if self.plan.services != before.services || self.plan.slices != before.slices {
            self.changed = now();
        }
        self.write_manifests()?;
        self.write_record()
    }

    /// Sets a pod's `Ready` condition, as the kubelet does.
    ///
    /// # Errors
    /// No such pod; otherwise as [`apply`](Self::apply).
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

    /// Marks a pod as terminating. It still responds, as pods do in their grace period.
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

    /// Routes traffic of the outside host to an address through a node.
    ///
    /// # Errors
    /// No such node, or it has no address of that family.
    pub fn route_from_outside(&mut self, to: IpAddr, node: &str) -> Result<()> {
        let node = self.node(node)?.clone();
        network::route_from_outside(&self.names, to.into(), &node)?;
        self.explicit_routes.insert(to.into(), node.name);
        Ok(())
    }

    /// Routes outside traffic for load balancer addresses and external IPs to a node, as a cloud or a router does.
    pub(super) fn route_external_addresses(&mut self) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for service in &self.plan.services {
            let frontends = self.plan.frontends(service);
            let routed = frontends
                .iter()
                .filter(|f| matches!(f.kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp));
            for frontend in routed {
                let node = self.plan.load_balancer_node(service);
                wanted.insert(IpNet::from(frontend.address.ip()), node.to_owned());
            }
        }
        wanted.extend(self.explicit_routes.clone());
        for (net, node) in &wanted {
            if self.routes.get(net) != Some(node) {
                network::route_from_outside(&self.names, *net, self.node(node)?)?;
            }
        }
        self.routes = wanted;
        Ok(())
    }
}

/// Returns the pods that have a network namespace of their own.
fn with_own_netns(pods: Vec<&PodPlan>) -> Vec<&PodPlan> {
    pods.into_iter().filter(|pod| pod.has_own_netns()).collect()
}
