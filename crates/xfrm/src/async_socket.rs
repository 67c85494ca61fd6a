//! The asynchronous sockets, on tokio: the same requests and events as the blocking ones.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;

use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_XFRM};
use tokio::time::timeout;

use crate::event_socket::{is_overrun, read_events};
use crate::exchange::Exchange;
use crate::netlink::{self, EVENT_BUFFER, Inbox, KERNEL_PORT, REQUEST_BUFFER};
use crate::request::{self, Batch, Query, body};
use crate::socket::{ANSWER_TIMEOUT, DUMP_ATTEMPTS};
use crate::wire::writer::Writer;
use crate::{
    Cause, DefaultActions, DumpEnd, EventGroup, EventState, EventThresholds, Op, Operation, Policy,
    PolicyEntry, PolicyId, Result, Sa, SaEntry, SaFilter, SaRef, SadInfo, SpdInfo, SpiRequest,
    XfrmError, XfrmEvent, dump,
};

/// An asynchronous socket to the kernel's SAD and SPD, with the operations of
/// [`Socket`](crate::Socket): errors and effects are described there.
///
/// A future that is dropped before it is done may or may not have had its effect; the socket stays
/// usable.
pub struct AsyncSocket {
    socket: TokioSocket,
    inbox: Inbox,
    sequence: u32,
    /// An exchange was given up; its late answers may still lie in the socket.
    stale: bool,
}

impl fmt::Debug for AsyncSocket {
    /// Nothing of what goes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncSocket").finish_non_exhaustive()
    }
}

impl AsyncSocket {
    /// Opens a socket in the network namespace of the calling thread, on the current tokio
    /// runtime.
    ///
    /// # Errors
    /// EPROTONOSUPPORT if the kernel has no XFRM over netlink.
    pub fn open() -> Result<Self> {
        let socket = open(REQUEST_BUFFER)?;
        Ok(Self {
            socket,
            inbox: Inbox::new(),
            sequence: 0,
            stale: false,
        })
    }

    /// Adds an SA: [`Socket::add_sa`](crate::Socket::add_sa).
    ///
    /// # Errors
    /// EEXIST, EPROTONOSUPPORT, ENOSYS.
    pub async fn add_sa(&mut self, sa: &Sa) -> Result<()> {
        self.apply(Op::AddSa(sa)).await
    }

    /// Updates an SA: [`Socket::update_sa`](crate::Socket::update_sa).
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub async fn update_sa(&mut self, sa: &Sa) -> Result<()> {
        self.apply(Op::UpdateSa(sa)).await
    }

    /// Deletes an SA: [`Socket::delete_sa`](crate::Socket::delete_sa).
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub async fn delete_sa(&mut self, sa: impl Into<SaRef>) -> Result<()> {
        self.apply(Op::DeleteSa(sa.into())).await
    }

    /// Reads an SA: [`Socket::sa`](crate::Socket::sa).
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub async fn sa(&mut self, sa: impl Into<SaRef>) -> Result<SaEntry> {
        let sa = sa.into();
        self.query_one(&request::get_sa(&sa), body::sa(&sa)).await
    }

