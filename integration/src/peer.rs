//! Daemons on a host: epochgate's own, with its command line, and strongSwan's.
//!
//! Their files are in the host's folder, their sockets there or in the `/run` that the host has
//! for itself. A failing test prints their logs. They end with their [`World`](crate::World).

use crate::chosen_spis::CHOSEN_SPIS;
use crate::net::Host;
use crate::root::Root;
use crate::topology::{CLIENT_NET, SERVER, SERVER_NET};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The pre-shared key of all tests, in the file `psk` of each host's folder.
pub const PSK: &str = "a-key-that-only-tests-use-0123456789";
/// The client's identity in [`client_config`] and [`strongswan_client`].
pub const CLIENT_ID: &str = "client.example";
/// The server's identity in [`server_config`] and [`strongswan_server`].
pub const SERVER_ID: &str = "server.example";

/// How long a daemon may take to start or to end on a slow one-CPU guest.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

/// Where a program of this workspace was built: in `EPOCHGATE_BIN_DIR`, or beside this test.
pub fn built(program: &str) -> PathBuf {
    let folder = std::env::var_os("EPOCHGATE_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("this test's path");
            let profile = test
                .parent()
                .and_then(Path::parent)
                .expect("target/PROFILE/deps");
            profile.to_owned()
        },
        PathBuf::from,
    );
    let path = folder.join(program);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// The policy templates of this repository.
pub fn policies() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xfrm-policies");
    folder.canonicalize().expect("xfrm-policies")
}

/// A configuration for the client of a [`Topology`](crate::Topology): one tunnel, `net`, between
/// the two LANs. `more` is put behind it: keys of `[tunnel.net]` first, then tables.
pub fn client_config(more: &str) -> String {
    client_config_between(&[CLIENT_NET], &[SERVER_NET], more)
}

/// The same between other networks, on the client's side and on the server's.
pub fn client_config_between(local: &[&str], remote: &[&str], more: &str) -> String {
    format!(
        "[tunnel.net]\n\
         role = \"client\"\n\
         local = {{ id = \"{CLIENT_ID}\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = {local:?}, remote = {remote:?} }}\n{more}\n"
    )
}

/// The same for the server, which takes whoever proves to be the client.
pub fn server_config(more: &str) -> String {
    server_config_between(&[SERVER_NET], &[CLIENT_NET], more)
}

/// The same between other networks, on the server's side and on the client's.
pub fn server_config_between(local: &[&str], remote: &[&str], more: &str) -> String {
    format!(
        "[tunnel.net]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"{CLIENT_ID}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = {local:?}, remote = {remote:?} }}\n{more}\n"
    )
}

/// Writes a configuration and its pre-shared key into the host's folder, and returns the file.
pub fn write_configuration(host: &Host, config: &str) -> PathBuf {
    write_psk(host);
    write_config(host, config);
    host.folder().join("epochgate.toml")
}

/// The options of `epochgated` that say where it has its files on this host.
pub fn daemon_options(host: &Host) -> [OsString; 8] {
    let own = |name: &str| host.folder().join(name).into();
    [
        "--config".into(),
        own("epochgate.toml"),
        "--socket".into(),
        own("control.sock"),
        "--state".into(),
        own("state"),
        "--policies".into(),
        policies().into(),
    ]
}

/// A running `epochgated`.
#[derive(Debug)]
pub struct Epochgate {
    host: Host,
    process: Process,
}

/// A daemon that did not come up.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote.
    pub log: String,
}

/// Whether the tunnel of this status lets traffic pass.
#[must_use]
pub fn is_open(tunnel: &Value) -> bool {
    tunnel["gate"] == "open"
}

impl Epochgate {
    /// Starts the daemon with this configuration, and waits until it answers.
    #[track_caller]
    pub fn start(host: &Host, config: &str) -> Self {
        Self::start_as(Command::new(built("epochgated")), host, config)
    }

    /// The same, with these SPIs for its first inbound SAs; the others are drawn as always. The
    /// daemon is the lab's own program around it, `epochgate-lab-daemon`.
    #[track_caller]
    pub fn start_with_spis(host: &Host, config: &str, spis: &[u32]) -> Self {
        Self::start_build(&built("epochgate-lab-daemon"), host, config, spis)
    }

