//! Starting and stopping the daemons of a lab, and waiting for their syncs.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Lab, now};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::network::Wiring;
use crate::sync_times::{self, SyncTimes};

impl Lab {
    pub(super) fn start_daemons(&mut self) -> Result<()> {
        let nodes: Vec<String> = self.plan.nodes.iter().map(|node| node.name.clone()).collect();
        nodes.iter().try_for_each(|node| self.start_daemon(node))
    }

    /// Starts a node's daemon if the lab has daemons and this one is not running.
    ///
    /// # Errors
    /// No such node, or the program cannot be started.
    pub fn start_daemon(&mut self, node: &str) -> Result<()> {
        let netns = self.names.node(&self.node(node)?.name);
        if let (Some(spec), None) = (&self.options.daemon, self.daemons.get(node)) {
            let mut spec = spec.clone();
            if let Wiring::Plugins(plugins) = &self.wiring {
                spec.args.extend(plugins.daemon_arguments(node));
            }
            self.daemons
                .insert(node.to_owned(), Daemon::start(&spec, node, &netns, &self.record.folder, now())?);
        }
        Ok(())
    }

    /// Waits until pods can be started on all nodes.
    pub(super) fn wait_pod_network(&mut self) -> Result<()> {
        let Wiring::Plugins(plugins) = &self.wiring else { return Ok(()) };
        for (node, daemon) in &mut self.daemons {
            plugins.wait_ready(node, || daemon.check())?;
        }
        Ok(())
    }

    /// Sets the arguments of daemons that are started later.
    pub fn set_daemon_args(&mut self, args: Vec<String>) {
        if let Some(spec) = &mut self.options.daemon {
            spec.args = args;
        }
    }

    /// Sends SIGTERM to a node's daemon and waits up to 10 s for its exit.
    ///
    /// # Errors
    /// The daemon does not exit in time.
    pub fn stop_daemon(&mut self, node: &str) -> Result<()> {
        match self.daemons.remove(node) {
            Some(mut daemon) => daemon.stop(Duration::from_secs(10)),
            None => Ok(()),
        }
    }

    /// Returns the process id of a node's daemon.
    pub fn daemon_pid(&self, node: &str) -> Option<u32> {
        self.daemons.get(node).map(Daemon::pid)
    }

    /// Returns the path of the log of a node's daemon.
    pub fn daemon_log(&self, node: &str) -> Option<&Path> {
        self.daemons.get(node).map(Daemon::log)
    }

    /// Waits until every daemon has synced the last change of Services or endpoints.
    ///
    /// # Errors
    /// A daemon exits or takes longer; the error includes the last lines of its log.
    pub fn wait_synced(&mut self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        let families = self.options.plan.families.list();
        for (node, daemon) in &mut self.daemons {
            let netns = self.names.node(node);
            let mut before = None;
            loop {
                daemon.check()?;
                let times = sync_times::metrics(&netns).map(|text| SyncTimes::parse(&text));
                let (since, queued) = daemon.required_sync(self.changed);
                let done = times.as_ref().is_some_and(|times| times.is_since(since, queued, families));
                // Require two equal readings: one change may reach the daemon as several events.
                if done && before == times {
                    break;
                }
                if Instant::now() > until {
                    return Err(
                        daemon.error(format!("did not sync within {timeout:?}; last sync times: {times:?}"))
                    );
                }
                before = times;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Waits until every daemon reports a value above 0 for a metric.
    ///
    /// # Errors
    /// A daemon exits or takes longer; the error includes the last lines of its log.
    pub fn wait_for_metric(&mut self, name: &str, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        for (node, daemon) in &mut self.daemons {
            let netns = self.names.node(node);
            while !sync_times::metrics(&netns).is_some_and(|text| sync_times::is_above_zero(&text, name)) {
                daemon.check()?;
                if Instant::now() > until {
                    return Err(daemon.error(format!("did not report {name} above 0 within {timeout:?}")));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Checks that all daemons are running.
    ///
    /// # Errors
    /// A daemon has exited; the error includes the last lines of its log.
    pub fn check_daemons(&mut self) -> Result<()> {
        self.daemons.values_mut().try_for_each(Daemon::check)
    }
}
