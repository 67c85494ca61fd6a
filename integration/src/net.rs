//! Hosts of a test: network namespaces with unique names, joined by veth links.
//!
//! Everything a [`World`] makes is removed when it is dropped, when the test panics, and when
//! its process dies by any signal: a reaper process holds the reading end of a pipe whose
//! writing end only the test process has, and cleans up when that closes.
//!
//! Each host also has a mount namespace with a `/run` of its own, in which its processes run,
//! so that several daemons that insist on the same socket paths can be tested together.

use crate::capture::Recorder;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Kills what runs in the namespaces whose names begin with `$1`, and removes them, once its
/// standard input closes. Signals that end a test run must not end it.
const REAPER: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
names=$(ip netns list | cut -d ' ' -f 1 | grep "^$1-")
for name in $names; do
    pids=$(ip netns pids "$name")
    [ -z "$pids" ] || kill -KILL $pids
done
for name in $names; do
    ip netns del "$name"
done
rm -rf "$2"
"#;

/// Locks, also after a panic in another thread: what a test recorded is evidence even then.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hosts of one test, and what must be kept if it fails.
///
/// Dropping it removes all of them. If the test panicked, captures and logs are first saved
/// in `target/lab/failures/NAME`, and logs are printed.
#[derive(Debug)]
pub struct World {
    name: String,
    prefix: String,
    folder: PathBuf,
    reaper: Child,
    links: AtomicU32,
    evidence: Arc<Evidence>,
}

/// What a failing test shows: packet captures, and the logs of its daemons.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    captures: Mutex<Vec<(String, Arc<Recorder>)>>,
    logs: Mutex<Vec<PathBuf>>,
}

impl Evidence {
    pub(crate) fn add_capture(&self, name: String, recorder: Arc<Recorder>) {
        locked(&self.captures).push((name, recorder));
    }

    pub(crate) fn add_log(&self, path: PathBuf) {
        let mut logs = locked(&self.logs);
        if !logs.contains(&path) {
            logs.push(path);
        }
    }

    fn save(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for (number, (name, recorder)) in locked(&self.captures).iter().enumerate() {
            let path = folder.join(format!("{number}-{name}.pcap"));
            recorder.write_pcap(&mut File::create(&path)?)?;
            eprintln!("capture kept: {}", path.display());
        }
        for log in locked(&self.logs).iter() {
            let text = fs::read_to_string(log).unwrap_or_default();
            let name = log.file_name().unwrap_or_default();
            fs::write(folder.join(name), &text)?;
            eprintln!("--- {}\n{text}---", name.to_string_lossy());
        }
        Ok(())
    }
}

