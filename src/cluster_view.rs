//! A view of the cluster that is read once, for commands that do not run as a daemon.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, Kind, Name};
use portcullis_modes::iptables::{IptablesFeatures, Tools};
use portcullis_modes::{NodeFacts, Options};
use portcullis_policy::table::PolicyTable;
use tokio::time::timeout;

use crate::config::{ApiServer, Config, Source};
use crate::control::Declaration;
use crate::daemon;
use crate::host_file::{HostFile, HostFileError};
use crate::node_network::comparison::PodNetworkView;
use crate::observe::unserved;
use crate::source::{
    Access, AccessError, FileErrors, KubectlFiles, ListWatchOptions, Manifests, PathError, Selection,
    SourceConfig, UnreadableObjects, read_manifests, unsupported_policies,
};
use crate::{host, node};

/// The desired state of a node: its Services, and the options and facts that determine their rules.
pub struct NodeView {
    /// The Services to serve.
    pub desired: Desired,
    /// The options that follow from the configuration.
    pub options: Options,
    /// The facts of the node.
    pub host: NodeFacts,
    /// The NetworkPolicy table; `None` without `--network-policy`.
    pub policies: Option<PolicyTable>,
    /// The pod network; `None` without `--pod-network`, and for views that are not of this machine.
    pub pod_network: Option<PodNetworkView>,
    /// Objects that could not be read, and are left out.
    pub unreadable: UnreadableObjects,
}

/// The objects of a cluster, read once.
pub struct ClusterView {
    /// The objects.
    pub index: Index,
    /// Objects that could not be read, and are left out.
    pub unreadable: UnreadableObjects,
    /// The namespace of the kubeconfig's context, or of the service account; `None` for manifests.
    pub default_namespace: Option<String>,
}

impl UnreadableObjects {
    /// Returns an error if there are any. Commands call it after they printed their output.
    ///
    /// # Errors
    /// [`LoadError::Unreadable`].
    pub fn check(&self) -> Result<(), LoadError> {
        if self.0.is_empty() { Ok(()) } else { Err(LoadError::Unreadable(self.clone())) }
    }
}

/// Why the cluster cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The manifests cannot be read.
    #[error(transparent)]
    Manifests(#[from] PathError),
    /// The host file cannot be read.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The name of the node is unknown.
    #[error("cannot determine this node's name: {0}")]
    NodeName(std::io::Error),
    /// Some objects cannot be read; the others were used.
    #[error("incomplete, as some objects could not be read: {0}")]
    Unreadable(UnreadableObjects),
    /// The API server does not respond.
    #[error("no response from the API server for {0:?} (--request-timeout): {1}")]
    Silent(Duration, String),
    /// The API server responds, but did not list all objects in time.
    #[error("the API server has not listed all objects within {0:?}: {1}")]
    TimedOut(Duration, String),
}

/// How long the API server may take to list all objects.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// The period of checks for a response of the API server.
const CHECK_PERIOD: Duration = Duration::from_millis(100);

/// Reads the cluster and resolves what a node must serve, with the facts of a host file or of this machine. Invalid objects
/// are logged and left out.
///
/// # Errors
/// Nothing can be read.
pub fn load_node(config: &Config, host_file: Option<&Path>) -> Result<NodeView, LoadError> {
    let name = node::name(config).map_err(LoadError::NodeName)?;
    let cluster = match &config.source {
        Source::Manifests(path) => read_once(path)?,
        Source::ApiServer(api) => {
            let controllers = daemon::declarations(config, &name, &Family::BOTH);
            list_once(api, Declaration::selections(&controllers))?
        }
    };
    let file = host_file.map(HostFile::read).transpose()?;
    Ok(resolve_node(config, name, cluster, file.as_ref()))
}

/// Reads all objects of the cluster that affect connectivity. Invalid objects are logged and left out.
///
/// # Errors
/// Nothing can be read.
pub fn load_cluster(config: &Config) -> Result<ClusterView, LoadError> {
    match &config.source {
        Source::Manifests(path) => read_once(path),
        Source::ApiServer(api) => {
            let mut selections = Selection::network_policy();
            // Also Services that no proxy serves, to explain why.
            selections.extend([Selection::all(Kind::Service), Selection::endpoint_slices()]);
            // No pod CIDR may contain them.
            selections.extend(config.pod_network.as_ref().map(|_| Selection::service_cidrs()));
            list_once(api, selections)
        }
    }
}

fn resolve_node(config: &Config, name: Name, cluster: ClusterView, file: Option<&HostFile>) -> NodeView {
    let ClusterView { index, unreadable, .. } = cluster;
    if index.node(&name).is_none() {
        tracing::warn!(node = %name, "no Node object has this name; its zone and addresses are unknown");
    }
    let facts = file.map_or(FactsSource::ThisMachine, FactsSource::File);
    let pod_network = PodNetworkView::new(config, &name, &index);
    let view = NodeView { unreadable, pod_network, ..node_view(config, name, &index, &facts) };
    unserved::log_all(&view.desired);
    view
}

/// The source of the facts about a node that its Node object does not have.
pub(crate) enum FactsSource<'a> {
    /// The node is this machine.
    ThisMachine,
    /// A file describes the node.
    File(&'a HostFile),
    /// Nothing else is known.
    NodeObject,
}

