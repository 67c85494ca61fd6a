//! MOBIKE (RFC 4555): an IKE SA and its Child SAs go on at other addresses. The end that began the
//! first of a line of IKE SAs decides which pair of addresses is used; the other end follows what it
//! is told, and makes sure that the new address is its peer's own (return routability).
//!
//! Addresses come in from the tunnels, which see the host's change; what comes out is
//! [`IkeEvent::PathChanged`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use epochgate_ike_wire::{NotifyType, Payload};

use crate::config::{NatTraversal, TunnelConfig};
use crate::io::Datagram;

use super::context::Context;
use super::established::{Asked, Established, Task};
use super::informational::Closing;
use super::nat_detection::{self, Nat};
use super::payloads::{Payloads, notify, notify_with};
use super::protect::SealError;
use super::sa::Next;
use super::session::{ReplyTo, Session};
use super::{CloseReason, IkeEvent, Path};

/// Addresses that a peer can tell us of, and that we tell it of; beyond, the rest is ignored.
const ADDRESSES_MAX: usize = 8;

/// Octets of our COOKIE2; RFC 4555 §4.2.5 has 8 to 64.
const COOKIE2_LEN: usize = 16;

/// Octets of the longest COOKIE2 that is echoed (RFC 4555 §4.2.5).
const COOKIE2_MAX: usize = 64;

/// Transmissions of a request to one address before the peer's others are tried too.
const PATIENT_TRIES: u32 = 2;

/// Both ends speak MOBIKE.
#[derive(Clone, Debug)]
pub(super) struct Mobility {
    /// We decide which addresses are used (RFC 4555 §3.1: the original initiator).
    pub(super) decides: bool,
    /// Where else the peer can be reached.
    peer_addresses: Vec<IpAddr>,
    /// What the peer was last told of ours.
    told: Vec<IpAddr>,
}

/// What IKE_AUTH says of MOBIKE (RFC 4555 §3.3, §3.4). `local` is the address in use.
pub(super) fn offer(ctx: &Context<'_>, config: &TunnelConfig, local: IpAddr) -> Vec<Payload> {
    if !config.path.mobike {
        return Vec::new();
    }
    let others = additional(ctx, config, local);
    let mut payloads = vec![notify(NotifyType::MOBIKE_SUPPORTED)];
    payloads.extend(others.into_iter().map(additional_address));
    payloads
}

/// What came of it, if both ends speak MOBIKE.
pub(super) fn agreed(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    payloads: &Payloads,
    local: IpAddr,
    decides: bool,
) -> Option<Box<Mobility>> {
    payloads.notify(NotifyType::MOBIKE_SUPPORTED)?;
    config.path.mobike.then(|| {
        Box::new(Mobility {
            decides,
            peer_addresses: told_addresses(payloads).unwrap_or_default(),
            told: additional(ctx, config, local),
        })
    })
}

/// Our addresses beside the one in use, where any may be used. Those of protected networks are
/// reached through the tunnel alone.
fn additional(ctx: &Context<'_>, config: &TunnelConfig, local: IpAddr) -> Vec<IpAddr> {
    if config.local.address.is_some() {
        return Vec::new();
    }
    let inner = |address: &IpAddr| config.local_traffic.iter().any(|it| it.contains(address));
    ctx.pad
        .host_addresses()
        .iter()
        .copied()
        .filter(|address| *address != local && !inner(address))
        .take(ADDRESSES_MAX)
        .collect()
}

fn additional_address(address: IpAddr) -> Payload {
    match address {
        IpAddr::V4(it) => notify_with(NotifyType::ADDITIONAL_IP4_ADDRESS, it.octets()),
        IpAddr::V6(it) => notify_with(NotifyType::ADDITIONAL_IP6_ADDRESS, it.octets()),
    }
}

/// The peer's whole list of additional addresses (RFC 4555 §3.6), if the message has one.
fn told_addresses(payloads: &Payloads) -> Option<Vec<IpAddr>> {
    let v4 = payloads
        .notified(NotifyType::ADDITIONAL_IP4_ADDRESS)
        .filter_map(|data| Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)))
        .map(IpAddr::V4);
    let v6 = payloads
        .notified(NotifyType::ADDITIONAL_IP6_ADDRESS)
        .filter_map(|data| Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)))
        .filter(|address| !address.is_unicast_link_local())
        .map(IpAddr::V6);
    let usable = |address: &IpAddr| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
    };
    let addresses: Vec<IpAddr> = v4.chain(v6).filter(usable).take(ADDRESSES_MAX).collect();
    let is_told = !addresses.is_empty()
        || payloads
            .notify(NotifyType::NO_ADDITIONAL_ADDRESSES)
            .is_some();
    is_told.then_some(addresses)
}