impl World {
    /// An empty world. `name` names the folder that a failing test leaves.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("eg{}x{count}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let reaper = reaper(&prefix, &folder);
        Self {
            name: name.to_owned(),
            prefix,
            folder,
            reaper,
            links: AtomicU32::new(0),
            evidence: Arc::default(),
        }
    }

    /// What the names of this world's namespaces begin with: `PREFIX-HOST`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new host: a network namespace in which only `lo` is up. `name` is at most 15 bytes,
    /// because interfaces are called after the host at their other end.
    pub fn host(&self, name: &str) -> Host {
        assert!(name.len() <= 15, "{name} is too long for an interface");
        let namespace = format!("{}-{name}", self.prefix);
        succeed(Command::new("ip").args(["netns", "add", &namespace]));
        let network = File::open(Path::new("/run/netns").join(&namespace)).expect("its namespace");
        let folder = self.folder.join(name);
        fs::create_dir(&folder).expect("one host of each name");
        let mounts = thread::scope(|scope| scope.spawn(own_run_folder).join())
            .expect("a mount namespace with an empty /run");
        let host = Host(Arc::new(HostInner {
            name: name.to_owned(),
            namespace,
            folder,
            network,
            mounts,
            evidence: Arc::clone(&self.evidence),
        }));
        host.run("ip link set lo up");
        // No router solicitations and duplicate address detection among the captured packets.
        for key in ["accept_dad", "accept_ra", "router_solicitations"] {
            host.sysctl(&format!("net/ipv6/conf/default/{key}"), "0");
        }
        host
    }

    /// Joins two hosts by a veth pair. Each end is named after the host it leads to, has the
    /// given addresses (`"192.0.2.1/24"`, `"2001:db8::1/64"`), and knows the other's hardware
    /// address, so that neither ARP nor neighbour discovery delays a first packet.
    pub fn link(&self, left: (&Host, &[&str]), right: (&Host, &[&str])) -> (Iface, Iface) {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let mac = |end: u8| format!("02:00:00:00:{number:02x}:{end:02x}");
        let [(a, a_addresses), (b, b_addresses)] = [left, right];
        succeed(
            Command::new("ip")
                .args(["link", "add", b.name(), "netns", a.namespace()])
                .args(["address", &mac(1), "type", "veth", "peer", "name", a.name()])
                .args(["netns", b.namespace(), "address", &mac(2)]),
        );
        let ends = [
            (a, b, a_addresses, b_addresses, mac(2)),
            (b, a, b_addresses, a_addresses, mac(1)),
        ];
        for (host, other, own, theirs, their_mac) in ends {
            let dev = other.name();
            let mut batch = format!("link set {dev} addrgenmode none up\n");
            for address in own {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                batch += &format!("address add {address} dev {dev} {nodad}\n");
            }
            for address in theirs {
                let (address, _) = address.split_once('/').expect("an address with its prefix");
                batch += &format!(
                    "neighbour replace {address} lladdr {their_mac} dev {dev} nud permanent\n"
                );
            }
            host.ip_batch(&batch);
        }
        (Iface::new(a, b.name()), Iface::new(b, a.name()))
    }

    /// The folder for this world's files; it goes with the world.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            let folder = failures_folder().join(&self.name);
            if let Err(error) = self.evidence.save(&folder) {
                eprintln!("cannot keep evidence in {}: {error}", folder.display());
            }
        }
        drop(self.reaper.stdin.take());
        if let Err(error) = self.reaper.wait() {
            eprintln!("the reaper of {} is gone: {error}", self.prefix);
        }
    }
}

fn failures_folder() -> PathBuf {
    std::env::var_os("EPOCHGATE_FAILURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/failures"),
        PathBuf::from,
    )
}

fn reaper(prefix: &str, folder: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    Command::new("sh")
        .args(["-c", REAPER, "reaper", prefix])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Out of reach of the terminal's signals, and of `timeout`'s.
        .process_group(0)
        .spawn()
        .expect("sh starts")
}

/// Leaves the calling thread in a mount namespace of its own, with an empty `/run`.
fn own_run_folder() -> File {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root's right to unshare");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .expect("a tmpfs");
    File::open("/proc/thread-self/ns/mnt").expect("its own mount namespace")
}

/// One host: a network namespace and a mount namespace. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<HostInner>);

struct HostInner {
    name: String,
    namespace: String,
    folder: PathBuf,
    network: File,
    mounts: File,
    evidence: Arc<Evidence>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl Host {
    /// Its name in the test.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name under which `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// A folder for its configuration files and logs, visible to all hosts.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    pub(crate) fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }

    fn enter(&self) {
        setns(&self.0.network, CloneFlags::CLONE_NEWNET).expect("its network namespace");
        // A thread may change its mounts only if it shares no file system state with others.
        unshare(CloneFlags::CLONE_FS).expect("a file system state of its own");
        setns(&self.0.mounts, CloneFlags::CLONE_NEWNS).expect("its mount namespace");
    }

    /// Runs a closure on this host and returns what it returns. Sockets made in it belong to
    /// the host for as long as they live.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread that lives on this host.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let host = self.clone();
        thread::Builder::new()
            .name(self.name().to_owned())
            .spawn(move || {
                host.enter();
                work()
            })
            .expect("a thread")
    }

