//! Bounds and defaults of what a configuration file says: the reader enforces them, and the
//! [`reference`](crate::reference) states them. Every key by its name is in the reference.

use std::time::Duration;

/// Stands for the name of a tunnel or a pool in the path of a key.
pub const ANY_NAME: &str = "NAME";

/// Keys that this version does not know though people may expect them, and what to say.
pub(crate) const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "tunnel.NAME.local.psk",
        "put the secret into a file of its own (chmod 600) and name it: psk-file = \"/etc/epochgate/NAME.psk\"",
    ),
    (
        "tunnel.NAME.remote.psk",
        "one secret serves both ends: put it into a file (chmod 600) and name that under `local` as psk-file",
    ),
    (
        "tunnel.NAME.remote.psk-file",
        "one secret serves both ends: name its file under `local`",
    ),
];

/// Keys directly in the section with this path, without the path.
pub(crate) fn of_section<'k>(
    known: &'k [&'k str],
    section: &'k str,
) -> impl Iterator<Item = &'k str> {
    known.iter().filter_map(move |key| {
        let name = match section {
            "" => key,
            _ => key.strip_prefix(section)?.strip_prefix('.')?,
        };
        (!name.contains('.')).then_some(name)
    })
}

/// Least and greatest value of a number or duration, and what it is when it is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds<T> {
    /// Least value.
    pub least: T,
    /// Greatest value.
    pub most: T,
    /// Value of an absent key.
    pub default: T,
}

/// `ike.cookie-threshold`; 0 demands a cookie of everybody.
pub const COOKIE_THRESHOLD: Bounds<u32> = Bounds {
    least: 0,
    most: 99_999,
    default: 64,
};

/// `ike.half-open-max`: each takes about 4 kB.
pub const HALF_OPEN_MAX: Bounds<u32> = Bounds {
    least: 1,
    most: 100_000,
    default: 1024,
};

/// `ike.half-open-per-address`.
pub const HALF_OPEN_PER_ADDRESS: Bounds<u32> = Bounds {
    least: 1,
    most: 100_000,
    default: 64,
};

/// `ike.half-open-lifetime`: below some seconds an initiator's own retransmissions are too late.
pub const HALF_OPEN_LIFETIME: Bounds<Duration> = Bounds {
    least: Duration::from_secs(5),
    most: Duration::from_secs(300),
    default: Duration::from_secs(30),
};

/// `path.fragment-size`, in octets of IP datagram: from what every IPv4 host takes (RFC 791 §3.1) to
/// what Ethernet with jumbo frames carries; by default what every IPv6 path does (RFC 8200 §5).
pub const FRAGMENT_SIZE: Bounds<u32> = Bounds {
    least: 576,
    most: 9000,
    default: 1280,
};

/// `path.nat-keepalive`: the default of RFC 3948 §4; NATs forget UDP after 30 s and more.
pub const NAT_KEEPALIVE: Bounds<Duration> = Bounds {
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    default: Duration::from_secs(20),
};

/// `ping.interval`: below 10 ms a lost reply can't be told from a slow path.
pub const PING_INTERVAL: Bounds<Duration> = Bounds {
    least: Duration::from_millis(10),
    most: Duration::from_secs(60),
    default: Duration::from_millis(250),
};

/// `ping.attempts`.
pub const PING_ATTEMPTS: Bounds<u32> = Bounds {
    least: 1,
    most: 100,
    default: 4,
};

/// Octets of an interface's name, without the final 0 (`IFNAMSIZ`).
pub const INTERFACE_NAME_LEN_MAX: usize = 15;

/// `interface.mtu`. IPv6 needs 1280 (RFC 8200 §5); the default leaves room for ESP and UDP in 1500.
pub const INTERFACE_MTU: Bounds<u32> = Bounds {
    least: 1280,
    most: 65_535,
    default: 1400,
};

/// `ping.idle`.
pub const PING_IDLE: Bounds<Duration> = Bounds {
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    default: Duration::from_secs(3),
};

/// `recovery.back-off`.
pub const BACK_OFF: Bounds<Duration> = Bounds {
    least: Duration::from_millis(50),
    most: Duration::from_secs(60),
    default: Duration::from_millis(250),
};

/// `recovery.back-off-max`.
pub const BACK_OFF_MAX: Bounds<Duration> = Bounds {
    least: Duration::from_millis(50),
    most: Duration::from_secs(3600),
    default: Duration::from_secs(2),
};

/// `epoch.lifetime`.
pub const EPOCH_LIFETIME: Bounds<Duration> = Bounds {
    least: Duration::from_secs(10),
    most: Duration::from_secs(7 * 24 * 3600),
    default: Duration::from_secs(3600),
};

