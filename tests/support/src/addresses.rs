//! Loopback addresses of a cluster's own, so that several clusters run at once on one machine.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

/// Two ranges of `127.0.0.0/8`: one for Services, one for pods and the control plane.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    index: u8,
}

impl Addresses {
    /// As many clusters can run at once.
    const CLUSTERS: u8 = 60;

    /// Takes free ranges; they are ours while the lock is held.
    pub fn take() -> Result<(Self, File)> {
        let dir = crate::tools::cache_dir()?.join("locks");
        fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
        for index in 0..Self::CLUSTERS {
            let lock = File::create(dir.join(format!("cluster-{index}")))?;
            if lock.try_lock().is_ok() {
                return Ok((Self { index }, lock));
            }
        }
        bail!("{} clusters are running already (locks in {})", Self::CLUSTERS, dir.display())
    }

    fn services(self) -> u8 {
        96 + 2 * self.index
    }

    fn pods(self) -> u8 {
        97 + 2 * self.index
    }

    /// The range of Services' cluster IPs.
    pub fn service_range(self) -> String {
        format!("127.{}.0.0/16", self.services())
    }

    /// Where pods find the API server.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.services(), 0, 1)
    }

    /// The range that kwok gives its own pods; the other half of the /16 is ours.
    pub fn kwok_range(self) -> String {
        format!("127.{}.128.1/17", self.pods())
    }

    /// Where the control plane listens.
    pub fn control_plane(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.pods(), 127, 1)
    }

    /// The address of the `n`th pod that the stand-in runs; comes around after 32,000.
    pub fn pod(self, n: u32) -> Ipv4Addr {
        let n = n % (127 * 254);
        Ipv4Addr::new(127, self.pods(), (n / 254) as u8, (n % 254) as u8 + 1)
    }

    /// The address of the `n`th node, as its pods see it in `status.hostIP`.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.pods(), 127, 2)
    }
}

/// A port that is free at this address now.
pub fn free_port(address: Ipv4Addr) -> Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_meet() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..Addresses::CLUSTERS {
            let addresses = Addresses { index };
            assert!(seen.insert(addresses.service_range()));
            assert!(seen.insert(addresses.kwok_range().replace("128.1/17", "0.0/16")));
        }
        assert_eq!(Addresses { index: 0 }.pod(0), Ipv4Addr::new(127, 97, 0, 1));
        assert_eq!(Addresses { index: 0 }.pod(254), Ipv4Addr::new(127, 97, 1, 1));
        assert!(Addresses { index: 59 }.pod(127 * 254 - 1) < Addresses { index: 59 }.control_plane());
    }
}
