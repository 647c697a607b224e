//! The order of Services in a shared chain, by which their rules are found by position.

use portcullis_cluster::NamespacedName;

/// The Services with rules in a shared chain, in the chain's order, and the number of their rules.
#[derive(Clone, Default)]
pub(super) struct SharedOrder(Vec<(NamespacedName, usize)>);

impl SharedOrder {
    /// Returns the position of a Service's first rule (from 1) and the number of its rules.
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

    /// Returns the position after all rules of Services.
    pub(super) fn end(&self) -> usize {
        1 + self.0.iter().map(|(_, count)| count).sum::<usize>()
    }

    /// Sets the number of a Service's rules: at their place, or at the end.
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

    /// Appends a Service that is known to be absent.
    pub(super) fn push(&mut self, service: &NamespacedName, count: usize) {
        if count > 0 {
            self.0.push((service.clone(), count));
        }
    }

    /// Returns the Services in order.
    pub(super) fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.0.iter().map(|(name, _)| name)
    }
}
