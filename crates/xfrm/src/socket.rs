//! The blocking socket: requests go to the kernel, which answers before the call returns.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::{SocketAddr, protocols::NETLINK_XFRM};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::exchange::Exchange;
use crate::netlink::{self, Inbox, KERNEL_PORT, REQUEST_BUFFER};
use crate::request::{self, Batch, Query, body};
use crate::wire::writer::Writer;
use crate::{
    Cause, DefaultActions, DumpEnd, EventState, EventThresholds, Op, Operation, Policy,
    PolicyEntry, PolicyId, Result, Sa, SaEntry, SaFilter, SaRef, SadInfo, SpdInfo, SpiRequest,
    XfrmError, dump,
};

/// How long to wait for an answer. The kernel answers while it takes the request, so this passes
/// only where an answer was lost.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a whole list is read at most, to get one during which nothing changed.
pub(crate) const DUMP_ATTEMPTS: usize = 3;

/// A blocking socket to the kernel's SAD and SPD.
///
/// ```no_run
/// // Needs CAP_NET_ADMIN.
/// use epochgate_xfrm::Socket;
///
/// let mut socket = Socket::open()?;
/// for entry in socket.sas()? {
///     println!("{:?}: {} packets", entry.sa.id(), entry.usage.packets);
/// }
/// # Ok::<(), epochgate_xfrm::XfrmError>(())
/// ```
pub struct Socket {
    socket: netlink_sys::Socket,
    inbox: Inbox,
    sequence: u32,
    /// An exchange was given up; its late answers may still lie in the socket.
    stale: bool,
}

impl fmt::Debug for Socket {
    /// Nothing of what goes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// EPROTONOSUPPORT if the kernel has no XFRM over netlink. CAP_NET_ADMIN is asked for by the
    /// operations only.
    pub fn open() -> Result<Self> {
        Self::try_open().map_err(|error| XfrmError::refused(Operation::Open, &error))
    }

