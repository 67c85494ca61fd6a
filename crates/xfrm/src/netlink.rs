//! Netlink sockets as this crate needs them: buffers, options, receiving. Under every other socket
//! type here.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use zeroize::{Zeroize, Zeroizing};

/// The kernel's address.
pub(crate) const KERNEL_PORT: u32 = 0;
/// Room for a datagram: the kernel fills dumps up to 32 KiB (`netlink_recvmsg`).
const DATAGRAM_LENGTH: usize = 64 * 1024;
/// Receive buffer of a socket for requests, in bytes: the answers to a whole chunk wait in it.
pub(crate) const REQUEST_BUFFER: usize = 1024 * 1024;
/// Receive buffer of a socket for events, in bytes: about 10,000 events.
pub(crate) const EVENT_BUFFER: usize = 8 * 1024 * 1024;
/// How many datagrams are thrown away at most to get rid of answers to a request given up.
pub(crate) const STALE_DATAGRAMS_MAX: usize = 100_000;

/// Binds a fresh socket and sets its options.
pub(crate) fn prepare(socket: &mut Socket, receive_buffer: usize) -> io::Result<()> {
    socket.bind_auto()?;
    // Acknowledgements without the request in them, which may carry keys, and with words.
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    // Past net.core.rmem_max needs CAP_NET_ADMIN in the first user namespace.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &receive_buffer).is_err() {
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &receive_buffer)?;
    }
    Ok(())
}

/// What a socket receives into. It is wiped after every datagram: dumps and events carry keys.
pub(crate) struct Inbox(Zeroizing<Vec<u8>>);

impl Inbox {
    pub(crate) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(DATAGRAM_LENGTH)))
    }

    /// The empty buffer to receive into.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.wipe();
        &mut self.0
    }

    /// The datagram received last, if the kernel sent it.
    pub(crate) fn datagram(&self, sender: &SocketAddr) -> Option<&[u8]> {
        (sender.port_number() == KERNEL_PORT).then_some(self.0.as_slice())
    }

    pub(crate) fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.clear();
    }
}
