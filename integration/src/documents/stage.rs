//! Where a document's commands are run: a [`Topology`] prepared for a scenario, with the files and
//! paths that an installed epochgate has.
//!
//! ```text
//! branch ─────── router (masquerades) ─────── hq          20 ms round trip
//! 10.1.0.1                                 203.0.113.1, 10.2.0.1
//! ```
//!
//! `systemctl` and `journalctl` of a document stand for what they would do: there is no systemd on a
//! host of a test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fault::{Fault, Packets};
use crate::manual::{changed, sample};
use crate::net::Host;
use crate::peer::{Process, StrongSwan, built};
use crate::topology::Topology;

/// What documents show of both ends: the first and the second example of the reference.
const CONFIGURATION_MD: &str = include_str!("../../../docs/configuration.md");

/// The configuration file, where the daemon looks for it.
const CONFIG: &str = "/etc/epochgate/epochgate.toml";
/// The pre-shared key that the examples name.
const PSK_FILE: &str = "/etc/epochgate/branch.psk";
/// A key for those who do not make one by a command.
const PSK: &str = "a-key-that-only-documents-use-0123456789";
/// What stands for the key in a file of another daemon.
const PSK_STANDS: &str = "what branch.psk contains";

/// Gives a host an `/etc` of its own: what is in the machine's, and room for more. Folders that
/// documents write to are copies.
const OWN_ETC: &str = "
mkdir /run/etc /run/etc.machine
mount --bind /etc /run/etc.machine
ln -s -t /run/etc /run/etc.machine/*
rm -f /run/etc/epochgate /run/etc/swanctl
cp -a /run/etc.machine/swanctl /run/etc/swanctl
mkdir /run/etc/epochgate
mount --bind /run/etc /etc
";

const ROUND_TRIP: Duration = Duration::from_millis(20);
/// Seconds that a command may take that nobody interrupts.
const COMMAND_LIMIT: u32 = 60;
/// How long the daemon may take to look at the firewall's rules.
const FINDING_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Lines of `journalctl` without `-n`.
const LOG_LINES: usize = 1000;

/// What a stage is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing is run: see [`NOT_RUN`](super::NOT_RUN).
    Elsewhere,
    /// Two hosts and no more.
    Bare,
    /// Two hosts with the configuration, and no daemon.
    Configured,
    /// Two epochgates whose tunnel is open.
    Tunnel,
    /// The keys differ.
    WrongKey,
    /// An identity differs.
    WrongId,
    /// The algorithms of IKE do not meet.
    WrongAlgorithms,
    /// The networks do not meet.
    WrongTraffic,
    /// The router drops IKE.
    NoAnswer,
    /// The router drops ESP.
    EspBlocked,
    /// The peer is strongSwan, and nobody says what to ping.
    NothingToPing,
    /// A rule of the gateway masquerades everything.
    Masquerade,
    /// Another daemon has UDP port 500.
    PortTaken,
    /// Another program has a policy for the same networks.
    ForeignPolicy,
    /// A tunnel that `ip xfrm` made.
    Foreign,
}

/// Names of scenarios in documents.
const SCENARIOS: [(&str, Scenario); 15] = [
    ("elsewhere", Scenario::Elsewhere),
    ("bare", Scenario::Bare),
    ("configured", Scenario::Configured),
    ("tunnel", Scenario::Tunnel),
    ("wrong-key", Scenario::WrongKey),
    ("wrong-id", Scenario::WrongId),
    ("wrong-algorithms", Scenario::WrongAlgorithms),
    ("wrong-traffic", Scenario::WrongTraffic),
    ("no-answer", Scenario::NoAnswer),
    ("esp-blocked", Scenario::EspBlocked),
    ("nothing-to-ping", Scenario::NothingToPing),
    ("masquerade", Scenario::Masquerade),
    ("port-taken", Scenario::PortTaken),
    ("foreign-policy", Scenario::ForeignPolicy),
    ("foreign", Scenario::Foreign),
];

impl Scenario {
    /// The scenario that a block names: the name itself, or what stands before its first `/`, so
    /// that a document can have several of one kind.
    pub fn named(name: &str) -> Option<Self> {
        let kind = name.split('/').next().unwrap_or_default();
        let mut all = SCENARIOS.iter();
        all.find(|(known, _)| *known == kind).map(|(_, it)| *it)
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status; 124 if it was interrupted.
    pub exit: i32,
    /// What it wrote to standard output and standard error.
    pub text: String,
}

/// A prepared world.
#[derive(Debug)]
pub struct Stage {
    daemons: BTreeMap<String, Process>,
    others: BTreeMap<String, StrongSwan>,
    faults: Vec<Fault>,
    net: Topology,
}

impl Stage {
    /// Prepares a world; `name` names the folder that a failing test leaves.
    #[track_caller]
    pub fn new(name: &str, scenario: Scenario) -> Self {
        let net = Topology::new(name)
            .masquerade()
            .round_trip(ROUND_TRIP)
            .build();
        for host in [&net.client, &net.server] {
            let output = host.output(Command::new("sh").args(["-ec", OWN_ETC]));
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{host:?}: {text}");
        }
        let mut stage = Self {
            daemons: BTreeMap::new(),
            others: BTreeMap::new(),
            faults: Vec::new(),
            net,
        };
        stage.prepare(scenario);
        stage
    }

    #[track_caller]
    fn prepare(&mut self, scenario: Scenario) {
        let [branch, hq] = examples();
        match scenario {
            Scenario::Elsewhere | Scenario::Bare => {}
            Scenario::Configured => self.configure(&branch, &hq),
            Scenario::Tunnel => {
                self.configure(&branch, &hq);
                self.start_both();
                self.succeed("branch", "epochgate up branch");
            }
            Scenario::WrongKey => {
                self.configure(&branch, &hq);
                self.write("hq", PSK_FILE, "another-key-of-enough-octets-0123456789");
                self.start_both();
            }
            Scenario::WrongId => {
                let other = changed(&hq, "id = \"branch.example\"", "id = \"other.example\"");
                self.configure(&branch, &other);
                self.start_both();
            }
            Scenario::WrongAlgorithms => {
                let only = |cipher: &str| {
                    format!("\n[tunnel.branch.algorithms]\nike = {{ cipher = [\"{cipher}\"] }}\n")
                };
                self.configure(
                    &(branch + &only("aes256gcm16")),
                    &(hq + &only("chacha20poly1305")),
                );
                self.start_both();
            }
            Scenario::WrongTraffic => {
                let other = changed(
                    &hq,
                    "remote = [\"10.1.0.0/16\"]",
                    "remote = [\"10.9.0.0/16\"]",
                );
                self.configure(&branch, &other);
                self.start_both();
            }
            Scenario::NoAnswer => {
                self.configure(&branch, &hq);
                self.fault(&Packets::ike());
                self.start_both();
            }
            Scenario::EspBlocked => {
                self.configure(&branch, &hq);
                self.fault(&Packets::esp());
                self.start_both();
            }
            Scenario::NothingToPing => {
                let theirs = changed(&sample("swanctl-server"), PSK_STANDS, PSK);
                let strongswan = StrongSwan::start(&self.net.server, &theirs);
                self.others.insert("hq".to_owned(), strongswan);
                self.configure(&branch, &hq);
                self.start("branch").expect("the daemon");
            }
            Scenario::Masquerade => {
                self.configure(&branch, &hq);
                self.net.client.nft(
                    "table ip nat {\nchain postrouting {\ntype nat hook postrouting priority srcnat;\n\
                     oifname \"router\" masquerade\n}\n}\n",
                );
                self.start_both();
                self.wait_for_finding();
            }
            Scenario::PortTaken => {
                self.configure(&branch, &hq);
                let strongswan = StrongSwan::start(&self.net.client, "");
                self.others.insert("branch".to_owned(), strongswan);
            }
            Scenario::ForeignPolicy => {
                self.configure(&branch, &hq);
                self.foreign_policy();
                self.start_both();
            }
            Scenario::Foreign => self.foreign_tunnel(),
        }
    }

    /// Writes both configurations and the key.
    #[track_caller]
    fn configure(&self, branch: &str, hq: &str) {
        for (host, config) in [("branch", branch), ("hq", hq)] {
            self.write(host, CONFIG, config);
            self.write(host, PSK_FILE, PSK);
        }
    }

    fn fault(&mut self, packets: &Packets) {
        let fault = self.net.router.drop_packets(packets);
        self.faults.push(fault);
    }

    #[track_caller]
    fn start_both(&mut self) {
        for host in ["hq", "branch"] {
            if let Err(log) = self.start(host) {
                panic!("{host}: the daemon ended\n{log}");
            }
        }
    }

    /// The daemon looks at the firewall's rules beside everything else.
    #[track_caller]
    fn wait_for_finding(&self) {
        let began = Instant::now();
        while !self
            .typed("branch", "epochgate status", None)
            .text
            .contains("source NAT")
        {
            assert!(began.elapsed() < FINDING_LIMIT, "the rule is not found");
            thread::sleep(POLL);
        }
    }

    /// What another program would have written for the networks of the examples.
    #[track_caller]
    fn foreign_policy(&self) {
        self.net.client.run(
            "ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out \
             tmpl src 192.0.2.2 dst 203.0.113.1 proto esp reqid 7 mode tunnel",
        );
    }

    /// Both directions of a tunnel without any daemon, on the branch's side.
    #[track_caller]
    fn foreign_tunnel(&self) {
        let key = |octet: &str| format!("0x{}", octet.repeat(20));
        let state = |src: &str, dst: &str, spi: &str, octet: &str| {
            let key = key(octet);
            self.net.client.run(&format!(
                "ip xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 7 mode tunnel \
                 replay-window 64 aead rfc4106(gcm(aes)) {key} 128"
            ));
        };
        state("192.0.2.2", "203.0.113.1", "0xc1a2b3c4", "a1");
        state("203.0.113.1", "192.0.2.2", "0xc5d6e7f8", "b2");
        self.foreign_policy();
        self.net.client.run(
            "ip xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/16 dir in \
             tmpl src 203.0.113.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel",
        );
    }

    #[track_caller]
    fn host(&self, name: &str) -> &Host {
        match name {
            "branch" => &self.net.client,
            "router" => &self.net.router,
            "hq" => &self.net.server,
            other => panic!("no host of a document is called {other}"),
        }
    }

    /// Writes a file of a host that its owner alone may read. What stands in it for the key is
    /// replaced by the key that the branch has.
    #[track_caller]
    pub fn write(&self, host: &str, path: &str, content: &str) {
        let key = self.net.client.within(|| fs::read_to_string(PSK_FILE));
        let content = match key {
            Ok(key) => content.replace(PSK_STANDS, key.trim_end()),
            Err(_) => content.to_owned(),
        };
        let written = self.host(host).within(|| {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder)?;
            fs::write(path, content)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        });
        if let Err(error) = written {
            panic!("{host}: {path}: {error}");
        }
    }

    /// Runs what a document types on a host; interrupts it after `stop` seconds.
    #[track_caller]
    pub fn run(&mut self, host: &str, text: &str, stop: Option<u32>) -> Outcome {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["systemctl", ..] => self.systemctl(host, &words),
            ["journalctl", "-u", "epochgated", options @ ..] => self.journal(host, options),
            _ => self.typed(host, text, stop),
        }
    }

    fn typed(&self, host: &str, text: &str, stop: Option<u32>) -> Outcome {
        let programs = built("epochgate");
        let programs = programs.parent().unwrap_or(Path::new("/"));
        let mut command = Command::new("timeout");
        command
            .args(["--signal=INT", "--kill-after=5"])
            .arg(stop.unwrap_or(COMMAND_LIMIT).to_string())
            .args(["bash", "-c"])
            .arg(format!("exec 2>&1\n{text}"))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()),
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        let output = self.host(host).output(&mut command);
        Outcome {
            exit: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    #[track_caller]
    fn succeed(&self, host: &str, text: &str) {
        let outcome = self.typed(host, text, None);
        assert_eq!(outcome.exit, 0, "{host}: {text}\n{}", outcome.text);
    }

    fn systemctl(&mut self, host: &str, words: &[&str]) -> Outcome {
        let said = |result: Result<(), String>| match result {
            Ok(()) => Outcome {
                exit: 0,
                text: String::new(),
            },
            Err(text) => Outcome { exit: 1, text },
        };
        let service = words.last().copied().unwrap_or_default();
        let verb = words.get(1).copied().unwrap_or_default();
        match (verb, service) {
            ("start" | "enable", "epochgated") => said(self.start(host).map(|_| ())),
            ("stop", "epochgated") => {
                self.stop(host);
                said(Ok(()))
            }
            ("restart", "epochgated") => {
                self.stop(host);
                said(self.start(host).map(|_| ()))
            }
            ("reload", "epochgated") => self.typed(host, "epochgate reload", None),
            ("start" | "restart" | "enable", "strongswan") => {
                let daemon = StrongSwan::start(self.host(host), "");
                self.others.insert(host.to_owned(), daemon);
                said(Ok(()))
            }
            ("stop", "strongswan") => {
                if let Some(daemon) = self.others.remove(host) {
                    daemon.stop();
                }
                said(Ok(()))
            }
            (_, _) => panic!("{words:?}: no stage knows what that would do"),
        }
    }

    /// Starts the installed daemon as its unit would, and waits until it answers.
    fn start(&mut self, host: &str) -> Result<(), String> {
        let mut command = Command::new(built("epochgated"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Process::start(self.host(host), "epochgated", &mut command);
        let answers = || self.typed(host, "epochgate status", None).exit == 0;
        let ready = process.ready_when(answers);
        let log = process.log();
        self.daemons.insert(host.to_owned(), process);
        ready.map_err(|_| log)
    }

    fn stop(&mut self, host: &str) {
        if let Some(mut process) = self.daemons.remove(host) {
            process.end(Signal::SIGTERM);
        }
    }

    /// The last lines of the log, of which `-n` says how many.
    #[track_caller]
    fn journal(&self, host: &str, options: &[&str]) -> Outcome {
        let wanted = match options {
            [] => LOG_LINES,
            ["-n", number] => number.parse().unwrap_or(LOG_LINES),
            other => panic!("journalctl {other:?}: no stage knows what that would do"),
        };
        let log = self.daemons.get(host).map(Process::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(wanted)..);
        Outcome {
            exit: 0,
            text: last.unwrap_or_default().join("\n") + "\n",
        }
    }
}

/// The client's and the server's configuration.
#[track_caller]
fn examples() -> [String; 2] {
    let mut blocks = CONFIGURATION_MD.split("```toml\n").skip(1);
    [(); 2].map(|()| {
        let block = blocks.next().and_then(|rest| rest.split("```").next());
        block
            .expect("docs/configuration.md has two examples")
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_may_have_a_name_of_its_own() {
        assert_eq!(Scenario::named("tunnel"), Some(Scenario::Tunnel));
        assert_eq!(Scenario::named("bare/first"), Some(Scenario::Bare));
        assert_eq!(Scenario::named("first"), None);
    }

    #[test]
    fn the_examples_are_both_ends() {
        let [client, server] = examples();
        assert!(client.contains("role    = \"client\""));
        assert!(server.contains("role    = \"server\""));
    }
}