    /// Lists the SAD: [`Socket::sas`](crate::Socket::sas).
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn sas(&mut self) -> Result<Vec<SaEntry>> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            entries.clear();
            let end = self.for_each_sa(&SaFilter::ALL, |entry| push(&mut entries, entry));
            if !end.await?.changed {
                break;
            }
        }
        Ok(entries)
    }

    /// Hands the entries of the SAD to `visit` one by one:
    /// [`Socket::for_each_sa`](crate::Socket::for_each_sa).
    ///
    /// # Errors
    /// [`Cause::Invalid`] for a filter of two address families, EPERM without CAP_NET_ADMIN.
    pub async fn for_each_sa(
        &mut self,
        filter: &SaFilter,
        visit: impl FnMut(SaEntry) -> ControlFlow<()>,
    ) -> Result<DumpEnd> {
        let before = self.sad_info().await?.sas;
        let exchange = self
            .query(&request::list_sas(), body::sa_filter(filter), visit)
            .await?;
        let mut end = exchange.into_end()?;
        if !end.stopped {
            let after = self.sad_info().await?.sas;
            let is_whole = *filter == SaFilter::ALL;
            dump::compare_counts(&mut end, before.into(), after.into(), is_whole);
        }
        Ok(end)
    }

    /// Lets the kernel choose an SPI: [`Socket::allocate_spi`](crate::Socket::allocate_spi).
    ///
    /// # Errors
    /// ENOENT if no SPI of the range is free.
    pub async fn allocate_spi(&mut self, wanted: &SpiRequest) -> Result<SaEntry> {
        self.query_one(&request::allocate_spi(), body::spi(wanted))
            .await
    }

    /// Adds a policy: [`Socket::add_policy`](crate::Socket::add_policy).
    ///
    /// # Errors
    /// EEXIST if there is one.
    pub async fn add_policy(&mut self, policy: &Policy) -> Result<()> {
        self.apply(Op::AddPolicy(policy)).await
    }

    /// Adds or replaces a policy: [`Socket::update_policy`](crate::Socket::update_policy).
    ///
    /// # Errors
    /// EINVAL for what the kernel does not take.
    pub async fn update_policy(&mut self, policy: &Policy) -> Result<()> {
        self.apply(Op::UpdatePolicy(policy)).await
    }

    /// Deletes a policy: [`Socket::delete_policy`](crate::Socket::delete_policy).
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub async fn delete_policy(&mut self, id: &PolicyId) -> Result<()> {
        self.apply(Op::DeletePolicy(*id)).await
    }

    /// Reads a policy: [`Socket::policy`](crate::Socket::policy).
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub async fn policy(&mut self, id: &PolicyId) -> Result<PolicyEntry> {
        self.query_one(&request::get_policy(id), body::policy(id))
            .await
    }

    /// Lists the SPD: [`Socket::policies`](crate::Socket::policies).
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn policies(&mut self) -> Result<Vec<PolicyEntry>> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            entries.clear();
            let end = self.for_each_policy(|entry| push(&mut entries, entry));
            if !end.await?.changed {
                break;
            }
        }
        Ok(entries)
    }

    /// Hands the entries of the SPD to `visit` one by one:
    /// [`Socket::for_each_policy`](crate::Socket::for_each_policy).
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub async fn for_each_policy(
        &mut self,
        visit: impl FnMut(PolicyEntry) -> ControlFlow<()>,
    ) -> Result<DumpEnd> {
        let before = self.spd_info().await?.policies();
        let exchange = self
            .query(&request::list_policies(), body::none, visit)
            .await?;
        let mut end = exchange.into_end()?;
        if !end.stopped {
            let after = self.spd_info().await?.policies();
            dump::compare_counts(&mut end, before, after, true);
        }
        Ok(end)
    }

    /// Reads an SA's event state: [`Socket::event_state`](crate::Socket::event_state).
    ///
    /// # Errors
    /// ESRCH if there is no such SA.
    pub async fn event_state(&mut self, sa: impl Into<SaRef>) -> Result<EventState> {
        let sa = sa.into();
        self.query_one(&request::get_event_state(&sa), body::event_state(&sa))
            .await
    }

    /// Sets when an SA sends events:
    /// [`Socket::set_event_thresholds`](crate::Socket::set_event_thresholds).
    ///
    /// # Errors
    /// ESRCH if there is no such SA.
    pub async fn set_event_thresholds(
        &mut self,
        sa: impl Into<SaRef>,
        thresholds: EventThresholds,
    ) -> Result<()> {
        self.apply(Op::SetEventThresholds(sa.into(), thresholds))
            .await
    }

    /// Reads the size of the SAD.
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn sad_info(&mut self) -> Result<SadInfo> {
        self.query_one(&request::get_sad_info(), body::flags).await
    }

    /// Reads the size of the SPD.
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn spd_info(&mut self) -> Result<SpdInfo> {
        self.query_one(&request::get_spd_info(), body::flags).await
    }

    /// Reads what happens to packets that meet no policy (GETDEFAULT).
    ///
    /// # Errors
    /// EINVAL before Linux 5.15.
    pub async fn default_actions(&mut self) -> Result<DefaultActions> {
        self.query_one(&request::get_default_actions(), body::flags)
            .await
    }

    /// Does many things with few system calls: [`Socket::batch`](crate::Socket::batch).
    pub async fn batch(&mut self, ops: &[Op<'_>]) -> Vec<Result<()>> {
        let mut batch = Batch::new(ops);
        while let Some(mut chunk) = batch.next_chunk(&mut self.sequence) {
            let outcome = self
                .run(&chunk.writer, &mut chunk.exchange, ControlFlow::Continue)
                .await;
            batch.finish_chunk(chunk, outcome);
        }
        batch.into_results()
    }

    async fn apply(&mut self, op: Op<'_>) -> Result<()> {
        self.batch(&[op]).await.pop().unwrap_or(Ok(()))
    }

    async fn query_one<T>(
        &mut self,
        query: &Query<T>,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
    ) -> Result<T> {
        let mut item = None;
        let exchange = self
            .query(query, put_body, |answer| {
                item.get_or_insert(answer);
                ControlFlow::Continue(())
            })
            .await?;
        exchange.into_item(item)
    }

    async fn query<T>(
        &mut self,
        query: &Query<T>,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
        take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<Exchange<T>> {
        let mut writer = Writer::new();
        let mut exchange = query.begin(&mut writer, &mut self.sequence, put_body)?;
        self.run(&writer, &mut exchange, take)
            .await
            .map_err(|cause| XfrmError::new(query.operation, cause))?;
        Ok(exchange)
    }

    async fn run<T>(
        &mut self,
        request: &Writer,
        exchange: &mut Exchange<T>,
        take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        if self.stale {
            self.discard_stale();
        }
        self.stale = true;
        let outcome = self.exchange(request, exchange, take).await;
        self.inbox.wipe();
        self.stale = !exchange.is_finished();
        outcome
    }

    async fn exchange<T>(
        &mut self,
        request: &Writer,
        exchange: &mut Exchange<T>,
        mut take: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        let kernel = SocketAddr::new(KERNEL_PORT, 0);
        let sent = poll_fn(|context| self.socket.poll_send_to(context, request.bytes(), &kernel));
        timeout(ANSWER_TIMEOUT, sent)
            .await
            .map_err(|_| Cause::NoAnswer)?
            .map_err(|error| Cause::of(&error))?;
        while !exchange.is_finished() && !exchange.was_stopped() {
            let sender = timeout(ANSWER_TIMEOUT, receive(&self.socket, &mut self.inbox))
                .await
                .map_err(|_| Cause::NoAnswer)?
                .map_err(|error| Cause::of(&error))?;
            if let Some(datagram) = self.inbox.datagram(&sender) {
                exchange
                    .absorb(datagram, &mut take)
                    .map_err(Cause::Malformed)?;
            }
        }
        Ok(())
    }

    /// Reads and forgets the answers to an exchange that was given up; see the blocking twin.
    fn discard_stale(&mut self) {
        for _ in 0..netlink::STALE_DATAGRAMS_MAX {
            match self
                .socket
                .socket_ref()
                .recv_from(self.inbox.buffer(), libc::MSG_DONTWAIT)
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// An asynchronous socket that the kernel sends events to, as
/// [`EventSocket`](crate::EventSocket) is.
pub struct AsyncEventSocket {
    socket: TokioSocket,
    inbox: Inbox,
    pending: VecDeque<XfrmEvent>,
}

impl fmt::Debug for AsyncEventSocket {
    /// Nothing of what goes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEventSocket").finish_non_exhaustive()
    }
}

impl AsyncEventSocket {
    /// Opens a socket in the network namespace of the calling thread, on the current tokio
    /// runtime, and joins groups.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EPROTONOSUPPORT if the kernel has no XFRM over netlink.
    pub fn open(groups: &[EventGroup]) -> Result<Self> {
        let socket = open(EVENT_BUFFER)?;
        let mut events = Self {
            socket,
            inbox: Inbox::new(),
            pending: VecDeque::new(),
        };
        for group in groups {
            events.join(*group)?;
        }
        Ok(events)
    }

    /// Joins a group; its events come from now on.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn join(&mut self, group: EventGroup) -> Result<()> {
        let joined = self.socket.socket_mut().add_membership(group.number());
        joined.map_err(|error| XfrmError::socket(Operation::Join(group), &error))
    }

    /// Leaves a group. Events that were sent before may still come.
    ///
    /// # Errors
    /// As the socket fails.
    pub fn leave(&mut self, group: EventGroup) -> Result<()> {
        let left = self.socket.socket_mut().drop_membership(group.number());
        left.map_err(|error| XfrmError::socket(Operation::Leave(group), &error))
    }

    /// Waits for the next event. Events lost are [`XfrmEvent::Overrun`], and the ones that can't
    /// be read [`XfrmEvent::Malformed`]: the socket goes on after both.
    ///
    /// A future that is dropped before it is done loses no event.
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn next(&mut self) -> Result<XfrmEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match receive(&self.socket, &mut self.inbox).await {
                Ok(sender) => {
                    if let Some(datagram) = self.inbox.datagram(&sender) {
                        read_events(datagram, &mut self.pending);
                    }
                    self.inbox.wipe();
                }
                Err(error) if is_overrun(&error) => return Ok(XfrmEvent::Overrun),
                Err(error) => return Err(XfrmError::socket(Operation::ReceiveEvent, &error)),
            }
        }
    }
}

