//! One connection, as epochgate, strongSwan and libreswan are told of it.
//!
//! What it does not set is each program's own default.

use super::{Program, Role};
use crate::libreswan::LibreswanFiles;
use crate::manual::write_psk;
use crate::net::Host;
use crate::peer::{CLIENT_ID, PSK, SERVER_ID};
use crate::pki::{KeyKind, Pki};
use crate::topology::{
    CLIENT, CLIENT_INNER, CLIENT_INNER_V6, CLIENT_NET, CLIENT_NET_V6, CLIENT_V6, ROUTER, SERVER,
    SERVER_INNER, SERVER_INNER_V6, SERVER_NET, SERVER_NET_V6, SERVER_V6,
};
use std::fs;
use std::path::Path;

/// IP version of the outer or the inner packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the peer is told of algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithms {
    /// AES-256-GCM, HMAC-SHA-256 and X25519, as epochgate prefers.
    Agreed,
    /// Nothing: it proposes and takes what it does by default.
    Default,
    /// These alone.
    Only(&'static Suite),
}

/// Algorithms for IKE and ESP, in the words of both peers.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// `proposals` of swanctl.conf(5).
    pub strongswan_ike: &'static str,
    /// `esp_proposals` of swanctl.conf(5).
    pub strongswan_esp: &'static str,
    /// `ike` of ipsec.conf(5).
    pub libreswan_ike: &'static str,
    /// `esp` of ipsec.conf(5).
    pub libreswan_esp: &'static str,
}

/// AES-256-GCM, HMAC-SHA-256 and X25519, as epochgate prefers.
const AGREED: Suite = Suite {
    strongswan_ike: "aes256gcm16-prfsha256-x25519",
    strongswan_esp: "aes256gcm16-x25519",
    libreswan_ike: "aes_gcm256-sha2_256-dh31",
    libreswan_esp: "aes_gcm256",
};

/// How both ends prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By the key that both know.
    Psk,
    /// Each by a certificate.
    Certificates(KeyKind),
}

/// A post-quantum pre-shared key, and its name.
const PPK: &str = "another-key-that-only-tests-use-0123456789";
const PPK_ID: &str = "tests-ppk";

/// The address that a server assigns to its client, where it does: its pool's only one.
const ASSIGNED: &str = "10.99.0.9";
pub(super) const ASSIGNED_NET: &str = "10.99.0.9/32";

/// What both ends are told.
#[derive(Debug, Clone)]
pub struct Connection {
    /// What epochgate is.
    pub ours: Role,
    /// Of the outer packets.
    pub outer: Version,
    /// Of the inner packets.
    pub inner: Version,
    /// The client is behind a masquerading router.
    pub nat: bool,
    /// How both ends prove who they are.
    pub proof: Proof,
    /// What the peer is told of algorithms.
    pub algorithms: Algorithms,
    /// Both send IKE messages in datagrams of at most 576 octets (libreswan: what it likes).
    pub small_fragments: bool,
    /// The client gets its inner address from the server.
    pub assigned: bool,
    /// The IPv6 networks of both ends have a tunnel of their own, over the same IKE SA.
    pub second_child: bool,
    /// Both mix a post-quantum pre-shared key into the keys of the IKE SA, and demand it.
    pub ppk: bool,
    /// libreswan is told to agree to address changes; others do so by default.
    pub mobike: bool,
    /// The responder demands a cookie of everybody.
    pub cookies: bool,
    /// The peer asks every second whether we live, and gives up after a few.
    pub liveness: bool,
    /// Further keys of epochgate's `[tunnel.net]`, and tables behind them.
    pub more: String,
    pki: Option<Pki>,
}

const POOL: &str = "[pool.one]\nnetworks = [\"10.99.0.9/32\"]\n";

/// Outer address, identity, network behind it, and an address there.
struct End {
    address: &'static str,
    id: &'static str,
    network: &'static str,
    inside: &'static str,
}

impl Connection {
    /// With a pre-shared key, over IPv4, without NAT.
    pub fn new(ours: Role) -> Self {
        Self {
            ours,
            outer: Version::V4,
            inner: Version::V4,
            nat: false,
            proof: Proof::Psk,
            algorithms: Algorithms::Agreed,
            small_fragments: false,
            assigned: false,
            second_child: false,
            ppk: false,
            mobike: false,
            cookies: false,
            liveness: false,
            more: String::new(),
            pki: None,
        }
    }

