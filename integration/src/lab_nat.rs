//! A NAT with VPN Masquerade on a router of a test: real IKE and ESP, rewritten by the same
//! [`epochgate_nat::Masquerade`] that the simulator uses.
//!
//! ```text
//!  clients ── veth ── prerouting ─ ip rule ─ mnat-in  ─┐                 ┌─ kernel ── veth ── server
//!                     (faults drop here)               ├ program: rewrite┤
//!  clients ── veth ── kernel ─┐              mnat-out ─┘                 └─ (back the same way)
//! ```
//!
//! Policy routing sends IPv4 UDP and ESP from the router's links into two TUN interfaces, one for
//! each side; the program rewrites each packet, and the kernel forwards the result. Faults on the
//! router (`Host::drop_packets`) thus act before the NAT, and see what it has rewritten once more.
//!
//! - Fragments are put together first, as Linux did for masquerading; the kernel cuts them again.
//! - Everything else, ICMP and TCP included, is forwarded untranslated. ICMP errors about
//!   translated packets are for the public address, and end at the router.
//! - IPv6 is not touched.
//! - If the program ends, UDP and ESP go nowhere.

mod forwarder;
mod fragments;
mod order;
mod packet;

pub use forwarder::forward;
pub use order::LabCounters;

use crate::net::{Host, Iface, locked};
use crate::peer::built;
use epochgate_nat::MasqueradeSettings;
use order::Order;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Where packets from the inside are read.
const INSIDE: &str = "mnat-in";
/// Where packets from the outside are read.
const OUTSIDE: &str = "mnat-out";
/// The routing tables that lead there.
const INSIDE_TABLE: u32 = 501;
const OUTSIDE_TABLE: u32 = 502;
/// The largest packet that fragments can make: none is cut on the way to the program.
const MTU: u32 = 65_535;
/// How many packets may wait for the program: seconds of a test's traffic, so that a machine that
/// is busy elsewhere loses none.
const QUEUE_PACKETS: u32 = 10_000;

/// A running NAT. It ends when this is dropped.
#[derive(Debug)]
pub struct LabNat {
    public: Ipv4Addr,
    program: Mutex<Program>,
}

#[derive(Debug)]
struct Program {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl LabNat {
    /// Starts a NAT on `router`, which forwards, between the links `inside` and `outside`. Clients
    /// are shown as `public`, an address that the router has on the outside.
    #[track_caller]
    pub fn start(
        router: &Host,
        inside: &[&Iface],
        outside: &Iface,
        public: Ipv4Addr,
        settings: MasqueradeSettings,
    ) -> Self {
        let log = router.folder().join(format!("{}-nat.log", router.name()));
        let errors = File::create(&log).expect("its folder");
        router.evidence().add_log(log);
        let mut child = router.spawn(
            Command::new(built("epochgate-lab-nat"))
                .args([INSIDE, OUTSIDE, &public.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(errors),
        );
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut program = Program { child, answers };
        let ready = program.answer();
        assert_eq!(ready["ready"], true, "the NAT's program: {ready}");
        route(router, inside, outside);
        let nat = Self {
            public,
            program: Mutex::new(program),
        };
        nat.set(settings);
        nat
    }

    /// The address that its clients are shown as.
    pub fn public(&self) -> IpAddr {
        IpAddr::V4(self.public)
    }

    /// Behaves differently from now on. How it treats UDP beside IKE does not change.
    #[track_caller]
    pub fn set(&self, settings: MasqueradeSettings) {
        self.order(&Order::Set(settings));
    }

    /// Crashes: every entry is forgotten.
    #[track_caller]
    pub fn forget(&self) {
        self.order(&Order::Forget);
    }

    /// Forwards nothing for this time from now on, and then begins with empty tables.
    #[track_caller]
    pub fn reboot(&self, time: Duration) {
        self.order(&Order::Reboot(time));
    }

    /// Tells it that `client` has chosen this SPI for what `server` sends, so that it can count
    /// what it gives to somebody else.
    #[track_caller]
    pub fn tell(&self, server: IpAddr, spi: u32, client: IpAddr) {
        self.order(&Order::Truth {
            server,
            spi,
            client,
        });
    }

    /// What it has done since it was started.
    #[track_caller]
    pub fn counters(&self) -> LabCounters {
        let answer = self.ask(&Order::Counters);
        LabCounters::from_json(&answer).unwrap_or_else(|| panic!("the NAT's program: {answer}"))
    }

    #[track_caller]
    fn order(&self, order: &Order) {
        let answer = self.ask(order);
        assert_eq!(answer["ok"], true, "the NAT's program: {answer}");
    }

    #[track_caller]
    fn ask(&self, order: &Order) -> Value {
        let mut program = locked(&self.program);
        let stdin = program.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{}", order.line()).expect("the NAT's program reads");
        program.answer()
    }
}

impl Program {
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a pipe");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the NAT's program ended: {line}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its world's reaper would do the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Leads UDP and ESP that come in by these links to the program's interfaces.
fn route(router: &Host, inside: &[&Iface], outside: &Iface) {
    // What is for the router's own public address must be asked for before what is local.
    let mut batch = String::from("rule add pref 600 lookup local\nrule del pref 0\n");
    let sides = [
        (INSIDE, INSIDE_TABLE, inside),
        (OUTSIDE, OUTSIDE_TABLE, &[outside]),
    ];
    for (tun, table, links) in sides {
        batch += &format!(
            "link set {tun} addrgenmode none mtu {MTU} txqueuelen {QUEUE_PACKETS} up\n\
             route add default dev {tun} table {table}\n\
             route add blackhole default metric 1000 table {table}\n"
        );
        for link in links {
            for protocol in ["esp", "udp"] {
                let dev = link.name();
                batch +=
                    &format!("rule add pref 500 iif {dev} ipproto {protocol} lookup {table}\n");
            }
        }
        // What comes back has this router's own address, or one that another link leads to.
        router.sysctl(&format!("net/ipv4/conf/{tun}/rp_filter"), "0");
        router.sysctl(&format!("net/ipv4/conf/{tun}/accept_local"), "1");
        router.sysctl(&format!("net/ipv6/conf/{tun}/disable_ipv6"), "1");
    }
    router.sysctl("net/ipv4/conf/all/rp_filter", "0");
    router.ip_batch(&batch);
}
