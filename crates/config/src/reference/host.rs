//! Keys that belong to no tunnel: `[daemon]`, `[ike]` and `[pool.NAME]`.

use super::{Key, Kind, Section, Unset};
use crate::daemon::{LOG_LEVELS, SOCKET_PATH_MAX};
use crate::keys::{
    COOKIE_THRESHOLD, DEFAULT_POLICIES, DEFAULT_SOCKET, DEFAULT_STATE_DIR, HALF_OPEN_LIFETIME,
    HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS, POOL_DNS_MAX, POOL_DOMAINS_MAX, POOL_NETWORKS_MAX,
};

pub(super) const DAEMON: Section = Section::new(
    "daemon",
    &[
        Key::new(
            "daemon.socket",
            Kind::Path {
                octets_max: Some(SOCKET_PATH_MAX),
                default: DEFAULT_SOCKET,
            },
            Unset::Default,
            "The control socket. Tell the command line too: `--socket` or `EPOCHGATE_SOCKET`.",
        ),
        Key::new(
            "daemon.state-dir",
            Kind::Path {
                octets_max: None,
                default: DEFAULT_STATE_DIR,
            },
            Unset::Default,
            "What the daemon must remember while the host is up: the value of \
             `net.core.xfrm_larval_drop` that it found.",
        ),
        Key::new(
            "daemon.policies",
            Kind::Path {
                octets_max: None,
                default: DEFAULT_POLICIES,
            },
            Unset::Default,
            "Directory of [policy templates](#policy-templates).",
        ),
        Key::new(
            "daemon.log",
            Kind::Word {
                words: &LOG_LEVELS.words.names(),
                default: Some(LOG_LEVELS.default_name()),
            },
            Unset::Default,
            "What is logged; each includes those before it.",
        ),
    ],
);

pub(super) const IKE: Section = Section::new(
    "ike",
    &[
        Key::new(
            "ike.cookie-threshold",
            Kind::Number(COOKIE_THRESHOLD),
            Unset::Default,
            "Half-open IKE SAs from which on a cookie is demanded (RFC 7296 §2.6): nothing is kept \
             of a request, and no key exchange is computed, until its sender has shown that it \
             receives at its address. `0`: always. Must be smaller than `half-open-max`.",
        ),
        Key::new(
            "ike.half-open-max",
            Kind::Number(HALF_OPEN_MAX),
            Unset::Default,
            "Half-open IKE SAs at most. Further requests are dropped.",
        ),
        Key::new(
            "ike.half-open-per-address",
            Kind::Number(HALF_OPEN_PER_ADDRESS),
            Unset::Default,
            "Half-open IKE SAs of one IPv4 address or one IPv6 /64 network at most. From half of it \
             on a cookie is demanded of that address. Make it larger where more clients than that \
             start at once behind one NAT.",
        ),
        Key::new(
            "ike.half-open-lifetime",
            Kind::Duration(HALF_OPEN_LIFETIME),
            Unset::Default,
            "How long IKE_AUTH is waited for.",
        ),
    ],
);

pub(super) const POOLS: Section = Section::new("pool", &[]);

pub(super) const POOL: Section = Section::new(
    "pool.NAME",
    &[
        Key::new(
            "pool.NAME.networks",
            Kind::List {
                of: "networks",
                most: Some(POOL_NETWORKS_MAX),
            },
            Unset::Required,
            "Where the addresses come from. Pools may not overlap. A network's own address, its \
             IPv4 broadcast address and addresses of the server itself are left out.",
        ),
        Key::new(
            "pool.NAME.dns",
            Kind::List {
                of: "addresses",
                most: Some(POOL_DNS_MAX),
            },
            Unset::Default,
            "DNS servers that clients are told.",
        ),
        Key::new(
            "pool.NAME.domains",
            Kind::List {
                of: "texts",
                most: Some(POOL_DOMAINS_MAX),
            },
            Unset::Default,
            "Domains that these servers resolve (RFC 8598).",
        ),
    ],
);