    fn client(&self) -> End {
        let (network, inside) = match self.inner {
            Version::V4 if self.assigned => (ASSIGNED_NET, ASSIGNED),
            Version::V4 => (CLIENT_NET, CLIENT_INNER),
            Version::V6 => (CLIENT_NET_V6, CLIENT_INNER_V6),
        };
        let address = match self.outer {
            Version::V4 => CLIENT,
            Version::V6 => CLIENT_V6,
        };
        End {
            address,
            id: CLIENT_ID,
            network,
            inside,
        }
    }

    fn server(&self) -> End {
        let (network, inside) = match self.inner {
            Version::V4 => (SERVER_NET, SERVER_INNER),
            Version::V6 => (SERVER_NET_V6, SERVER_INNER_V6),
        };
        let address = match self.outer {
            Version::V4 => SERVER,
            Version::V6 => SERVER_V6,
        };
        End {
            address,
            id: SERVER_ID,
            network,
            inside,
        }
    }

    /// This end and the other, as epochgate sees them.
    fn ends(&self) -> (End, End) {
        match self.ours {
            Role::Client => (self.client(), self.server()),
            Role::Server => (self.server(), self.client()),
        }
    }

    /// Addresses inside of epochgate's and of the peer's network, for traffic.
    pub fn inside(&self) -> (&'static str, &'static str) {
        let (own, other) = self.ends();
        (own.inside, other.inside)
    }

