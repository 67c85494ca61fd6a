//! IKE's UDP sockets: datagrams from the network to the controller and back.
//!
//! Up to four wildcard sockets: ports 500 and 4500, IPv4 and IPv6. Each carries its own bypass
//! policies, so that no policy of ours or of anybody else catches IKE, and tells the exact local
//! address of what it receives, so that answers leave from there. On port 4500 the kernel takes
//! ESP away before we see it (RFC 3948); the non-ESP marker is added and stripped here.

mod message;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use epochgate_controller::io::Datagram;
use epochgate_xfrm::socket_policy::{Family, set_socket_bypass};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use self::message::{Received, Unwrapped};
use crate::sys;

/// IKE (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// IKE and UDP-encapsulated ESP where there is a NAT (RFC 7296 §2.23, RFC 3948).
pub const NAT_T_PORT: u16 = 4500;
/// Octets of the longest UDP datagram, a limit on what is received (RFC 768).
pub const DATAGRAM_OCTETS_MAX: usize = 65_535;
/// Octets of the longest payload that is sent: what an IPv4 datagram leaves (RFC 791, RFC 768).
pub const PAYLOAD_OCTETS_MAX: usize = 65_507;
/// Datagrams that are taken from each socket before timers and the kernel's events get their turn.
const BATCH_DATAGRAMS: usize = 32;
/// Octets that each socket may queue in the kernel. A flood beyond is dropped there, and counted.
const RECEIVE_BUFFER_OCTETS: usize = 1 << 20;

/// What was dropped or could not be sent, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that the kernel dropped because our queue was full (SO_RXQ_OVFL).
    pub overflowed: u64,
    /// Datagrams without a non-ESP marker on port 4500, truncated ones, and those to no unicast
    /// address.
    pub malformed: u64,
    /// NAT keepalives (RFC 3948 §2.3).
    pub keepalives: u64,
    /// Datagrams that the kernel did not take.
    pub unsent: u64,
}

/// Why a socket could not be opened.
#[derive(Debug, Error)]
#[error("cannot open UDP port {port} ({family}): {source}")]
pub struct OpenError {
    /// The port.
    pub port: u16,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Why.
    pub source: io::Error,
}

/// The open sockets.
#[derive(Debug)]
pub struct IkeSockets {
    sockets: Vec<IkeSocket>,
    buffer: Vec<u8>,
    counters: Counters,
}

#[derive(Debug)]
struct IkeSocket {
    port: u16,
    ipv6: bool,
    fd: AsyncFd<OwnedFd>,
    overflowed: u32,
}

impl IkeSockets {
    /// Opens all of them. A host without IPv6 gets the IPv4 ones alone.
    ///
    /// # Errors
    /// [`OpenError`], also when the port is taken (EADDRINUSE).
    pub fn open() -> Result<Self, OpenError> {
        let mut sockets = Vec::new();
        for port in [IKE_PORT, NAT_T_PORT] {
            for ipv6 in [false, true] {
                match IkeSocket::open(port, ipv6) {
                    Ok(socket) => sockets.push(socket),
                    Err(error) if ipv6 && has_no_ipv6(&error) => {}
                    Err(source) => {
                        let family = if ipv6 { "IPv6" } else { "IPv4" };
                        return Err(OpenError {
                            port,
                            family,
                            source,
                        });
                    }
                }
            }
        }
        Ok(Self {
            sockets,
            buffer: vec![0; DATAGRAM_OCTETS_MAX],
            counters: Counters::default(),
        })
    }

    /// What was dropped.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Waits for datagrams and takes a bounded number of them. Cancel-safe.
    pub async fn receive(&mut self) -> VecDeque<Datagram> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<VecDeque<Datagram>> {
        let mut received = VecDeque::new();
        let mut progress = false;
        for socket in &mut self.sockets {
            for _ in 0..BATCH_DATAGRAMS {
                let Poll::Ready(Ok(mut ready)) = socket.fd.poll_read_ready(context) else {
                    break;
                };
                let outcome =
                    ready.try_io(|fd| message::receive(fd.get_ref().as_fd(), &mut self.buffer));
                match outcome {
                    Ok(Ok(message)) => {
                        progress = true;
                        let overflowed = message.overflowed.unwrap_or(socket.overflowed);
                        self.counters.overflowed +=
                            u64::from(overflowed.wrapping_sub(socket.overflowed));
                        socket.overflowed = overflowed;
                        let datagram = accept(
                            socket.port,
                            &message,
                            &self.buffer[..message.length.min(DATAGRAM_OCTETS_MAX)],
                            &mut self.counters,
                        );
                        received.extend(datagram);
                    }
                    // An ICMP error that a datagram of ours met (ECONNREFUSED and the like): IKE's
                    // own retransmission deals with it.
                    Ok(Err(_)) => progress = true,
                    Err(_would_block) => {}
                }
            }
        }
        if progress {
            Poll::Ready(received)
        } else {
            Poll::Pending
        }
    }