/// `ike.lifetime`.
pub const IKE_LIFETIME: Bounds<Duration> = Bounds {
    least: Duration::from_secs(10),
    most: Duration::from_secs(30 * 24 * 3600),
    default: Duration::from_secs(4 * 3600),
};

/// `ike.reauthenticate`, where it is not `never`, which it is when it is not given.
pub const IKE_REAUTHENTICATE: Bounds<Duration> = Bounds {
    least: Duration::from_secs(30),
    most: Duration::from_secs(365 * 24 * 3600),
    default: Duration::ZERO,
};

/// `epoch.drain`.
pub const EPOCH_DRAIN: Bounds<Duration> = Bounds {
    least: Duration::from_millis(100),
    most: Duration::from_secs(60),
    default: Duration::from_secs(2),
};

/// `algorithms.esp.replay-window`, in packets: RFC 4303 §3.4.3 wants 32 at least, and the kernel
/// takes 4096 at most (`XFRMA_REPLAY_ESN_MAX`).
pub const REPLAY_WINDOW: Bounds<u32> = Bounds {
    least: 32,
    most: 4096,
    default: 256,
};

/// `path.fragmentation` when it is not given.
pub const FRAGMENTATION: bool = true;
/// `path.mobike` when it is not given.
pub const MOBIKE: bool = true;
/// `epoch.wait` when it is not given.
pub const EPOCH_WAIT: bool = true;
/// `ppk.required` when it is not given.
pub const PPK_REQUIRED: bool = true;
/// `forward` of a policy template that does not say it.
pub const TEMPLATE_FORWARD: bool = false;
/// `exempt-neighbour-discovery` of a policy template that does not say it.
pub const TEMPLATE_EXEMPT_ND: bool = true;
/// `routes` of a policy template that does not say it.
pub const TEMPLATE_ROUTES: bool = true;

/// `priority` of a policy template: room below for exemptions, and above for the widths of selectors.
pub const PRIORITY: Bounds<u32> = Bounds {
    least: 1000,
    most: 1_000_000_000,
    default: 254_700,
};

/// Octets of a configuration file at most.
pub const FILE_LEN_MAX: usize = 32 << 20;
/// Tunnels at most: each takes two of the 65,536 reqids that are ours.
pub const TUNNELS_MAX: usize = 30_000;
/// Characters of a tunnel's name at most.
pub const NAME_LEN_MAX: usize = 64;
/// Pairs of one local and one remote network at most; each is three policies in the kernel.
pub const PAIRS_MAX: usize = 64;
/// Networks of one pool at most.
pub const POOL_NETWORKS_MAX: usize = 16;
/// DNS servers of one pool at most: as many as a client keeps.
pub const POOL_DNS_MAX: usize = 8;
/// Domains of one pool at most: as many as a client keeps.
pub const POOL_DOMAINS_MAX: usize = 16;
/// Octets of an interface's name at most (`IFNAMSIZ` less its NUL).
pub const INTERFACE_LEN_MAX: usize = 15;
/// The interface that gets virtual addresses.
pub const DEFAULT_VIRTUAL_INTERFACE: &str = "lo";
/// Octets of a pre-shared key at least: 128 bits, if they are random (RFC 7296 §2.15 asks for as
/// much as the strongest key that is negotiated).
pub const PSK_LEN_MIN: usize = 16;
/// Octets of a pre-shared key at most.
pub const PSK_LEN_MAX: usize = 1024;
/// Octets of a post-quantum pre-shared key at least: 256 bits (RFC 8784 §6).
pub const PPK_LEN_MIN: usize = 32;
/// Octets of the name of a post-quantum pre-shared key at most.
pub const PPK_ID_LEN_MAX: usize = 128;
/// Octets of an EAP password at most (RFC 2759 §8.3: 256 characters).
pub const PASSWORD_LEN_MAX: usize = 256;
/// Octets of an EAP user's name at most.
pub const USER_LEN_MAX: usize = 128;
/// Users of EAP in one file at most.
pub const USERS_MAX: usize = 4096;
/// Octets of a distinguished name's text at most.
pub const DISTINGUISHED_NAME_LEN_MAX: usize = 1024;
/// Files of authorities, and of revocation lists, of one tunnel at most.
pub const AUTHORITY_FILES_MAX: usize = 16;
/// Octets of an identity at most; a host name has no more (RFC 1035 §2.3.4).
pub const IDENTITY_LEN_MAX: usize = 253;

/// Where the daemon listens for the command line.
pub const DEFAULT_SOCKET: &str = "/run/epochgate/control.sock";
/// What the daemon must remember while the host is up.
pub const DEFAULT_STATE_DIR: &str = "/run/epochgate";
/// Where policy templates are installed.
pub const DEFAULT_POLICIES: &str = "/usr/share/epochgate/xfrm-policies";