fn push<T>(entries: &mut Vec<T>, entry: T) -> ControlFlow<()> {
    entries.push(entry);
    ControlFlow::Continue(())
}

fn open(receive_buffer: usize) -> Result<TokioSocket> {
    let prepared = TokioSocket::new(NETLINK_XFRM).and_then(|mut socket| {
        netlink::prepare(socket.socket_mut(), receive_buffer)?;
        Ok(socket)
    });
    prepared.map_err(|error| XfrmError::refused(Operation::Open, &error))
}

async fn receive(socket: &TokioSocket, inbox: &mut Inbox) -> io::Result<SocketAddr> {
    loop {
        let buffer = inbox.buffer();
        match poll_fn(|context| socket.poll_recv_from(context, buffer)).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    /// Never runs: a multi-threaded runtime moves futures between threads, if it compiles.
    #[allow(dead_code)]
    fn every_future_can_be_spawned(
        socket: &mut AsyncSocket,
        events: &mut AsyncEventSocket,
        sa: &Sa,
    ) {
        is_send(&socket.add_sa(sa));
        is_send(&socket.sas());
        is_send(&socket.for_each_policy(|_| ControlFlow::Continue(())));
        is_send(&socket.batch(&[Op::AddSa(sa)]));
        is_send(&events.next());
    }
}