    /// Sends a datagram from exactly its local address.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` when there is no socket of that family and port, and
    /// `InvalidInput` for a payload above [`PAYLOAD_OCTETS_MAX`].
    pub fn send(&mut self, datagram: &Datagram) -> io::Result<()> {
        let outcome = self.try_send(datagram);
        if outcome.is_err() {
            self.counters.unsent += 1;
        }
        outcome
    }

    /// Sends a NAT keepalive (RFC 3948 §2.3): one octet, no marker.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_keepalive(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
        let outcome = self.socket_for(local).and_then(|socket| {
            let fd = socket.fd.get_ref().as_fd();
            message::send(fd, local, remote, &message::KEEPALIVE, &[])
        });
        if outcome.is_err() {
            self.counters.unsent += 1;
        }
        outcome
    }

    fn socket_for(&self, local: SocketAddr) -> io::Result<&IkeSocket> {
        let fits =
            |socket: &&IkeSocket| socket.ipv6 == local.is_ipv6() && socket.port == local.port();
        self.sockets.iter().find(fits).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no IKE socket for {local}"),
            )
        })
    }

    fn try_send(&self, datagram: &Datagram) -> io::Result<()> {
        let port = datagram.local.port();
        let socket = self.socket_for(datagram.local)?;
        let marker: &[u8] = if port == NAT_T_PORT {
            &message::NON_ESP_MARKER
        } else {
            &[]
        };
        if marker.len() + datagram.payload.len() > PAYLOAD_OCTETS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "an IKE message of {} octets is above the limit of {PAYLOAD_OCTETS_MAX}",
                    datagram.payload.len()
                ),
            ));
        }
        message::send(
            socket.fd.get_ref().as_fd(),
            datagram.local,
            datagram.remote,
            marker,
            &datagram.payload,
        )
    }
}

impl IkeSocket {
    fn open(port: u16, ipv6: bool) -> io::Result<Self> {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // A smaller buffer than asked for is no reason to fail.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS);
        let address: IpAddr = if ipv6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        };
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let family = if ipv6 { Family::V6 } else { Family::V4 };
        set_socket_bypass(&socket, family).map_err(|error| match error.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error),
        })?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        if port == NAT_T_PORT {
            sys::set_udp_encapsulation(socket.as_fd())?;
        }
        Ok(Self {
            port,
            ipv6,
            fd: sys::readable(socket.into())?,
            overflowed: 0,
        })
    }
}

/// Whether the error says that the host has no IPv6 at all.
fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENOPROTOOPT)
    )
}

/// Makes a controller's datagram of what was received on `port`, or counts why not.
fn accept(
    port: u16,
    received: &Received,
    octets: &[u8],
    counters: &mut Counters,
) -> Option<Datagram> {
    let Some(local) = received.local.filter(|local| is_unicast(*local)) else {
        counters.malformed += 1;
        return None;
    };
    if received.truncated {
        counters.malformed += 1;
        return None;
    }
    let payload = if port == NAT_T_PORT {
        match message::unwrap(octets) {
            Unwrapped::Ike(payload) => payload,
            Unwrapped::Keepalive => {
                counters.keepalives += 1;
                return None;
            }
            Unwrapped::NotIke => {
                counters.malformed += 1;
                return None;
            }
        }
    } else {
        octets
    };
    Some(Datagram {
        local: message::with_port(local, port, received.interface),
        remote: received.remote,
        payload: payload.to_vec(),
    })
}

fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
        }
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(local: &str) -> Received {
        Received {
            length: 0,
            local: local.parse().ok(),
            interface: 1,
            remote: SocketAddr::from(([192, 0, 2, 1], 500)),
            truncated: false,
            overflowed: None,
        }
    }

    #[test]
    fn a_message_on_port_4500_loses_its_marker() {
        let mut counters = Counters::default();
        let datagram = accept(
            NAT_T_PORT,
            &received("192.0.2.2"),
            &[0, 0, 0, 0, 1, 2, 3],
            &mut counters,
        )
        .expect("accepted");
        assert_eq!(datagram.payload, [1, 2, 3]);
        assert_eq!(datagram.local, SocketAddr::from(([192, 0, 2, 2], 4500)));
    }

    #[test]
    fn a_message_on_port_500_is_passed_as_it_is() {
        let mut counters = Counters::default();
        let datagram = accept(
            IKE_PORT,
            &received("192.0.2.2"),
            &[0, 0, 0, 0, 1],
            &mut counters,
        )
        .expect("accepted");
        assert_eq!(datagram.payload, [0, 0, 0, 0, 1]);
    }

    #[test]
    fn keepalives_and_stray_esp_are_counted_and_dropped() {
        let mut counters = Counters::default();
        let from = received("192.0.2.2");
        assert_eq!(accept(NAT_T_PORT, &from, &[0xff], &mut counters), None);
        assert_eq!(
            accept(NAT_T_PORT, &from, &[1, 2, 3, 4, 5], &mut counters),
            None
        );
        assert_eq!((counters.keepalives, counters.malformed), (1, 1));
    }

    #[test]
    fn a_datagram_to_a_multicast_address_is_dropped() {
        let mut counters = Counters::default();
        assert_eq!(
            accept(IKE_PORT, &received("224.0.0.1"), &[1], &mut counters),
            None
        );
        assert_eq!(counters.malformed, 1);
    }
}
