//! The result of a sync of the node's side of the pod network.

use std::fmt;

use portcullis_netlink::nf_tables::ChangeCounts;

/// A step of the sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Kernel settings for forwarding.
    Forwarding,
    /// The egress rules.
    Egress,
    /// The check of the source addresses of pods.
    Sources,
    /// Chains of a firewall.
    Firewall,
    /// Pod addresses.
    Addresses,
    /// Host ports.
    HostPorts,
    /// The plugin's binary.
    Plugin,
    /// The CNI configuration.
    Readiness,
}

/// The importance of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No pods can be started on this node.
    Failure,
    /// Some traffic of pods does not work.
    Warning,
    /// Something to know when traffic does not work.
    Note,
}

/// A problem that a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The step.
    pub step: Step,
    /// Its importance.
    pub severity: Severity,
    /// The problem, and the way out.
    pub text: String,
}

/// The result of a sync.
#[derive(Debug, Default)]
pub struct NodeNetworkResult {
    /// The configuration is in place, so that pods can be started.
    pub is_ready: bool,
    /// The problems, in the order of the steps.
    pub problems: Vec<Problem>,
    /// The egress rules that were changed.
    pub egress_changes: ChangeCounts,
    /// The objects of the source check that were changed.
    pub source_check_changes: ChangeCounts,
    /// The objects of host ports that were restored.
    pub host_port_changes: ChangeCounts,
    /// The number of attachments of ended pods whose addresses were returned.
    pub leaked_attachments: usize,
    /// The plugin was installed or replaced.
    pub plugin_installed: bool,
    /// The CNI configuration was written.
    pub configuration_written: bool,
}

impl NodeNetworkResult {
    pub(super) fn fail(&mut self, step: Step, text: &dyn fmt::Display) {
        self.add(step, Severity::Failure, text);
    }

    pub(super) fn warn(&mut self, step: Step, text: &dyn fmt::Display) {
        self.add(step, Severity::Warning, text);
    }

    pub(super) fn note(&mut self, step: Step, text: &dyn fmt::Display) {
        self.add(step, Severity::Note, text);
    }

    fn add(&mut self, step: Step, severity: Severity, text: &dyn fmt::Display) {
        self.problems.push(Problem { step, severity, text: text.to_string() });
    }

    /// Returns the texts of the failures.
    pub(super) fn failures(&self) -> Vec<&str> {
        let failures = self.problems.iter().filter(|problem| problem.severity == Severity::Failure);
        failures.map(|problem| problem.text.as_str()).collect()
    }
}
