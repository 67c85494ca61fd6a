//! What the operator asked for, already parsed and checked (by `epochgate-config`).

mod epoch;
mod half_open;
mod path;
mod recovery;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::Secret;
use crate::crypto::{AesKey, Cipher, Group, Integrity, Prf};
use crate::distinguished_name::DistinguishedName;
use crate::pki::{Credential, Ppk, TrustedAuthorities};

pub use epoch::{EpochConfig, PingConfig, Proof, ServerRekey};
pub use half_open::HalfOpenConfig;
pub use path::PathConfig;
pub(crate) use recovery::{BACK_OFF_PERCENT_MAX, BUSY_PATIENCE, CONNECT_PATIENCE, REKEY_PATIENCE};
pub use recovery::{POLICIES_RETRY_MAX, ROUND_TRIP_MAX, RecoveryConfig};

mod addressing;

pub use addressing::{AddressRequest, Addressing, Pool};

/// Everything that a running controller is configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The tunnels, by unique name.
    pub tunnels: Vec<Arc<TunnelConfig>>,
    /// What strangers may make this host keep.
    pub half_open: HalfOpenConfig,
}

/// A tunnel's name: unique, printable, without blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TunnelName(pub Arc<str>);

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The end that proves epochs with control pings, usually the one behind a NAT.
    Client,
    /// The end that waits for the client's ping before it switches.
    Server,
}

/// An IKE identity (RFC 7296 §3.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN, as ASCII without a trailing dot.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Mail(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
    /// ID_DER_ASN1_DN.
    Dn(DistinguishedName),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::Mail(name) => f.write_str(name),
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Self::Dn(name) => name.fmt(f),
        }
    }
}

/// One end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The outer address; `None` is `%any`: chosen by the route (local), or anybody (remote).
    pub address: Option<IpAddr>,
    /// The identity that this end proves.
    pub id: Identity,
}

/// How both ends prove their identities (RFC 7296 §2.15, §2.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// How we do.
    pub local: LocalAuth,
    /// How the peer must.
    pub remote: RemoteAuth,
    /// A post-quantum pre-shared key besides (RFC 8784).
    pub ppk: Option<Ppk>,
}

impl AuthConfig {
    /// One pre-shared key for both ends.
    #[must_use]
    pub fn psk(psk: Secret) -> Self {
        Self {
            local: LocalAuth::Psk(psk.clone()),
            remote: RemoteAuth::Psk(psk),
            ppk: None,
        }
    }
}

/// How we prove our identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAuth {
    /// By a pre-shared key.
    Psk(Secret),
    /// By a signature, with a certificate for its key.
    Certificate(Credential),
    /// By EAP-MSCHAPv2, after the peer proved itself by a certificate (RFC 7296 §2.16).
    Eap(EapUser),
}

/// How the peer must prove its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAuth {
    /// By a pre-shared key.
    Psk(Secret),
    /// By a signature, with a certificate that one of these authorities issued for its identity.
    Certificate(TrustedAuthorities),
    /// By EAP-MSCHAPv2, as one of these users (RFC 7296 §2.16).
    Eap(EapUsers),
}

/// A user of EAP.
#[derive(Clone, PartialEq, Eq)]
pub struct EapUser {
    /// The name, without a domain.
    pub name: String,
    /// The password, in UTF-8.
    pub password: Secret,
}

impl fmt::Debug for EapUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EapUser({:?})", self.name)
    }
}

/// Who may authenticate by EAP.
#[derive(Clone, PartialEq, Eq)]
pub struct EapUsers(Arc<BTreeMap<String, Secret>>);

impl EapUsers {
    /// These users; of two with one name, the last.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = EapUser>) -> Self {
        let users = users.into_iter().map(|user| (user.name, user.password));
        Self(Arc::new(users.collect()))
    }

    /// The password of a user.
    #[must_use]
    pub fn password(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

impl fmt::Debug for EapUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EapUsers({})", self.0.len())
    }
}

/// When a tunnel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the first packet (the kernel's ACQUIRE).
    OnDemand,
    /// At once, and again whenever it is down.
    Always,
    /// Never by us: the peer starts.
    Listen,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatTraversal {
    /// Where NAT detection finds a NAT (RFC 7296 §2.23).
    Auto,
    /// Never: plain ESP, and no NAT detection notifies are sent.
    Off,
}

