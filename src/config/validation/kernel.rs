//! Validation of the settings of the proxy modes and of connection tracking.

use std::num::NonZeroU32;

use portcullis_cluster::IpvsScheduler;
use portcullis_modes::ProxyMode;

use super::Validator;
use crate::config::go_duration::GoDuration;
use crate::config::validated::{Conntrack, Ipvs, Masquerade, MasqueradeBit, SyncPeriods};

impl Validator<'_> {
    pub(super) fn sync_periods(&mut self, mode: ProxyMode) -> SyncPeriods {
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
    pub(super) fn masquerade(&mut self, mode: ProxyMode) -> Masquerade {
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

    pub(super) fn masquerade_bit(&mut self, id: &'static str, bit: i32) -> MasqueradeBit {
        MasqueradeBit::new(bit).unwrap_or_else(|| {
            self.reject(id, bit, "a bit of the packet mark, from 0 to 31");
            MasqueradeBit::new(14).expect("14 is from 0 to 31")
        })
    }

    /// As upstream, errors count in ipvs mode only; in other modes invalid values are ignored.
    pub(super) fn ipvs(&mut self, mode: ProxyMode) -> Ipvs {
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

    pub(super) fn scheduler(&mut self) -> IpvsScheduler {
        let name = &self.settings.ipvs.scheduler;
        if name.is_empty() {
            return IpvsScheduler::default();
        }
        IpvsScheduler::from_name(name).unwrap_or_else(|| {
            self.reject("ipvs.scheduler", format!("{name:?}"), IpvsScheduler::NAMES);
            IpvsScheduler::default()
        })
    }

    pub(super) fn conntrack(&mut self) -> Conntrack {
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
}
