//! The addresses that this host owns, at start and whenever they or its routes change.
//!
//! A multicast netlink socket says only *that* something changed; the list is then read afresh, and
//! our routes are looked after. So lost messages (ENOBUFS) do no harm: they are one more reason to
//! read.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use tokio::sync::mpsc;

use crate::route::text;

// Bits of the group mask (rtnetlink(7)).
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

/// Changes within this time are told at once: interfaces get their addresses in bursts.
const SETTLE: Duration = Duration::from_millis(50);
/// Time between two changes that are told: a routing daemon may change routes all day long.
const PACE: Duration = Duration::from_secs(1);
/// Octets of a message that are read; the rest is cut off, since its content does not matter.
const MESSAGE_OCTETS: usize = 4096;
/// Messages that are forgotten at a time.
const DRAIN_MAX: usize = 4096;

/// Watches the host's addresses and routes.
pub struct Addresses {
    handle: Handle,
    changes: TokioSocket,
}

impl Addresses {
    /// Starts to watch.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn watch(handle: Handle) -> io::Result<Self> {
        let mut changes = TokioSocket::new(NETLINK_ROUTE)?;
        let groups =
            RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;
        changes.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { handle, changes })
    }

    /// Waits until something has changed and tells the addresses of then. Not cancel-safe: run it
    /// in a task of its own.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn changed(&mut self) -> Result<Vec<IpAddr>, String> {
        self.message().await?;
        tokio::time::sleep(SETTLE).await;
        self.drain();
        self.now().await
    }

    /// Tells every change to the shell, at a bounded pace, until one of the two ends.
    pub async fn tell(mut self, shell: mpsc::Sender<Vec<IpAddr>>) {
        loop {
            match self.changed().await {
                Ok(addresses) => {
                    if shell.send(addresses).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!("{error}"),
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn message(&mut self) -> Result<(), String> {
        let mut message = Vec::with_capacity(MESSAGE_OCTETS);
        match self.changes.recv(&mut message).await {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(error) => Err(format!("cannot watch the addresses: {error}")),
        }
    }

    /// Forgets what is known already: that something changed.
    fn drain(&mut self) {
        let mut message = Vec::with_capacity(MESSAGE_OCTETS);
        for _ in 0..DRAIN_MAX {
            message.clear();
            let received = self
                .changes
                .socket_ref()
                .recv(&mut message, libc::MSG_DONTWAIT);
            if received.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
        }
    }

    /// The addresses of now, sorted.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn now(&self) -> Result<Vec<IpAddr>, String> {
        Ok(read(&self.handle).await?.into_iter().collect())
    }
}

pub(crate) async fn read(handle: &Handle) -> Result<BTreeSet<IpAddr>, String> {
    let mut answers = Box::pin(handle.address().get().execute());
    let mut addresses = BTreeSet::new();
    loop {
        match answers.try_next().await {
            Ok(Some(message)) => addresses.extend(usable(&message)),
            Ok(None) => return Ok(addresses),
            Err(error) => {
                return Err(format!("cannot list the addresses: {}", text(&error)));
            }
        }
    }
}

/// The address, if packets can be sent from it and it means something beyond one link.
pub(crate) fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    // Duplicate address detection (RFC 4862 §5.4): until it has ended the address is not ours.
    let undecided =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if undecided || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    // On point-to-point links IFA_ADDRESS is the peer's address and IFA_LOCAL is ours.
    local.or(address).filter(|address| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        message
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn on_a_point_to_point_link_our_own_end_counts() {
        let found = usable(&message(vec![
            AddressAttribute::Address(ip("192.0.2.2")),
            AddressAttribute::Local(ip("192.0.2.1")),
        ]));
        assert_eq!(found, Some(ip("192.0.2.1")));
    }

    #[test]
    fn tentative_link_local_and_loopback_addresses_do_not_count() {
        let tentative = message(vec![
            AddressAttribute::Address(ip("2001:db8::1")),
            AddressAttribute::Flags(AddressFlags::Tentative),
        ]);
        assert_eq!(usable(&tentative), None);
        for text in ["fe80::1", "169.254.0.1", "127.0.0.1", "::1"] {
            let found = usable(&message(vec![AddressAttribute::Address(ip(text))]));
            assert_eq!(found, None, "{text}");
        }
    }
}
