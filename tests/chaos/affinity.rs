//! Session affinity over time: which endpoint a client must reach again.
//!
//! A client that has reached one endpoint of a Service with `sessionAffinity: ClientIP` reaches it again, after changes of other
//! objects and restarts of the daemon too, as long as the endpoint serves. The time limit is longer than any scenario.
//! Modes differ in what happens when a client has reached several endpoints, as by frontends with different traffic policies, or
//! when one has come back; then nothing is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::cluster::{ModelCluster, text};
use super::model::{Client, Connection, Expected, Outcome};
use super::pools::local_addresses;
use super::services::Frontend;
use super::step::Mode;

/// A client in one family, and the Service port that owns the frontend, by UID and name.
pub(crate) type AffinityKey = (Client, bool, (String, String));

/// The endpoints that clients have reached.
#[derive(Debug, Default)]
pub(crate) struct Affinities {
    reached: BTreeMap<AffinityKey, Reached>,
}

/// The endpoints of a Service port that a client has reached in one family.
#[derive(Debug, Default)]
struct Reached {
    /// By the connection's destination and port.
    endpoints: BTreeMap<Connection, BTreeSet<SocketAddr>>,
    /// The kernel may have other entries of the client.
    is_unknown: bool,
}

impl Affinities {
    /// Returns the connections with known endpoints.
    pub(crate) fn connections(&self) -> impl Iterator<Item = Connection> + '_ {
        self.reached
            .values()
            .filter(|reached| !reached.is_unknown)
            .flat_map(|reached| reached.endpoints.keys().copied())
    }

    /// Returns the endpoint that a connection must reach, if there is one.
    pub(crate) fn expected(
        &self,
        cluster: &ModelCluster,
        mode: Mode,
        connection: &Connection,
    ) -> Option<SocketAddr> {
        let reached = self.reached.get(&key(cluster, connection)?).filter(|reached| !reached.is_unknown)?;
        let all: BTreeSet<SocketAddr> = match mode {
            // IPVS has an entry for each virtual server.
            Mode::Ipvs => reached.endpoints.get(connection)?.clone(),
            _ => reached.endpoints.values().flatten().copied().collect(),
        };
        let endpoint = all.first().filter(|_| all.len() == 1)?;
        is_possible(cluster, mode, connection, *endpoint).then_some(*endpoint)
    }

    /// Records an endpoint that a connection has reached.
    pub(crate) fn record(&mut self, cluster: &ModelCluster, connection: &Connection, endpoint: SocketAddr) {
        if let Some(key) = key(cluster, connection) {
            let reached = self.reached.entry(key).or_default();
            reached.endpoints.entry(*connection).or_default().insert(endpoint);
        }
    }

    /// Removes what a changed cluster no longer determines. To be called after each change: an endpoint that has served all the time
    /// keeps its clients.
    pub(crate) fn update(&mut self, cluster: &ModelCluster, mode: Mode) {
        for (key_of_client, reached) in &mut self.reached {
            reached.is_unknown |= reached.endpoints.iter().any(|(connection, endpoints)| {
                key(cluster, connection).as_ref() != Some(key_of_client)
                    || endpoints.iter().any(|endpoint| !is_possible(cluster, mode, connection, *endpoint))
            });
        }
    }

    /// Removes everything: another process has changed rules, or the mode has changed.
    pub(crate) fn forget(&mut self) {
        self.reached.values_mut().for_each(|reached| reached.is_unknown = true);
    }
}

/// Returns whose session affinity decides about a connection; `None` if its Service has none.
pub(crate) fn key(cluster: &ModelCluster, connection: &Connection) -> Option<AffinityKey> {
    let is_node = local_addresses().contains(&connection.to.ip());
    let Frontend { service, port, .. } = cluster.frontend(connection.to, connection.protocol, is_node)?;
    let owner = (text(service, "/metadata/uid").to_owned(), text(port, "/name").to_owned());
    let has_affinity = service["spec"]["sessionAffinity"] == "ClientIP";
    has_affinity.then_some((connection.client, connection.to.is_ipv4(), owner))
}

fn is_possible(cluster: &ModelCluster, mode: Mode, connection: &Connection, endpoint: SocketAddr) -> bool {
    match cluster.expected(mode, connection) {
        Expected::Exactly(outcomes) => outcomes.contains(&Outcome::To(endpoint)),
        _ => false,
    }
}