    /// The same with this build of the lab's program.
    #[track_caller]
    pub fn start_build(program: &Path, host: &Host, config: &str, spis: &[u32]) -> Self {
        let mut program = Command::new(program);
        let spis: Vec<String> = spis.iter().map(u32::to_string).collect();
        program.env(CHOSEN_SPIS, spis.join(","));
        Self::start_as(program, host, config)
    }

    #[track_caller]
    fn start_as(program: Command, host: &Host, config: &str) -> Self {
        match Self::try_start_as(program, host, config) {
            Ok(daemon) => daemon,
            Err(Refusal { status, log }) => panic!("{host:?}: the daemon ended, {status}\n{log}"),
        }
    }

    /// Starts the daemon; fails if it ends before it answers.
    #[track_caller]
    pub fn try_start(host: &Host, config: &str) -> Result<Self, Refusal> {
        Self::try_start_as(Command::new(built("epochgated")), host, config)
    }

    #[track_caller]
    fn try_start_as(mut command: Command, host: &Host, config: &str) -> Result<Self, Refusal> {
        write_psk(host);
        write_config(host, config);
        let socket = host.folder().join("control.sock");
        // A socket that a killed daemon left would answer nobody.
        let _ = fs::remove_file(&socket);
        command.args(daemon_options(host));
        let mut process = Process::start(host, "epochgated", &mut command);
        // It answers once the policies of all tunnels are in the kernel, and listens before.
        let answers = || {
            let mut status = Command::new(built("epochgate"));
            status.arg("--socket").arg(&socket).arg("status");
            UnixStream::connect(&socket).is_ok() && host.output(&mut status).status.success()
        };
        match process.ready_when(answers) {
            Ok(()) => Ok(Self {
                host: host.clone(),
                process,
            }),
            Err(status) => Err(Refusal {
                status,
                log: process.log(),
            }),
        }
    }

