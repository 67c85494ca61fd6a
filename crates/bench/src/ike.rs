//! What a handshake, a rekey and an IKE SA with its Child SA cost.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use epochgate_controller::Secret;
use epochgate_controller::config::{End, Identity, Role, Start, TunnelConfig, TunnelName};
use epochgate_controller::crypto::{Cipher, Crypto, Group};
use epochgate_controller::io::Command;
use epochgate_crypto::Ring;
use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use crate::cost::{self, Memory};
use crate::ends::{Ends, loopback};

/// How long each part of a run may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Key exchanges that are timed by themselves.
const KEY_EXCHANGES: u32 = 2000;

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Tunnels, each with an IKE SA and a Child SA.
    #[arg(long, default_value_t = 20_000)]
    tunnels: u32,
    /// Handshakes under way at a time.
    #[arg(long, default_value_t = 64)]
    at_once: u64,
}

/// The last line.
#[derive(Debug, Serialize)]
struct Report {
    handshakes: u64,
    handshakes_per_cpu_second: f64,
    cpu_ms_per_handshake: f64,
    dh_cpu_ms_per_handshake: f64,
    dh_share: f64,
    bytes_per_pair: u64,
    bytes_per_configured_tunnel: u64,
    rekeys: u64,
    cpu_ms_per_rekey: f64,
    /// Of one core, for both ends, when 10,000 tunnels rekey once an hour.
    percent_of_core_rekeying_10000_per_hour: f64,
}

/// Measures, and prints.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let tunnels = u64::from(plan.tunnels);
    println!(
        "{tunnels} tunnels: PSK, AES-GCM-128, PRF-HMAC-SHA2-256, X25519; both ends in this process"
    );
    let empty = Memory::now()?;
    let mut ends = Ends::new(loopback(1), loopback(2))?;
    let configured = |role| (0..plan.tunnels).map(move |number| Arc::new(tunnel(number, role)));
    ends.configure(
        (CLIENT_INNER, SERVER_INNER),
        configured(Role::Client).collect(),
        configured(Role::Server).collect(),
    )?;
    let idle = Memory::now()?;

    let before = cost::cpu()?;
    let up = (0..plan.tunnels).map(|number| Command::Up(name(number)));
    let handshakes = ends.ask(up, plan.at_once, LIMIT)?;
    let spent = cost::cpu()? - before;
    ends.settle(Duration::from_millis(200))?;
    let established = Memory::now()?;

    let before = cost::cpu()?;
    let rekey = (0..plan.tunnels).map(|number| Command::Rekey(name(number)));
    let rekeys = ends.ask(rekey, plan.at_once, LIMIT)?;
    let spent_rekeying = cost::cpu()? - before;
    let spent_on_exchange = key_exchange()?;

    let each = |spent: Duration, count: u64| spent.as_secs_f64() * 1000.0 / count.max(1) as f64;
    let per_handshake = each(spent, handshakes);
    let per_exchange = each(spent_on_exchange, u64::from(KEY_EXCHANGES));
    let per_rekey = each(spent_rekeying, rekeys);
    let report = Report {
        handshakes,
        handshakes_per_cpu_second: round(1000.0 / per_handshake),
        cpu_ms_per_handshake: round(per_handshake),
        dh_cpu_ms_per_handshake: round(per_exchange),
        dh_share: round(per_exchange / per_handshake),
        bytes_per_pair: established.since(idle) / (2 * tunnels.max(1)),
        bytes_per_configured_tunnel: idle.since(empty) / (2 * tunnels.max(1)),
        rekeys,
        cpu_ms_per_rekey: round(per_rekey),
        percent_of_core_rekeying_10000_per_hour: round(per_rekey * 10_000.0 / 3_600_000.0 * 100.0),
    };
    println!(
        "handshake with Child SA: {:.3} ms of CPU for both ends ({:.0} per CPU second), of it {:.3} ms \
         ({:.0} %) X25519",
        report.cpu_ms_per_handshake,
        report.handshakes_per_cpu_second,
        report.dh_cpu_ms_per_handshake,
        report.dh_share * 100.0
    );
    println!(
        "memory: {} octets per IKE SA with its Child SA at one end, beside {} for the configured tunnel",
        report.bytes_per_pair, report.bytes_per_configured_tunnel
    );
    println!(
        "Child SA rekey with X25519: {:.3} ms of CPU for both ends; 10,000 an hour take {:.3} % of a \
         core",
        report.cpu_ms_per_rekey, report.percent_of_core_rekeying_10000_per_hour
    );
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// CPU time of the arithmetic that a handshake cannot do without: a key pair and a shared secret at
/// each end.
fn key_exchange() -> Result<Duration> {
    let provider = Ring::new();
    let before = cost::cpu()?;
    for _ in 0..KEY_EXCHANGES {
        let failed = |error| anyhow!("key exchange: {error}");
        let ours = provider.key_exchange(Group::X25519).map_err(failed)?;
        let theirs = provider.key_exchange(Group::X25519).map_err(failed)?;
        let (our_value, their_value) =
            (ours.public_value().to_vec(), theirs.public_value().to_vec());
        ours.agree(&their_value).map_err(failed)?;
        theirs.agree(&our_value).map_err(failed)?;
    }
    Ok(cost::cpu()? - before)
}

const CLIENT_INNER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SERVER_INNER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));

fn name(number: u32) -> TunnelName {
    TunnelName(format!("site-{number}").into())
}

/// Each client has a network of its own; the server's is the same for all.
fn tunnel(number: u32, role: Role) -> TunnelConfig {
    let client = End {
        address: match role {
            Role::Client => Some(loopback(1).ip()),
            Role::Server => None,
        },
        id: Identity::Fqdn(format!("site-{number}.example")),
    };
    let server = End {
        address: Some(loopback(2).ip()),
        id: Identity::Fqdn("hq.example".to_owned()),
    };
    let site = IpNet::V4(Ipv4Net::new_assert(
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + 256 * number),
        24,
    ));
    let hq = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 16));
    let (local, remote, local_traffic, remote_traffic) = match role {
        Role::Client => (client, server, vec![site], vec![hq]),
        Role::Server => (server, client, vec![hq], vec![site]),
    };
    let psk = Secret::from(format!("a key that only benchmarks use, {number}").into_bytes());
    let name = format!("site-{number}");
    let mut config = TunnelConfig {
        local_traffic,
        remote_traffic,
        start: Start::Listen,
        ..TunnelConfig::new(&name, role, local, remote, psk)
    };
    config.ike.ciphers = vec![Cipher::AesGcm128];
    config.esp.ciphers = vec![Cipher::AesGcm128];
    config.template.routes = false;
    // Nothing is sent here, and what is measured is not how often an idle tunnel is asked.
    config.ping.idle = Duration::from_secs(3600);
    config.ping.source = Some(match role {
        Role::Client => site.addr(),
        Role::Server => SERVER_INNER,
    });
    config.ping.target = Some(SERVER_INNER);
    config
}

/// To four decimals: more is noise.
fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}
