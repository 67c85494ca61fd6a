//! What stands between hosts and breaks things: masquerading NAT, delay and loss on a link, and
//! rules that drop or delay chosen packets, which a test switches on and off.
//!
//! Set delay and loss at the *router's* ends of links: a capture at a host's own end would see
//! its packets only after the delay.

use crate::net::{Host, Iface};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A queue for delayed packets that no test fills: seconds at any rate used here.
const NETEM_PACKETS: u32 = 100_000;

/// Which packets a rule is about, whether they are plain or behind NAT (in UDP 4500).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packets {
    matches: Vec<String>,
}

impl Packets {
    fn of(matches: &[&str]) -> Self {
        Self {
            matches: matches.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    /// Every ESP packet.
    pub fn esp() -> Self {
        Self::of(&[
            "meta l4proto esp",
            "udp sport 4500 @th,64,32 != 0",
            "udp dport 4500 @th,64,32 != 0",
        ])
    }

    /// ESP packets with one of these SPIs.
    pub fn esp_on(spis: &[u32]) -> Self {
        Self::spis("", spis)
    }

    /// ESP packets with any SPI but these.
    pub fn esp_except_on(spis: &[u32]) -> Self {
        // With an SPI of 0 it is not ESP but IKE (RFC 3948 §2.2).
        Self::spis("!= ", &[spis, &[0]].concat())
    }

    fn spis(relation: &str, spis: &[u32]) -> Self {
        let set = spis
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        Self::of(&[
            &format!("esp spi {relation}{{ {set} }}"),
            &format!("udp sport 4500 @th,64,32 {relation}{{ {set} }}"),
            &format!("udp sport != 4500 udp dport 4500 @th,64,32 {relation}{{ {set} }}"),
        ])
    }

    /// Every IKE message.
    pub fn ike() -> Self {
        Self::ike_where(|_| String::new())
    }

    /// Every IKE response (the R flag, RFC 7296 §3.1).
    pub fn ike_responses() -> Self {
        Self::ike_where(|header| format!("@th,{},8 & 0x20 == 0x20", header + 19 * 8))
    }

    /// Responses of one exchange type: 34 IKE_SA_INIT, 35 IKE_AUTH, 36 CREATE_CHILD_SA,
    /// 37 INFORMATIONAL.
    pub fn ike_responses_of(exchange: u8) -> Self {
        Self::ike_where(|header| {
            format!(
                "@th,{},8 {exchange} @th,{},8 & 0x20 == 0x20",
                header + 18 * 8,
                header + 19 * 8
            )
        })
    }

    /// Requests of one exchange type.
    pub fn ike_requests_of(exchange: u8) -> Self {
        Self::ike_where(|header| {
            format!(
                "@th,{},8 {exchange} @th,{},8 & 0x20 == 0",
                header + 18 * 8,
                header + 19 * 8
            )
        })
    }

    /// `condition` gets the bit offset of the IKE header behind the UDP header's beginning.
    fn ike_where(condition: impl Fn(u32) -> String) -> Self {
        const UDP_BITS: u32 = 64;
        const MARKER_BITS: u32 = 32;
        let plain = condition(UDP_BITS);
        let behind_nat = condition(UDP_BITS + MARKER_BITS);
        Self::of(&[
            &format!("udp sport 500 {plain}"),
            &format!("udp sport != 500 udp dport 500 {plain}"),
            &format!("udp sport 4500 @th,64,32 0 {behind_nat}"),
            &format!("udp sport != 4500 udp dport 4500 @th,64,32 0 {behind_nat}"),
        ])
    }

    /// Everything.
    pub fn all() -> Self {
        Self::of(&[""])
    }

    /// Only those from this address, as it is where the rule stands.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        self.narrowed("saddr", address)
    }

    /// Only those to this address, as it is where the rule stands.
    #[must_use]
    pub fn to(self, address: IpAddr) -> Self {
        self.narrowed("daddr", address)
    }

    /// Only the first `count` of them, counted from when the rule is made.
    #[must_use]
    pub fn first(mut self, count: u32) -> Self {
        // It counts only what the conditions before it have let through.
        for one in &mut self.matches {
            *one = format!("{one} numgen inc mod {} 0-{}", u32::MAX, count - 1);
        }
        self
    }

    fn narrowed(mut self, field: &str, address: IpAddr) -> Self {
        let family = if address.is_ipv6() { "ip6" } else { "ip" };
        for one in &mut self.matches {
            *one = format!("{family} {field} {address} {one}");
        }
        self
    }

    fn rules(&self, verdict: &str) -> String {
        self.matches
            .iter()
            .map(|one| format!("{one} counter {verdict}\n"))
            .collect()
    }
}

/// A rule that is on.
#[derive(Debug)]
pub struct Fault {
    host: Host,
    table: String,
}

impl Fault {
    fn new(host: &Host, chain: &str, packets: &Packets, verdict: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let table = format!("fault{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let rules = packets.rules(verdict);
        host.nft(&format!(
            "table inet {table} {{\nchain c {{\n{chain}\n{rules}}}\n}}\n"
        ));
        Self {
            host: host.clone(),
            table,
        }
    }

    /// How many packets it has met so far.
    pub fn count(&self) -> u64 {
        let listing = self
            .host
            .run(&format!("nft list table inet {}", self.table));
        let mut words = listing.split_whitespace();
        let mut sum = 0;
        while words.by_ref().any(|word| word == "packets") {
            sum += words
                .next()
                .and_then(|count| count.parse::<u64>().ok())
                .unwrap_or(0);
        }
        sum
    }

    /// Switches it off; the network is whole again.
    pub fn lift(self) {
        self.host
            .run(&format!("nft delete table inet {}", self.table));
    }
}

impl Host {
    /// Drops packets that arrive at this host, forwarded ones too, before NAT rewrites them.
    pub fn drop_packets(&self, packets: &Packets) -> Fault {
        Fault::new(
            self,
            "type filter hook prerouting priority -310;",
            packets,
            "drop",
        )
    }

