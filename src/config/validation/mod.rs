//! Validation of the settings: the rules of kube-proxy, and those of Portcullis' own settings.
//!
//! Source of the rules: upstream's `pkg/proxy/apis/config/validation` as of v1.36, and the validation of
//! logging in `component-base`. Comments note where Portcullis is stricter or more lenient.

mod addresses;
mod kernel;
mod logging;
mod network_policy;
mod pod_network;

use std::fmt::Display;
use std::time::Duration;

use portcullis_modes::ProxyMode;

use super::error::{ConfigError, Warning};
use super::feature_gates::{self, FeatureGates, GateCheck};
use super::go_duration::GoDuration;
use super::origins::Origins;
use super::settings::{HEALTHZ_PORT, METRICS_PORT, STATUS_PAGE_PORT, Settings};
use super::validated::{ApiServer, Config, Iptables, Nftables, Source};

/// The only version whose hidden metrics may be requested: the minor version before v1.36.
const PREVIOUS_VERSION: &str = "1.35";

/// The longest value of `--list-jitter`. It is shorter than the time after which health reports the API server as silent.
const MAX_LIST_JITTER: Duration = Duration::from_mins(2);

const NOT_NEGATIVE: &str = "0 or more";

/// Result of a validation. If there are errors, the configuration has placeholders for invalid values.
pub(super) struct Validated {
    pub(super) config: Config,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
}

/// Applies all rules and collects all errors.
pub(super) fn validate(settings: &Settings, origins: &Origins) -> Validated {
    let mut validator = Validator { settings, origins, errors: Vec::new(), warnings: Vec::new() };
    let mode = validator.mode();
    let feature_gates = validator.feature_gates();
    let (pod_network, cni_installation) = validator.pod_network();
    let config = Config {
        mode,
        source: validator.source(),
        hostname_override: validator.hostname_override(),
        bind_address: validator.bind_address(),
        healthz_bind_address: validator.listener(
            "healthzBindAddress",
            &settings.healthz_bind_address,
            HEALTHZ_PORT,
        ),
        metrics_bind_address: validator.listener(
            "metricsBindAddress",
            &settings.metrics_bind_address,
            METRICS_PORT,
        ),
        status_page_bind_address: validator.listener(
            "status-page-bind-address",
            &settings.status_page_bind_address,
            STATUS_PAGE_PORT,
        ),
        bind_address_hard_fail: settings.bind_address_hard_fail,
        socket: validator.socket(),
        node_port_addresses: validator.node_port_addresses(mode),
        external_address_cidrs: validator.external_address_cidrs(),
        detect_local: validator.detect_local(),
        tool_timeout: validator.positive("tool-timeout", settings.tool_timeout),
        sync: validator.sync_periods(mode),
        masquerade: validator.masquerade(mode),
        iptables: Iptables { localhost_node_ports: settings.iptables.localhost_node_ports },
        nftables: Nftables { service_counters: settings.nftables.service_counters },
        ipvs: validator.ipvs(mode),
        conntrack: validator.conntrack(),
        network_policy: validator.network_policy(),
        pod_network,
        cni_installation,
        oom_score_adj: validator.oom_score_adj(),
        logging: validator.logging(&feature_gates),
    };
    validator.check_unused();
    Validated { config, errors: validator.errors, warnings: validator.warnings }
}

