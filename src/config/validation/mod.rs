//! Validation of the settings: the rules of kube-proxy, and those of Portcullis' own settings.
//!
//! Source of the rules: upstream's `pkg/proxy/apis/config/validation` as of v1.36, and the validation of
//! logging in `component-base`. Comments note where Portcullis is stricter or more lenient.

mod logging;
mod network_policy;

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use portcullis_cluster::IpvsScheduler;

use super::address::{parse_cidr, parse_ip, parse_socket_address};
use portcullis_modes::{DetectLocal, InterfaceName, NodePortAddresses, ProxyMode};

use super::error::{ConfigError, Warning};
use super::feature_gates::{self, FeatureGates, GateCheck};
use super::go_duration::GoDuration;
use super::node_port_addresses;
use super::origins::Origins;
use super::settings::{HEALTHZ_PORT, METRICS_PORT, Settings};
use super::validated::{
    ApiServer, Config, Conntrack, Iptables, Ipvs, Masquerade, MasqueradeBit, Source, SyncPeriods,
};

/// The only version whose hidden metrics may be requested: the minor version before v1.36.
const PREVIOUS_VERSION: &str = "1.35";

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
        bind_address_hard_fail: settings.bind_address_hard_fail,
        node_port_addresses: validator.node_port_addresses(mode),
        external_address_cidrs: validator.external_address_cidrs(),
        detect_local: validator.detect_local(),
        sync: validator.sync_periods(mode),
        masquerade: validator.masquerade(mode),
        iptables: Iptables { localhost_node_ports: settings.iptables.localhost_node_ports },
        ipvs: validator.ipvs(mode),
        conntrack: validator.conntrack(),
        network_policy: validator.network_policy(),
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
            master: non_empty(&self.settings.master),
            request_timeout: self.positive("api-server.request-timeout", self.settings.request_timeout),
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

    fn bind_address(&mut self) -> std::net::IpAddr {
        parse_ip(&self.settings.bind_address).unwrap_or_else(|| {
            self.reject("bindAddress", format!("{:?}", self.settings.bind_address), "an IP address");
            std::net::Ipv4Addr::UNSPECIFIED.into()
        })
    }

    /// An empty address disables the server, also for metrics, as documented by upstream's help. (Upstream's
    /// code then uses the default.)
    fn listener(&mut self, id: &'static str, address: &str, port: u16) -> Option<SocketAddr> {
        if address.is_empty() {
            return None;
        }
        let parsed = parse_socket_address(address, port);
        if parsed.is_none() {
            self.reject(
                id,
                format!("{address:?}"),
                "an IP address and a port from 1 to 65535, such as 127.0.0.1:80 or [::1]:80",
            );
        }
        parsed
    }

    fn node_port_addresses(&mut self, mode: ProxyMode) -> NodePortAddresses {
        node_port_addresses::parse(&self.settings.node_port_addresses, mode).unwrap_or_else(
            |(item, expected)| {
                self.reject("nodePortAddresses", format!("{item:?}"), expected);
                node_port_addresses::default_for(mode)
            },
        )
    }

    fn detect_local(&mut self) -> DetectLocal {
        let settings = self.settings;
        match settings.detect_local_mode.as_str() {
            "" | "ClusterCIDR" => self.cluster_cidrs(),
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => self
                .interface("detectLocal.bridgeInterface", &settings.bridge_interface)
                .map_or_else(DetectLocal::default, DetectLocal::BridgeInterface),
            "InterfaceNamePrefix" => self
                .interface("detectLocal.interfaceNamePrefix", &settings.interface_name_prefix)
                .map_or_else(DetectLocal::default, DetectLocal::InterfaceNamePrefix),
            other => {
                let expected = "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                self.reject("detectLocalMode", format!("{other:?}"), expected);
                DetectLocal::default()
            }
        }
    }

    /// Upstream accepts any non-empty name; Portcullis requires a valid interface name.
    fn interface(&mut self, id: &'static str, name: &str) -> Option<InterfaceName> {
        let parsed = InterfaceName::new(name);
        if parsed.is_none() {
            let expected =
                format!("an interface name of 1 to 15 bytes in {} mode", self.settings.detect_local_mode);
            self.reject(id, format!("{name:?}"), expected);
        }
        parsed
    }

    /// At most one CIDR of each family. Without any, no traffic is local.
    fn cluster_cidrs(&mut self) -> DetectLocal {
        let (mut v4, mut v6): (Option<Ipv4Net>, Option<Ipv6Net>) = (None, None);
        let mut has_duplicate_family = false;
        for text in &self.settings.cluster_cidrs {
            match parse_cidr(text) {
                Some(IpNet::V4(net)) => has_duplicate_family |= v4.replace(net).is_some(),
                Some(IpNet::V6(net)) => has_duplicate_family |= v6.replace(net).is_some(),
                None => self.reject(
                    "clusterCIDR",
                    format!("{text:?}"),
                    "a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
                ),
            }
        }
        if has_duplicate_family {
            let all = self.settings.cluster_cidrs.join(",");
            self.reject(
                "clusterCIDR",
                format!("{all:?}"),
                "one CIDR, or one of each family such as 10.100.0.0/16,fde4:8dba:82e1::/48",
            );
        }
        DetectLocal::Cidrs(v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6)).collect())
    }

    fn sync_periods(&mut self, mode: ProxyMode) -> SyncPeriods {
        let settings = self.settings;
        let (period_id, period, min_id, min) = match mode {
            ProxyMode::Iptables => (
                "iptables.syncPeriod",
                settings.iptables.sync_period,
                "iptables.minSyncPeriod",
                settings.iptables.min_sync_period,
            ),
            ProxyMode::Ipvs => (
                "ipvs.syncPeriod",
                settings.ipvs.sync_period,
                "ipvs.minSyncPeriod",
                settings.ipvs.min_sync_period,
            ),
            ProxyMode::Nftables => (
                "nftables.syncPeriod",
                settings.nftables.sync_period,
                "nftables.minSyncPeriod",
                settings.nftables.min_sync_period,
            ),
        };
        if min > period && period > GoDuration::ZERO {
            self.reject(period_id, period, format!("at least the minimum sync period of {min}"));
        }
        SyncPeriods { period: self.positive(period_id, period), min_period: self.not_negative(min_id, min) }
    }

    /// ipvs mode uses the settings of iptables mode. Upstream always checks the bit of iptables mode, and
    /// that of nftables mode only in nftables mode.
    fn masquerade(&mut self, mode: ProxyMode) -> Masquerade {
        let (iptables, nftables) = (&self.settings.iptables, &self.settings.nftables);
        let bit = self.masquerade_bit("iptables.masqueradeBit", iptables.masquerade_bit);
        match mode {
            ProxyMode::Iptables | ProxyMode::Ipvs => Masquerade { all: iptables.masquerade_all, bit },
            ProxyMode::Nftables => Masquerade {
                all: nftables.masquerade_all,
                bit: self.masquerade_bit("nftables.masqueradeBit", nftables.masquerade_bit),
            },
        }
    }

    fn masquerade_bit(&mut self, id: &'static str, bit: i32) -> MasqueradeBit {
        MasqueradeBit::new(bit).unwrap_or_else(|| {
            self.reject(id, bit, "a bit of the packet mark, from 0 to 31");
            MasqueradeBit::new(14).expect("14 is from 0 to 31")
        })
    }

    /// Portcullis' own setting.
    fn external_address_cidrs(&mut self) -> Vec<IpNet> {
        self.cidrs("external-address-cidrs", &self.settings.external_address_cidrs)
    }

    fn cidrs(&mut self, id: &'static str, texts: &[String]) -> Vec<IpNet> {
        let mut cidrs = Vec::new();
        for text in texts {
            match parse_cidr(text) {
                Some(net) => cidrs.push(net),
                None => self.reject(id, format!("{text:?}"), "a CIDR such as 10.0.0.0/8 or fd00::/8"),
            }
        }
        cidrs
    }

    /// As upstream, errors count in ipvs mode only; in other modes invalid values are ignored.
    fn ipvs(&mut self, mode: ProxyMode) -> Ipvs {
        let errors = self.errors.len();
        let given = &self.settings.ipvs;
        let exclude_cidrs = self.cidrs("ipvs.excludeCIDRs", &given.exclude_cidrs);
        let ipvs = Ipvs {
            scheduler: self.scheduler(),
            exclude_cidrs,
            strict_arp: given.strict_arp,
            tcp_timeout: self.timeout("ipvs.tcpTimeout", given.tcp_timeout),
            tcp_fin_timeout: self.timeout("ipvs.tcpFinTimeout", given.tcp_fin_timeout),
            udp_timeout: self.timeout("ipvs.udpTimeout", given.udp_timeout),
        };
        if mode != ProxyMode::Ipvs {
            self.errors.truncate(errors);
        }
        ipvs
    }

    fn scheduler(&mut self) -> IpvsScheduler {
        let name = &self.settings.ipvs.scheduler;
        if name.is_empty() {
            return IpvsScheduler::default();
        }
        IpvsScheduler::from_name(name).unwrap_or_else(|| {
            self.reject("ipvs.scheduler", format!("{name:?}"), IpvsScheduler::NAMES);
            IpvsScheduler::default()
        })
    }

    fn conntrack(&mut self) -> Conntrack {
        let given = &self.settings.conntrack;
        Conntrack {
            max_per_core: NonZeroU32::new(self.count("conntrack.maxPerCore", given.max_per_core)),
            min: self.count("conntrack.min", given.min),
            tcp_established_timeout: self
                .timeout("conntrack.tcpEstablishedTimeout", given.tcp_established_timeout),
            tcp_close_wait_timeout: self
                .timeout("conntrack.tcpCloseWaitTimeout", given.tcp_close_wait_timeout),
            tcp_be_liberal: given.tcp_be_liberal,
            udp_timeout: self.timeout("conntrack.udpTimeout", given.udp_timeout),
            udp_stream_timeout: self.timeout("conntrack.udpStreamTimeout", given.udp_stream_timeout),
        }
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
