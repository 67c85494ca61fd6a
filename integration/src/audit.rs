//! The product's invariants, judged on what was on the wire.
//!
//! Each function looks at the [`Trace`] of one host and returns how much it has judged, so that
//! a test can also demand that there was something to judge, or the first violation.

use crate::capture::{Packet, Timestamp};
use crate::esp::{Content, Entry, InnerPacket, Trace};
use crate::traffic::Account;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The traffic that a tunnel protects: between one network and another, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selectors {
    local: IpNet,
    remote: IpNet,
}

impl Selectors {
    /// From two networks in CIDR notation.
    pub fn new(local: &str, remote: &str) -> Self {
        let net = |text: &str| text.parse().expect("a network in CIDR notation");
        Self {
            local: net(local),
            remote: net(remote),
        }
    }

    fn cover(&self, src: IpAddr, dst: IpAddr) -> bool {
        let between = |from: &IpNet, to: &IpNet| from.contains(&src) && to.contains(&dst);
        between(&self.local, &self.remote) || between(&self.remote, &self.local)
    }
}

/// How an invariant was broken: what packet should not have been there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When the packet was on the wire.
    pub at: Timestamp,
    /// Which rule it breaks, and what it is.
    pub what: String,
}

impl Violation {
    fn new(entry: &Entry, rule: impl fmt::Display) -> Self {
        Self {
            at: entry.at,
            what: format!("{rule}: {entry}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.at, self.what)
    }
}

impl std::error::Error for Violation {}

/// I2: no packet that the selectors cover is on the wire outside ESP, in either direction.
/// Returns how many packets were looked at.
pub fn nothing_in_clear(trace: &Trace, protected: &Selectors) -> Result<usize, Violation> {
    for entry in &trace.entries {
        match entry.packet {
            Packet::Clear { src, dst, .. } if protected.cover(src, dst) => {
                return Err(Violation::new(entry, "protected traffic in clear"));
            }
            Packet::Clear { .. }
            | Packet::Esp { .. }
            | Packet::EspFragment { .. }
            | Packet::Ike { .. }
            | Packet::Other => {}
        }
    }
    Ok(trace.entries.len())
}

/// The SPI of an ESP packet. A fragment of one that the host sent cannot be judged.
fn spi_of(entry: &Entry) -> Result<Option<u32>, Violation> {
    match entry.packet {
        Packet::Esp { spi, .. } => Ok(Some(spi)),
        Packet::EspFragment { .. } if entry.sent => Err(Violation::new(
            entry,
            "ESP in fragments, of unknown content",
        )),
        Packet::EspFragment { .. } | Packet::Ike { .. } | Packet::Clear { .. } | Packet::Other => {
            Ok(None)
        }
    }
}

/// I1, for a client: on each outbound SPI nothing but control pings leaves before a reply to
/// one of those has arrived, through whatever authentic inbound SA. ESP that no logged key
/// opens is a violation too: it cannot be judged. Returns the SPIs that carried more than
/// control pings, each with the time of its proof.
pub fn nothing_before_proof(trace: &Trace) -> Result<BTreeMap<u32, Timestamp>, Violation> {
    let mut pinged = BTreeMap::<Vec<u8>, u32>::new();
    let mut proven = BTreeMap::<u32, Timestamp>::new();
    let mut used = BTreeMap::new();
    for entry in &trace.entries {
        let Some(spi) = spi_of(entry)? else {
            continue;
        };
        let ping = entry.inner.as_ref().and_then(InnerPacket::control_ping);
        match (entry.sent, ping) {
            (true, Some((false, nonce))) => {
                pinged.insert(nonce.to_vec(), spi);
            }
            (true, Some((true, _)) | None) => match proven.get(&spi) {
                Some(proof) if entry.inner.is_some() => {
                    used.insert(spi, *proof);
                }
                Some(_) => return Err(Violation::new(entry, "ESP that no known key opens")),
                None => {
                    let rule = format!("sent on {spi:#010x} before it was proven");
                    return Err(Violation::new(entry, rule));
                }
            },
            (false, Some((true, nonce))) => {
                if let Some(spi) = pinged.get(nonce) {
                    proven.entry(*spi).or_insert(entry.at);
                }
            }
            (false, Some((false, _)) | None) => {}
        }
    }
    Ok(used)
}

/// Only what is a client's own reaches it: all ESP that arrives is opened by one of its keys. A NAT
/// that gave it another client's packets is found so, also where both chose the same SPI. Returns
/// how many packets of its own there were.
pub fn nothing_of_others(trace: &Trace) -> Result<usize, Violation> {
    let mut own = 0;
    for entry in trace.received() {
        if let Packet::Esp { .. } = entry.packet {
            if entry.inner.is_none() {
                return Err(Violation::new(entry, "ESP of another client"));
            }
            own += 1;
        }
    }
    Ok(own)
}

/// I3, for a waiting server: nothing leaves on an outbound SPI before something authentic has
/// arrived on the inbound SPI of the same epoch. `pairs` are (inbound, outbound) as the server
/// has them, such as [`KeyLog::pairs`](crate::KeyLog::pairs). Returns how many epochs were used.
pub fn server_waits(trace: &Trace, pairs: &[(u32, u32)]) -> Result<usize, Violation> {
    waits(trace, pairs, Unheard::Silent)
}

/// The same for a server of epochgate clients: where ESP is plain, it may part from an epoch on which
/// nothing has arrived with one control ping, the last that leaves on it (docs/gate.md).
pub fn server_waits_and_parts(trace: &Trace, pairs: &[(u32, u32)]) -> Result<usize, Violation> {
    waits(trace, pairs, Unheard::Parts)
}

/// The same for a server whose `ping.target` makes a peer speak that would not by itself: its
/// control pings may leave earlier.
pub fn server_waits_or_pings(trace: &Trace, pairs: &[(u32, u32)]) -> Result<usize, Violation> {
    waits(trace, pairs, Unheard::Pings)
}

/// What a server may send on an epoch on which nothing has arrived.
#[derive(Clone, Copy)]
enum Unheard {
    /// Nothing.
    Silent,
    /// One control ping in plain ESP, and nothing after it.
    Parts,
    /// Control pings.
    Pings,
}

fn waits(trace: &Trace, pairs: &[(u32, u32)], unheard: Unheard) -> Result<usize, Violation> {
    let inbound_of: BTreeMap<_, _> = pairs
        .iter()
        .map(|(inbound, outbound)| (*outbound, *inbound))
        .collect();
    let mut arrived = BTreeSet::new();
    let mut parted = BTreeSet::new();
    let mut used = BTreeSet::new();
    for entry in &trace.entries {
        let Some(spi) = spi_of(entry)? else {
            continue;
        };
        if !entry.sent {
            if entry.inner.is_some() {
                arrived.insert(spi);
            }
            continue;
        }
        let Some(inbound) = inbound_of.get(&spi) else {
            return Err(Violation::new(entry, "sent on an SPI of no known epoch"));
        };
        if parted.contains(&spi) {
            let rule = format!("sent on {spi:#010x} after it was parted from");
            return Err(Violation::new(entry, rule));
        }
        let heard = arrived.contains(inbound);
        let inner = entry.inner.as_ref();
        let is_ping = inner.is_some_and(|inner| matches!(inner.control_ping(), Some((false, _))));
        let is_plain = matches!(entry.packet, Packet::Esp { udp: false, .. });
        match unheard {
            Unheard::Pings if is_ping => continue,
            Unheard::Parts if is_ping && is_plain && !heard => {
                parted.insert(spi);
                continue;
            }
            Unheard::Silent | Unheard::Parts | Unheard::Pings => {}
        }
        if !heard {
            let rule = format!("sent on {spi:#010x} before anything came on {inbound:#010x}");
            return Err(Violation::new(entry, rule));
        }
        used.insert(spi);
    }
    Ok(used.len())
}

/// R3, for the sender: once a packet that is not a control ping left on a new SPI, none leaves
/// on an older one, except within `grace` of the switch (a second CPU may still use the old
/// bundle). Returns the SPIs in the order in which they carried traffic.
pub fn switches_are_clean(trace: &Trace, grace: Duration) -> Result<Vec<u32>, Violation> {
    let mut order = Vec::<(u32, Timestamp)>::new();
    for entry in trace.sent() {
        let Some(spi) = spi_of(entry)? else {
            continue;
        };
        if entry
            .inner
            .as_ref()
            .is_some_and(|inner| inner.control_ping().is_some())
        {
            continue;
        }
        let Some(place) = order.iter().position(|(known, _)| *known == spi) else {
            order.push((spi, entry.at));
            continue;
        };
        if let Some((newer, switched)) = order.get(place + 1)
            && entry.at.since(*switched) > grace
        {
            let rule = format!("sent on {spi:#010x} after the switch to {newer:#010x}");
            return Err(Violation::new(entry, rule));
        }
    }
    Ok(order.into_iter().map(|(spi, _)| spi).collect())
}

/// What a host did with one kind of IKE exchange: how many requests of it were on the wire, each
/// initiator SPI and message ID counted once however often it was retransmitted.
pub fn exchanges(trace: &Trace) -> Vec<(u8, usize)> {
    let mut seen = BTreeSet::new();
    let mut counts = Vec::<(u8, usize)>::new();
    for entry in &trace.entries {
        let Packet::Ike {
            initiator_spi,
            exchange,
            message_id,
            response,
            from_initiator,
            ..
        } = entry.packet
        else {
            continue;
        };
        if response || !seen.insert((initiator_spi, message_id, from_initiator)) {
            continue;
        }
        match counts.iter_mut().find(|(known, _)| *known == exchange) {
            Some((_, count)) => *count += 1,
            None => counts.push((exchange, 1)),
        }
    }
    counts
}

/// The sequence numbers of a [`UdpFlow`](crate::UdpFlow)'s datagrams as they left in ESP, with
/// the SPI that carried each, in the order of the wire.
pub fn carried(trace: &Trace, port: u16) -> Vec<(u64, u32)> {
    let spi_of = |entry: &Entry| match entry.packet {
        Packet::Esp { spi, .. } => Some(spi),
        Packet::EspFragment { .. } | Packet::Clear { .. } | Packet::Ike { .. } | Packet::Other => {
            None
        }
    };
    trace
        .sent()
        .filter_map(|entry| Some((number_of(entry, port)?, spi_of(entry)?)))
        .collect()
}

/// The sequence numbers of a [`UdpFlow`](crate::UdpFlow)'s datagrams as they arrived in ESP, in the
/// order of the wire.
pub fn arrived(trace: &Trace, port: u16) -> Vec<u64> {
    let received = trace.received();
    received
        .filter_map(|entry| number_of(entry, port))
        .collect()
}

/// How a hold queue was released into live traffic (R3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// How many packets left.
    pub packets: usize,
    /// How many had been held, as far as the order in which they left can tell.
    pub held: u64,
    /// Those that left before one with a lower number: live ones ahead of held ones.
    pub ahead: Vec<u64>,
    /// From the first packet of the flow until the last one that another had overtaken.
    pub unordered_for: Duration,
}

/// Looks for packets of a [`UdpFlow`](crate::UdpFlow) that overtook others on their way into the
/// tunnel, where there must be a datagram, the first live one, such that those before it kept
/// their order among themselves, and so did those from it on.
///
/// When the gate opened is only known within limits, and those are `sent`, as the flow's account
/// has it, `proof`, before which nothing may leave, and the first of the flow that did. What had
/// been given to the kernel before `proof` was held, and what was given to it after the first had
/// left was not.
pub fn release(
    trace: &Trace,
    port: u16,
    sent: &[(u64, Timestamp)],
    proof: Timestamp,
) -> Result<Release, Violation> {
    let left = trace
        .sent()
        .filter_map(|entry| Some((number_of(entry, port)?, entry)));
    let left: Vec<_> = left.collect();
    let Some((_, opened)) = left.first() else {
        return Ok(Release::default());
    };
    let certainly_held = given_before(sent, proof);
    let certainly_live = first_number_since(sent, opened.at);
    let limits = certainly_held..=certainly_live.max(certainly_held);
    let mut violation = None;
    let held = limits.clone().find(|held| match keep_order(&left, *held) {
        Ok(()) => true,
        Err(found) => {
            // The one of the smallest number that may be said to have been held is shown.
            violation.get_or_insert(found);
            false
        }
    });
    match (held, violation) {
        (Some(held), _) => Ok(overtaken(&left, opened.at, held)),
        (None, Some(found)) => Err(found),
        (None, None) => Ok(Release::default()),
    }
}

/// How many datagrams were certainly in the sending kernel's hands at `moment`. The time that an
/// account has is read *before* the datagram is sent, and on a busy CPU long before: only a later
/// reading shows that it has been.
fn given_before(sent: &[(u64, Timestamp)], moment: Timestamp) -> u64 {
    let last_reading = sent.iter().map(|(_, at)| *at).filter(|at| *at <= moment);
    let Some(last_reading) = last_reading.max() else {
        return 0;
    };
    first_number_since(sent, last_reading)
}

/// The number of the first datagram whose sending began at `moment` or later.
fn first_number_since(sent: &[(u64, Timestamp)], moment: Timestamp) -> u64 {
    let later = sent.iter().find(|(_, at)| *at >= moment);
    let end = sent.last().map_or(0, |(number, _)| number + 1);
    later.map_or(end, |(number, _)| *number)
}

/// Whether those below `held` left in the order of their numbers, and so did the others.
fn keep_order(left: &[(u64, &Entry)], held: u64) -> Result<(), Violation> {
    let (mut highest_held, mut highest_live) = (None, None);
    for (number, entry) in left {
        let (highest, rule) = if *number < held {
            (&mut highest_held, "held packets changed their order")
        } else {
            (&mut highest_live, "live packets changed their order")
        };
        if highest.is_some_and(|highest| *number < highest) {
            return Err(Violation::new(entry, rule));
        }
        *highest = Some(*number);
    }
    Ok(())
}

fn overtaken(left: &[(u64, &Entry)], first: Timestamp, held: u64) -> Release {
    let mut release = Release {
        packets: left.len(),
        held,
        ..Release::default()
    };
    for (index, (number, entry)) in left.iter().enumerate() {
        for (before, _) in left[..index].iter().filter(|(before, _)| before > number) {
            release.unordered_for = entry.at.since(first);
            if !release.ahead.contains(before) {
                release.ahead.push(*before);
            }
        }
    }
    release
}

/// What became of a flow across an outage of its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aftermath {
    /// How many datagrams left the sender and arrived nowhere.
    pub lost: usize,
    /// From the beginning of the outage until the last of those left.
    pub into_the_hole_for: Duration,
    /// From the moment at which the network was whole until the next datagram arrived.
    pub resumed_after: Duration,
}

