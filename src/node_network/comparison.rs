//! Comparison of this node's part of the pod network with the kernel and the CNI folders, for `portcullis diff`. Nothing is changed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::{fs, mem};

use ipnet::IpNet;
use portcullis_cluster::{Index, Name};
use portcullis_modes::forward_accept::ForwardAccept;
use portcullis_netlink::nf_tables::{Table, UnknownObjects};
use portcullis_netlink::route::Rtnetlink;
use portcullis_podnet::PodNetworkPlan;
use portcullis_podnet::addresses::{self, AddressStore};
use portcullis_podnet::egress::{
    self, EgressError, UnsetSetting, forwarding_differences, rp_filter_difference,
};
use portcullis_podnet::host_ports::{self, HostPortError, HostPorts};
use portcullis_podnet::installation::ConfigurationList;
use portcullis_podnet::links::{ForwardingTable, OwnLinks, VTEP_LINKS, missing_pod_routes};
use portcullis_podnet::node_routes::{ForwardingChanges, ForwardingObject, NodeRoutes, OwnNetwork, Reserved};
use portcullis_podnet::source_check::{self, SourceCheck};
use portcullis_policy::table::differences as table_differences;

use super::host_ports::records;
use super::planning::{self, cluster_cidrs};
use super::{NodeNetwork, families, forwarded_cidrs, reserved};
use crate::config::{self, Config, ProxyMode};

/// The pod network of this node that the settings and the Nodes call for.
pub struct PodNetworkView {
    routes: NodeRoutes,
    reserved: BTreeMap<IpNet, Reserved>,
    settings: config::PodNetwork,
    node_network: NodeNetwork,
}

/// An object that differs, as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part of the pod network, such as `pod network/node worker-2`.
    pub subject: String,
    /// The object, such as `routes`.
    pub object: String,
    /// The lines that are there.
    pub found: Vec<String>,
    /// The lines that should be there.
    pub wanted: Vec<String>,
}

