//! One connection, as epochgate, strongSwan and libreswan are told of it.
//!
//! What it does not set is each program's own default.

use super::{Program, Role};
use crate::libreswan::LibreswanFiles;
use crate::peer::{CLIENT_ID, PSK, SERVER_ID};
use crate::topology::{
    CLIENT, CLIENT_INNER, CLIENT_INNER_V6, CLIENT_NET, CLIENT_NET_V6, CLIENT_V6, ROUTER, SERVER,
    SERVER_INNER, SERVER_INNER_V6, SERVER_NET, SERVER_NET_V6, SERVER_V6,
};

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
}

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
    /// What the peer is told of algorithms.
    pub algorithms: Algorithms,
    /// The peer asks every second whether we live, and gives up after a few.
    pub liveness: bool,
    /// Further keys of epochgate's `[tunnel.net]`, and tables behind them.
    pub more: String,
}

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
            algorithms: Algorithms::Agreed,
            liveness: false,
            more: String::new(),
        }
    }

    fn client(&self) -> End {
        let (network, inside) = match self.inner {
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

    /// epochgate's configuration.
    pub fn epochgate(&self) -> String {
        let (own, other) = self.ends();
        let (role, local, remote) = match self.ours {
            Role::Client => ("client", "%any", other.address),
            Role::Server => ("server", own.address, "%any"),
        };
        format!(
            "[tunnel.net]\n\
             role = \"{role}\"\n\
             local = {{ address = \"{local}\", id = \"{own_id}\", psk-file = \"psk\" }}\n\
             remote = {{ address = \"{remote}\", id = \"{other_id}\" }}\n\
             policy = \"site-to-site\"\n\
             traffic = {{ local = [\"{own_net}\"], remote = [\"{other_net}\"] }}\n\
             {more}\n\
             [tunnel.net.ping]\n\
             target = \"{target}\"\n\
             idle = \"2s\"\n",
            own_id = own.id,
            other_id = other.id,
            own_net = own.network,
            other_net = other.network,
            target = other.inside,
            more = self.more,
        )
    }

    /// The peer's `swanctl.conf`.
    pub fn strongswan(&self) -> String {
        let (other, own) = self.ends();
        let (local, remote) = match self.ours {
            Role::Client => (own.address, "%any"),
            Role::Server => ("%any", other.address),
        };
        let (ike, esp) = match self.algorithms {
            Algorithms::Agreed => (
                "proposals = aes256gcm16-prfsha256-x25519",
                "esp_proposals = aes256gcm16-x25519",
            ),
            Algorithms::Default => ("", ""),
        };
        let dpd = if self.liveness { "dpd_delay = 1s" } else { "" };
        format!(
            "connections {{
    net {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        rekey_time = 0
        {ike}
        {dpd}
        local {{
            auth = psk
            id = {own_id}
        }}
        remote {{
            auth = psk
            id = {other_id}
        }}
        children {{
            net {{
                local_ts = {own_net}
                remote_ts = {other_net}
                rekey_time = 0
                {esp}
            }}
        }}
    }}
}}
secrets {{
    ike-net {{
        secret = \"{PSK}\"
    }}
}}
",
            own_id = own.id,
            other_id = other.id,
            own_net = own.network,
            other_net = other.network,
        )
    }

    /// What goes into the peer's `strongswan.conf`: it gives up after a few seconds, if it asks.
    pub fn strongswan_options(&self) -> &'static str {
        if self.liveness {
            "retransmit_tries = 3\nretransmit_timeout = 1.0\nretransmit_base = 1.0\n"
        } else {
            ""
        }
    }

    /// The peer's `ipsec.conf` and `ipsec.secrets`.
    pub fn libreswan(&self, program: Program) -> LibreswanFiles {
        let (other, own) = self.ends();
        // As the server of a client behind NAT it knows the address from which that one comes.
        let far = match self.ours {
            Role::Client if self.nat => ROUTER,
            Role::Client | Role::Server => other.address,
        };
        let algorithms = match self.algorithms {
            Algorithms::Agreed => "ike=aes_gcm256-sha2_256-dh31\n    esp=aes_gcm256",
            Algorithms::Default => "",
        };
        let liveness = if self.liveness {
            "dpddelay=1\n    dpdtimeout=5\n    retransmit-timeout=5s"
        } else {
            ""
        };
        let version_2 = if program == Program::Libreswan4 {
            "ikev2=insist"
        } else {
            "keyexchange=ikev2"
        };
        // Blank lines would end the section.
        let lines = format!(
            "conn net
    {version_2}
    authby=secret
    auto=ignore
    left={near}
    leftid=@{own_id}
    leftsubnet={own_net}
    leftupdown=%disabled
    right={far}
    rightid=@{other_id}
    rightsubnet={other_net}
    {algorithms}
    {liveness}
",
            near = own.address,
            own_id = own.id,
            other_id = other.id,
            own_net = own.network,
            other_net = other.network,
        );
        LibreswanFiles {
            connections: lines
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| format!("{line}\n"))
                .collect(),
            secrets: format!("@{} @{} : PSK \"{PSK}\"\n", own.id, other.id),
            pkcs12: Vec::new(),
        }
    }
}
