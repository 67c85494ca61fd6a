//! What the tests on a real kernel share: network namespaces that end with the test, veth links
//! between them, `ip`, and SAs to install.
#![allow(dead_code)] // Every test binary uses its part.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use epochgate_xfrm::{Key, Prefix, Protection, Reqid, Sa, Selector, Spi};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that lives in it and works off what it is given. The kernel
/// removes the namespace, and all that is in it, when the thread ends.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    id: Pid,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, id) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("CAP_SYS_ADMIN makes a network namespace");
            ip("link set lo up");
            ready.send(gettid()).expect("the test waits for it");
            for job in inbox {
                job();
            }
        });
        let id = id.recv().expect("the namespace is made");
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
            id,
        }
    }

    /// Runs something in the namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            answer.send(outcome).ok();
        });
        self.jobs
            .as_ref()
            .expect("the thread lives")
            .send(job)
            .expect("the thread listens");
        match result.recv().expect("the thread answers") {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Runs a test in a network namespace of its own.
pub(crate) fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    Namespace::new().run(test);
}

///  client (192.0.2.1, 2001:db8::1) ---- veth ---- server (192.0.2.2, 2001:db8::2)
pub(crate) struct Pair {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
}

pub(crate) const CLIENT: &str = "192.0.2.1";
pub(crate) const SERVER: &str = "192.0.2.2";
pub(crate) const CLIENT_V6: &str = "2001:db8::1";
pub(crate) const SERVER_V6: &str = "2001:db8::2";

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = Self {
            client: Namespace::new(),
            server: Namespace::new(),
        };
        let server = pair.server.id;
        pair.client.run(move || {
            ip(&format!(
                "link add veth type veth peer name veth netns {server}"
            ));
            give_addresses(CLIENT, CLIENT_V6);
        });
        pair.server.run(|| give_addresses(SERVER, SERVER_V6));
        pair
    }
}

fn give_addresses(v4: &str, v6: &str) {
    ip(&format!("address add {v4}/24 dev veth"));
    ip(&format!("address add {v6}/64 dev veth nodad"));
    ip("link set veth up");
}

/// Runs `ip` with these arguments in the calling thread's namespace, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("ip prints text")
}

/// Checks that a text has all these parts.
pub(crate) fn assert_shows(shown: &str, parts: &[&str]) {
    for part in parts {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
}

/// Lets packets without an SA wait in the kernel, instead of being dropped.
pub(crate) fn hold_packets() {
    std::fs::write("/proc/sys/net/core/xfrm_larval_drop", "0").expect("the variable exists");
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn spi(number: u32) -> Spi {
    Spi::new(number).expect("not zero")
}

pub(crate) fn selector(source: &str, destination: &str) -> Selector {
    let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
    Selector::new(prefix(source), prefix(destination)).expect("one family")
}

/// AES-GCM with key and salt of this many bytes.
pub(crate) fn gcm(length: u8) -> Protection {
    Protection::aes_gcm_16(Key::new((1..=length).collect()))
}

/// An ESP SA in tunnel mode with AES-GCM-128.
pub(crate) fn tunnel_sa(source: &str, destination: &str, number: u32, reqid: u32) -> Sa {
    Sa::esp_tunnel(
        address(source),
        address(destination),
        spi(number),
        Reqid(reqid),
        gcm(20),
    )
}

/// A UDP socket of the calling thread's namespace that waits two seconds for a datagram.
pub(crate) fn udp(local: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address(local), port)).expect("the address is free");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    socket
}

/// Sets UDP_ENCAP: the socket passes ESP in UDP on to the kernel (`linux/udp.h`).
#[allow(unsafe_code)]
pub(crate) fn pass_esp_in_udp_on(socket: &UdpSocket) {
    /// `UDP_ENCAP_ESPINUDP`.
    const ESP_IN_UDP: libc::c_int = 2;
    // SAFETY: the kernel reads an int at the pointer, which is one, and keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            libc::UDP_ENCAP,
            std::ptr::from_ref(&ESP_IN_UDP).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