/// Why the pod network cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// What this node needs is not known.
    #[error("the pod network of this node is not known: {0}")]
    NotReady(String),
    /// Links, routes, neighbours or FDB entries cannot be read.
    #[error("cannot read links and routes: {0}")]
    Links(#[from] portcullis_netlink::Error),
    /// The records of pods cannot be read.
    #[error("cannot read the records of pods: {0}")]
    Records(#[from] addresses::Error),
    /// The egress rules cannot be read.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The host ports cannot be read.
    #[error(transparent)]
    HostPorts(#[from] HostPortError),
    /// A kernel setting cannot be read.
    #[error("cannot read the kernel setting {}: {}", .0.name, .0.error)]
    Setting(UnsetSetting),
    /// The chain `FORWARD` of a firewall cannot be read.
    #[error("cannot read {0}")]
    Firewall(String),
    /// An installed file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        error: io::Error,
    },
}

/// The place of an object in the output: objects of no node come last; then the node, and the kind of the object.
type Place<'a> = (bool, Option<&'a Name>, &'a str);

/// The lines that are there, and those that should be.
type Lines = (Vec<String>, Vec<String>);

/// The prefix of subjects.
const POD_NETWORK: &str = "pod network";

impl PodNetworkView {
    /// Returns the view of the pod network that the configuration calls for; `None` if it is off.
    pub(crate) fn new(config: &Config, node: &Name, index: &Index) -> Option<Self> {
        let settings = config.pod_network.clone()?;
        let mut routes = NodeRoutes::new(OwnNetwork::new(node.clone(), settings.mode));
        routes.update(index.nodes().map(|node| (node.name.clone(), Some(node))));
        let mut node_network = NodeNetwork::new(&settings, &cluster_cidrs(config));
        if config.mode == ProxyMode::Ipvs {
            node_network.service_addresses = reserved::service_addresses(index);
        }
        Some(PodNetworkView { node_network, routes, reserved: reserved::addresses(index), settings })
    }

    /// Compares everything that the pod network has on this node.
    ///
    /// # Errors
    /// Something cannot be read, or the pod network of this node is not known.
    pub fn compare(&mut self) -> Result<Vec<Difference>, CompareError> {
        let mut differences = Vec::new();
        let mut rtnetlink = Rtnetlink::open()?;
        let own = OwnLinks::read(&mut rtnetlink, self.routes.internal_ips())?;
        let missing = planning::missing_uplinks(&self.routes, &own);
        let vteps = planning::vtep_links(&self.routes, &self.settings, &own);
        let compared = vteps.compare(&mut rtnetlink)?;
        for link in compared.differences {
            differences.push(Difference {
                subject: format!("{POD_NETWORK}/links"),
                object: format!("link {}{}", link.name, note(&link.found, &link.wanted)),
                found: link.found,
                wanted: link.wanted,
            });
        }
        let wanted_vteps =
            [0, 1].map(|at| vteps.links[at].is_some().then(|| compared.indexes[at].unwrap_or(absent(at))));
        self.routes.set_own(planning::own_network(&self.routes, &own, wanted_vteps, &self.reserved));
        let plan = planning::plan(&self.routes, &self.settings, own.uplinks, missing)
            .map_err(CompareError::NotReady)?;
        let names = LinkNames::read(&mut rtnetlink)?;
        differences.extend(self.compare_forwarding(compared.indexes, &names, &mut rtnetlink)?);
        differences.extend(self.compare_pod_routes(&names, &mut rtnetlink)?);
        differences.extend(self.node_network.compare(&plan)?);
        Ok(differences)
    }

    fn compare_forwarding(
        &self,
        vteps: [Option<u32>; 2],
        names: &LinkNames,
        rtnetlink: &mut Rtnetlink,
    ) -> Result<Vec<Difference>, CompareError> {
        let (current, duplicates) = ForwardingTable::open()?.read(vteps)?;
        let changes = ForwardingChanges::between(&current, self.routes.wanted());
        let owners = self.routes.nodes_by_key();
        let mut lines: BTreeMap<Place<'_>, Lines> = BTreeMap::new();
        let place = |object: &ForwardingObject| {
            let owner = owners.get(&object.key()).copied();
            (owner.is_none(), owner, object.kind())
        };
        let others = rtnetlink.routes(None)?;
        for (key, change) in changes.in_order() {
            if let Some(before) = change.before {
                lines.entry(place(&before)).or_default().0.push(names.line(&before));
            }
            let Some(after) = change.after else { continue };
            lines.entry(place(&after)).or_default().1.push(names.line(&after));
            // The route of another program, because of which the kernel rejects ours.
            for (route, protocol) in others.iter().filter(|_| change.before.is_none()) {
                let other = ForwardingObject::Route(*route);
                if other.key() == *key {
                    let line = format!("{} proto {protocol}", names.line(&other));
                    lines.entry(place(&after)).or_default().0.push(line);
                }
            }
        }
        for object in &duplicates {
            lines.entry(place(object)).or_default().0.push(names.line(object));
        }
        let difference = |((_, owner, kind), (found, wanted)): (Place<'_>, Lines)| Difference {
            subject: match owner {
                Some(node) => format!("{POD_NETWORK}/node {node}"),
                None => format!("{POD_NETWORK}/objects of no node"),
            },
            object: kind.to_owned(),
            found,
            wanted,
        };
        // Objects on a VXLAN link that is replaced have the same text.
        let differing = lines.into_iter().filter(|(_, (found, wanted))| found != wanted);
        Ok(differing.map(difference).collect())
    }

    fn compare_pod_routes(
        &self,
        names: &LinkNames,
        rtnetlink: &mut Rtnetlink,
    ) -> Result<Option<Difference>, CompareError> {
        let listing = AddressStore::open(&self.settings.state_dir, &[], &[])?.attachments()?;
        let missing = missing_pod_routes(rtnetlink, &listing.attachments)?;
        let wanted: Vec<String> =
            missing.iter().map(|route| names.line(&ForwardingObject::Route(*route))).collect();
        Ok((!wanted.is_empty()).then(|| Difference {
            subject: format!("{POD_NETWORK}/pods of this node"),
            object: "routes".to_owned(),
            found: Vec::new(),
            wanted,
        }))
    }
}

impl NodeNetwork {
    /// Compares what does not depend on links and routes.
    fn compare(&mut self, plan: &PodNetworkPlan) -> Result<Vec<Difference>, CompareError> {
        let mut differences = Vec::new();
        differences.extend(self.compare_settings(plan)?);
        let policy = self.egress_policy(plan);
        let egress = self.egress()?;
        egress.set_policy(policy.as_ref());
        let found = egress.read()?;
        differences.extend(compare_table(egress::TABLE, egress.desired(), found.as_ref()));
        if let Some(mut check) = SourceCheck::open()? {
            let found = check.read()?;
            let wiring = super::source_check(plan);
            wiring.into_iter().for_each(|wiring| check.set_wiring(wiring));
            let wanted = wiring.map(|_| check.desired());
            differences.extend(compare_table(source_check::TABLE, wanted, found.as_ref()));
        }
        let state_dir = &self.installation.state_dir;
        let host_ports = match HostPorts::open(state_dir) {
            Ok(host_ports) => {
                let mut host_ports = host_ports.with_service_addresses(&self.service_addresses);
                Some(host_ports.compare(|| records(state_dir))?)
            }
            Err(HostPortError::NoTables) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(compared) = host_ports {
            let (wanted, found) = (compared.wanted.as_ref(), compared.found.as_ref());
            differences.extend(compare_table(host_ports::TABLE, wanted, found));
        }
        let (firewalls, mut errors) = ForwardAccept::compare(&forwarded_cidrs(plan));
        if !errors.is_empty() {
            return Err(CompareError::Firewall(errors.swap_remove(0)));
        }
        differences.extend(firewalls.into_iter().map(|firewall| Difference {
            subject: format!("{POD_NETWORK}/firewall"),
            object: firewall.location.to_string(),
            found: firewall.found,
            wanted: firewall.wanted,
        }));
        differences.extend(self.compare_files(plan)?);
        Ok(differences)
    }

    fn compare_settings(&self, plan: &PodNetworkPlan) -> Result<Option<Difference>, CompareError> {
        let (mut different, mut unreadable) = forwarding_differences(&self.proc, families(plan));
        if !unreadable.is_empty() {
            return Err(CompareError::Setting(unreadable.swap_remove(0)));
        }
        let uplinks = self.loose_uplinks(plan);
        different.extend(uplinks.filter_map(|uplink| rp_filter_difference(&self.proc, &uplink.name)));
        let line = |name: &str, value: &str| format!("{name} = {value}");
        Ok((!different.is_empty()).then(|| Difference {
            subject: format!("{POD_NETWORK}/kernel settings"),
            object: "sysctl".to_owned(),
            found: different.iter().map(|setting| line(&setting.name, &setting.before)).collect(),
            wanted: different.iter().map(|setting| line(&setting.name, setting.value)).collect(),
        }))
    }

    /// Compares the CNI configuration. Of the plugins only the existence is compared: the daemon may be another build than this program, and
    /// `loopback` another program.
    fn compare_files(&self, plan: &PodNetworkPlan) -> Result<Vec<Difference>, CompareError> {
        let list = ConfigurationList::new(plan, &self.installation.state_dir).to_json();
        let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        let read = |path: &PathBuf| match fs::read_to_string(path) {
            Ok(text) => Ok(lines(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(CompareError::File { path: path.clone(), error }),
        };
        let executable = |exists: bool| vec!["the plugin".to_owned(); usize::from(exists)];
        let mut files = Vec::new();
        for plugin in [self.installation.plugin(), self.installation.loopback()] {
            match plugin.try_exists() {
                Ok(exists) => files.push((plugin, executable(exists), executable(true))),
                Err(error) => return Err(CompareError::File { path: plugin, error }),
            }
        }
        let configuration = self.installation.configuration();
        files.push((configuration.clone(), read(&configuration)?, lines(&list)));
        let differing = files.into_iter().filter(|(_, found, wanted)| found != wanted);
        Ok(differing
            .map(|(path, found, wanted)| Difference {
                subject: format!("{POD_NETWORK}/CNI"),
                object: format!("{}{}", path.display(), note(&found, &wanted)),
                found,
                wanted,
            })
            .collect())
    }
}

fn compare_table(
    name: &str,
    wanted: Option<&Table>,
    found: Option<&(Table, UnknownObjects)>,
) -> Vec<Difference> {
    let none;
    let wanted = match (wanted, found) {
        (Some(wanted), _) => wanted,
        (None, Some((found, _))) => {
            none = Table::new(found.family, &found.name);
            &none
        }
        (None, None) => return Vec::new(),
    };
    let (found, unknown) = found.map(|(table, unknown)| (table, unknown.as_slice())).unzip();
    let differences = table_differences(wanted, found, unknown.unwrap_or_default()).into_iter();
    differences
        .map(|difference| {
            let remark = match (&difference.actual, &difference.desired) {
                (None, _) => " (is missing)",
                (_, None) => " (is not wanted)",
                _ => "",
            };
            Difference {
                subject: format!("{POD_NETWORK}/table inet {name}"),
                object: format!("{}{remark}", difference.object),
                found: difference.actual.unwrap_or_default(),
                wanted: difference.desired.unwrap_or_default(),
            }
        })
        .collect()
}

fn note(found: &[String], wanted: &[String]) -> &'static str {
    match (found.is_empty(), wanted.is_empty()) {
        (true, false) => " (is missing)",
        (false, true) => " (is not wanted)",
        _ => "",
    }
}

/// Returns an index that stands for a VXLAN link that does not exist. The kernel's indexes are positive `int`s.
fn absent(at: usize) -> u32 {
    u32::MAX - u32::try_from(at).expect("there are two links")
}

/// The names of links, by index.
struct LinkNames(BTreeMap<u32, String>);

impl LinkNames {
    fn read(rtnetlink: &mut Rtnetlink) -> Result<Self, CompareError> {
        let mut names: BTreeMap<u32, String> =
            rtnetlink.links()?.into_iter().map(|mut link| (link.index, mem::take(&mut link.name))).collect();
        names.extend(VTEP_LINKS.iter().enumerate().map(|(at, vtep)| (absent(at), vtep.name.to_owned())));
        Ok(LinkNames(names))
    }

    fn line(&self, object: &ForwardingObject) -> String {
        object.line(|index| self.0.get(&index).cloned().unwrap_or_else(|| format!("link {index}")))
    }
}
