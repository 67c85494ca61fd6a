//! Whose daemons are tried: how each kind is started, asked to rekey, and asked for its pings.

use epochgate_integration::office::{Desk, Office};
use epochgate_integration::peer::{PSK, built};
use epochgate_integration::topology::{SERVER, SERVER_NET};
use epochgate_integration::{Epochgate, StrongSwan};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long one tunnel may take until it carries traffic.
const UP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The daemon of both builds, whose SPIs can be chosen.
const DAEMON: &str = "epochgate-lab-daemon";

/// The first SPI that the server chooses; it chooses the others by itself.
const SERVER_SPI: u32 = 0x5000_0000;

/// What clients draw first: the SPI that a client receives on at first, the jitter of its IKE SA's
/// lifetime (as long as an SPI), the SPI after its first rekey, and that after its second, which is
/// what the client before it had at first.
fn spis(client: u32) -> [u32; 4] {
    let before = if client == 0 { CLIENTS - 1 } else { client - 1 };
    [
        FIRST_SPI + client,
        JITTER,
        SECOND_SPI + client,
        FIRST_SPI + before,
    ]
}
const CLIENTS: u32 = crate::cell::CLIENTS as u32;
const FIRST_SPI: u32 = 0x1000_0000;
const SECOND_SPI: u32 = 0x2000_0000;
const JITTER: u32 = 0x3000_0000;

/// A client starts by itself.
const CLIENT: &str = "start = \"always\"\n";

/// Whose tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    NoGate,
    StrongSwan,
    Epochgate,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::NoGate, Self::StrongSwan, Self::Epochgate];

    /// As in the evaluation's JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoGate => "no-gate",
            Self::StrongSwan => "strongswan",
            Self::Epochgate => "epochgate",
        }
    }
}

/// The daemons of an office, whose tunnels are all up.
pub(crate) enum Daemons {
    Epochgate {
        server: Epochgate,
        clients: Vec<Epochgate>,
    },
    StrongSwan {
        server: StrongSwan,
        clients: Vec<StrongSwan>,
    },
}

impl Daemons {
    /// Starts the server, and then one client after another, each when the one before is up: all
    /// at once is a fault of its own.
    pub(crate) fn start(contender: Contender, office: &Office, nat_t: bool) -> Self {
        match contender {
            Contender::NoGate => {
                let folder = std::env::var_os("EPOCHGATE_UNGATED_DIR");
                let folder = folder.expect("EPOCHGATE_UNGATED_DIR: see scripts/evaluate");
                start_epochgate(&PathBuf::from(folder).join(DAEMON), office, nat_t)
            }
            Contender::Epochgate => start_epochgate(&built(DAEMON), office, nat_t),
            Contender::StrongSwan => start_strongswan(office),
        }
    }

    /// The server starts a rekey of a client's tunnel.
    pub(crate) fn rekey_by_server(&self, client: usize) {
        let name = format!("client{client}");
        match self {
            Self::Epochgate { server, .. } => ask_rekey(server, &name),
            Self::StrongSwan { server, .. } => server.rekey_child(&name),
        }
    }

    /// A client does.
    pub(crate) fn rekey_by_client(&self, client: usize) {
        match self {
            Self::Epochgate { clients, .. } => ask_rekey(&clients[client], "net"),
            Self::StrongSwan { clients, .. } => clients[client].rekey(),
        }
    }

    /// Control pings that a client has sent so far.
    pub(crate) fn pings(&self, client: usize) -> u64 {
        match self {
            Self::Epochgate { clients, .. } => {
                let report = clients[client].report();
                report["tunnels"][0]["pings_sent"].as_u64().unwrap_or(0)
            }
            Self::StrongSwan { .. } => 0,
        }
    }
}

/// Asks for a rekey, and does not wait for it: whether it succeeds is what is to be seen.
fn ask_rekey(daemon: &Epochgate, tunnel: &str) {
    let output = daemon.command(&["rekey", tunnel, "--timeout", "1ms"]);
    drop(output);
}

fn start_epochgate(daemon: &Path, office: &Office, nat_t: bool) -> Daemons {
    let traversal = |config: String| {
        if nat_t {
            config.replace("nat-t = \"off\"", "nat-t = \"auto\"")
        } else {
            config
        }
    };
    let server = traversal(office.server_config(""));
    let server = Epochgate::start_build(daemon, &office.server, &server, &[SERVER_SPI]);
    let start = |(number, desk): (u32, &Desk)| {
        let config = traversal(desk.config(CLIENT));
        let client = Epochgate::start_build(daemon, &desk.host, &config, &spis(number));
        let is_open = |tunnel: &Value| tunnel["gate"] == "open";
        client.wait_for("net", UP_LIMIT, is_open);
        server.wait_for(desk.name(), UP_LIMIT, is_open);
        client
    };
    Daemons::Epochgate {
        clients: (0..).zip(&office.clients).map(start).collect(),
        server,
    }
}

fn start_strongswan(office: &Office) -> Daemons {
    let ends = office.clients.iter().map(|desk| {
        let (id, network) = (desk.id(), desk.network());
        connection(
            desk.name(),
            (SERVER, "%any"),
            ("server.example", &id),
            (SERVER_NET, &network),
            "clear",
            "",
        )
    });
    let server = StrongSwan::start(&office.server, &configuration(&ends.collect::<String>()));
    let start = |desk: &Desk| {
        let (id, network) = (desk.id(), desk.network());
        let ends = ("%any", SERVER);
        let one = connection(
            "net",
            ends,
            (&id, "server.example"),
            (&network, SERVER_NET),
            "restart",
            "start_action = start\nclose_action = start",
        );
        let client = StrongSwan::start(&desk.host, &configuration(&one));
        let began = Instant::now();
        while client.installed() == 0 {
            assert!(began.elapsed() < UP_LIMIT, "{}", client.log());
            thread::sleep(POLL);
        }
        client
    };
    Daemons::StrongSwan {
        clients: office.clients.iter().map(start).collect(),
        server,
    }
}

/// One connection of a `swanctl.conf`, with the liveness checks that its users are told to set.
fn connection(
    name: &str,
    (local, remote): (&str, &str),
    (local_id, remote_id): (&str, &str),
    (local_net, remote_net): (&str, &str),
    dpd_action: &str,
    more: &str,
) -> String {
    format!(
        "{name} {{
            version = 2
            local_addrs = {local}
            remote_addrs = {remote}
            dpd_delay = 10s
            keyingtries = 0
            local {{
                auth = psk
                id = {local_id}
            }}
            remote {{
                auth = psk
                id = {remote_id}
            }}
            children {{
                {name} {{
                    local_ts = {local_net}
                    remote_ts = {remote_net}
                    esp_proposals = aes256gcm16
                    dpd_action = {dpd_action}
                    {more}
                }}
            }}
        }}\n"
    )
}

fn configuration(connections: &str) -> String {
    format!("connections {{\n{connections}}}\nsecrets {{\nike-net {{\nsecret = \"{PSK}\"\n}}\n}}\n")
}
