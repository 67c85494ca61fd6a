//! A running libreswan: pluto, with its configuration and certificate database in the folder of
//! its host, and its control socket in the host's own `/run`.
//!
//! Its programs are called without the `ipsec` script, which would talk to systemd.

use crate::net::Host;
use crate::peer::Process;
use crate::root::Root;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

/// What a configuration begins with: no DNS, no helper threads, which a single CPU would only
/// switch between.
const SETUP: &str = "config setup
    nhelpers=0
    dnssec-enable=no
";
const PROGRAMS: &str = "/usr/libexec/ipsec";
const CONTROL: &str = "/run/pluto/pluto.ctl";
/// How long it may take until a connection is loaded.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A running pluto.
#[derive(Debug)]
pub struct Libreswan {
    host: Host,
    root: Root,
    process: Process,
}

/// What a pluto is given.
#[derive(Debug, Clone, Default)]
pub struct LibreswanFiles {
    /// A further line of the section `config setup` of ipsec.conf(5).
    pub setup: &'static str,
    /// Sections `conn` of ipsec.conf(5).
    pub connections: String,
    /// ipsec.secrets(5).
    pub secrets: String,
    /// For its database: the authority's certificate, PEM, and its own with the key, PKCS #12
    /// without a password.
    pub certificates: Option<(PathBuf, PathBuf)>,
}

impl Libreswan {
    /// Starts pluto, and waits until it listens and has loaded its connections.
    #[track_caller]
    pub fn start(root: &Root, host: &Host, files: &LibreswanFiles) -> Self {
        root.mount_on(host);
        let folder = host.folder();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let conf = format!("{SETUP}    {}\n\n{}", files.setup, files.connections);
        fs::write(folder.join("ipsec.conf"), conf).expect("its folder");
        fs::write(folder.join("ipsec.secrets"), &files.secrets).expect("its folder");
        host.within(|| fs::create_dir_all("/run/pluto"))
            .expect("the host's own /run");
        database(root, host, files);

        let mut command = root.command(&format!("{PROGRAMS}/pluto"));
        command.args(["--nofork", "--stderrlog", "--config", &path("ipsec.conf")]);
        command.args(["--secretsfile", &path("ipsec.secrets")]);
        command.args(["--nssdir", &path("nss"), "--ipsecdir", &path("nss")]);
        let mut process = Process::start(host, "pluto", &mut command);
        let answers = || host.within(|| UnixStream::connect(CONTROL).is_ok());
        if let Err(status) = process.ready_when(answers) {
            panic!("{host:?}: pluto ended, {status}\n{}", process.log());
        }
        let daemon = Self {
            host: host.clone(),
            root: root.clone(),
            process,
        };
        daemon.run("whack", &["--listen"]);
        let conf = path("ipsec.conf");
        let names = files.connections.lines();
        let names: Vec<_> = names
            .filter_map(|line| line.strip_prefix("conn "))
            .collect();
        for name in &names {
            daemon.run(
                "addconn",
                &["--config", &conf, "--ctlsocket", CONTROL, name],
            );
        }
        let began = Instant::now();
        while daemon.log().matches("added IKEv2 connection").count() < names.len() {
            assert!(began.elapsed() < LOAD_LIMIT, "{}", daemon.log());
            thread::sleep(POLL);
        }
        daemon
    }

    /// Runs one of its programs to its end; it must succeed.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_run(program, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{:?}: {program} {arguments:?}: {}\n{text}{}",
            self.host,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// The same, whatever its exit status, which `whack` takes from what pluto says.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.root.command(&format!("{PROGRAMS}/{program}"));
        self.host.output(command.args(arguments))
    }

    /// `whack` with these arguments and the connection `net`.
    pub fn whack(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        all.extend(["--name", "net"]);
        self.try_run("whack", &all)
    }

    /// Begins a connection, and does not wait for it.
    pub fn initiate(&self, name: &str) {
        self.try_run("whack", &["--initiate", "--asynchronous", "--name", name]);
    }

    /// Rekeys the Child SA of `net` (the exchange runs on after this returns).
    pub fn rekey_child(&self) {
        let word = if self.is_version_4() {
            "--rekey-ipsec"
        } else {
            "--rekey-child"
        };
        self.whack(&[word, "--asynchronous"]);
    }

    /// Rekeys the IKE SA of `net`.
    pub fn rekey_ike(&self) {
        self.whack(&["--rekey-ike", "--asynchronous"]);
    }

    /// Deletes the IKE SA of `net` with its Child SA.
    pub fn terminate(&self) {
        self.whack(&["--terminate"]);
    }

    /// Its SAs, for a person.
    pub fn sas(&self) -> String {
        self.run("whack", &["--showstates"])
    }

    /// How many Child SAs it holds to be established.
    pub fn installed(&self) -> usize {
        let states = self.sas();
        let child = |line: &&str| {
            line.contains("ESTABLISHED_CHILD_SA")
                || line.contains("V2_IPSEC_") && !line.contains("larval")
        };
        states.lines().filter(child).count()
    }

    /// `Libreswan 4.10`, as it says.
    pub fn version(&self) -> String {
        let text = self.run("pluto", &["--version"]);
        text.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn is_version_4(&self) -> bool {
        self.version().starts_with("Libreswan 4.")
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

/// Makes the NSS database, which has no password, and puts keys and certificates into it.
fn database(root: &Root, host: &Host, files: &LibreswanFiles) {
    let folder = host.folder().join("nss");
    if folder.exists() {
        return;
    }
    fs::create_dir(&folder).expect("its folder");
    let at = format!("sql:{}", folder.display());
    let succeed = |program: &str, arguments: &[&str]| {
        let output = host.output(root.command(program).args(arguments));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    };
    succeed("certutil", &["-N", "-d", &at, "--empty-password"]);
    if let Some((authority, own)) = &files.certificates {
        let [authority, own] = [authority, own].map(|file| file.to_string_lossy());
        let trusted = ["-A", "-n", "authority", "-t", "CT,,"];
        succeed(
            "certutil",
            &[&trusted[..], &["-i", &authority, "-d", &at]].concat(),
        );
        succeed("pk12util", &["-i", &own, "-d", &at, "-W", "", "-K", ""]);
    }
}
