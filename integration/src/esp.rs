//! Looks into captured ESP with the keys that the hosts' own kernels use.
//!
//! A [`KeyLog`] watches a host's SAs and keeps the keys of each, also after it is deleted. A
//! [`Trace`] is a capture in which every ESP packet that such a key opens shows its inner
//! packet: so a test can say exactly what went out on which SPI.

use crate::capture::{Packet, Record, Timestamp, network};
use crate::net::{Host, locked};
use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the payload of a control ping begins with.
pub const CONTROL_PING: &[u8; 8] = b"EPOCHGAT";

/// SPI and sequence number (RFC 4303 §2).
const ESP_HEADER_BYTES: usize = 8;
/// The explicit initialisation vector of AES-GCM in ESP, and its salt (RFC 4106 §3.1, §4).
const GCM_IV_BYTES: usize = 8;
const GCM_SALT_BYTES: usize = 4;

/// One SA that a host has or had.
#[derive(Clone)]
pub struct LoggedSa {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// The SPI, chosen by the destination.
    pub spi: u32,
    /// The policies' templates name it.
    pub reqid: u32,
    /// When this log first saw it.
    pub at: Timestamp,
    /// The name of its algorithm, as `ip xfrm` prints it.
    pub algorithm: String,
    key: Option<GcmKey>,
}

impl fmt::Debug for LoggedSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            src,
            dst,
            spi,
            reqid,
            algorithm,
            ..
        } = self;
        write!(f, "{src} > {dst} {spi:#010x} reqid {reqid} {algorithm}")
    }
}

#[derive(Clone)]
struct GcmKey {
    key: Arc<LessSafeKey>,
    salt: [u8; GCM_SALT_BYTES],
}

impl GcmKey {
    /// From the kernel's key material: the key, and then the salt.
    fn new(material: &[u8]) -> Option<Self> {
        let (key, salt) = material.split_last_chunk::<GCM_SALT_BYTES>()?;
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self {
            key: Arc::new(key),
            salt: *salt,
        })
    }

    /// The inner packet with padding and trailer removed, and its protocol.
    fn open(&self, esp: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (header, rest) = esp.split_at_checked(ESP_HEADER_BYTES)?;
        let (iv, sealed) = rest.split_at_checked(GCM_IV_BYTES)?;
        let mut nonce = [0; GCM_SALT_BYTES + GCM_IV_BYTES];
        nonce[..GCM_SALT_BYTES].copy_from_slice(&self.salt);
        nonce[GCM_SALT_BYTES..].copy_from_slice(iv);
        let mut buffer = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(header), &mut buffer)
            .ok()?;
        let [inner @ .., padding, next_header] = plain else {
            return None;
        };
        let length = inner.len().checked_sub(usize::from(*padding))?;
        Some((*next_header, inner[..length].to_vec()))
    }
}

/// Keeps every SA that a host's kernel is given, from `ip xfrm`.
#[derive(Debug)]
pub struct KeyLog {
    sas: Arc<Mutex<Vec<LoggedSa>>>,
    monitor: Child,
    reader: Option<JoinHandle<()>>,
}

impl KeyLog {
    /// Begins with the SAs that the host has; all that come later are added.
    pub fn start(host: &Host) -> Self {
        let sas = Arc::<Mutex<Vec<LoggedSa>>>::default();
        let mut monitor = host.spawn(
            Command::new("ip")
                .args(["xfrm", "monitor", "SA"])
                .stdout(Stdio::piped()),
        );
        let stdout = BufReader::new(monitor.stdout.take().expect("a pipe"));
        wait_until_listening(host, monitor.id());
        let known = host.run("ip xfrm state");
        collect(known.lines().map(str::to_owned), &sas);
        let reader = thread::spawn({
            let sas = Arc::clone(&sas);
            move || collect(stdout.lines().map_while(Result::ok), &sas)
        });
        Self {
            sas,
            monitor,
            reader: Some(reader),
        }
    }

    /// All SAs so far, in the order in which they appeared.
    pub fn sas(&self) -> Vec<LoggedSa> {
        // What the kernel has told the monitor may not have passed its pipe yet.
        thread::sleep(Duration::from_millis(50));
        locked(&self.sas).clone()
    }

