//! The configuration file, privileges, ports, other key daemons, and the daemon itself.

use super::AS_ROOT;
use crate::doctor::facts::{ConfigurationState, DaemonState, Facts, Process};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// The daemon's program.
const DAEMON: &str = "epochgated";
/// What the daemon needs, by the numbers of linux/capability.h.
const NEEDED: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (10, "CAP_NET_BIND_SERVICE"),
];
/// Names of tunnels that are listed at most.
const NAMED_MAX: usize = 8;

pub(super) fn configuration(facts: &Facts, findings: &mut Vec<Finding>) {
    let configuration = &facts.configuration;
    let file = &configuration.file;
    let new = |verdict, summary: String| {
        Finding::new(Topic::Configuration, "configuration.file", verdict, summary)
    };
    findings.push(match &configuration.state {
        ConfigurationState::Absent => new(
            Verdict::Good,
            format!("there is no {file}: tunnels in general are looked at"),
        ),
        ConfigurationState::Unreadable(why) => new(
            Verdict::Unknown,
            format!("{file} can't be read: tunnels in general are looked at"),
        )
        .essential()
        .because(why.clone())
        .cure(AS_ROOT),
        ConfigurationState::Mistaken(mistakes) => new(
            Verdict::Bad,
            format!("{file} has mistakes: tunnels in general are looked at"),
        )
        .because(mistakes.clone())
        .cure(format!("mend them, and see: epochgate check {file}")),
        ConfigurationState::Good => {
            let names: Vec<_> = configuration
                .tunnels
                .iter()
                .map(|tunnel| tunnel.name.to_string())
                .collect();
            let shown = match names.as_slice() {
                [] => "no tunnel; tunnels in general are looked at".to_owned(),
                few if few.len() <= NAMED_MAX => few.join(", "),
                many => format!(
                    "{} and {} more",
                    many[..NAMED_MAX].join(", "),
                    many.len() - NAMED_MAX
                ),
            };
            new(Verdict::Good, format!("{file} has no mistakes: {shown}"))
        }
    });
    if !configuration.unread_secrets.is_empty() {
        let names: Vec<&str> = configuration
            .unread_secrets
            .iter()
            .map(String::as_str)
            .collect();
        findings.push(
            Finding::new(
                Topic::Configuration,
                "configuration.secrets",
                Verdict::Unknown,
                "this user may not read the secrets, as it should be",
            )
            .because(format!("Not looked at: {}.", names.join(", ")))
            .cure(AS_ROOT),
        );
    }
}

fn lacking(capabilities: u64) -> Vec<&'static str> {
    NEEDED
        .into_iter()
        .filter(|(number, _)| capabilities & (1 << number) == 0)
        .map(|(_, name)| name)
        .collect()
}

pub(super) fn privileges(facts: &Facts, findings: &mut Vec<Finding>) {
    let new =
        |check, verdict, summary: String| Finding::new(Topic::Privileges, check, verdict, summary);
    let daemons = facts.processes.iter().filter(|p| p.name == DAEMON);
    let mut runs = false;
    for daemon in daemons {
        runs = true;
        let Some(capabilities) = daemon.capabilities else {
            continue;
        };
        let missing = lacking(capabilities);
        let pid = daemon.pid;
        findings.push(if missing.is_empty() {
            new(
                "privileges.daemon",
                Verdict::Good,
                format!("epochgated (pid {pid}) has the capabilities that it needs"),
            )
        } else {
            new(
                "privileges.daemon",
                Verdict::Bad,
                format!("epochgated (pid {pid}) lacks {}", missing.join(", ")),
            )
            .cure("start it by its systemd unit, which grants them: systemctl restart epochgated")
        });
    }
    if runs {
        return;
    }
    findings.push(match facts.capabilities.map(lacking) {
        Some(missing) if missing.is_empty() => new(
            "privileges.own",
            Verdict::Good,
            "this user may run the daemon".to_owned(),
        ),
        Some(missing) => new(
            "privileges.own",
            Verdict::Warn,
            format!(
                "this user can't run the daemon: it lacks {}",
                missing.join(", ")
            ),
        )
        .cure("start the daemon as root, or by its systemd unit"),
        None => new(
            "privileges.own",
            Verdict::Unknown,
            "the capabilities of this process can't be read".to_owned(),
        ),
    });
}

