//! Groups that addresses join and leave.

use std::net::IpAddr;

use super::memberships::GroupIndex;

/// Changes of the groups of addresses.
#[derive(Debug, Default)]
pub(super) struct Deltas(Vec<Delta>);

/// Sorted by address, so that the changes of an address are next to each other. The first sync of a large cluster has hundreds of
/// thousands.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delta {
    address: IpAddr,
    change: Change,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// The groups by address may have changed.
    Touched,
    Joined(GroupIndex),
    Left(GroupIndex),
}

impl Deltas {
    /// Adds an address whose groups by address may have changed.
    pub(super) fn touch(&mut self, address: IpAddr) {
        self.0.push(Delta { address, change: Change::Touched });
    }

    /// Adds an address that joins a group.
    pub(super) fn join(&mut self, address: IpAddr, group: GroupIndex) {
        self.0.push(Delta { address, change: Change::Joined(group) });
    }

    /// Adds an address that leaves a group.
    pub(super) fn leave(&mut self, address: IpAddr, group: GroupIndex) {
        self.0.push(Delta { address, change: Change::Left(group) });
    }

    /// Passes each address with the groups that it joins and those that it leaves.
    pub(super) fn for_each(self, mut each: impl FnMut(IpAddr, &[GroupIndex], &[GroupIndex])) {
        let mut all = self.0;
        all.sort_unstable();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for deltas in all.chunk_by(|a, b| a.address == b.address) {
            joined.clear();
            left.clear();
            for delta in deltas {
                match delta.change {
                    Change::Touched => {}
                    Change::Joined(group) => joined.push(group),
                    Change::Left(group) => left.push(group),
                }
            }
            each(deltas[0].address, &joined, &left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_an_address_are_passed_together() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut deltas = Deltas::default();
        deltas.join(address(2), 7);
        deltas.leave(address(1), 3);
        deltas.touch(address(3));
        deltas.join(address(1), 5);
        deltas.join(address(1), 4);
        deltas.touch(address(1));
        let mut passed = Vec::new();
        deltas.for_each(|address, joined, left| passed.push((address, joined.to_vec(), left.to_vec())));
        let expected = [
            (address(1), vec![4, 5], vec![3]),
            (address(2), vec![7], Vec::new()),
            (address(3), Vec::new(), Vec::new()),
        ];
        assert_eq!(passed, expected);
    }
}
