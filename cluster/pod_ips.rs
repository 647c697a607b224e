//! Addresses of a pod.

use std::net::IpAddr;
use std::ops::Deref;

/// The addresses of a pod, at most one per family unless the object is invalid. One address, as most pods have it, needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIps(Ips);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ips {
    One(IpAddr),
    /// Not one.
    Others(Box<[IpAddr]>),
}

impl Default for PodIps {
    fn default() -> Self {
        PodIps(Ips::Others(Box::default()))
    }
}

impl Deref for PodIps {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Ips::One(address) => std::slice::from_ref(address),
            Ips::Others(addresses) => addresses,
        }
    }
}

impl FromIterator<IpAddr> for PodIps {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        match addresses[..] {
            [one] => PodIps(Ips::One(one)),
            _ => PodIps(Ips::Others(addresses.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_no_allocation() {
        assert_eq!((size_of::<PodIps>(), size_of::<Box<[IpAddr]>>()), (24, 16));
        for count in 0..4_u8 {
            let addresses: Vec<IpAddr> = (0..count).map(|n| IpAddr::from([10, 0, 0, n])).collect();
            let ips: PodIps = addresses.iter().copied().collect();
            assert_eq!(*ips, *addresses);
            assert_eq!(matches!(ips.0, Ips::One(_)), count == 1, "so equal addresses are equal");
        }
        assert_eq!(PodIps::default(), std::iter::empty().collect());
    }
}
