//! The order in which a shared chain holds the rules of Services, so that they can be found by position.

use portcullis_cluster::NamespacedName;

/// Which Services have rules in a shared chain, in the chain's order, and how many each.
#[derive(Clone, Default)]
pub(super) struct SharedOrder(Vec<(NamespacedName, usize)>);

impl SharedOrder {
    /// Where the rules of a Service begin (from 1) and how many there are.
    pub(super) fn find(&self, service: &NamespacedName) -> Option<(usize, usize)> {
        let mut position = 1;
        for (name, count) in &self.0 {
            if name == service {
                return Some((position, *count));
            }
            position += count;
        }
        None
    }

    /// The position after all rules of Services.
    pub(super) fn end(&self) -> usize {
        1 + self.0.iter().map(|(_, count)| count).sum::<usize>()
    }

    /// Notes that a Service now has so many rules: at their place, or at the end.
    pub(super) fn set(&mut self, service: &NamespacedName, count: usize) {
        match self.0.iter().position(|(name, _)| name == service) {
            Some(at) if count == 0 => {
                self.0.remove(at);
            }
            Some(at) => self.0[at].1 = count,
            None if count > 0 => self.0.push((service.clone(), count)),
            None => {}
        }
    }

    /// Notes a Service at the end, without looking whether it is there.
    pub(super) fn push(&mut self, service: &NamespacedName, count: usize) {
        if count > 0 {
            self.0.push((service.clone(), count));
        }
    }

    /// The Services in order.
    pub(super) fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.0.iter().map(|(name, _)| name)
    }
}