    /// Whose daemon it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Runs `epochgate` with these arguments, whatever its exit status.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let socket = self.host.folder().join("control.sock");
        let mut command = Command::new(built("epochgate"));
        self.host
            .output(command.arg("--socket").arg(socket).args(arguments))
    }

    /// Runs `epochgate` with these arguments and returns what it wrote; it must succeed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{:?}: epochgate {arguments:?}: {}\n{text}{}",
            self.host,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// `epochgate status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let text = self.run(&["status", "--json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// The same, asked for over the control socket as often as a test likes: no process is
    /// started for it.
    #[track_caller]
    pub fn report(&self) -> Value {
        let answer = ask(&self.host.folder().join("control.sock"), "status");
        let mut answer: Value = answer.expect("the control socket");
        answer["report"].take()
    }

    /// Waits until the status of the tunnel `name` is as wanted, and returns it.
    #[track_caller]
    pub fn wait_for(&self, name: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.report();
            let tunnels = status["tunnels"].as_array().into_iter().flatten();
            let found = tunnels.into_iter().find(|tunnel| tunnel["name"] == name);
            let tunnel = found.unwrap_or_else(|| panic!("no tunnel {name} in {status}"));
            if wanted(tunnel) {
                return tunnel.clone();
            }
            assert!(began.elapsed() < limit, "after {limit:?} still {tunnel:#}");
            thread::sleep(POLL);
        }
    }

    /// Replaces the configuration file; `epochgate reload` makes the daemon read it.
    pub fn rewrite_config(&self, config: &str) {
        write_config(&self.host, config);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The SPIs of every epoch it has ever installed, as (inbound, outbound): from its log, since
    /// the kernel does not say which SAs belong together.
    pub fn epochs(&self) -> Vec<(u32, u32)> {
        let number = |text: &str| {
            let digits = text.trim().strip_prefix("0x")?.split_whitespace().next()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let pair = |line: &str| {
            let (_, spis) = line.split_once("epoch installed, unproven: in ")?;
            let (inbound, outbound) = spis.split_once(", out ")?;
            Some((number(inbound)?, number(outbound)?))
        };
        self.log().lines().filter_map(pair).collect()
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends it as an operator does (SIGTERM), and waits for that.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.process.end(Signal::SIGTERM)
    }

    /// Ends it as a crash does (SIGKILL): nothing is cleaned up.
    #[track_caller]
    pub fn kill(mut self) -> ExitStatus {
        self.process.end(Signal::SIGKILL)
    }
}

/// One request of the control protocol and its response, each a line of JSON.
fn ask(socket: &Path, request: &str) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{{\"version\":2,\"request\":\"{request}\"}}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn write_config(host: &Host, config: &str) {
    fs::write(host.folder().join("epochgate.toml"), config).expect("its folder");
}

fn write_psk(host: &Host) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(host.folder().join("psk")).expect("its folder");
    file.write_all(PSK.as_bytes()).expect("its folder");
}

/// A running strongSwan (`charon-systemd`).
#[derive(Debug)]
pub struct StrongSwan {
    host: Host,
    root: Root,
    process: Process,
}

/// swanctl's configuration of a server for the client of a [`Topology`](crate::Topology), which
/// may be behind NAT: connection and child `net`. `more` holds further keys of the child.
pub fn strongswan_server(more: &str) -> String {
    strongswan(
        SERVER, "%any", SERVER_ID, CLIENT_ID, SERVER_NET, CLIENT_NET, more,
    )
}

/// The same for a client; initiate `net` by [`StrongSwan::swanctl`], or let `more` say
/// `start_action = trap`.
pub fn strongswan_client(more: &str) -> String {
    strongswan(
        "%any", SERVER, CLIENT_ID, SERVER_ID, CLIENT_NET, SERVER_NET, more,
    )
}

fn strongswan(
    local: &str,
    remote: &str,
    local_id: &str,
    remote_id: &str,
    local_net: &str,
    remote_net: &str,
    more: &str,
) -> String {
    format!(
        "connections {{
    net {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        proposals = aes256gcm16-prfsha256-x25519,aes128gcm16-prfsha256-ecp256
        local {{
            auth = psk
            id = {local_id}
        }}
        remote {{
            auth = psk
            id = {remote_id}
        }}
        children {{
            net {{
                local_ts = {local_net}
                remote_ts = {remote_net}
                esp_proposals = aes256gcm16,aes128gcm16
                {more}
            }}
        }}
    }}
}}
secrets {{
    ike-net {{
        secret = \"{PSK}\"
    }}
}}
"
    )
}

impl StrongSwan {
    /// Starts charon with this `swanctl.conf`, and waits until it has loaded it.
    #[track_caller]
    pub fn start(host: &Host, swanctl_conf: &str) -> Self {
        Self::start_from(&Root::Machine, host, swanctl_conf, "")
    }

    /// The same with the strongSwan of another root; `options` go into `strongswan.conf`, into
    /// the section of charon.
    #[track_caller]
    pub fn start_from(root: &Root, host: &Host, swanctl_conf: &str, options: &str) -> Self {
        root.mount_on(host);
        let folder = host.folder();
        let conf = folder.join("strongswan.conf");
        let begin = "charon-systemd {\n";
        let text = STRONGSWAN_CONF.replacen(begin, &format!("{begin}{options}\n"), 1);
        fs::write(&conf, text).expect("its folder");
        let mut command = root.command("charon-systemd");
        command.env("STRONGSWAN_CONF", &conf);
        let mut process = Process::start(host, "charon", &mut command);
        let vici = || host.within(|| UnixStream::connect("/run/charon.vici").is_ok());
        if let Err(status) = process.ready_when(vici) {
            panic!("{host:?}: charon ended, {status}\n{}", process.log());
        }
        let daemon = Self {
            host: host.clone(),
            root: root.clone(),
            process,
        };
        daemon.load(swanctl_conf);
        daemon
    }

    /// Loads a `swanctl.conf` in the place of the former.
    #[track_caller]
    pub fn load(&self, swanctl_conf: &str) {
        fs::write(self.host.folder().join("swanctl.conf"), swanctl_conf).expect("its folder");
        self.swanctl(&["--load-all", "--noprompt"]);
    }

