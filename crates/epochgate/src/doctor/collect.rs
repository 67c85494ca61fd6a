//! Finds out about this machine: netlink, `/proc`, and programs that list firewall rules. Nothing is
//! changed; what can't be asked is written down as such.

mod configuration;
mod netlink;
mod probe;
mod proc;
mod program;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use epochgate_controller::config::TunnelConfig;
use epochgate_host::firewall::{iptables, nft};
use epochgate_xfrm::Socket;

pub(super) use self::configuration::read as read_configuration;
use self::netlink::{Rtnetlink, host_in};
pub(super) use self::probe::probe;
use self::program::{Ran, run, run_for};
use super::facts::{
    Configuration, Daemon, DaemonState, Facts, Firewall, Kernel, Learnt, Network, Probe,
};

/// IKE's ports (RFC 7296 §2, RFC 3948 §2.2).
const PORTS: [u16; 2] = [500, 4500];
/// Time that the kernel gets to answer what it can do; it may load modules.
const PROBE_TIME: Duration = Duration::from_secs(20);
/// The argument that makes this program ask the kernel, and nothing else.
pub(crate) const PROBE: &str = "--probe";

/// Asks everybody.
pub(super) fn collect(configuration: Configuration, socket: &Path) -> Facts {
    let settings = proc::settings();
    let release = settings.text("kernel.osrelease").unwrap_or_default();
    let kernel = Kernel {
        release: release.to_owned(),
        lockdown: proc::lockdown(),
        has_statistics: proc::has_statistics(),
        probe: ask_kernel(),
        build: proc::build(release),
    };
    Facts {
        is_root: nix::unistd::geteuid().is_root(),
        capabilities: proc::capabilities("self"),
        kernel,
        settings,
        network: network(&configuration.tunnels),
        ports: proc::ports(&PORTS),
        processes: proc::key_daemons(),
        firewall: firewall(),
        policies: policies(),
        daemon: daemon(socket),
        configuration,
    }
}

/// Lets another process of this program ask.
fn ask_kernel() -> Probe {
    let unasked = |why: String| Probe {
        refused: Some(why),
        ..Probe::default()
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return unasked(format!("this program is not to be found: {error}")),
    };
    match run_for(Command::new(program).args(["doctor", PROBE]), PROBE_TIME) {
        Ran::Said(json) => serde_json::from_slice(&json)
            .unwrap_or_else(|error| unasked(format!("the answer makes no sense: {error}"))),
        Ran::NotInstalled => unasked("this program is not to be found".to_owned()),
        Ran::Failed { message, .. } => unasked(message),
    }
}

fn network(tunnels: &[std::sync::Arc<TunnelConfig>]) -> Network {
    let mut destinations: BTreeSet<IpAddr> = BTreeSet::new();
    for tunnel in tunnels {
        destinations.extend(tunnel.remote.address);
        let networks = tunnel.local_traffic.iter().chain(&tunnel.remote_traffic);
        destinations.extend(networks.map(|network| host_in(*network)));
    }
    match Rtnetlink::open() {
        Ok(mut netlink) => netlink.network(destinations.into_iter()),
        Err(error) => Network {
            failure: Some(error.to_string()),
            ..Network::default()
        },
    }
}

/// Lists all rules. `iptables-save` is not told a table, because it would load the table's module.
fn firewall() -> Firewall {
    let mut firewall = Firewall::default();
    let mut of_iptables = Vec::new();
    match run("nft", &["--json", "list", "ruleset"]) {
        Ran::Said(json) => match nft::read(&json) {
            Ok(ruleset) => {
                firewall.chains.extend(ruleset.chains);
                of_iptables = ruleset.of_iptables;
            }
            Err(error) => unread(&mut firewall, "nft", Learnt::Unknown(error.to_string())),
        },
        ran => unread(&mut firewall, "nft", why_not(ran)),
    }
    let mut has_saved = false;
    for (program, ipv6) in [
        ("iptables-nft-save", false),
        ("iptables-legacy-save", false),
        ("iptables-save", false),
        ("ip6tables-nft-save", true),
        ("ip6tables-legacy-save", true),
        ("ip6tables-save", true),
    ] {
        // The plain name is one of the other two, where these are there.
        let is_plain = program.matches('-').count() == 1;
        if is_plain && has_saved {
            continue;
        }
        match run(program, &[]) {
            Ran::Said(text) => {
                has_saved = true;
                let text = String::from_utf8_lossy(&text);
                firewall.chains.extend(iptables::read(&text, ipv6));
            }
            // Without rules of its own there is nothing to miss; with some, `nft` has told.
            Ran::NotInstalled => {}
            ran @ Ran::Failed { .. } => unread(&mut firewall, program, why_not(ran)),
        }
    }
    if !has_saved && !of_iptables.is_empty() {
        let why = format!(
            "iptables made the table {}, and iptables-save, which can tell what is in it, is not \
             installed",
            of_iptables.join(", ")
        );
        unread(&mut firewall, "iptables-save", Learnt::Unknown(why));
    }
    firewall
}

fn unread(firewall: &mut Firewall, program: &str, why: Learnt<()>) {
    firewall.unread.push((program.to_owned(), why));
}

fn why_not(ran: Ran) -> Learnt<()> {
    match ran {
        Ran::Said(_) => Learnt::Known(()),
        Ran::NotInstalled => Learnt::Unknown("it is not installed".to_owned()),
        Ran::Failed { message, .. } => {
            let lower = message.to_lowercase();
            let denied = [
                "not permitted",
                "permission denied",
                "must be root",
                "you must be",
            ];
            if denied.iter().any(|words| lower.contains(words)) {
                Learnt::NotAllowed
            } else {
                Learnt::Unknown(message)
            }
        }
    }
}

fn policies() -> Learnt<Vec<epochgate_xfrm::PolicyEntry>> {
    match Socket::open().and_then(|mut socket| socket.policies()) {
        Ok(policies) => Learnt::Known(policies),
        Err(error) if error.is_permission() => Learnt::NotAllowed,
        Err(error) => Learnt::Unknown(error.to_string()),
    }
}

fn daemon(socket: &Path) -> Daemon {
    let state = match UnixStream::connect(socket) {
        Ok(_) => DaemonState::Reachable,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => DaemonState::NotRunning,
            io::ErrorKind::PermissionDenied => DaemonState::NotAllowed,
            _ => DaemonState::Unreachable(error.to_string()),
        },
    };
    // Without systemd at work its program asks nobody.
    let unit = Path::new("/run/systemd/system")
        .exists()
        .then(|| run("systemctl", &["is-enabled", "epochgated.service"]))
        .and_then(|ran| match ran {
            Ran::Said(output) | Ran::Failed { output, .. } => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                (!text.is_empty() && text != "not-found").then_some(text)
            }
            Ran::NotInstalled => None,
        });
    Daemon {
        socket: socket.display().to_string(),
        state,
        unit,
    }
}