/// What happens to a tunnel's traffic when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// The hold policies stay: nothing leaves until the daemon is back.
    Block,
    /// The policies go too: traffic leaves as if there had never been a tunnel.
    Remove,
}

/// What a policy template of `xfrm-policies/` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTemplate {
    /// Its file's name without the ending.
    pub name: String,
    /// Whether forwarded traffic is accepted from the tunnel (`fwd` policies).
    pub forward: bool,
    /// Whether IPv6 neighbour discovery (RFC 4861) between the selectors passes outside the tunnel.
    pub exempt_neighbour_discovery: bool,
    /// Whether routes with a preferred source are added for the remote selectors.
    pub routes: bool,
    /// Priority in the SPD of a policy for two host addresses; wider selectors come after.
    pub priority: u32,
}

/// A route-based tunnel's interface: what is routed to it goes through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its name, as `ip link` shows it.
    pub name: Arc<str>,
    /// Octets of its largest packets.
    pub mtu: u32,
}

/// IKE SAs: when they are rekeyed, and when the ends prove their identities anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSaConfig {
    /// Age at which an IKE SA is rekeyed (RFC 7296 §2.18), before jitter: a client between 80 and
    /// 100 percent of it, a server between 105 and 125. One that its peer would not rekey ends at
    /// 150 percent.
    pub lifetime: Duration,
    /// Time since IKE_AUTH after which both ends authenticate anew (RFC 7296 §2.8.3), before jitter;
    /// `None`: never.
    pub reauthenticate: Option<Duration>,
}

/// What is proposed and accepted for IKE SAs, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// Ciphers of the SK payload.
    pub ciphers: Vec<Cipher>,
    /// Pseudorandom functions.
    pub prfs: Vec<Prf>,
    /// Key exchange methods; the first is guessed in IKE_SA_INIT.
    pub groups: Vec<Group>,
    /// Whether ML-KEM-768 is added to the key exchange of a new IKE SA (RFC 9370).
    pub post_quantum: PostQuantum,
}

/// A post-quantum key encapsulation beside the key exchange (RFC 9370), in IKE_INTERMEDIATE
/// (RFC 9242).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostQuantum {
    /// Neither offered nor accepted.
    Off,
    /// Offered first, and accepted.
    Prefer,
    /// An IKE SA without it is refused.
    Require,
}

/// What is proposed and accepted for ESP SAs, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// Ciphers.
    pub ciphers: Vec<Cipher>,
    /// Key exchange methods for rekeys; empty: rekeys use the IKE SA's SK_d alone.
    pub groups: Vec<Group>,
    /// Whether rekeys must have a key exchange of their own; without `groups` they have none.
    pub pfs: Pfs,
    /// Extended sequence numbers.
    pub esn: Esn,
    /// Packets of the anti-replay window of inbound SAs (RFC 4303 §3.4.3).
    pub replay_window: u32,
}

/// Whether a Child SA made by CREATE_CHILD_SA must have a key exchange of its own, perfect forward
/// secrecy (RFC 7296 §1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pfs {
    /// It has one unless the peer wants none.
    Prefer,
    /// Without one it is refused.
    Require,
}

/// 64-bit extended sequence numbers (RFC 4303 §2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Esn {
    /// Neither offered nor accepted.
    Off,
    /// Used where the peer can.
    Prefer,
    /// An SA without them is refused.
    Require,
}

/// Every cipher, best first. AEADs come first, and AES-CBC is there for peers that have none.
pub const CIPHERS: [Cipher; 7] = [
    Cipher::AesGcm256,
    Cipher::AesGcm128,
    Cipher::ChaCha20Poly1305,
    Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256),
    Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha256),
    Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha384),
    Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha512),
];

/// Every pseudorandom function, best first.
pub const PRFS: [Prf; 3] = [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512];

/// Every key exchange method, best first: quick ones, then those for peers that have no curves.
pub const GROUPS: [Group; 6] = [
    Group::X25519,
    Group::P256,
    Group::P384,
    Group::P521,
    Group::Modp3072,
    Group::Modp2048,
];

impl Default for IkeSuite {
    /// All there is, but for what costs an exchange more.
    fn default() -> Self {
        Self {
            ciphers: CIPHERS.to_vec(),
            prfs: PRFS.to_vec(),
            groups: GROUPS.to_vec(),
            post_quantum: PostQuantum::Off,
        }
    }
}