    /// Pairs of inbound and outbound SPI as `local` has them, by the order in which each reqid
    /// got them: the first inbound SA belongs to the first outbound one, and so on. Right as
    /// long as every Child SA that was begun was completed.
    pub fn pairs(&self, local: IpAddr) -> Vec<(u32, u32)> {
        let sas = self.sas();
        let (inbound, outbound): (Vec<_>, Vec<_>) = sas.iter().partition(|sa| sa.dst == local);
        let mut pairs = Vec::new();
        let mut taken = vec![false; outbound.len()];
        for sa in inbound {
            let partner = outbound.iter().enumerate().find(|(index, other)| {
                !taken[*index] && other.reqid == sa.reqid && other.dst == sa.src
            });
            if let Some((index, other)) = partner {
                taken[index] = true;
                pairs.push((sa.spi, other.spi));
            }
        }
        pairs
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        // It may have gone with its host.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Until the monitor listens, an SA could come unseen. Its socket shows in the namespace when
/// it does, under its process's number.
fn wait_until_listening(host: &Host, pid: u32) {
    const NETLINK_XFRM: &str = "6";
    let pid = pid.to_string();
    for _ in 0..500 {
        let sockets = host.within(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
        let listening = sockets.expect("procfs").lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next() == Some(NETLINK_XFRM)
                && fields.next() == Some(&pid)
                && fields.next().is_some_and(|groups| groups != "00000000")
        });
        if listening {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{host:?}: ip xfrm monitor does not listen");
}

/// Reads what `ip xfrm state` and `ip xfrm monitor` print: for each SA a line at the margin,
/// with the addresses, and then indented lines.
fn collect(lines: impl Iterator<Item = String>, sas: &Mutex<Vec<LoggedSa>>) {
    let mut next = None::<LoggedSa>;
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["src", src, "dst", dst] | ["Updated", "src", src, "dst", dst] => {
                next = src
                    .parse()
                    .ok()
                    .zip(dst.parse().ok())
                    .map(|(src, dst)| LoggedSa {
                        src,
                        dst,
                        spi: 0,
                        reqid: 0,
                        at: Timestamp::now(),
                        algorithm: String::new(),
                        key: None,
                    });
            }
            // A deleted SA is known; other events are not about keys.
            _ if !line.starts_with(char::is_whitespace) => next = None,
            ["proto", "esp", "spi", spi, "reqid", reqid, ..] => {
                if let Some(sa) = &mut next {
                    sa.spi = hex_number(spi).unwrap_or_default();
                    sa.reqid = reqid.parse().unwrap_or_default();
                }
            }
            ["aead", algorithm, material, ..] | ["enc", algorithm, material, ..] => {
                if let Some(mut sa) = next.take() {
                    if algorithm == "rfc4106(gcm(aes))" {
                        sa.key = hex_bytes(material).as_deref().and_then(GcmKey::new);
                    }
                    algorithm.clone_into(&mut sa.algorithm);
                    let mut sas = locked(sas);
                    let known = sas.iter().any(|old| {
                        (old.src, old.dst, old.spi, old.reqid) == (sa.src, sa.dst, sa.spi, sa.reqid)
                            && sa.at.since(old.at) < SAME_SA
                    });
                    if !known {
                        sas.push(sa);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The dump at the start and the first events may tell the same SA twice, and an SA may be
/// updated; an SPI that comes again later is another SA's.
const SAME_SA: Duration = Duration::from_secs(1);

fn hex_number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// A packet that came out of ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerPacket {
    /// Inner source.
    pub src: IpAddr,
    /// Inner destination.
    pub dst: IpAddr,
    /// What it carries.
    pub content: Content,
}

/// What an inner packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An ICMP or ICMPv6 echo request or reply.
    Echo {
        /// Whether it is a reply.
        reply: bool,
        /// The identifier.
        id: u16,
        /// The sequence number.
        seq: u16,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A UDP datagram.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
        /// The datagram's payload.
        payload: Vec<u8>,
    },
    /// A TCP segment.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Its first byte's sequence number.
        seq: u32,
        /// How many bytes it carries.
        length: usize,
    },
    /// Another protocol, by its number.
    Other(u8),
}

impl InnerPacket {
    fn parse(next_header: u8, bytes: &[u8]) -> Option<Self> {
        // IPv4 and IPv6, as tunnel mode's next header (RFC 4303 §2.6).
        if !matches!(next_header, 4 | 41) {
            return None;
        }
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let (src, dst, protocol, _) = network(&sliced)?;
        let content = match &sliced.transport {
            Some(TransportSlice::Udp(udp)) => Content::Udp {
                ports: (udp.source_port(), udp.destination_port()),
                payload: udp.payload().to_vec(),
            },
            Some(TransportSlice::Tcp(tcp)) => Content::Tcp {
                ports: (tcp.source_port(), tcp.destination_port()),
                seq: tcp.sequence_number(),
                length: tcp.payload().len(),
            },
            Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => Content::echo(false, echo, icmp.payload()),
                Icmpv4Type::EchoReply(echo) => Content::echo(true, echo, icmp.payload()),
                _ => Content::Other(protocol),
            },
            Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(echo) => Content::echo(false, echo, icmp.payload()),
                Icmpv6Type::EchoReply(echo) => Content::echo(true, echo, icmp.payload()),
                _ => Content::Other(protocol),
            },
            Some(TransportSlice::Igmp(_)) | None => Content::Other(protocol),
        };
        Some(Self { src, dst, content })
    }

    /// The destination port of a UDP datagram.
    pub fn udp_port(&self) -> Option<u16> {
        match self.content {
            Content::Udp { ports: (_, to), .. } => Some(to),
            Content::Echo { .. } | Content::Tcp { .. } | Content::Other(_) => None,
        }
    }

    /// The payload of a control ping, and whether it is the reply.
    pub fn control_ping(&self) -> Option<(bool, &[u8])> {
        match &self.content {
            Content::Echo { reply, payload, .. } if payload.starts_with(CONTROL_PING) => {
                Some((*reply, payload))
            }
            _ => None,
        }
    }
}

impl Content {
    fn echo(reply: bool, header: etherparse::IcmpEchoHeader, payload: &[u8]) -> Self {
        Self::Echo {
            reply,
            id: header.id,
            seq: header.seq,
            payload: payload.to_vec(),
        }
    }
}

/// A captured packet, with what was inside.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the kernel saw it.
    pub at: Timestamp,
    /// Whether the observed host sent it, rather than received it.
    pub sent: bool,
    /// What it is on the wire.
    pub packet: Packet,
    /// Its inner packet, if it is ESP that a logged key opens: then it is authentic.
    pub inner: Option<InnerPacket>,
}

/// A capture, seen from one host, with its ESP opened.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In the order of time.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// Of a host that was observed at the *other* end of its link, such as the router's.
    /// One end's keys open both directions.
    pub fn of(records: Vec<Record>, keys: &KeyLog) -> Self {
        Self::build(records, keys, false)
    }