    /// Runs `swanctl` with these arguments, such as `--initiate --child net`, and returns what
    /// it wrote; it must succeed.
    #[track_caller]
    pub fn swanctl(&self, arguments: &[&str]) -> String {
        let output = self.try_swanctl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{:?}: swanctl {arguments:?}: {}\n{text}{}",
            self.host,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs `swanctl` with these arguments, whatever its exit status.
    pub fn try_swanctl(&self, arguments: &[&str]) -> Output {
        let mut command = self.root.command("swanctl");
        command
            .args(arguments)
            .env("SWANCTL_DIR", self.host.folder());
        command.env(
            "STRONGSWAN_CONF",
            self.host.folder().join("strongswan.conf"),
        );
        self.host.output(&mut command)
    }

    /// Begins the child `net` and waits for it.
    #[track_caller]
    pub fn initiate(&self) {
        self.swanctl(&["--initiate", "--child", "net", "--timeout", "20"]);
    }

    /// Rekeys the child `net` (the exchange runs on after this returns).
    #[track_caller]
    pub fn rekey(&self) {
        self.rekey_child("net");
    }

    /// The same for a child of another name.
    #[track_caller]
    pub fn rekey_child(&self, name: &str) {
        self.swanctl(&["--rekey", "--child", name]);
    }

    /// Deletes the IKE SA `net` and its children.
    #[track_caller]
    pub fn terminate(&self) {
        self.swanctl(&["--terminate", "--ike", "net"]);
    }

    /// `swanctl --list-sas`, for a person.
    pub fn sas(&self) -> String {
        self.swanctl(&["--list-sas"])
    }

    /// How many Child SAs it holds to be installed.
    pub fn installed(&self) -> usize {
        self.sas().matches("INSTALLED").count()
    }

    /// `strongSwan 5.9.8`, as it says.
    pub fn version(&self) -> String {
        let text = self.swanctl(&["--version", "--daemon"]);
        let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let number = text.split([' ', ',', '\n']).find(is_number);
        format!("strongSwan {}", number.unwrap_or("of unknown version"))
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops the daemon for a while, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it by SIGTERM: it deletes its SAs and tells its peer.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.process.end(Signal::SIGTERM)
    }

    /// Ends it by SIGKILL: its peer is told nothing.
    #[track_caller]
    pub fn kill(mut self) -> ExitStatus {
        self.process.end(Signal::SIGKILL)
    }
}

/// Debian's plugins but those that reach out of the namespace: af-alg opens a kernel socket for
/// each algorithm, bypass-lan lets the LANs of a test past its policies.
const STRONGSWAN_CONF: &str = "charon-systemd {
    load_modular = yes
    plugins {
        include /etc/strongswan.d/charon/*.conf
        af-alg {
            load = no
        }
        bypass-lan {
            load = no
        }
        resolve {
            load = no
        }
    }
    filelog {
        stderr {
            default = 1
            ike = 2
            knl = 2
            flush_line = yes
        }
    }
}
";

/// A daemon's process, with its log in the host's folder.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(host: &Host, name: &str, command: &mut Command) -> Self {
        let log = host.folder().join(format!("{}-{name}.log", host.name()));
        let append = |path: &Path| -> std::io::Result<File> {
            OpenOptions::new().create(true).append(true).open(path)
        };
        let file = append(&log).expect("its folder");
        let other = file.try_clone().expect("a file");
        host.evidence().add_log(log.clone());
        let child = host.spawn(command.stdin(Stdio::null()).stdout(file).stderr(other));
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops it for a while (SIGSTOP), or lets it go on (SIGCONT).
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).expect("our child");
    }

    /// Its exit status if it ends first.
    #[track_caller]
    pub(crate) fn ready_when(&mut self, ready: impl Fn() -> bool) -> Result<(), ExitStatus> {
        let began = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return Err(status);
            }
            assert!(began.elapsed() < START_LIMIT, "not ready:\n{}", self.log());
            thread::sleep(POLL);
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).expect("our child");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(
                began.elapsed() < STOP_LIMIT,
                "it does not end:\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its world's reaper would do the same; this keeps one daemon from meeting the next.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
