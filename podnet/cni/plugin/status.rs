//! `STATUS`: whether `ADD` can succeed.

use std::fs;
use std::io::ErrorKind;

use super::super::configuration::{NetworkConfiguration, no_pod_cidr};
use super::super::error::{CniError, ErrorCode, Result};
use super::{ensure_set_up, ranges};
use crate::Wiring;
use crate::installation::NOT_READY;
use crate::pod_interface;

pub(super) fn run(configuration: &NetworkConfiguration) -> Result<()> {
    let unavailable = |details: String| {
        CniError::new(ErrorCode::NotAvailable, "the pod network is not ready").with_details(details)
    };
    ensure_set_up(configuration).map_err(unavailable)?;
    let path = configuration.state_dir().join(NOT_READY);
    match fs::read(&path) {
        Ok(reason) => return Err(unavailable(String::from_utf8_lossy(&reason).trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unavailable(format!("cannot read {}: {error}", path.display()))),
    }
    if configuration.pod_cidrs.is_empty() {
        return Err(no_pod_cidr());
    }
    ranges(configuration)?;
    if configuration.wiring == Wiring::Bridge {
        pod_interface::check_bridge_filter().map_err(|error| unavailable(error.to_string()))?;
    }
    Ok(())
}