pub(super) fn ports(facts: &Facts, findings: &mut Vec<Finding>) {
    let ours = facts.processes.iter().any(|process| process.name == DAEMON);
    for port in [500, 4500] {
        let taken = facts.ports.iter().find(|holder| holder.port == port);
        let new = |verdict, summary: String| {
            let check = if port == 500 {
                "ports.500"
            } else {
                "ports.4500"
            };
            Finding::new(Topic::Ports, check, verdict, summary)
        };
        findings.push(match taken.map(|holder| holder.holder.as_deref()) {
            None => new(Verdict::Good, format!("UDP port {port} is free")),
            Some(Some(holder)) if is_daemon(holder) => {
                new(Verdict::Good, format!("UDP port {port} is {holder}'s"))
            }
            Some(None) if ours => new(
                Verdict::Good,
                format!("UDP port {port} is taken, and epochgated runs"),
            ),
            Some(Some(holder)) => new(
                Verdict::Bad,
                format!("UDP port {port} is taken by {holder}"),
            )
            .because("Only one IKE daemon can run in a network namespace.")
            .cure(stopping(holder)),
            Some(None) => {
                let finding = new(
                    Verdict::Bad,
                    format!("UDP port {port} is taken, by a process that can't be seen from here"),
                )
                .because("Only one IKE daemon can run in a network namespace.");
                if facts.is_root {
                    finding.cure(format!(
                        "look outside this container: ss -lunp sport = :{port}"
                    ))
                } else {
                    finding.cure(format!("see whose it is: sudo ss -lunp sport = :{port}"))
                }
            }
        });
    }
    for process in &facts.processes {
        if process.name != DAEMON {
            findings.push(other_daemon(process));
        }
    }
}

fn is_daemon(holder: &str) -> bool {
    holder.split_whitespace().next() == Some(DAEMON)
}

/// How to stop a process, shown as `name (pid N)`.
fn stopping(holder: &str) -> String {
    let name = holder.split_whitespace().next().unwrap_or_default();
    match unit_of(name) {
        Some(unit) => format!("systemctl disable --now {unit}"),
        None => {
            let pid = holder
                .rsplit_once("(pid ")
                .map_or("PID", |(_, pid)| pid.trim_end_matches(')'));
            format!("stop it: kill {pid}")
        }
    }
}

fn unit_of(name: &str) -> Option<&'static str> {
    match name {
        "charon" | "starter" => Some("strongswan-starter"),
        "charon-systemd" => Some("strongswan"),
        "pluto" => Some("ipsec"),
        "racoon" => Some("racoon"),
        "iked" => Some("iked"),
        _ => None,
    }
}

fn other_daemon(process: &Process) -> Finding {
    let Process { pid, name, .. } = process;
    let place = match process.is_here {
        Some(_) => "",
        None => ", perhaps in this network namespace",
    };
    Finding::new(
        Topic::Ports,
        "daemons.others",
        Verdict::Warn,
        format!("another key daemon runs: {name} (pid {pid}){place}"),
    )
    .because("Its policies and ours must be for different traffic; both want UDP 500 and 4500.")
    .cure(stopping(&format!("{name} (pid {pid})")))
}

pub(super) fn daemon(facts: &Facts, findings: &mut Vec<Finding>) {
    let socket = &facts.daemon.socket;
    let new =
        |verdict, summary: String| Finding::new(Topic::Daemon, "daemon.running", verdict, summary);
    findings.push(match &facts.daemon.state {
        DaemonState::NotRunning => new(
            Verdict::Good,
            format!("epochgated does not run: nothing listens at {socket}"),
        ),
        DaemonState::Reachable => new(
            Verdict::Good,
            "epochgated runs: epochgate status shows its tunnels".to_owned(),
        ),
        DaemonState::NotAllowed => new(
            Verdict::Unknown,
            format!("this user may not ask epochgated: {socket}"),
        )
        .cure(AS_ROOT),
        DaemonState::Unreachable(why) => new(
            Verdict::Warn,
            format!("epochgated can't be asked: {socket}: {why}"),
        )
        .cure("systemctl restart epochgated"),
    });
    if let Some(unit) = &facts.daemon.unit {
        let new =
            |verdict, summary: String| Finding::new(Topic::Daemon, "daemon.unit", verdict, summary);
        findings.push(match unit.as_str() {
            "enabled" | "enabled-runtime" | "static" | "linked" | "alias" | "generated" => {
                new(Verdict::Good, format!("its systemd unit is {unit}"))
            }
            _ => new(
                Verdict::Warn,
                format!("its systemd unit is {unit}: after a boot there are no tunnels"),
            )
            .cure("systemctl enable epochgated"),
        });
    }
}
