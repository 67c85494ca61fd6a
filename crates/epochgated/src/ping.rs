//! Control pings: echo requests through exactly one epoch, and the replies to them.
//!
//! The controller names the epoch's outbound SA; a socket policy (`IP_XFRM_POLICY`,
//! `IPV6_XFRM_POLICY`) pins the request to it, whatever the tunnel's own policies do at that
//! moment. Replies reach a raw socket per family, where a filter in the kernel lets only those with
//! our magic pass, and go to the controller with their nonce.

mod packet;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};

use epochgate_controller::io::{ControlPing, PING_MARK, PingNonce};
use epochgate_xfrm::socket_policy::{set_socket_bypass, set_socket_policy};
use epochgate_xfrm::{Reqid, Spi, Template};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Replies that are taken per wake-up, so that a flood starves nobody.
const BATCH_REPLIES: usize = 16;
/// Octets of a reply that are read: an IPv4 header with all options (60), and the echo.
const REPLY_OCTETS_MAX: usize = 60 + packet::ECHO_OCTETS;

/// Sends control pings and hears their replies.
#[derive(Debug)]
pub struct Pinger {
    receivers: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    ipv6: bool,
    fd: AsyncFd<OwnedFd>,
}

impl Pinger {
    /// Opens the receiving sockets; a host without IPv6 gets the IPv4 one alone.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let mut receivers = vec![Receiver::open(false)?];
        match Receiver::open(true) {
            Ok(receiver) => receivers.push(receiver),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { receivers })
    }

    /// Sends one control ping, through this interface if its epoch belongs to one: there the marked
    /// policy, which the controller has pinned, brings it to its SA, and the socket is exempt from
    /// what holds before the interface.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub fn send(&self, ping: &ControlPing, interface: Option<&str>) -> Result<(), String> {
        let ipv6 = ping.source.is_ipv6();
        if ipv6 != ping.target.is_ipv6() {
            return Err(format!(
                "control ping from {} to {}: the families differ",
                ping.source, ping.target
            ));
        }
        let socket =
            raw_socket(ipv6).map_err(|error| format!("cannot open a raw socket: {error}"))?;
        match (ping.if_id, interface) {
            (None, _) => pin(&socket, ping)?,
            (Some(_), Some(interface)) => send_through(&socket, interface, ping)?,
            (Some(if_id), None) => {
                return Err(format!(
                    "control ping: there is no xfrm interface {:#x}",
                    if_id.0
                ));
            }
        }
        socket
            .bind(&SockAddr::from(SocketAddr::new(ping.source, 0)))
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL) => format!(
                    "control ping: {} is no address of this host; set ping.source to one that is \
                     inside the local traffic selectors",
                    ping.source
                ),
                _ => format!("control ping: cannot send from {}: {error}", ping.source),
            })?;
        let request = packet::request(ping.nonce, ipv6);
        socket
            .send_to(&request, &SockAddr::from(SocketAddr::new(ping.target, 0)))
            .map_err(|error| format!("control ping to {}: {error}", ping.target))?;
        Ok(())
    }

    /// Waits for replies and takes a bounded number of them. Cancel-safe.
    pub async fn receive(&self) -> Vec<(PingNonce, IpAddr)> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Vec<(PingNonce, IpAddr)>> {
        let mut replies = Vec::new();
        let mut progress = false;
        for receiver in &self.receivers {
            for _ in 0..BATCH_REPLIES {
                let Poll::Ready(Ok(mut ready)) = receiver.fd.poll_read_ready(context) else {
                    break;
                };
                match ready.try_io(|fd| receive_one(fd.get_ref(), receiver.ipv6)) {
                    Ok(outcome) => {
                        progress = true;
                        replies.extend(outcome.ok().flatten());
                    }
                    Err(_would_block) => {}
                }
            }
        }
        if progress {
            Poll::Ready(replies)
        } else {
            Poll::Pending
        }
    }
}

impl Receiver {
    fn open(ipv6: bool) -> io::Result<Self> {
        let socket = raw_socket(ipv6)?;
        let filter = packet::reply_filter(ipv6);
        socket.attach_filter(&filter)?;
        Ok(Self {
            ipv6,
            fd: sys::readable(socket.into())?,
        })
    }
}

/// Brings what a socket sends to the epoch's SA, whatever the tunnel's policies do.
fn pin(socket: &Socket, ping: &ControlPing) -> Result<(), String> {
    let template = Template::esp_tunnel(ping.outer_source, ping.sa.destination, Reqid(ping.reqid))
        .pinned_to(Spi::from(ping.sa.spi.0));
    set_socket_policy(socket, ping.source.into(), &[template])
        .map_err(|error| format!("cannot pin the control ping to its epoch: {error}"))
}

/// Brings what a socket sends to the interface's marked policy. A socket's own policy has no if_id
/// and finds no SA that has one (`xfrm_state_look_at`).
fn send_through(socket: &Socket, interface: &str, ping: &ControlPing) -> Result<(), String> {
    set_socket_bypass(socket, ping.source.into())
        .map_err(|error| format!("cannot send the control ping past the hold: {error}"))?;
    socket
        .bind_device(Some(interface.as_bytes()))
        .and_then(|()| socket.set_mark(PING_MARK))
        .map_err(|error| format!("cannot send the control ping through {interface}: {error}"))
}

fn raw_socket(ipv6: bool) -> io::Result<Socket> {
    let socket = if ipv6 {
        Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?
    } else {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One packet from the receiving socket; `None` when it is no reply to a control ping.
fn receive_one(socket: &OwnedFd, ipv6: bool) -> io::Result<Option<(PingNonce, IpAddr)>> {
    let mut buffer = [0; REPLY_OCTETS_MAX];
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)?;
    let from = from.and_then(|from| {
        let ipv4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        ipv4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
    });
    let octets = buffer.get(..length).unwrap_or(&buffer);
    Ok(packet::reply_nonce(octets, ipv6).zip(from))
}