    fn try_open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_XFRM)?;
        netlink::prepare(&mut socket, REQUEST_BUFFER)?;
        #[allow(clippy::cast_possible_wrap)] // Five seconds.
        let timeout = TimeVal::new(ANSWER_TIMEOUT.as_secs() as _, 0);
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self {
            socket,
            inbox: Inbox::new(),
            sequence: 0,
            stale: false,
        })
    }

    /// Adds an SA (NEWSA). From this moment the kernel uses it for any template that it fits and
    /// that pins no other SPI.
    ///
    /// # Errors
    /// EEXIST if there is one with this destination, protocol and SPI, be it a larval one;
    /// EPROTONOSUPPORT without ESP in the kernel; ENOSYS for an unknown algorithm.
    pub fn add_sa(&mut self, sa: &Sa) -> Result<()> {
        self.apply(Op::AddSa(sa))
    }

    /// Updates an SA (UPDSA): completes a larval one; of a complete one changes the ports of its
    /// encapsulation, its limits, output mark and interface, never keys, addresses or selector
    /// (kernel: `xfrm_state_update`).
    ///
    /// # Errors
    /// ESRCH if there is none; EINVAL if a complete one would gain or lose encapsulation.
    pub fn update_sa(&mut self, sa: &Sa) -> Result<()> {
        self.apply(Op::UpdateSa(sa))
    }

    /// Deletes an SA (DELSA). Traffic of a policy pinned to it is held from then on.
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn delete_sa(&mut self, sa: impl Into<SaRef>) -> Result<()> {
        self.apply(Op::DeleteSa(sa.into()))
    }

    /// Reads an SA and its counters (GETSA).
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn sa(&mut self, sa: impl Into<SaRef>) -> Result<SaEntry> {
        let sa = sa.into();
        self.query_one(&request::get_sa(&sa), body::sa(&sa))
    }

    /// Lists the SAD, all of it at once: [`for_each_sa`](Self::for_each_sa) does with less memory.
    ///
    /// It is listed again if it changed meanwhile, up to three times in all. What still changed
    /// during the last one may be missing, and so does an entry that can't be read:
    /// [`for_each_sa`](Self::for_each_sa) tells of both.
    ///
    /// # Errors
    /// As the socket fails.
    pub fn sas(&mut self) -> Result<Vec<SaEntry>> {
        self.collect(|socket, entries| {
            socket.for_each_sa(&SaFilter::ALL, |entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })
        })
    }

    /// Hands the entries of the SAD to `visit` one by one, as the kernel lists them (GETSA): newest
    /// first. No more than one datagram of them (32 KiB) is kept at any time.
    ///
    /// An entry that can't be read hides no other one: [`DumpEnd::unreadable`] counts them. SAs
    /// that come or go meanwhile are no error: see [`DumpEnd::changed`]. `visit` may break the list
    /// off; the socket stays usable, but its next call first takes the rest of the list off the
    /// kernel, so drop it instead if nothing else is asked of it.
    ///
    /// ```no_run
    /// // Needs CAP_NET_ADMIN.
    /// use std::ops::ControlFlow;
    ///
    /// use epochgate_xfrm::{SaFilter, Socket};
    ///
    /// let mut packets = 0;
    /// let to_us = SaFilter::ALL.to_destination("192.0.2.1/32".parse()?);
    /// let end = Socket::open()?.for_each_sa(&to_us, |entry| {
    ///     packets += entry.usage.packets;
    ///     ControlFlow::Continue(())
    /// })?;
    /// println!("{} SAs brought {packets} packets", end.visited);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Cause::Invalid`] for a filter of two address families, EPERM without CAP_NET_ADMIN.
    pub fn for_each_sa(
        &mut self,
        filter: &SaFilter,
        visit: impl FnMut(SaEntry) -> ControlFlow<()>,
    ) -> Result<DumpEnd> {
        let before = self.sad_info()?.sas;
        let mut end = self.dump(&request::list_sas(), body::sa_filter(filter), visit)?;
        if !end.stopped {
            let after = self.sad_info()?.sas;
            let is_whole = *filter == SaFilter::ALL;
            dump::compare_counts(&mut end, before.into(), after.into(), is_whole);
        }
        Ok(end)
    }

    /// Lets the kernel choose an SPI (ALLOCSPI). The larval SA that keeps it lives for
    /// `net.core.xfrm_acq_expires` (30 s); [`update_sa`](Self::update_sa) completes it.
    ///
    /// # Errors
    /// ENOENT if no SPI of the range is free.
    pub fn allocate_spi(&mut self, wanted: &SpiRequest) -> Result<SaEntry> {
        self.query_one(&request::allocate_spi(), body::spi(wanted))
    }

    /// Adds a policy (NEWPOLICY, exclusively).
    ///
    /// # Errors
    /// EEXIST if there is one with this selector, direction, mark and interface, whatever its
    /// priority.
    pub fn add_policy(&mut self, policy: &Policy) -> Result<()> {
        self.apply(Op::AddPolicy(policy))
    }

    /// Adds a policy or replaces the one with its selector, direction, mark and interface
    /// (UPDPOLICY), atomically: every packet meets the old or the new one. Packets that the old
    /// one held go on through the new one's SA, or in clear if the new one allows without
    /// template, or nowhere if it blocks.
    ///
    /// Acknowledge the SA first: a pinned SPI whose reqid does not fit purges what is held.
    ///
    /// # Errors
    /// EINVAL for what the kernel does not take.
    pub fn update_policy(&mut self, policy: &Policy) -> Result<()> {
        self.apply(Op::UpdatePolicy(policy))
    }

    /// Deletes a policy (DELPOLICY). What it held is discarded; what it protected meets the next
    /// policy, or leaves in clear.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn delete_policy(&mut self, id: &PolicyId) -> Result<()> {
        self.apply(Op::DeletePolicy(*id))
    }

    /// Reads a policy (GETPOLICY).
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn policy(&mut self, id: &PolicyId) -> Result<PolicyEntry> {
        self.query_one(&request::get_policy(id), body::policy(id))
    }

    /// Lists the SPD, sockets' own policies included, all of it at once:
    /// [`for_each_policy`](Self::for_each_policy) does with less memory. Listed again and possibly
    /// lacking entries as [`sas`](Self::sas) says.
    ///
    /// # Errors
    /// As the socket fails.
    pub fn policies(&mut self) -> Result<Vec<PolicyEntry>> {
        self.collect(|socket, entries| {
            socket.for_each_policy(|entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })
        })
    }

    /// Hands the entries of the SPD to `visit` one by one, sockets' own policies included, as
    /// [`for_each_sa`](Self::for_each_sa) does with SAs. The kernel filters none of them.
    ///
    /// A policy that is updated meanwhile is replaced by a new one, and so may be missing: see
    /// [`DumpEnd::changed`].
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn for_each_policy(
        &mut self,
        visit: impl FnMut(PolicyEntry) -> ControlFlow<()>,
    ) -> Result<DumpEnd> {
        let before = self.spd_info()?.policies();
        let mut end = self.dump(&request::list_policies(), body::none, visit)?;
        if !end.stopped {
            let after = self.spd_info()?.policies();
            dump::compare_counts(&mut end, before, after, true);
        }
        Ok(end)
    }

    /// Reads an SA's sequence numbers, counters and event thresholds (GETAE).
    ///
    /// # Errors
    /// ESRCH if there is no such SA.
    pub fn event_state(&mut self, sa: impl Into<SaRef>) -> Result<EventState> {
        let sa = sa.into();
        self.query_one(&request::get_event_state(&sa), body::event_state(&sa))
    }

    /// Sets when an SA sends NEWAE events (XFRM_MSG_NEWAE). This itself sends one to listeners,
    /// with [`EventFlags::CAUSE_UPDATE`](crate::EventFlags::CAUSE_UPDATE).
    ///
    /// # Errors
    /// ESRCH if there is no such SA, EINVAL if it is a larval one.
    pub fn set_event_thresholds(
        &mut self,
        sa: impl Into<SaRef>,
        thresholds: EventThresholds,
    ) -> Result<()> {
        self.apply(Op::SetEventThresholds(sa.into(), thresholds))
    }

    /// Reads the size of the SAD (GETSADINFO).
    ///
    /// # Errors
    /// As the socket fails.
    pub fn sad_info(&mut self) -> Result<SadInfo> {
        self.query_one(&request::get_sad_info(), body::flags)
    }

    /// Reads the size of the SPD (GETSPDINFO).
    ///
    /// # Errors
    /// As the socket fails.
    pub fn spd_info(&mut self) -> Result<SpdInfo> {
        self.query_one(&request::get_spd_info(), body::flags)
    }

    /// Reads what happens to packets that meet no policy (GETDEFAULT).
    ///
    /// # Errors
    /// EINVAL before Linux 5.15.
    pub fn default_actions(&mut self) -> Result<DefaultActions> {
        self.query_one(&request::get_default_actions(), body::flags)
    }

    /// Does many things with few system calls, in order. A refused one stops none after it; only a
    /// broken socket does ([`Cause::NotSent`]). There is one result per operation.
    pub fn batch(&mut self, ops: &[Op<'_>]) -> Vec<Result<()>> {
        let mut batch = Batch::new(ops);
        while let Some(mut chunk) = batch.next_chunk(&mut self.sequence) {
            let outcome = self.run(&chunk.writer, &mut chunk.exchange, ControlFlow::Continue);
            batch.finish_chunk(chunk, outcome);
        }
        batch.into_results()
    }

    fn apply(&mut self, op: Op<'_>) -> Result<()> {
        self.batch(&[op]).pop().unwrap_or(Ok(()))
    }

    fn query_one<T>(
        &mut self,
        query: &Query<T>,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
    ) -> Result<T> {
        let mut item = None;
        let exchange = self.query(query, put_body, |answer| {
            item.get_or_insert(answer);
            ControlFlow::Continue(())
        })?;
        exchange.into_item(item)
    }

    fn dump<T>(
        &mut self,
        query: &Query<T>,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
        visit: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<DumpEnd> {
        self.query(query, put_body, visit)?.into_end()
    }

    fn collect<T>(
        &mut self,
        mut list: impl FnMut(&mut Self, &mut Vec<T>) -> Result<DumpEnd>,
    ) -> Result<Vec<T>> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            entries.clear();
            if !list(self, &mut entries)?.changed {
                break;
            }
        }
        Ok(entries)
    }

    fn query<T>(
        &mut self,
        query: &Query<T>,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
        take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<Exchange<T>> {
        let mut writer = Writer::new();
        let mut exchange = query.begin(&mut writer, &mut self.sequence, put_body)?;
        self.run(&writer, &mut exchange, take)
            .map_err(|cause| XfrmError::new(query.operation, cause))?;
        Ok(exchange)
    }

    fn run<T>(
        &mut self,
        request: &Writer,
        exchange: &mut Exchange<T>,
        take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        if self.stale {
            self.discard_stale();
        }
        self.stale = true;
        let outcome = self.exchange(request, exchange, take);
        self.inbox.wipe();
        self.stale = !exchange.is_finished();
        outcome
    }

    fn exchange<T>(
        &mut self,
        request: &Writer,
        exchange: &mut Exchange<T>,
        mut take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        let kernel = SocketAddr::new(KERNEL_PORT, 0);
        self.socket
            .send_to(request.bytes(), &kernel, 0)
            .map_err(|error| Cause::of(&error))?;
        while !exchange.is_finished() && !exchange.was_stopped() {
            let (_, sender) = match self.socket.recv_from(self.inbox.buffer(), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received.map_err(|error| Cause::of(&error))?,
            };
            if let Some(datagram) = self.inbox.datagram(&sender) {
                exchange
                    .absorb(datagram, &mut take)
                    .map_err(Cause::Malformed)?;
            }
        }
        Ok(())
    }

    /// Reads and forgets the answers to an exchange that was given up. The kernel has answered
    /// already, and a dump that is not read to its end would make the next one fail with EBUSY.
    fn discard_stale(&mut self) {
        for _ in 0..netlink::STALE_DATAGRAMS_MAX {
            let received = self
                .socket
                .recv_from(self.inbox.buffer(), libc::MSG_DONTWAIT);
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {}
            }
        }
    }
}
