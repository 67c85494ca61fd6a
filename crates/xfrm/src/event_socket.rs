//! The blocking event socket: multicast messages from the kernel come out as events.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_XFRM;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netlink::{self, EVENT_BUFFER, Inbox};
use crate::wire::{event, frame};
use crate::{EventGroup, Operation, Result, XfrmError, XfrmEvent};

/// A blocking socket that the kernel sends events to.
///
/// ```no_run
/// // Needs CAP_NET_ADMIN, and something to happen.
/// use epochgate_xfrm::{EventGroup, EventSocket};
///
/// let mut events = EventSocket::open(&[EventGroup::Acquire, EventGroup::Expire])?;
/// while let Some(event) = events.next(None)? {
///     println!("{event:?}");
/// }
/// # Ok::<(), epochgate_xfrm::XfrmError>(())
/// ```
pub struct EventSocket {
    socket: netlink_sys::Socket,
    inbox: Inbox,
    pending: VecDeque<XfrmEvent>,
}

impl fmt::Debug for EventSocket {
    /// Nothing of what goes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSocket").finish_non_exhaustive()
    }
}

impl EventSocket {
    /// Opens a socket in the network namespace of the calling thread and joins groups.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EPROTONOSUPPORT if the kernel has no XFRM over netlink.
    pub fn open(groups: &[EventGroup]) -> Result<Self> {
        let mut events =
            Self::try_open().map_err(|error| XfrmError::refused(Operation::Open, &error))?;
        for group in groups {
            events.join(*group)?;
        }
        Ok(events)
    }

    fn try_open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_XFRM)?;
        netlink::prepare(&mut socket, EVENT_BUFFER)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            inbox: Inbox::new(),
            pending: VecDeque::new(),
        })
    }

    /// Joins a group; its events come from now on.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn join(&mut self, group: EventGroup) -> Result<()> {
        let joined = self.socket.add_membership(group.number());
        joined.map_err(|error| XfrmError::socket(Operation::Join(group), &error))
    }

    /// Leaves a group. Events that were sent before may still come.
    ///
    /// # Errors
    /// As the socket fails.
    pub fn leave(&mut self, group: EventGroup) -> Result<()> {
        let left = self.socket.drop_membership(group.number());
        left.map_err(|error| XfrmError::socket(Operation::Leave(group), &error))
    }

    /// Waits for the next event, for `timeout` at most; without one, for ever. `None` is that
    /// nothing came. Events lost are [`XfrmEvent::Overrun`], and the ones that can't be read
    /// [`XfrmEvent::Malformed`]: the socket goes on after both.
    ///
    /// # Errors
    /// As the socket fails.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<XfrmEvent>> {
        let received = self.try_next(timeout);
        received.map_err(|error| XfrmError::socket(Operation::ReceiveEvent, &error))
    }

    fn try_next(&mut self, timeout: Option<Duration>) -> io::Result<Option<XfrmEvent>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.recv_from(self.inbox.buffer(), 0) {
                Ok((_, sender)) => {
                    if let Some(datagram) = self.inbox.datagram(&sender) {
                        read_events(datagram, &mut self.pending);
                    }
                    self.inbox.wipe();
                }
                Err(error) if is_overrun(&error) => return Ok(Some(XfrmEvent::Overrun)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(deadline)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there is something to read; false when the deadline has passed.
    fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                // A poll that ends up to a millisecond early would be followed by a busy one.
                let left = left.saturating_add(Duration::from_millis(1));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut sockets, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The socket's buffer was full and the kernel threw events away.
pub(crate) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Reads all the events of a datagram.
pub(crate) fn read_events(mut datagram: &[u8], events: &mut VecDeque<XfrmEvent>) {
    loop {
        match frame::next_message(&mut datagram) {
            Ok(Some(message)) => events.push_back(event::event(message.kind, message.body)),
            Ok(None) => return,
            Err(error) => {
                events.push_back(XfrmEvent::Malformed {
                    message_type: 0,
                    error,
                });
                return;
            }
        }
    }
}
