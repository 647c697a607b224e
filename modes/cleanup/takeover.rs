//! One mode takes over from others: they go once it serves, and IPVS when its connections have ended.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_netlink::Result;

use super::drain::{self, Drain, Draining};
use super::standing::Standing;
use super::{Cleanup, Doing, Serving, iptables, ipvs, nftables, of_other_modes};
use crate::iptables::Flavour;

/// How a mode takes over.
///
/// ```text
/// prepare ─ the mode serves ─ proceed ─ (next_due) ─ proceed … ─ nothing is due: nothing is left
/// ```
pub struct Takeover {
    serving: Serving,
    flavour: Flavour,
    limit: Duration,
    stage: Stage,
    cut_off: u64,
}

enum Stage {
    /// The new mode does not serve yet.
    Waiting,
    /// Connections through IPVS live on.
    Draining(Box<Drain>, Option<Draining>),
    Done,
}

impl Takeover {
    /// Of a mode, whose rules of iptables are of this flavour. Connections through IPVS may last for `limit` after it
    /// serves.
    pub fn new(serving: Serving, flavour: Flavour, limit: Duration) -> Self {
        Takeover { serving, flavour, limit, stage: Stage::Waiting, cut_off: 0 }
    }

    /// To be called before the mode serves, with this machine's primary addresses: from then on its own connections to
    /// Services leave from these, as in other modes, and not from the Services' addresses, which will go.
    ///
    /// # Errors
    /// The kernel refuses. Such connections may then break when the addresses go.
    pub fn prepare(&self, node_ips: &[IpAddr]) -> Result<()> {
        let begins = matches!(self.stage, Stage::Waiting) && self.serving != Serving::Ipvs;
        let from_ipvs = begins && ipvs::left_something();
        if from_ipvs { drain::keep_addresses_by_routes(node_ips) } else { Ok(()) }
    }

    /// Removes what can go. To be called once the mode serves all, and whenever [`Takeover::next_due`] says so.
    pub fn proceed(&mut self, now: Instant) -> Cleanup {
        match &mut self.stage {
            Stage::Done => Cleanup::default(),
            Stage::Waiting if self.serving == Serving::Ipvs || !ipvs::left_something() => self.finish(),
            Stage::Waiting => match Drain::begin(self.limit, now) {
                Ok(_) if self.limit.is_zero() => self.drain_at_once(now),
                Ok(drain) => {
                    self.stage = Stage::Draining(Box::new(drain), None);
                    self.remove_rules()
                }
                Err(error) => self.finish_despite(&error),
            },
            Stage::Draining(drain, _) if drain.next() > now => Cleanup::default(),
            Stage::Draining(drain, waiting) => match drain.step(now) {
                Ok(None) => {
                    self.cut_off = drain.cut_off();
                    self.finish()
                }
                Ok(some) => {
                    *waiting = some;
                    Cleanup::default()
                }
                Err(error) => self.finish_despite(&error),
            },
        }
    }

    fn drain_at_once(&mut self, now: Instant) -> Cleanup {
        match Drain::begin(self.limit, now).and_then(|mut drain| drain.step(now).map(|_| drain.cut_off())) {
            Ok(cut_off) => {
                self.cut_off = cut_off;
                self.finish()
            }
            Err(error) => self.finish_despite(&error),
        }
    }

    /// Removes the rules of the others, which lead nobody any more; what guards the addresses stays.
    fn remove_rules(&self) -> Cleanup {
        let mut done = Cleanup::default();
        let standing = Standing::new(self.serving, self.flavour).draining();
        iptables::go_over(&mut done, Some(&standing), Doing::Remove, false);
        nftables::go_over(&mut done, nftables::of_others(self.serving), Doing::Remove);
        done
    }

    fn finish(&mut self) -> Cleanup {
        self.stage = Stage::Done;
        of_other_modes(self.serving, self.flavour)
    }

    /// Nothing can be waited for, so all goes.
    fn finish_despite(&mut self, error: &portcullis_netlink::Error) -> Cleanup {
        tracing::warn!(%error, "connections through IPVS cannot be waited for");
        self.finish()
    }

    /// When [`Takeover::proceed`] is to be called again.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Draining(drain, _) => Some(drain.next()),
            Stage::Waiting | Stage::Done => None,
        }
    }

    /// Whether nothing of other modes is left, but for what could not be removed.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Connections through IPVS that had not ended in time.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// The connections that were waited for when they were last counted.
    pub fn waiting(&self) -> Option<Draining> {
        match &self.stage {
            Stage::Draining(_, waiting) => *waiting,
            Stage::Waiting | Stage::Done => None,
        }
    }
}
