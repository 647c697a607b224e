//! Takeover by a mode: the objects of other modes are removed once it serves, those of IPVS once its connections have
//! ended.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_netlink::Result;

use super::active_rules::ActiveRules;
use super::connection_drain::{self, ConnectionDrain, DrainStatus};
use super::removal::remove_other_modes;
use super::result::{Action, CleanupResult};
use super::{iptables, ipvs, nftables};
use crate::iptables::Flavour;
use crate::proxy_mode::ProxyMode;

/// The steps of a takeover.
///
/// ```text
/// prepare ─► the mode serves ─► proceed ─► (next_due) ─► proceed … ─► is_done
/// ```
pub struct Takeover {
    mode: ProxyMode,
    flavour: Flavour,
    drain_limit: Duration,
    stage: Stage,
    interrupted: u64,
}

enum Stage {
    /// The new mode does not serve yet.
    Waiting,
    /// IPVS connections are draining.
    Draining(Box<ConnectionDrain>, Option<DrainStatus>),
    Done,
}

impl Takeover {
    /// Returns the takeover by a mode that uses iptables tools of this flavour. Connections through IPVS may last for
    /// `drain_limit` after it serves.
    pub fn new(mode: ProxyMode, flavour: Flavour, drain_limit: Duration) -> Self {
        Takeover { mode, flavour, drain_limit, stage: Stage::Waiting, interrupted: 0 }
    }

    /// Call it before the mode serves, with this machine's primary addresses: from then on, the machine's own
    /// connections to Services have these as their source, as in other modes, and not the Services' addresses, which
    /// will be removed.
    ///
    /// # Errors
    /// The kernel rejected a request. Such connections may then break when the addresses are removed.
    pub fn prepare(&self, node_ips: &[IpAddr]) -> Result<()> {
        let begins = matches!(self.stage, Stage::Waiting) && self.mode != ProxyMode::Ipvs;
        let from_ipvs = begins && ipvs::has_leftovers();
        if from_ipvs { connection_drain::replace_addresses_with_routes(node_ips) } else { Ok(()) }
    }

    /// Removes the objects that can be removed now. Call it once the mode serves all Services, and at the time of
    /// [`Takeover::next_due`].
    pub fn proceed(&mut self, now: Instant) -> CleanupResult {
        match &mut self.stage {
            Stage::Done => CleanupResult::default(),
            Stage::Waiting if self.mode == ProxyMode::Ipvs || !ipvs::has_leftovers() => self.finish(),
            Stage::Waiting => match ConnectionDrain::start(self.drain_limit, now) {
                Ok(_) if self.drain_limit.is_zero() => self.drain_immediately(now),
                Ok(drain) => {
                    self.stage = Stage::Draining(Box::new(drain), None);
                    self.remove_rules()
                }
                Err(error) => self.finish_after(&error),
            },
            Stage::Draining(drain, _) if drain.next_count() > now => CleanupResult::default(),
            Stage::Draining(drain, waiting) => match drain.step(now) {
                Ok(None) => {
                    self.interrupted = drain.interrupted();
                    self.finish()
                }
                Ok(some) => {
                    *waiting = some;
                    CleanupResult::default()
                }
                Err(error) => self.finish_after(&error),
            },
        }
    }

    fn drain_immediately(&mut self, now: Instant) -> CleanupResult {
        match ConnectionDrain::start(self.drain_limit, now)
            .and_then(|mut drain| drain.step(now).map(|_| drain.interrupted()))
        {
            Ok(interrupted) => {
                self.interrupted = interrupted;
                self.finish()
            }
            Err(error) => self.finish_after(&error),
        }
    }

    /// Removes the rules of other modes, which match no packets any more; the chain that protects IPVS addresses stays.
    fn remove_rules(&self) -> CleanupResult {
        let mut result = CleanupResult::default();
        let active = ActiveRules::new(self.mode, self.flavour).with_ipvs_filter();
        iptables::clean(&mut result, Some(&active), Action::Remove, false);
        nftables::clean(&mut result, nftables::of_other_modes(self.mode), Action::Remove);
        result
    }

    fn finish(&mut self) -> CleanupResult {
        self.stage = Stage::Done;
        remove_other_modes(self.mode, self.flavour)
    }

    /// Removes everything, as connections cannot be counted.
    fn finish_after(&mut self, error: &portcullis_netlink::Error) -> CleanupResult {
        tracing::warn!(%error, "cannot count connections through IPVS; removing its virtual servers now");
        self.finish()
    }

    /// Returns the time at which [`Takeover::proceed`] must be called again.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Draining(drain, _) => Some(drain.next_count()),
            Stage::Waiting | Stage::Done => None,
        }
    }

    /// Returns true if the objects of other modes are removed, except those that could not be.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Returns the number of IPVS connections that had not ended in time.
    pub fn interrupted(&self) -> u64 {
        self.interrupted
    }

    /// Returns the connections that were draining at the last count.
    pub fn drain_status(&self) -> Option<DrainStatus> {
        match &self.stage {
            Stage::Draining(_, waiting) => *waiting,
            Stage::Waiting | Stage::Done => None,
        }
    }
}