impl Session {
    /// Where a request goes that was sent `tries` times: after a few to the peer's other addresses
    /// as well (RFC 4555 §3.9: a path may be broken for ESP and IKE alike).
    pub(super) fn retry_path(&self, tries: u32) -> Path {
        let mut path = self.path;
        let Some(mobility) = self.mobility.as_ref().filter(|it| it.decides) else {
            return path;
        };
        let others = mobility.peer_addresses.iter();
        let candidates: Vec<IpAddr> = std::iter::once(path.remote.ip())
            .chain(
                others
                    .copied()
                    .filter(|it| it.is_ipv4() == path.local.is_ipv4()),
            )
            .collect();
        let impatient = (tries + 1).saturating_sub(PATIENT_TRIES);
        let index = usize::try_from(impatient).unwrap_or(0);
        if let Some(address) = candidates.get(index % candidates.len()) {
            path.remote.set_ip(*address);
        }
        path
    }

    /// A response came from another of the peer's addresses, where we had tried it: that is where
    /// it is reached now. True when the peer must be told to use that.
    fn reached_elsewhere(&mut self, datagram: &Datagram) -> bool {
        let Some(mobility) = self.mobility.as_ref().filter(|it| it.decides) else {
            return false;
        };
        let elsewhere = self.path.remote.ip() != datagram.remote.ip()
            && mobility.peer_addresses.contains(&datagram.remote.ip());
        if elsewhere {
            self.path.local = datagram.local;
            self.path.remote = datagram.remote;
        }
        elsewhere
    }
}

impl Established {
    /// This end sends from another address now: the peer is told, and what waits for an answer is
    /// sent again from there (RFC 4555 §3.5).
    pub(super) fn move_to(&mut self, ctx: &mut Context<'_>, local: IpAddr) {
        let path = &mut self.session.path;
        let decides = self.session.mobility.as_ref().is_some_and(|it| it.decides);
        let possible = local.is_ipv4() == path.remote.is_ipv4() && local != path.local.ip();
        if decides && possible {
            path.local.set_ip(local);
            self.tell_path(ctx);
        }
    }

    /// A response came, perhaps by another way than the usual one.
    pub(super) fn answered_by(&mut self, ctx: &mut Context<'_>, datagram: &Datagram) {
        if self.session.reached_elsewhere(datagram) {
            self.tell_path(ctx);
        }
    }

