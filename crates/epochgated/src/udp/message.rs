//! One UDP message with its control data: pktinfo, overflow count, non-ESP marker.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg,
};

/// Four zero octets where ESP would have its SPI tell IKE from ESP on port 4500 (RFC 3948 §2.2).
pub(super) const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one octet of a NAT keepalive (RFC 3948 §2.3).
pub(super) const KEEPALIVE: [u8; 1] = [0xff];

/// What came with a datagram.
#[derive(Debug)]
pub(super) struct Received {
    /// Octets in the buffer.
    pub(super) length: usize,
    /// The address that it was sent to.
    pub(super) local: Option<IpAddr>,
    /// The interface that it came in by.
    pub(super) interface: u32,
    /// Who sent it.
    pub(super) remote: SocketAddr,
    /// Whether it was longer than the buffer.
    pub(super) truncated: bool,
    /// How many the kernel has dropped on this socket so far, when it says so (SO_RXQ_OVFL).
    pub(super) overflowed: Option<u32>,
}

/// What a datagram on port 4500 is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unwrapped<'a> {
    /// An IKE message, its marker taken off.
    Ike(&'a [u8]),
    /// A NAT keepalive.
    Keepalive,
    /// Neither: ESP that the kernel left to us, or noise.
    NotIke,
}

/// Tells IKE from keepalives on port 4500.
pub(super) fn unwrap(octets: &[u8]) -> Unwrapped<'_> {
    if octets == KEEPALIVE {
        return Unwrapped::Keepalive;
    }
    match octets.strip_prefix(&NON_ESP_MARKER) {
        Some(payload) => Unwrapped::Ike(payload),
        None => Unwrapped::NotIke,
    }
}

/// The local end of a datagram. Link-local addresses mean something on one interface only.
pub(super) fn with_port(address: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddrV4::new(address, port).into(),
        IpAddr::V6(address) => {
            let scope = if address.is_unicast_link_local() {
                interface
            } else {
                0
            };
            SocketAddrV6::new(address, port, 0, scope).into()
        }
    }
}

/// Takes one datagram without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo, u32);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let remote = message
        .address
        .as_ref()
        .and_then(socket_address)
        .ok_or_else(|| io::Error::other("a datagram without a source"))?;
    let mut received = Received {
        length: message.bytes,
        local: None,
        interface: 0,
        remote,
        truncated: message.flags.contains(MsgFlags::MSG_TRUNC),
        overflowed: None,
    };
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                received.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                received.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                received.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                received.interface = info.ipi6_ifindex;
            }
            ControlMessageOwned::RxqOvfl(count) => received.overflowed = Some(count),
            _ => {}
        }
    }
    Ok(received)
}

/// Sends one datagram from `local`, whatever address the route would choose.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    local: SocketAddr,
    remote: SocketAddr,
    marker: &[u8],
    payload: &[u8],
) -> io::Result<()> {
    let slices = [IoSlice::new(marker), IoSlice::new(payload)];
    let fd = socket.as_raw_fd();
    match (local, remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(*local.ip()).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(
                fd,
                &slices,
                &[ControlMessage::Ipv4PacketInfo(&info)],
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn::from(remote)),
            )?;
        }
        (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: local.ip().octets(),
                },
                ipi6_ifindex: local.scope_id(),
            };
            sendmsg(
                fd,
                &slices,
                &[ControlMessage::Ipv6PacketInfo(&info)],
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn6::from(remote)),
            )?;
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{local} and {remote} are of different families"),
            ));
        }
    }
    Ok(())
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*address).into());
    }
    storage
        .as_sockaddr_in6()
        .map(|address| SocketAddrV6::from(*address).into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").expect("bind");
        setsockopt(&server, sockopt::Ipv4PacketInfo, &true).expect("pktinfo");
        let port = server.local_addr().expect("address").port();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.send_to(b"ask", ("127.0.0.7", port)).expect("send");

        let mut buffer = [0; 16];
        let request = receive(server.as_fd(), &mut buffer).expect("receive");
        assert_eq!(request.length, 3);
        let local = request.local.expect("pktinfo");
        assert_eq!(local, IpAddr::from([127, 0, 0, 7]));
        assert_eq!(request.remote, client.local_addr().expect("address"));

        let from = with_port(local, port, request.interface);
        send(server.as_fd(), from, request.remote, &[0; 4], b"answer").expect("send");
        let (length, source) = client.recv_from(&mut buffer).expect("receive");
        assert_eq!(&buffer[..length], b"\0\0\0\0answer");
        assert_eq!(source, from);
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_reported_as_truncated() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client
            .send_to(&[1; 64], server.local_addr().expect("address"))
            .expect("send");
        let mut buffer = [0; 16];
        let message = receive(server.as_fd(), &mut buffer).expect("receive");
        assert!(message.truncated);
    }

    #[test]
    fn a_marker_alone_is_an_empty_message_and_less_is_none() {
        assert_eq!(unwrap(&[0; 4]), Unwrapped::Ike(&[]));
        assert_eq!(unwrap(&[0; 3]), Unwrapped::NotIke);
        assert_eq!(unwrap(&[]), Unwrapped::NotIke);
        assert_eq!(unwrap(&[0xff, 0xff]), Unwrapped::NotIke);
    }

    #[test]
    fn only_link_local_addresses_keep_their_interface() {
        let global = with_port("2001:db8::1".parse().expect("address"), 500, 7);
        let local = with_port("fe80::1".parse().expect("address"), 500, 7);
        assert_eq!(global.to_string(), "[2001:db8::1]:500");
        assert_eq!(local.to_string(), "[fe80::1%7]:500");
    }
}