    /// Of a host that was observed at its own interface. There the kernel shows inbound
    /// packets again after it decrypted them.
    pub fn of_own_end(records: Vec<Record>, keys: &KeyLog) -> Self {
        Self::build(records, keys, true)
    }

    fn build(records: Vec<Record>, keys: &KeyLog, own_end: bool) -> Self {
        let sas = keys.sas();
        let entries = records.into_iter().map(|record| {
            let packet = record.packet();
            let inner = match &packet {
                Packet::Esp { spi, .. } => record.esp().and_then(|esp| {
                    sas.iter()
                        .filter(|sa| sa.spi == *spi)
                        .filter_map(|sa| sa.key.as_ref()?.open(esp))
                        .find_map(|(next_header, inner)| InnerPacket::parse(next_header, &inner))
                }),
                Packet::Ike { .. } | Packet::Clear { .. } | Packet::Other => None,
            };
            Entry {
                at: record.at,
                sent: record.outgoing == own_end,
                packet,
                inner,
            }
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// What the host sent.
    pub fn sent(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.sent)
    }

    /// What the host received.
    pub fn received(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.sent)
    }

    /// The SPIs on which the host sent, each once, in the order of their first packets.
    pub fn sent_spis(&self) -> Vec<u32> {
        let mut spis = Vec::new();
        for entry in self.sent() {
            if let Packet::Esp { spi, .. } = entry.packet
                && !spis.contains(&spi)
            {
                spis.push(spi);
            }
        }
        spis
    }
}
