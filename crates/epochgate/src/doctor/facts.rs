//! What was found out about this machine, before anybody judges it.
//!
//! `collect` fills these in, `judge` reads them, and tests write them by hand. What could not be
//! learnt is a value too: [`Learnt`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use epochgate_controller::config::TunnelConfig;
use epochgate_controller::crypto::Cipher;
use epochgate_host::firewall::BaseChain;
use epochgate_xfrm::PolicyEntry;
use serde::{Deserialize, Serialize};

/// Something that may not have been learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Learnt<T> {
    /// It was.
    Known(T),
    /// This user may not ask.
    NotAllowed,
    /// Another reason, in words.
    Unknown(String),
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whether this is root, and who is asked to become it is not.
    pub(crate) is_root: bool,
    /// Effective capabilities of this process, a bit each (capabilities(7)).
    pub(crate) capabilities: Option<u64>,
    pub(crate) configuration: Configuration,
    pub(crate) kernel: Kernel,
    pub(crate) settings: Settings,
    pub(crate) network: Network,
    pub(crate) ports: Vec<PortHolder>,
    pub(crate) processes: Vec<Process>,
    pub(crate) firewall: Firewall,
    pub(crate) policies: Learnt<Vec<PolicyEntry>>,
    pub(crate) daemon: Daemon,
}

/// The configuration file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    /// Its name.
    pub(crate) file: String,
    pub(crate) state: ConfigurationState,
    /// The tunnels that the checks are about.
    pub(crate) tunnels: Vec<Arc<TunnelConfig>>,
    /// Secrets in it that this user may not read; something else stood in for them.
    pub(crate) unread_secrets: BTreeSet<String>,
}

/// What became of the configuration file.
#[derive(Clone, Debug, Default)]
pub(crate) enum ConfigurationState {
    /// There is none.
    #[default]
    Absent,
    /// It can't be read: why.
    Unreadable(String),
    /// It has mistakes, as they are shown.
    Mistaken(String),
    /// It is good.
    Good,
}

/// The kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: String,
    /// The mode of lockdown (`/sys/kernel/security/lockdown`), if there is one.
    pub(crate) lockdown: Option<String>,
    /// Whether `/proc/net/xfrm_stat` is there (CONFIG_XFRM_STATISTICS).
    pub(crate) has_statistics: bool,
    /// What the kernel answered in a network namespace made for asking.
    pub(crate) probe: Probe,
    /// How the kernel was built, where that can be read.
    pub(crate) build: Build,
}

/// How the kernel was built.
#[derive(Clone, Debug, Default)]
pub(crate) struct Build {
    /// The file that says so.
    pub(crate) source: Option<String>,
    /// Options that are set, without `CONFIG_`: `true` built in, `false` a module.
    pub(crate) options: BTreeMap<String, bool>,
}

/// What the kernel answered in a network namespace made for asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// Why there was none to ask in.
    pub(crate) refused: Option<String>,
    pub(crate) esp_v4: Answer,
    pub(crate) esp_v6: Answer,
    pub(crate) encapsulation_v4: Answer,
    pub(crate) encapsulation_v6: Answer,
    pub(crate) extended_numbers: Answer,
    pub(crate) interface: Answer,
    /// By the names that the configuration file uses.
    pub(crate) ciphers: BTreeMap<String, Answer>,
    /// The driver of each cipher that works (`/proc/crypto`).
    pub(crate) drivers: BTreeMap<String, String>,
    /// Whether a policy was taken.
    pub(crate) policy: Answer,
}

/// The kernel's answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It did it.
    Yes,
    /// It can't: its words.
    No(String),
    /// It was not asked, or did not answer: why.
    #[default]
    NotAsked,
    /// Something else went wrong.
    Failed(String),
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            refused: Some("it was not tried".to_owned()),
            esp_v4: Answer::NotAsked,
            esp_v6: Answer::NotAsked,
            encapsulation_v4: Answer::NotAsked,
            encapsulation_v6: Answer::NotAsked,
            extended_numbers: Answer::NotAsked,
            interface: Answer::NotAsked,
            ciphers: BTreeMap::new(),
            drivers: BTreeMap::new(),
            policy: Answer::NotAsked,
        }
    }
}

/// Kernel settings, by their path below `/proc/sys` with dots: `net.ipv4.ip_forward`. Interfaces'
/// names keep their own dots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(pub(crate) BTreeMap<String, String>);

impl Settings {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.text(key)?.parse().ok()
    }
}

/// Interfaces, addresses and routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Why nothing is known of it.
    pub(crate) failure: Option<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Interfaces that a default route leads out of, by family (IPv6: `true`).
    pub(crate) default_routes: BTreeSet<(bool, String)>,
    /// How packets to these would leave.
    pub(crate) routes: BTreeMap<IpAddr, Result<Route, String>>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Octets.
    pub(crate) mtu: u32,
}

/// How packets to an address leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) interface: String,
    /// The address that this host would send from.
    pub(crate) source: Option<IpAddr>,
    /// Whether the address is this host's own.
    pub(crate) is_local: bool,
    /// Octets of the largest packet, where the route or the kernel's memory of ICMP errors says
    /// less than the interface.
    pub(crate) mtu: Option<u32>,
}

/// Who has a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortHolder {
    pub(crate) port: u16,
    /// `charon (pid 17)`, where that can be found out.
    pub(crate) holder: Option<String>,
}

/// A key daemon in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// Effective capabilities, a bit each.
    pub(crate) capabilities: Option<u64>,
    /// Whether it was seen to be in this network namespace; `None`: that could not be seen.
    pub(crate) is_here: Option<bool>,
}

/// Firewall rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Firewall {
    pub(crate) chains: Vec<BaseChain>,
    /// Programs that could not tell, and why.
    pub(crate) unread: Vec<(String, Learnt<()>)>,
}

/// The daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemon {
    pub(crate) socket: String,
    pub(crate) state: DaemonState,
    /// What `systemctl is-enabled epochgated` says; `None` without systemd or unit.
    pub(crate) unit: Option<String>,
}

/// Whether the daemon's control socket answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum DaemonState {
    #[default]
    NotRunning,
    Reachable,
    NotAllowed,
    Unreachable(String),
}

/// A cipher's name in the configuration file.
pub(crate) fn cipher_name(cipher: Cipher) -> &'static str {
    use epochgate_controller::crypto::{AesKey, Integrity};
    match cipher {
        Cipher::AesGcm256 => "aes256gcm16",
        Cipher::AesGcm128 => "aes128gcm16",
        Cipher::ChaCha20Poly1305 => "chacha20poly1305",
        Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256) => "aes256-sha256",
        Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha256) => "aes128-sha256",
        Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha384) => "aes256-sha384",
        Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha384) => "aes128-sha384",
        Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha512) => "aes256-sha512",
        Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha512) => "aes128-sha512",
    }
}