/// Follows a [`UdpFlow`](crate::UdpFlow) across an outage that began at `began` and was over at
/// `whole`; `trace` is what its sender saw. Fails if a datagram was lost that had not left the
/// sender, which is what a hold may not do, or that had left before the outage and was overtaken by
/// one that arrived, or if nothing arrived when it was over.
pub fn aftermath(
    trace: &Trace,
    port: u16,
    account: &Account,
    began: Timestamp,
    whole: Timestamp,
) -> Result<Aftermath, String> {
    let left: BTreeMap<u64, Timestamp> = trace
        .sent()
        .filter_map(|entry| Some((number_of(entry, port)?, entry.at)))
        .collect();
    let lost = account.lost();
    // What left after the last of these was under way when the outage began.
    let before = left
        .iter()
        .filter(|(number, at)| **at < began && !lost.contains(number));
    let landed = before.map(|(_, at)| *at).max().unwrap_or_default();
    let mut last = began;
    for number in &lost {
        match left.get(number) {
            None => {
                return Err(format!(
                    "{number} was lost in its sender's kernel: {account}"
                ));
            }
            Some(at) if *at < landed => {
                return Err(format!("{number} was lost before the outage: {account}"));
            }
            Some(at) => last = last.max(*at),
        }
    }
    let arrivals = account.arrivals.iter().map(|arrival| arrival.at);
    let resumed = arrivals.filter(|at| *at >= whole).min();
    let resumed = resumed.ok_or_else(|| format!("nothing arrived any more: {account}"))?;
    Ok(Aftermath {
        lost: lost.len(),
        into_the_hole_for: last.since(began),
        resumed_after: resumed.since(whole),
    })
}

/// The number of the [`UdpFlow`](crate::UdpFlow)'s datagram that an ESP packet carries.
pub fn number_of(entry: &Entry, port: u16) -> Option<u64> {
    match &entry.inner.as_ref()?.content {
        Content::Udp {
            ports: (_, to),
            payload,
        } if *to == port => crate::traffic::sequence_of(payload),
        Content::Udp { .. } | Content::Echo { .. } | Content::Tcp { .. } | Content::Other(_) => {
            None
        }
    }
}

#[cfg(test)]
mod tests;