    /// Rewrites the source of what it forwards out of `interface` to the address it has there:
    /// plain masquerading NAT, IPv4.
    pub fn masquerade(&self, interface: &Iface) {
        let name = interface.name();
        self.nft(&format!(
            "table ip nat {{\nchain post {{\ntype nat hook postrouting priority srcnat;\n\
             oifname \"{name}\" masquerade\n}}\n}}\n"
        ));
    }

    /// Goes on as another NAT: everything is forgotten, and whoever sends next gets a UDP port out
    /// of `ports`, whatever its own is, as many a router does that has restarted.
    /// [`masquerade`](Self::masquerade) must have been called before, for the same interface.
    pub fn masquerade_anew(&self, interface: &Iface, ports: RangeInclusive<u16>) {
        let name = interface.name();
        let (first, last) = (ports.start(), ports.end());
        self.nft(&format!(
            "flush chain ip nat post\n\
             add rule ip nat post oifname \"{name}\" meta l4proto udp masquerade to :{first}-{last}\n\
             add rule ip nat post oifname \"{name}\" masquerade\n"
        ));
        self.forget_connections();
    }

    /// Forgets every connection, as a NAT that restarts does.
    pub fn forget_connections(&self) {
        // nlmsghdr and nfgenmsg: IPCTNL_MSG_CT_DELETE (2) of NFNL_SUBSYS_CTNETLINK (1), with
        // NLM_F_REQUEST and without a tuple, which means all of both families.
        let flush: [u8; 20] = [20, 0, 0, 0, 2, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.within(|| {
            let netfilter = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
            .expect("a netlink socket");
            let kernel = NetlinkAddr::new(0, 0);
            sendto(netfilter.as_raw_fd(), &flush, &kernel, MsgFlags::empty()).expect("conntrack");
        });
    }
}

impl Iface {
    /// Delays all that leaves through this interface, and loses this share of it, in percent.
    pub fn impair(&self, delay: Duration, loss_percent: f64) {
        let dev = self.name();
        self.tc(&format!(
            "qdisc replace dev {dev} root handle 1: htb default 10\n\
             class replace dev {dev} parent 1: classid 1:10 htb rate 10gbit quantum 60000\n\
             qdisc replace dev {dev} parent 1:10 handle 10: {}\n",
            netem(delay, loss_percent)
        ));
    }

    /// Delays chosen packets that leave through this interface by `delay` in all, while the
    /// rest goes as [`impair`](Self::impair) says, which must have been called before.
    pub fn delay_packets(&self, packets: &Packets, delay: Duration) -> Fault {
        let dev = self.name();
        self.tc(&format!(
            "class replace dev {dev} parent 1: classid 1:20 htb rate 10gbit quantum 60000\n\
             qdisc replace dev {dev} parent 1:20 handle 20: {}\n",
            netem(delay, 0.0)
        ));
        let chain = "type filter hook postrouting priority -310;";
        // HTB takes a packet's priority for its class.
        Fault::new(
            self.host(),
            chain,
            packets,
            &format!("oifname {dev} meta priority set 1:20"),
        )
    }

    fn tc(&self, lines: &str) {
        for line in lines.lines() {
            self.host().run(&format!("tc {line}"));
        }
    }
}

fn netem(delay: Duration, loss_percent: f64) -> String {
    let micros = delay.as_micros();
    format!("netem limit {NETEM_PACKETS} delay {micros}us loss {loss_percent}%")
}