/// Returns what a node is to serve, and its facts.
pub(crate) fn node_view(config: &Config, name: Name, index: &Index, facts: &FactsSource<'_>) -> NodeView {
    let node = index.node(&name);
    let options = node::options(config, node);
    let service_cidrs = node::service_cidrs(config.mode, index);
    let in_rules = |addresses: &[IpAddr]| host::addresses_in_rules(config.mode, &options, addresses);
    let host = match facts {
        FactsSource::File(file) => NodeFacts {
            addresses: in_rules(&file.addresses().collect::<Vec<_>>()),
            node_ips: node::primary_ips(config, node, |_| None),
            iptables: IptablesFeatures { random_fully: file.random_fully, nfacct: file.nfacct },
            service_cidrs,
            route_localnet: false,
        },
        FactsSource::ThisMachine => NodeFacts {
            addresses: in_rules(&host::addresses()),
            node_ips: node::primary_ips(config, node, host::default_route_source),
            iptables: IptablesFeatures {
                random_fully: Tools::find().is_ok_and(|tools| tools.random_fully()),
                nfacct: host::has_nfacct(),
            },
            service_cidrs,
            route_localnet: host::accepts_loopback(&options),
        },
        FactsSource::NodeObject => NodeFacts {
            addresses: in_rules(&node.into_iter().flat_map(|node| node.ips()).collect::<Vec<_>>()),
            node_ips: node::primary_ips(config, node, |_| None),
            service_cidrs,
            ..NodeFacts::default()
        },
    };
    let is_this_machine = matches!(facts, FactsSource::ThisMachine);
    let policies =
        config.network_policy.map(|policy| node::policies(&policy, name.clone(), index, is_this_machine));
    let desired = Desired::new(name).with_external_cidrs(&config.external_address_cidrs).with_index(index);
    NodeView {
        desired,
        options,
        host,
        policies,
        pod_network: None,
        unreadable: UnreadableObjects(Vec::new()),
    }
}

fn read_once(path: &Path) -> Result<ClusterView, LoadError> {
    let Manifests { objects, errors, problems, warnings, ignored, skipped } = read_manifests(path)?;
    errors.iter().for_each(|error| tracing::error!("{error}"));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    skipped.iter().for_each(|skipped| tracing::warn!("{skipped}"));
    problems.iter().for_each(|(key, problem)| tracing::warn!("{key}: {problem}"));
    ignored
        .iter()
        .filter_map(|kind| unsupported_policies::warning_of(kind))
        .for_each(|warning| tracing::warn!("{warning}"));
    let ignored: Vec<&String> =
        ignored.iter().filter(|kind| unsupported_policies::warning_of(kind).is_none()).collect();
    if !ignored.is_empty() {
        tracing::info!(kinds = ?ignored, "ignoring objects of unused kinds");
    }
    let mut index = Index::new();
    objects.into_iter().for_each(|object| _ = index.handle(Event::Applied(object)));
    let unreadable = UnreadableObjects(errors.iter().flat_map(FileErrors::lines).collect());
    Ok(ClusterView { index, unreadable, default_namespace: None })
}

fn list_once(api: &ApiServer, selections: Vec<Selection>) -> Result<ClusterView, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread needs only a few file descriptors");
    runtime.block_on(async {
        let (sink, mut events) = tokio::sync::mpsc::channel(16);
        let access = access(api);
        let credentials = access.credentials();
        let with_credentials = |reason| format!("{reason}; credentials: {credentials}");
        tracing::info!(%credentials, "reading the API server");
        let config = SourceConfig::ApiServer {
            access: access.clone(),
            selections,
            options: ListWatchOptions::default(),
        };
        let source = crate::source::spawn(config, sink).await?;
        let mut index = Index::new();
        let start = Instant::now();
        while !source.health().synced() {
            match timeout(CHECK_PERIOD, events.recv()).await {
                Ok(Some(batch)) => batch.into_iter().for_each(|event| _ = index.handle(event)),
                Ok(None) => break,
                Err(_) => {}
            }
            if let Some(reason) = source.health().list_timeout(start, api.request_timeout) {
                return Err(LoadError::Silent(api.request_timeout, with_credentials(reason)));
            }
            if let Some(reason) =
                source.health().list_timeout(start, Duration::ZERO).filter(|_| start.elapsed() > LIST_TIMEOUT)
            {
                return Err(LoadError::TimedOut(LIST_TIMEOUT, with_credentials(reason)));
            }
        }
        while let Ok(batch) = events.try_recv() {
            batch.into_iter().for_each(|event| _ = index.handle(event));
        }
        let unreadable = UnreadableObjects(source.health().unreadable());
        source.stop().await;
        Ok(ClusterView { index, unreadable, default_namespace: access.default_namespace().await })
    })
}

/// Returns the source of a configuration, with the objects that controllers need. With `once`, they are listed without a wait.
pub(crate) fn source_config(config: &Config, controllers: &[Declaration], once: bool) -> SourceConfig {
    match &config.source {
        Source::Manifests(path) => SourceConfig::Manifests { path: PathBuf::clone(path) },
        Source::ApiServer(api) => SourceConfig::ApiServer {
            access: access(api),
            selections: Declaration::selections(controllers),
            options: ListWatchOptions {
                list_jitter: if once { Duration::ZERO } else { api.list_jitter },
                ..ListWatchOptions::default()
            },
        },
    }
}

/// Returns the address and credentials of an API server. Commands find them as kubectl does.
fn access(api: &ApiServer) -> Access {
    let kubectl = api.kubectl.as_ref();
    Access {
        kubeconfig: api.kubeconfig.clone(),
        master: api.master.clone(),
        kubectl: kubectl.map(|kubectl| Box::new(KubectlFiles::from_environment(kubectl.context.clone()))),
    }
}