struct Validator<'a> {
    settings: &'a Settings,
    origins: &'a Origins,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl Validator<'_> {
    fn reject(&mut self, id: &'static str, value: impl Display, expected: impl Into<String>) {
        let origin = self.origins.origin(id);
        self.errors.push(ConfigError::Invalid {
            origin,
            value: value.to_string(),
            expected: expected.into(),
        });
    }

    fn mode(&mut self) -> ProxyMode {
        let name = &self.settings.mode;
        if name.is_empty() {
            return ProxyMode::Iptables;
        }
        ProxyMode::from_name(name).unwrap_or_else(|| {
            self.reject("mode", format!("{name:?}"), "iptables, ipvs or nftables");
            ProxyMode::Iptables
        })
    }

    /// Portcullis' own rule: manifests and an API server are mutually exclusive if both are set by flags or both in the
    /// file. Manifests set by a flag override an API server in the file.
    fn source(&mut self) -> Source {
        let connection = &self.settings.client_connection;
        if !self.settings.manifests.is_empty() {
            let conflicting = [
                ("clientConnection.kubeconfig", &connection.kubeconfig),
                ("api-server.master", &self.settings.master),
            ];
            for (id, value) in conflicting {
                if !value.is_empty() && self.origins.is_flag("manifests") == self.origins.is_flag(id) {
                    self.reject(id, format!("{value:?}"), "either manifests or an API server, not both");
                }
            }
            return Source::Manifests(self.settings.manifests.clone().into());
        }
        Source::ApiServer(ApiServer {
            kubeconfig: non_empty(&connection.kubeconfig).map(Into::into),
            kubectl: None,
            master: non_empty(&self.settings.master),
            request_timeout: self.positive("api-server.request-timeout", self.settings.request_timeout),
            list_jitter: self.list_jitter(),
        })
    }

    /// Upstream trims the name and converts it to lower case; a blank name is an error.
    fn hostname_override(&mut self) -> Option<String> {
        let given = &self.settings.hostname_override;
        let name = given.trim().to_lowercase();
        if name.is_empty() && !given.is_empty() {
            self.reject("hostnameOverride", format!("{given:?}"), "the name of a Node");
        }
        non_empty(&name)
    }

    fn oom_score_adj(&mut self) -> i32 {
        let score = self.settings.oom_score_adj;
        if !(-1000..=1000).contains(&score) {
            self.reject("oomScoreAdj", score, "a number from -1000 to 1000");
        }
        score
    }

    fn feature_gates(&mut self) -> FeatureGates {
        for (gate, on) in &self.settings.feature_gates {
            match feature_gates::check(gate, *on) {
                GateCheck::Accepted => {}
                GateCheck::Graduated => {
                    let origin = self.origins.origin("featureGates");
                    self.warnings.push(Warning::GraduatedGate { origin, gate: gate.clone() });
                }
                GateCheck::Rejected(expected) => {
                    self.reject("featureGates", format!("{gate}={on}"), expected)
                }
            }
        }
        feature_gates::from_checked(&self.settings.feature_gates)
    }

    /// Validates settings without effect, so that the same configurations are valid as in kube-proxy.
    fn check_unused(&mut self) {
        let settings = self.settings;
        self.count("clientConnection.burst", settings.client_connection.burst);
        self.positive("configSyncPeriod", settings.config_sync_period);
        self.not_negative("logging.flushFrequency", settings.logging.flush_frequency);
        let version = &settings.show_hidden_metrics_for_version;
        if !version.is_empty() && version != PREVIOUS_VERSION {
            let expected = format!("an empty string or the previous minor version, {PREVIOUS_VERSION:?}");
            self.reject("showHiddenMetricsForVersion", format!("{version:?}"), expected);
        }
    }

    fn count(&mut self, id: &'static str, value: i32) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| {
            self.reject(id, value, NOT_NEGATIVE);
            0
        })
    }

    fn list_jitter(&mut self) -> Duration {
        let value = self.settings.list_jitter;
        value.to_std().filter(|jitter| *jitter <= MAX_LIST_JITTER).unwrap_or_else(|| {
            self.reject("api-server.list-jitter", value, "a duration from 0 to 2m");
            Duration::ZERO
        })
    }

    fn positive(&mut self, id: &'static str, value: GoDuration) -> Duration {
        value.to_std().filter(|duration| !duration.is_zero()).unwrap_or_else(|| {
            self.reject(id, value, "a duration greater than 0");
            Duration::from_secs(1)
        })
    }

    fn not_negative(&mut self, id: &'static str, value: GoDuration) -> Duration {
        value.to_std().unwrap_or_else(|| {
            self.reject(id, value, "a duration of 0 or more");
            Duration::ZERO
        })
    }

    /// Validates a timeout; 0 keeps the kernel's value.
    fn timeout(&mut self, id: &'static str, value: GoDuration) -> Option<Duration> {
        Some(self.not_negative(id, value)).filter(|duration| !duration.is_zero())
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
