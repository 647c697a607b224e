//! Kernels that accept everything, have nothing, and remember nothing.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use std::io::{self, Write};
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table, ToolError};
use portcullis_modes::ipvs::{IpSet, IpvsKernel, IpvsReader, ServerChange};
use portcullis_modes::stale_flows::FlowTable;
use portcullis_netlink::conntrack::{DeleteCounts, Flow};
use portcullis_netlink::ip_vs::{RealServerState, Statistics, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;
use portcullis_netlink::{Error, Result};

pub struct ForgetfulIptables {
    pub flavour: Flavour,
}

impl IptablesKernel for ForgetfulIptables {
    fn flavour(&self) -> Flavour {
        self.flavour
    }

    fn restore(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> std::result::Result<(), ToolError> {
        write(&mut io::sink()).expect("a sink accepts all");
        Ok(())
    }

    fn dump(&self, _: Table, _: &mut dyn FnMut(&str)) -> std::result::Result<(), ToolError> {
        Ok(())
    }

    fn dump_without(
        &self,
        _: Table,
        _: &dyn Fn(&str) -> bool,
        _: &mut dyn FnMut(&str),
    ) -> std::result::Result<(), ToolError> {
        Ok(())
    }

    fn is_costly_to_list(&self, _: Table) -> bool {
        false
    }

    fn delete_jumps(&self, _: Table, _: &[String]) -> bool {
        false
    }

    fn dump_counters(&self, _: &str, _: &mut dyn FnMut(&str)) -> std::result::Result<(), ToolError> {
        Ok(())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        None
    }
}

pub struct ForgetfulIpvs;

impl IpvsReader for ForgetfulIpvs {
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>> {
        Ok(Vec::new())
    }

    fn virtual_server(&mut self, _: &VirtualServer) -> Result<Option<VirtualServerConfig>> {
        Ok(None)
    }

    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        Ok(Vec::new())
    }

    fn real_servers(&mut self, _: &VirtualServer) -> Result<Vec<RealServerState>> {
        Ok(Vec::new())
    }

    fn entries(&mut self, _: IpSet, _: Family) -> Result<Vec<SetEntry>> {
        Ok(Vec::new())
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>> {
        Ok(Vec::new())
    }
}

impl IpvsKernel for ForgetfulIpvs {
    fn reader(&self) -> Box<dyn IpvsReader> {
        Box::new(ForgetfulIpvs)
    }

    fn change_servers(&mut self, _: &[ServerChange], _: &mut dyn FnMut(usize, Error)) -> Result<()> {
        Ok(())
    }

    fn ensure_set(&mut self, _: IpSet, _: Family) -> Result<()> {
        Ok(())
    }

    fn change_set(&mut self, _: IpSet, _: Family, _: &[SetEntry], _: &[SetEntry]) -> Result<()> {
        Ok(())
    }

    fn change_addresses(
        &mut self,
        _: &[IpAddr],
        _: &[IpAddr],
        _: &mut dyn FnMut(IpAddr, Error),
    ) -> Result<()> {
        Ok(())
    }
}

pub struct NoFlows;

impl FlowTable for NoFlows {
    fn delete_where(
        &mut self,
        _: &[portcullis_netlink::Family],
        _: &[u8],
        _: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts> {
        Ok(DeleteCounts::default())
    }
}