impl Default for EspSuite {
    /// All there is, with perfect forward secrecy and extended sequence numbers where the peer
    /// has them.
    fn default() -> Self {
        Self {
            ciphers: CIPHERS.to_vec(),
            groups: GROUPS.to_vec(),
            pfs: Pfs::Prefer,
            esn: Esn::Prefer,
            replay_window: 256,
        }
    }
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Its name.
    pub name: TunnelName,
    /// Which end we are.
    pub role: Role,
    /// Our end.
    pub local: End,
    /// The peer's end.
    pub remote: End,
    /// How both ends prove their identities.
    pub auth: AuthConfig,
    /// Inner networks on our side (RFC 4301 selectors).
    pub local_traffic: Vec<IpNet>,
    /// Inner networks on the peer's side.
    pub remote_traffic: Vec<IpNet>,
    /// Where its client's inner addresses come from.
    pub addressing: Addressing,
    /// How its policies look.
    pub template: PolicyTemplate,
    /// When it starts.
    pub start: Start,
    /// UDP encapsulation.
    pub nat_traversal: NatTraversal,
    /// What stays when the daemon stops.
    pub on_stop: OnStop,
    /// The way between the ends.
    pub path: PathConfig,
    /// The xfrm interface of a route-based tunnel.
    pub interface: Option<InterfaceConfig>,
    /// Control pings.
    pub ping: PingConfig,
    /// Epochs.
    pub epoch: EpochConfig,
    /// What is tried after a failure, and when.
    pub recovery: RecoveryConfig,
    /// How long IKE SAs live.
    pub ike_sa: IkeSaConfig,
    /// IKE algorithms.
    pub ike: IkeSuite,
    /// ESP algorithms.
    pub esp: EspSuite,
}

impl TunnelConfig {
    /// Whether both tunnels have the same peer and meet it in the same way, so that one IKE SA can
    /// carry the Child SAs of both (RFC 7296 §1.3.1). What belongs to a Child SA may differ.
    ///
    /// Names every field, so that whoever adds one decides whether it is the IKE SA's or the Child
    /// SA's.
    #[must_use]
    pub fn shares_peer_with(&self, other: &Self) -> bool {
        let Self {
            // Of the IKE SA.
            role,
            local,
            remote,
            auth,
            nat_traversal,
            path,
            ike_sa,
            ike,
            addressing,
            // Of each tunnel.
            name: _,
            local_traffic: _,
            remote_traffic: _,
            template: _,
            start: _,
            on_stop: _,
            interface: _,
            ping: _,
            epoch: _,
            recovery: _,
            esp: _,
        } = self;
        *role == other.role
            && *local == other.local
            && *remote == other.remote
            && *auth == other.auth
            && *nat_traversal == other.nat_traversal
            && *path == other.path
            && *ike_sa == other.ike_sa
            && *ike == other.ike
            // Configuration payloads are part of IKE_AUTH (RFC 7296 §2.19): one tunnel's.
            && *addressing == Addressing::Configured
            && other.addressing == Addressing::Configured
    }

    /// A site-to-site tunnel that takes every default of `docs/configuration.md`, but for the
    /// algorithms: one suite, AES-GCM-256, HMAC-SHA-256 and X25519. Its selectors are empty.
    #[must_use]
    pub fn new(name: &str, role: Role, local: End, remote: End, psk: Secret) -> Self {
        Self {
            name: TunnelName(name.into()),
            role,
            local,
            remote,
            auth: AuthConfig::psk(psk),
            local_traffic: Vec::new(),
            remote_traffic: Vec::new(),
            addressing: Addressing::Configured,
            template: PolicyTemplate {
                name: "site-to-site".into(),
                forward: true,
                exempt_neighbour_discovery: true,
                routes: true,
                priority: 254_700,
            },
            start: match role {
                Role::Client => Start::OnDemand,
                Role::Server => Start::Listen,
            },
            nat_traversal: NatTraversal::Auto,
            on_stop: OnStop::Block,
            path: PathConfig::default(),
            interface: None,
            ping: PingConfig::default(),
            epoch: EpochConfig::default(),
            recovery: RecoveryConfig::default(),
            ike_sa: IkeSaConfig {
                lifetime: Duration::from_secs(4 * 3600),
                reauthenticate: None,
            },
            ike: IkeSuite::default(),
            esp: EspSuite::default(),
        }
    }
}
