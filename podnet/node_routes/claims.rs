//! Which node may use which pod CIDR.

use ipnet::IpNet;
use portcullis_cluster::Name;

use super::net_map::NetMap;
use super::small_set::SmallSet;

/// The precedence of a node among those that claim overlapping pod CIDRs: this node, whose pods have the addresses; then the oldest Node.
/// It is independent of the order in which Nodes become known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) is_other: bool,
    pub(super) created: i64,
    pub(super) name: Name,
}

/// The pod CIDRs of all nodes.
#[derive(Debug, Default)]
pub(super) struct Claims(NetMap<SmallSet<Rank>>);

impl Claims {
    pub(super) fn add(&mut self, cidr: IpNet, rank: Rank) {
        self.0.entry(cidr).insert(rank);
    }

    pub(super) fn remove(&mut self, cidr: &IpNet, rank: &Rank) {
        let Some(ranks) = self.0.get_mut(cidr) else { return };
        ranks.remove(rank);
        if ranks.is_empty() {
            self.0.remove(cidr);
        }
    }

    /// Returns the largest claimed block that contains a block; the block itself if none does.
    pub(super) fn root(&self, cidr: IpNet) -> IpNet {
        self.0.containing(cidr).next().map_or(cidr, |(root, _)| *root)
    }

    /// Returns the claimed blocks that contain a block.
    pub(super) fn containing(&self, cidr: IpNet) -> impl Iterator<Item = IpNet> {
        self.0.containing(cidr).map(|(cidr, _)| *cidr)
    }

    /// Decides all claims that are part of a block, of which no claim outside overlaps with one inside. Claims are accepted by their
    /// rank, unless they overlap with an accepted one of another node, which is then returned. `is_valid` returns false for claims
    /// that no node may have.
    pub(super) fn decide(
        &self,
        root: IpNet,
        is_valid: impl Fn(&Rank, IpNet) -> bool,
    ) -> Vec<(IpNet, &Rank, Option<Conflict>)> {
        let claims = self.0.within(root).flat_map(|(cidr, ranks)| ranks.iter().map(|rank| (rank, *cidr)));
        let mut claims: Vec<(&Rank, IpNet)> = claims.collect();
        claims.sort_unstable();
        let mut accepted: NetMap<Option<&Rank>> = NetMap::default();
        let decided = claims.into_iter().map(|(rank, cidr)| {
            if !is_valid(rank, cidr) {
                return (cidr, rank, None);
            }
            let conflict = overlapping(&accepted, rank, cidr);
            if conflict.is_none() {
                *accepted.entry(cidr) = Some(rank);
            }
            (cidr, rank, conflict)
        });
        decided.collect()
    }

    /// Returns a claim that overlaps with one of this node, and which all other nodes prefer, because it is older.
    pub(super) fn older(
        &self,
        cidr: IpNet,
        rank: &Rank,
        is_valid: impl Fn(&Rank, IpNet) -> bool,
    ) -> Option<Conflict> {
        let overlaps = self.0.containing(cidr).chain(self.0.within(cidr));
        let claims = overlaps.flat_map(|(cidr, ranks)| ranks.iter().map(|rank| (rank, *cidr)));
        let is_older = |other: &Rank| (other.created, &other.name) < (rank.created, &rank.name);
        let mut older = claims.filter(|(other, cidr)| is_older(other) && is_valid(other, *cidr));
        older.next().map(|(other, cidr)| Conflict { cidr, node: other.name.clone() })
    }
}

/// The accepted claim of another node that prevents a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) cidr: IpNet,
    pub(super) node: Name,
}

fn overlapping(accepted: &NetMap<Option<&Rank>>, rank: &Rank, cidr: IpNet) -> Option<Conflict> {
    let mut overlaps = accepted.containing(cidr).chain(accepted.within(cidr));
    overlaps.find_map(|(cidr, owner)| {
        let owner = owner.filter(|owner| owner.name != rank.name)?;
        Some(Conflict { cidr: *cidr, node: owner.name.clone() })
    })
}
