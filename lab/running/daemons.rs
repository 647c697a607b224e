//! The daemons of a lab: starting, stopping, and waiting until they have followed.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Lab, now};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::synced::{self, SyncTimes};

impl Lab {
    pub(super) fn start_daemons(&mut self) -> Result<()> {
        let nodes: Vec<String> = self.plan.nodes.iter().map(|node| node.name.clone()).collect();
        nodes.iter().try_for_each(|node| self.start_daemon(node))
    }

    /// Starts a node's daemon, if the lab has daemons and this one does not run.
    ///
    /// # Errors
    /// When there is no such node or program.
    pub fn start_daemon(&mut self, node: &str) -> Result<()> {
        let netns = self.names.node(&self.node(node)?.name);
        if let (Some(spec), None) = (&self.options.daemon, self.daemons.get(node)) {
            self.daemons
                .insert(node.to_owned(), Daemon::start(spec, node, &netns, &self.state.folder, now())?);
        }
        Ok(())
    }

    /// Gives other arguments to daemons that are started from now on.
    pub fn set_daemon_args(&mut self, args: Vec<String>) {
        if let Some(spec) = &mut self.options.daemon {
            spec.args = args;
        }
    }

    /// Ends a node's daemon by SIGTERM, and waits up to 10 s for it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_daemon(&mut self, node: &str) -> Result<()> {
        match self.daemons.remove(node) {
            Some(mut daemon) => daemon.stop(Duration::from_secs(10)),
            None => Ok(()),
        }
    }

    /// The process id of a node's daemon.
    pub fn daemon_pid(&self, node: &str) -> Option<u32> {
        self.daemons.get(node).map(Daemon::pid)
    }

    /// The file that holds the log of a node's daemon.
    pub fn daemon_log(&self, node: &str) -> Option<&Path> {
        self.daemons.get(node).map(Daemon::log)
    }

    /// Waits until every daemon has served the last change of Services or endpoints.
    ///
    /// # Errors
    /// When a daemon ends or takes longer; the error holds the end of its log.
    pub fn wait_synced(&mut self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        let families = self.options.plan.families.list();
        for (node, daemon) in &mut self.daemons {
            let netns = self.names.node(node);
            let mut before = None;
            loop {
                daemon.check()?;
                let times = synced::metrics(&netns).map(|text| SyncTimes::parse(&text));
                let (since, queued) = daemon.must_follow(self.changed);
                let done = times.as_ref().is_some_and(|times| times.is_since(since, queued, families));
                // Twice the same: one change of ours may reach the daemon as several events.
                if done && before == times {
                    break;
                }
                if Instant::now() > until {
                    return Err(
                        daemon.error(format!("did not sync within {timeout:?}; it last said {times:?}"))
                    );
                }
                before = times;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Waits until every daemon tells a figure above 0 for a metric.
    ///
    /// # Errors
    /// When a daemon ends or takes longer; the error holds the end of its log.
    pub fn wait_for_metric(&mut self, name: &str, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        for (node, daemon) in &mut self.daemons {
            let netns = self.names.node(node);
            while !synced::metrics(&netns).is_some_and(|text| synced::is_above_zero(&text, name)) {
                daemon.check()?;
                if Instant::now() > until {
                    return Err(daemon.error(format!("did not come to tell any {name} within {timeout:?}")));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// An error for each daemon that has ended.
    ///
    /// # Errors
    /// The first such.
    pub fn check_daemons(&mut self) -> Result<()> {
        self.daemons.values_mut().try_for_each(Daemon::check)
    }
}