    fn tell_path(&mut self, ctx: &mut Context<'_>) {
        self.enqueue_first(Task::UpdateAddresses);
        let path = self.session.path;
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.in_flight.restart(ctx, &path);
        }
    }

    /// The host's addresses changed: the peer hears of those that it may use (RFC 4555 §3.6).
    pub(super) fn list_addresses(&mut self, ctx: &Context<'_>) {
        let local = self.session.path.local.ip();
        let ours = additional(ctx, &self.config, local);
        if let Some(mobility) = &self.session.mobility
            && !mobility.decides
            && mobility.told != ours
        {
            self.enqueue_first(Task::TellAddresses);
        }
    }

    /// Sends UPDATE_SA_ADDRESSES for the path as it is now (RFC 4555 §3.5).
    pub(super) fn start_update(&mut self, ctx: &mut Context<'_>) -> Result<(), SealError> {
        let path = self.session.path;
        let mut payloads = vec![notify(NotifyType::UPDATE_SA_ADDRESSES)];
        payloads.extend(self.nat_payloads(ctx, path.local, path.remote));
        self.inform(ctx, &payloads, Asked::Update(path))
    }

    /// Asks the peer for a random number's echo, from where it says to be (RFC 4555 §3.7).
    pub(super) fn start_route_check(&mut self, ctx: &mut Context<'_>) -> Result<(), SealError> {
        let mut cookie = [0; COOKIE2_LEN];
        ctx.crypto.random(&mut cookie)?;
        let payloads = [notify_with(NotifyType::COOKIE2, cookie)];
        self.inform(ctx, &payloads, Asked::Route(cookie))
    }

    /// Tells the peer our other addresses.
    pub(super) fn start_listing(&mut self, ctx: &mut Context<'_>) -> Result<(), SealError> {
        let ours = additional(ctx, &self.config, self.session.path.local.ip());
        let mut payloads: Vec<Payload> = ours.iter().copied().map(additional_address).collect();
        if payloads.is_empty() {
            payloads.push(notify(NotifyType::NO_ADDITIONAL_ADDRESSES));
        }
        if let Some(mobility) = &mut self.session.mobility {
            mobility.told = ours;
        }
        self.inform(ctx, &payloads, Asked::Listing)
    }

    /// The peer agreed to the new addresses, or did not.
    pub(super) fn conclude_update(
        mut self,
        ctx: &mut Context<'_>,
        asked: Path,
        payloads: &Payloads,
    ) -> Next {
        let ends = |path: &Path| (path.local, path.remote);
        if ends(&asked) != ends(&self.session.path) {
            // It changed again meanwhile: what the peer says of NATs is about the former path.
            self.enqueue_first(Task::UpdateAddresses);
            return self.proceed(ctx);
        }
        if let Some(error) = payloads.error() {
            let reason = format!(
                "the peer of tunnel {} does not accept our new address {}: {}",
                self.config.name,
                asked.local.ip(),
                error.kind
            );
            ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
            return Closing::start(ctx, self.name, self.session, None, None);
        }
        self.settle_path(ctx, asked.local, asked.remote, payloads);
        self.proceed(ctx)
    }

    /// The peer's echo (RFC 4555 §3.7): another number than ours is no accident.
    pub(super) fn conclude_route_check(
        self,
        ctx: &mut Context<'_>,
        cookie: &[u8],
        payloads: &Payloads,
    ) -> Next {
        let echo = payloads.notify(NotifyType::COOKIE2);
        if echo.is_some_and(|echo| ctx.crypto.equal(&echo.data, cookie)) {
            return self.proceed(ctx);
        }
        let reason = format!(
            "the peer of tunnel {} did not show that it is at {}",
            self.config.name,
            self.session.path.remote.ip()
        );
        ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
        Closing::start(ctx, self.name, self.session, None, None)
    }

    /// What an INFORMATIONAL request says of addresses, and what the answer says of them.
    ///
    /// # Errors
    /// The notify that refuses the request.
    pub(super) fn answer_mobility(
        &mut self,
        ctx: &mut Context<'_>,
        reply_to: &ReplyTo,
        payloads: &Payloads,
    ) -> Result<Vec<Payload>, NotifyType> {
        let mut answer = Vec::new();
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2)
            && cookie.data.len() <= COOKIE2_MAX
        {
            answer.push(notify_with(NotifyType::COOKIE2, cookie.data.clone()));
        }
        let Some(mobility) = &mut self.session.mobility else {
            return Ok(answer);
        };
        if let Some(addresses) = told_addresses(payloads) {
            mobility.peer_addresses = addresses;
        }
        let decides = mobility.decides;
        let (local, remote) = reply_to.ends();
        if let Some(seen) = payloads.notify(NotifyType::NO_NATS_ALLOWED)
            && seen.data != no_nats(remote, local)
        {
            return Err(NotifyType::UNEXPECTED_NAT_DETECTED);
        }
        if payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some() && !decides {
            let is_foreign = |expected: IpAddr| expected != remote.ip();
            if self.config.remote.address.is_some_and(is_foreign) {
                return Err(NotifyType::UNACCEPTABLE_ADDRESSES);
            }
            let moved = (local, remote) != (self.session.path.local, self.session.path.remote);
            self.settle_path(ctx, local, remote, payloads);
            if moved {
                self.enqueue_first(Task::CheckRoute);
                let path = self.session.path;
                if let Some(outstanding) = &mut self.outstanding {
                    outstanding.in_flight.restart(ctx, &path);
                }
            }
        }
        if payloads
            .notify(NotifyType::NAT_DETECTION_SOURCE_IP)
            .is_some()
        {
            answer.extend(self.nat_payloads(ctx, local, remote));
        }
        Ok(answer)
    }

    /// The path is this now, with the NATs that the notifies show (RFC 4555 §3.8).
    fn settle_path(
        &mut self,
        ctx: &mut Context<'_>,
        local: SocketAddr,
        remote: SocketAddr,
        payloads: &Payloads,
    ) {
        let nat = match self.config.nat_traversal {
            NatTraversal::Auto => {
                let spis = self.session.spis;
                Nat::detect_between(ctx.crypto, &spis, local, remote, payloads)
            }
            NatTraversal::Off => None,
        };
        self.session.nat = nat.unwrap_or_default();
        self.session.path = Path {
            local,
            remote,
            encapsulated: self.session.nat.found(),
        };
        ctx.event(self.name, IkeEvent::PathChanged(self.session.path));
    }

    fn nat_payloads(
        &self,
        ctx: &Context<'_>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Vec<Payload> {
        match self.config.nat_traversal {
            NatTraversal::Auto => {
                nat_detection::notifies(ctx.crypto, &self.session.spis, local, remote).into()
            }
            NatTraversal::Off => Vec::new(),
        }
    }
}

/// The data of NO_NATS_ALLOWED as its sender sees the packet (RFC 4555 §4.2.6): source and
/// destination address, source and destination port.
fn no_nats(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut data = Vec::new();
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(it) => data.extend(it.octets()),
            IpAddr::V6(it) => data.extend(it.octets()),
        }
    }
    for end in [source, destination] {
        data.extend(end.port().to_be_bytes());
    }
    data
}