    /// epochgate's outer address.
    pub fn own_address(&self) -> &'static str {
        self.ends().0.address
    }

    /// From where epochgate, as client, comes to the peer.
    fn seen_address(&self) -> &'static str {
        if self.nat {
            ROUTER
        } else {
            self.client().address
        }
    }

    fn suite(&self) -> Option<&'static Suite> {
        match self.algorithms {
            Algorithms::Agreed => Some(&AGREED),
            Algorithms::Default => None,
            Algorithms::Only(suite) => Some(suite),
        }
    }

    /// Makes the certificates that both ends need, in a new folder.
    pub(super) fn make_certificates(&mut self, folder: &Path) {
        if let Proof::Certificates(kind) = self.proof {
            self.pki = Some(Pki::new(folder, kind));
        }
    }

    /// Puts epochgate's certificate, its key and the authority's beside its configuration.
    pub(super) fn give_ours(&self, host: &Host) {
        if self.ppk {
            write_psk(host, "ppk", PPK);
        }
        let Some(pki) = &self.pki else {
            return;
        };
        let own = pki.of(self.ends().0.id);
        copy(&own.certificate, &host.folder().join("own.pem"));
        copy(&own.key, &host.folder().join("own.key"));
        copy(&pki.authority(), &host.folder().join("ca.pem"));
    }

    /// The same for a strongSwan, where `swanctl` looks for them.
    pub(super) fn give_peer(&self, host: &Host) {
        let Some(pki) = &self.pki else {
            return;
        };
        let own = pki.of(self.ends().1.id);
        for (folder, file) in [
            ("x509", &own.certificate),
            ("private", &own.key),
            ("x509ca", &pki.authority()),
        ] {
            let folder = host.folder().join(folder);
            fs::create_dir_all(&folder).expect("its folder");
            copy(file, &folder.join("own.pem"));
        }
    }

    /// epochgate's configuration.
    pub fn epochgate(&self) -> String {
        let (own, other) = self.ends();
        let (mine, theirs) = match self.proof {
            Proof::Psk => ("psk-file = \"psk\"", ""),
            Proof::Certificates(_) => (
                "cert = \"own.pem\", key = \"own.key\"",
                ", ca = [\"ca.pem\"]",
            ),
        };
        let ppk = if self.ppk {
            format!("[tunnel.net.ppk]\nid = \"{PPK_ID}\"\nfile = \"ppk\"\n")
        } else {
            String::new()
        };
        let cookies = if self.cookies {
            "[ike]\ncookie-threshold = 0\n"
        } else {
            ""
        };
        let path = if self.small_fragments {
            "[tunnel.net.path]\nfragment-size = 576\n"
        } else {
            ""
        };
        let (role, local, remote) = match self.ours {
            Role::Client => ("client", "%any", other.address),
            Role::Server => ("server", own.address, "%any"),
        };
        let (pool, mine_net, theirs_net, addresses, target) = match (self.assigned, self.ours) {
            (false, _) => ("", true, true, "", true),
            (true, Role::Client) => ("", false, true, "virtual = { request = [\"ipv4\"] }", true),
            (true, Role::Server) => (POOL, true, false, "virtual = { pools = [\"one\"] }", false),
        };
        let named = |side: &str, network: &str, is_named: bool| {
            if is_named {
                format!("{side} = [\"{network}\"]")
            } else {
                String::new()
            }
        };
        let sides = [
            named("local", own.network, mine_net),
            named("remote", other.network, theirs_net),
        ];
        let tunnel = |name: &str, traffic: &str, target: Option<&str>, more: &str| {
            let target = target.map_or(String::new(), |target| format!("target = \"{target}\"\n"));
            format!(
                "[tunnel.{name}]\n\
                 role = \"{role}\"\n\
                 local = {{ address = \"{local}\", id = \"{own_id}\", {mine} }}\n\
                 remote = {{ address = \"{remote}\", id = \"{other_id}\"{theirs} }}\n\
                 policy = \"site-to-site\"\n\
                 traffic = {{ {traffic} }}\n\
                 {more}\n\
                 [tunnel.{name}.ping]\n\
                 {target}\
                 idle = \"2s\"\n",
                own_id = own.id,
                other_id = other.id,
            )
        };
        let sides: Vec<_> = sides.into_iter().filter(|side| !side.is_empty()).collect();
        let more = format!("{addresses}\n{}", self.more);
        let target = target.then_some(other.inside);
        let first = tunnel("net", &sides.join(", "), target, &more);
        let second = if self.second_child {
            let (own, other) = self.second_ends();
            let traffic = format!(
                "local = [\"{}\"], remote = [\"{}\"]",
                own.network, other.network
            );
            tunnel("second", &traffic, Some(other.inside), "")
        } else {
            String::new()
        };
        format!("{cookies}{pool}{first}{path}{ppk}{second}")
    }

    /// The ends of the second Child SA: this one, and the other.
    fn second_ends(&self) -> (End, End) {
        let mut other = self.clone();
        other.inner = Version::V6;
        other.ends()
    }

    /// Addresses inside of both networks of the second Child SA.
    pub fn second_inside(&self) -> (&'static str, &'static str) {
        let (own, other) = self.second_ends();
        (own.inside, other.inside)
    }

    /// The peer's `swanctl.conf`.
    pub fn strongswan(&self) -> String {
        let (other, own) = self.ends();
        let (local, remote) = match self.ours {
            Role::Client => (own.address, self.seen_address()),
            Role::Server => ("%any", other.address),
        };
        let (ike, esp) = self.suite().map_or_else(Default::default, |suite| {
            (
                format!("proposals = {}", suite.strongswan_ike),
                format!("esp_proposals = {}", suite.strongswan_esp),
            )
        });
        let dpd = if self.liveness { "dpd_delay = 1s" } else { "" };
        let (mine, theirs) = match self.proof {
            Proof::Psk => ("auth = psk", "auth = psk"),
            Proof::Certificates(_) => (
                "auth = pubkey\n            certs = own.pem",
                "auth = pubkey\n            cacerts = own.pem",
            ),
        };
        let (addresses, pool, dynamic) = match (self.assigned, self.ours) {
            (false, _) => ("", String::new(), [false, false]),
            (true, Role::Client) => (
                "pools = one",
                format!("pools {{\n    one {{\n        addrs = {ASSIGNED_NET}\n    }}\n}}\n"),
                [false, true],
            ),
            (true, Role::Server) => ("vips = 0.0.0.0", String::new(), [true, false]),
        };
        let (ppk, ppk_secret) = if self.ppk {
            (
                format!("ppk_id = {PPK_ID}\n        ppk_required = yes"),
                format!(
                    "    ppk-net {{\n        id = {PPK_ID}\n        secret = \"{PPK}\"\n    }}\n"
                ),
            )
        } else {
            Default::default()
        };
        let network = |network, dynamic| if dynamic { "dynamic" } else { network };
        let second = if self.second_child {
            let (other, own) = self.second_ends();
            format!(
                "second {{
                local_ts = {}
                remote_ts = {}
                rekey_time = 0
                {esp}
            }}",
                own.network, other.network
            )
        } else {
            String::new()
        };
        format!(
            "{pool}connections {{
    net {{
        version = 2
        {addresses}
        {ppk}
        local_addrs = {local}
        remote_addrs = {remote}
        rekey_time = 0
        {ike}
        {dpd}
        local {{
            {mine}
            id = {own_id}
        }}
        remote {{
            {theirs}
            id = {other_id}
        }}
        children {{
            net {{
                local_ts = {own_net}
                remote_ts = {other_net}
                rekey_time = 0
                {esp}
            }}
            {second}
        }}
    }}
}}
secrets {{
    ike-net {{
        secret = \"{PSK}\"
    }}
{ppk_secret}}}
",
            own_id = own.id,
            other_id = other.id,
            own_net = network(own.network, dynamic[0]),
            other_net = network(other.network, dynamic[1]),
        )
    }

    /// What goes into the peer's `strongswan.conf`: it gives up after a few seconds, if it asks.
    pub fn strongswan_options(&self) -> String {
        let mut options = String::new();
        if self.liveness {
            options += "retransmit_tries = 3\nretransmit_timeout = 1.0\nretransmit_base = 1.0\n";
        }
        if self.small_fragments {
            options += "fragment_size = 576\n";
        }
        options
    }

    /// The peer's `ipsec.conf` and `ipsec.secrets`.
    pub fn libreswan(&self, program: Program) -> LibreswanFiles {
        let (other, own) = self.ends();
        let far = match self.ours {
            // libreswan agrees to MOBIKE only with a client that may be anywhere.
            Role::Client if self.assigned || self.mobike => "%any",
            Role::Client => self.seen_address(),
            Role::Server => other.address,
        };
        let algorithms = self.suite().map_or_else(String::new, |suite| {
            let Suite {
                libreswan_ike,
                libreswan_esp,
                ..
            } = suite;
            format!("ike={libreswan_ike}\n    esp={libreswan_esp}")
        });
        let liveness = if self.liveness {
            "dpddelay=1\n    dpdtimeout=5\n    retransmit-timeout=5s"
        } else {
            ""
        };
        let ppk = if self.ppk { "ppk=insist" } else { "" };
        let mobike = if self.mobike { "mobike=yes" } else { "" };
        let version_2 = if program == Program::Libreswan4 {
            "ikev2=insist"
        } else {
            "keyexchange=ikev2"
        };
        let proof = match self.proof {
            Proof::Psk => "authby=secret",
            Proof::Certificates(KeyKind::Ecdsa) => {
                "authby=ecdsa\n    leftcert=own\n    rightca=%same"
            }
            Proof::Certificates(KeyKind::Rsa | KeyKind::Ed25519) => {
                "authby=rsasig\n    leftcert=own\n    rightca=%same"
            }
        };
        let (near_net, far_net) = match (self.assigned, self.ours) {
            (false, _) => (
                format!("leftsubnet={}", own.network),
                format!("rightsubnet={}", other.network),
            ),
            (true, Role::Client) => (
                format!("leftsubnet={}\n    leftmodecfgserver=yes", own.network),
                format!("rightaddresspool={ASSIGNED}-{ASSIGNED}\n    rightmodecfgclient=yes"),
            ),
            (true, Role::Server) => (
                "leftsubnet=0.0.0.0/0\n    leftmodecfgclient=yes\n    modecfgpull=yes\n    narrowing=yes"
                    .to_owned(),
                format!("rightsubnet={}\n    rightmodecfgserver=yes", other.network),
            ),
        };
        // Blank lines would end the section.
        let conn = |name: &str, near_net: &str, far_net: &str| {
            format!(
                "conn {name}
    {version_2}
    {proof}
    auto=ignore
    left={near}
    leftid=@{own_id}
    {near_net}
    leftupdown=%disabled
    right={far}
    rightid=@{other_id}
    {far_net}
    {algorithms}
    {mobike}
    {ppk}
    {liveness}
",
                near = own.address,
                own_id = own.id,
                other_id = other.id,
            )
        };
        let mut lines = conn("net", &near_net, &far_net);
        if self.second_child {
            let (other, own) = self.second_ends();
            lines += &conn(
                "second",
                &format!("leftsubnet={}", own.network),
                &format!("rightsubnet={}", other.network),
            );
        }
        LibreswanFiles {
            setup: if self.cookies { "ddos-mode=busy" } else { "" },
            connections: lines
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| format!("{line}\n"))
                .collect(),
            secrets: format!(
                "@{0} @{1} : PSK \"{PSK}\"\n@{0} @{1} : PPKS \"{PPK_ID}\" \"{PPK}\"\n",
                own.id, other.id
            ),
            certificates: self
                .pki
                .as_ref()
                .map(|pki| (pki.authority(), pki.of(own.id).pkcs12)),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    // Rights come along: a key stays its owner's alone.
    fs::copy(from, to).expect("a file and its folder");
}
