//! The two things of the daemon that need `unsafe`: `UDP_ENCAP`, and waiting for a descriptor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `UDP_ENCAP_ESPINUDP` (linux/udp.h): ESP in UDP with a non-ESP marker, RFC 3948.
const UDP_ENCAP_ESPINUDP: libc::c_int = 2;

/// Waits for a descriptor to become readable.
///
/// # Errors
/// Those of `epoll_ctl(2)`.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and always the same descriptor, until it is dropped; here that
    // is by the `AsyncFd`.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}

/// Makes the kernel take ESP out of the UDP datagrams of this socket and decrypt it (RFC 3948,
/// `UDP_ENCAP_ESPINUDP`). IKE messages, marked by four zero octets, and NAT keepalives stay with
/// the socket.
///
/// # Errors
/// ENOPROTOOPT where the kernel was built without ESP in UDP.
pub(crate) fn set_udp_encapsulation(socket: BorrowedFd<'_>) -> io::Result<()> {
    let kind: libc::c_int = UDP_ENCAP_ESPINUDP;
    // SAFETY: the descriptor is borrowed and so open; `kind` outlives the call and its size is
    // given as it is.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_ENCAP,
            (&raw const kind).cast(),
            size_of_val(&kind) as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