    /// Starts a process on this host. Name programs by absolute paths or by names in `PATH`:
    /// the working folder is `/`.
    pub fn spawn(&self, command: &mut Command) -> Child {
        let shown = format!("{command:?}");
        match self.within(|| command.spawn()) {
            Ok(child) => child,
            Err(error) => panic!("{self:?}: cannot start {shown}: {error}"),
        }
    }

    /// Runs a program to its end, whatever its exit status.
    pub fn output(&self, command: &mut Command) -> Output {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.spawn(command).wait_with_output().expect("its output")
    }

    /// Runs a command line, split at blanks, and returns what it wrote to standard output.
    /// Panics with its standard error if it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        let output = self.output(Command::new(program).args(words));
        checked(&format!("{self:?}: {line}"), &output)
    }

    /// Runs many `ip` commands in one process, a line each, without the word `ip`.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        self.fed("ip -batch -", lines);
    }

    /// Loads nftables rules.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        self.fed("nft -f -", rules);
    }

    #[track_caller]
    fn fed(&self, line: &str, input: &str) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(&mut command);
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(input.as_bytes())
            .expect("it reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("its output");
        checked(&format!("{self:?}: {line} <<<\n{input}"), &output);
    }

    /// Sets a kernel parameter by its path below `/proc/sys`.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        if let Err(error) = self.within(|| fs::write(&path, value)) {
            panic!("{self:?}: {} = {value}: {error}", path.display());
        }
    }

    /// Forwards packets between its interfaces, IPv4 and IPv6.
    pub fn forward(&self) {
        self.sysctl("net/ipv4/ip_forward", "1");
        self.sysctl("net/ipv6/conf/all/forwarding", "1");
    }

    /// Adds a route: `route("default", "192.0.2.1")`.
    #[track_caller]
    pub fn route(&self, destination: &str, via: &str) {
        let address: IpAddr = via.parse().expect("a gateway's address");
        let family = if address.is_ipv6() { "-6" } else { "-4" };
        self.run(&format!(
            "ip {family} route replace {destination} via {via}"
        ));
    }

    /// An interface that leads nowhere, to carry addresses such as a LAN's gateway's.
    pub fn dummy(&self, name: &str, addresses: &[&str]) -> Iface {
        let mut batch =
            format!("link add {name} type dummy\nlink set {name} addrgenmode none up\n");
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            batch += &format!("address add {address} dev {name} {nodad}\n");
        }
        self.ip_batch(&batch);
        Iface::new(self, name)
    }

    /// Forgets the hardware addresses that links told it, so that ARP and neighbour discovery
    /// happen as on a real network.
    pub fn forget_neighbours(&self) {
        self.run("ip neighbour flush nud permanent");
    }

    /// The kernel's XFRM counters that are not 0 (`/proc/net/xfrm_stat`).
    pub fn xfrm_errors(&self) -> Vec<(String, u64)> {
        let text = self
            .within(|| fs::read_to_string("/proc/thread-self/net/xfrm_stat"))
            .expect("a kernel with CONFIG_XFRM_STATISTICS");
        text.lines()
            .filter_map(|line| {
                let (name, count) = line.split_once(char::is_whitespace)?;
                let count = count.trim().parse().ok()?;
                (count != 0).then(|| (name.to_owned(), count))
            })
            .collect()
    }
}

/// An interface of a host.
#[derive(Debug, Clone)]
pub struct Iface {
    host: Host,
    name: String,
}

impl Iface {
    fn new(host: &Host, name: &str) -> Self {
        Self {
            host: host.clone(),
            name: name.to_owned(),
        }
    }

    /// Whose interface it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What the host calls it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    checked(&format!("{command:?}"), &output)
}

#[track_caller]
fn checked(what: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{what}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text.into_owned()
}
