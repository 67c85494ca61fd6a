//! What the host knows beside the tables: the time, its addresses and interfaces, and whether it
//! holds packets that wait for an SA. Everything that is rendered is a function of an entry and of
//! this; it is read once, here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::ifaddrs::getifaddrs;

use super::links;

/// Whether packets that wait for an SA are dropped, of the calling thread's network namespace.
const LARVAL_DROP: &str = "/proc/sys/net/core/xfrm_larval_drop";

/// How long a larval SA waits for a key daemon, in seconds.
const ACQUIRE_EXPIRES: &str = "/proc/sys/net/core/xfrm_acq_expires";

/// What the host knows.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// In which times of day are shown.
    pub(crate) zone: TimeZone,
    /// The addresses of the host's interfaces.
    pub(crate) addresses: HashSet<IpAddr>,
    /// Interface names by index.
    pub(crate) interfaces: HashMap<u32, String>,
    /// Names of xfrm interfaces by their if_id.
    pub(crate) xfrm_interfaces: HashMap<u32, String>,
    /// `net.core.xfrm_larval_drop`; `None` where it can't be read.
    pub(crate) larval_drop: Option<bool>,
    /// `net.core.xfrm_acq_expires`; `None` where it can't be read.
    pub(crate) acquire_seconds: Option<u64>,
}

impl Surroundings {
    /// Reads it all. What can't be read is left empty: it only makes the tables say less.
    pub(crate) fn read() -> Self {
        let mut addresses = HashSet::new();
        for interface in getifaddrs().into_iter().flatten() {
            let Some(address) = interface.address else {
                continue;
            };
            if let Some(v4) = address.as_sockaddr_in() {
                addresses.insert(IpAddr::V4(v4.ip()));
            } else if let Some(v6) = address.as_sockaddr_in6() {
                addresses.insert(IpAddr::V6(v6.ip()));
            }
        }
        let links = links::read().unwrap_or_default();
        Self {
            now: now(),
            zone: TimeZone::system(),
            addresses,
            interfaces: links.names,
            xfrm_interfaces: links.xfrm,
            larval_drop: fs::read_to_string(LARVAL_DROP)
                .ok()
                .map(|text| text.trim() != "0"),
            acquire_seconds: fs::read_to_string(ACQUIRE_EXPIRES)
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// The interface's name, or `#` and its index.
    pub(crate) fn interface(&self, index: i32) -> String {
        let named = u32::try_from(index)
            .ok()
            .and_then(|index| self.interfaces.get(&index));
        named.cloned().unwrap_or_else(|| format!("#{index}"))
    }

    /// An if_id, with the name of the interface that has it.
    pub(crate) fn if_id(&self, id: u32) -> String {
        match self.xfrm_interfaces.get(&id) {
            Some(name) => format!("{id} ({name})"),
            None => id.to_string(),
        }
    }

    /// How long ago, in seconds.
    pub(crate) fn ago(&self, then: u64) -> u64 {
        self.now.saturating_sub(then)
    }

    /// A time of day: `2026-11-28 16:20:31 +01:00`.
    pub(crate) fn time(&self, seconds: u64) -> String {
        let moment = i64::try_from(seconds)
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok());
        match moment {
            Some(moment) => {
                let moment = moment.to_zoned(self.zone.clone());
                moment.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
            }
            None => format!("second {seconds}"),
        }
    }
}

/// The time in seconds since 1970, as the kernel counts it in the tables.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
