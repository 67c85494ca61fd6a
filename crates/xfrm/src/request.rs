//! Requests: which message, with which flags, says what a caller wants. Callers hand values in;
//! bytes go to an [`Exchange`](crate::exchange::Exchange) and a socket.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
};
use netlink_packet_xfrm::constants::{
    XFRM_MSG_ALLOCSPI, XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_GETAE, XFRM_MSG_GETDEFAULT,
    XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_GETSADINFO, XFRM_MSG_GETSPDINFO, XFRM_MSG_NEWAE,
    XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_MSG_NEWSADINFO, XFRM_MSG_NEWSPDINFO,
    XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA,
};

use crate::exchange::{Exchange, Read};
use crate::wire::frame::{begin_message, end_message};
use crate::wire::writer::Writer;
use crate::wire::{event, info, policy, sa};
use crate::{
    Cause, DecodeError, DefaultActions, EventFlags, EventState, EventThresholds, Operation, Policy,
    PolicyEntry, PolicyId, Result, Sa, SaEntry, SaFilter, SaRef, SadInfo, SpdInfo, SpiRequest,
    XfrmError,
};

/// Something to change, as a member of a batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Op<'a> {
    /// See [`Socket::add_sa`](crate::Socket::add_sa).
    AddSa(&'a Sa),
    /// See [`Socket::update_sa`](crate::Socket::update_sa).
    UpdateSa(&'a Sa),
    /// See [`Socket::delete_sa`](crate::Socket::delete_sa).
    DeleteSa(SaRef),
    /// See [`Socket::add_policy`](crate::Socket::add_policy).
    AddPolicy(&'a Policy),
    /// See [`Socket::update_policy`](crate::Socket::update_policy).
    UpdatePolicy(&'a Policy),
    /// See [`Socket::delete_policy`](crate::Socket::delete_policy).
    DeletePolicy(PolicyId),
    /// See [`Socket::set_event_thresholds`](crate::Socket::set_event_thresholds).
    SetEventThresholds(SaRef, EventThresholds),
}

impl Op<'_> {
    pub(crate) fn operation(&self) -> Operation {
        match self {
            Self::AddSa(sa) => Operation::AddSa(sa.protocol, sa.id()),
            Self::UpdateSa(sa) => Operation::UpdateSa(sa.protocol, sa.id()),
            Self::DeleteSa(sa) => Operation::DeleteSa(sa.id),
            Self::AddPolicy(policy) => Operation::AddPolicy(policy.direction, policy.selector),
            Self::UpdatePolicy(policy) => {
                Operation::UpdatePolicy(policy.direction, policy.selector)
            }
            Self::DeletePolicy(id) => Operation::DeletePolicy(*id),
            Self::SetEventThresholds(sa, _) => Operation::SetEventThresholds(sa.id),
        }
    }

    fn kind_and_flags(&self) -> (u16, u16) {
        match self {
            Self::AddSa(_) => (XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL),
            Self::UpdateSa(_) => (XFRM_MSG_UPDSA, NLM_F_REPLACE),
            Self::DeleteSa(_) => (XFRM_MSG_DELSA, 0),
            Self::AddPolicy(_) => (XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL),
            Self::UpdatePolicy(_) => (XFRM_MSG_UPDPOLICY, NLM_F_REPLACE),
            Self::DeletePolicy(_) => (XFRM_MSG_DELPOLICY, 0),
            Self::SetEventThresholds(..) => (XFRM_MSG_NEWAE, NLM_F_REPLACE),
        }
    }

    fn put_body(&self, writer: &mut Writer) -> Result<(), &'static str> {
        match self {
            Self::AddSa(sa) | Self::UpdateSa(sa) => sa::put_sa(writer, sa),
            Self::DeleteSa(sa) => {
                sa::put_ref(writer, sa);
                Ok(())
            }
            Self::AddPolicy(policy) | Self::UpdatePolicy(policy) => {
                policy::put_policy(writer, policy)
            }
            Self::DeletePolicy(id) => {
                policy::put_id(writer, id);
                Ok(())
            }
            Self::SetEventThresholds(
                _,
                EventThresholds {
                    replay: None,
                    timer: None,
                },
            ) => Err("no threshold to set"),
            Self::SetEventThresholds(sa, thresholds) => {
                event::put_event_state(writer, sa, EventFlags::empty(), *thresholds);
                Ok(())
            }
        }
    }

    /// Appends the whole message. What can't be said leaves nothing behind.
    fn put(&self, writer: &mut Writer, sequence: u32) -> Result<()> {
        let (kind, flags) = self.kind_and_flags();
        let start = begin_message(writer, kind, NLM_F_REQUEST | flags, sequence);
        match self.put_body(writer) {
            Ok(()) => {
                end_message(writer, start);
                Ok(())
            }
            Err(reason) => {
                writer.truncate(start);
                Err(XfrmError::new(self.operation(), Cause::Invalid(reason)))
            }
        }
    }
}

/// The most messages in one send. Every one may be answered by an error with text, and all the
/// answers must fit into the socket's receive buffer before the first is read.
const MESSAGES_PER_CHUNK: usize = 128;
/// A send is closed once it is this long. One message can't be larger than the kernel's send
/// buffer (`net.core.wmem_default`, 212,992 bytes).
const CHUNK_LENGTH: usize = 64 * 1024;

/// The part of a batch that goes into one send.
pub(crate) struct Chunk {
    pub(crate) writer: Writer,
    pub(crate) exchange: Exchange<()>,
    /// Where the results of the exchange belong, in order.
    places: Vec<usize>,
}

/// A batch on its way: which operations are left, and how the others went.
///
/// Only the last message of a chunk asks for an acknowledgement. The kernel works them off in
/// order and answers every refused one, so whatever has no answer by then was done.
pub(crate) struct Batch<'a> {
    ops: &'a [Op<'a>],
    next: usize,
    results: Vec<Result<()>>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(ops: &'a [Op<'a>]) -> Self {
        let not_sent = |op: &Op<'_>| Err(XfrmError::new(op.operation(), Cause::NotSent));
        Self {
            ops,
            next: 0,
            results: ops.iter().map(not_sent).collect(),
        }
    }

    /// The next send, `None` when everything was sent.
    pub(crate) fn next_chunk(&mut self, sequence: &mut u32) -> Option<Chunk> {
        let first_sequence = sequence.wrapping_add(1);
        let mut writer = Writer::new();
        let mut operations = Vec::new();
        let mut places = Vec::new();
        let mut last_start = 0;
        while let Some(op) = self.ops.get(self.next)
            && operations.len() < MESSAGES_PER_CHUNK
            && writer.len() < CHUNK_LENGTH
        {
            let start = writer.len();
            match op.put(&mut writer, sequence.wrapping_add(1)) {
                Ok(()) => {
                    *sequence = sequence.wrapping_add(1);
                    operations.push(op.operation());
                    places.push(self.next);
                    last_start = start;
                }
                Err(error) => self.settle(self.next, Err(error)),
            }
            self.next += 1;
        }
        if operations.is_empty() {
            return None;
        }
        request_acknowledgement(&mut writer, last_start);
        let exchange = Exchange::acknowledged(first_sequence, operations);
        Some(Chunk {
            writer,
            exchange,
            places,
        })
    }

    /// Takes a chunk's results, or what broke the socket meanwhile, which ends the batch.
    pub(crate) fn finish_chunk(&mut self, chunk: Chunk, outcome: Result<(), Cause>) {
        let places = chunk.places;
        for (place, result) in places.into_iter().zip(chunk.exchange.into_results()) {
            let result = match (&result, &outcome) {
                (Ok(operation), Err(cause)) => Err(XfrmError::new(*operation, cause.clone())),
                (Ok(_), Ok(())) => Ok(()),
                (Err(error), _) => Err(error.clone()),
            };
            self.settle(place, result);
        }
        if outcome.is_err() {
            self.next = self.ops.len();
        }
    }

    pub(crate) fn into_results(self) -> Vec<Result<()>> {
        self.results
    }

    fn settle(&mut self, place: usize, result: Result<()>) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = result;
        }
    }
}

/// Where `nlmsg_flags` stands in `struct nlmsghdr`.
const FLAGS_OFFSET: usize = 6;

fn request_acknowledgement(writer: &mut Writer, message_start: usize) {
    let at = message_start + FLAGS_OFFSET;
    let flags = writer
        .bytes()
        .get(at..)
        .and_then(|bytes| bytes.first_chunk().copied());
    let flags = u16::from_ne_bytes(flags.unwrap_or_default()) | NLM_F_ACK;
    writer.patch(at, &flags.to_ne_bytes());
}

/// A request for something to read.
#[derive(Clone, Copy)]
pub(crate) struct Query<T> {
    pub(crate) operation: Operation,
    kind: u16,
    dump: bool,
    read: Read<T>,
}

impl<T> Query<T> {
    /// Writes the request and makes ready for its answers.
    pub(crate) fn begin(
        &self,
        writer: &mut Writer,
        sequence: &mut u32,
        put_body: impl FnOnce(&mut Writer) -> Result<(), &'static str>,
    ) -> Result<Exchange<T>> {
        *sequence = sequence.wrapping_add(1);
        let flags = if self.dump { NLM_F_DUMP } else { NLM_F_ACK };
        let start = begin_message(writer, self.kind, NLM_F_REQUEST | flags, *sequence);
        put_body(writer)
            .map_err(|reason| XfrmError::new(self.operation, Cause::Invalid(reason)))?;
        end_message(writer, start);
        Ok(Exchange::reading(*sequence, self.operation, self.read))
    }
}

pub(crate) fn get_sa(sa: &SaRef) -> Query<SaEntry> {
    one(Operation::GetSa(sa.id), XFRM_MSG_GETSA, read_sa)
}

pub(crate) fn list_sas() -> Query<SaEntry> {
    Query {
        dump: true,
        ..one(Operation::ListSas, XFRM_MSG_GETSA, read_sa)
    }
}

pub(crate) fn allocate_spi() -> Query<SaEntry> {
    one(Operation::AllocateSpi, XFRM_MSG_ALLOCSPI, read_sa)
}

pub(crate) fn get_policy(id: &PolicyId) -> Query<PolicyEntry> {
    one(Operation::GetPolicy(*id), XFRM_MSG_GETPOLICY, read_policy)
}

pub(crate) fn list_policies() -> Query<PolicyEntry> {
    Query {
        dump: true,
        ..one(Operation::ListPolicies, XFRM_MSG_GETPOLICY, read_policy)
    }
}

pub(crate) fn get_event_state(sa: &SaRef) -> Query<EventState> {
    one(
        Operation::GetEventState(sa.id),
        XFRM_MSG_GETAE,
        |kind, body| {
            (kind == XFRM_MSG_NEWAE)
                .then(|| event::event_state(body))
                .transpose()
        },
    )
}

pub(crate) fn get_sad_info() -> Query<SadInfo> {
    one(Operation::GetSadInfo, XFRM_MSG_GETSADINFO, |kind, body| {
        (kind == XFRM_MSG_NEWSADINFO)
            .then(|| info::sad(body))
            .transpose()
    })
}

pub(crate) fn get_spd_info() -> Query<SpdInfo> {
    one(Operation::GetSpdInfo, XFRM_MSG_GETSPDINFO, |kind, body| {
        (kind == XFRM_MSG_NEWSPDINFO)
            .then(|| info::spd(body))
            .transpose()
    })
}

pub(crate) fn get_default_actions() -> Query<DefaultActions> {
    one(
        Operation::GetDefaultActions,
        XFRM_MSG_GETDEFAULT,
        |kind, body| {
            (kind == XFRM_MSG_GETDEFAULT)
                .then(|| info::default_actions(body))
                .transpose()
        },
    )
}

fn one<T>(operation: Operation, kind: u16, read: Read<T>) -> Query<T> {
    Query {
        operation,
        kind,
        dump: false,
        read,
    }
}

fn read_sa(kind: u16, body: &[u8]) -> Result<Option<SaEntry>, DecodeError> {
    (kind == XFRM_MSG_NEWSA)
        .then(|| sa::entry(body))
        .transpose()
}

fn read_policy(kind: u16, body: &[u8]) -> Result<Option<PolicyEntry>, DecodeError> {
    (kind == XFRM_MSG_NEWPOLICY)
        .then(|| policy::entry(body))
        .transpose()
}

/// Bodies of queries that need no caller's value.
pub(crate) mod body {
    use super::{
        EventFlags, EventThresholds, PolicyId, SaFilter, SaRef, SpiRequest, Writer, event, policy,
        sa,
    };

    pub(crate) fn none(_: &mut Writer) -> Result<(), &'static str> {
        Ok(())
    }

    /// GETSADINFO and GETSPDINFO have 32 bits of flags that mean nothing, GETDEFAULT has three
    /// bytes that mean nothing.
    pub(crate) fn flags(writer: &mut Writer) -> Result<(), &'static str> {
        writer.zeros(4);
        Ok(())
    }

    pub(crate) fn sa_filter(filter: &SaFilter) -> impl Fn(&mut Writer) -> Result<(), &'static str> {
        move |writer| sa::put_filter(writer, filter)
    }

    pub(crate) fn sa(sa: &SaRef) -> impl Fn(&mut Writer) -> Result<(), &'static str> {
        move |writer| {
            sa::put_ref(writer, sa);
            Ok(())
        }
    }

    pub(crate) fn event_state(sa: &SaRef) -> impl Fn(&mut Writer) -> Result<(), &'static str> {
        move |writer| {
            let wanted = EventFlags::REPLAY_THRESHOLD | EventFlags::TIMER_THRESHOLD;
            event::put_event_state(writer, sa, wanted, EventThresholds::default());
            Ok(())
        }
    }

    pub(crate) fn policy(id: &PolicyId) -> impl Fn(&mut Writer) -> Result<(), &'static str> {
        move |writer| {
            policy::put_id(writer, id);
            Ok(())
        }
    }

    pub(crate) fn spi(wanted: &SpiRequest) -> impl Fn(&mut Writer) -> Result<(), &'static str> {
        move |writer| sa::put_spi_request(writer, wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::wire::frame;
    use crate::{DumpEnd, Key, Protection, Reqid, SaId, Spi};

    /// Acknowledgements are all that comes.
    fn nothing((): ()) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn delete(number: u32) -> Op<'static> {
        let spi = Spi::new(number).expect("not zero");
        Op::DeleteSa(SaId::esp([192, 0, 2, 1].into(), spi).into())
    }

    fn messages(chunk: &Chunk) -> Vec<(u32, bool)> {
        let mut bytes = chunk.writer.bytes();
        let mut found = Vec::new();
        while let Some(message) = frame::next_message(&mut bytes).expect("well framed") {
            found.push((message.sequence, message.flags & NLM_F_ACK != 0));
        }
        found
    }

    /// The kernel's word on a message: 0 acknowledges it.
    fn answer(sequence: u32, errno: i32) -> Vec<u8> {
        let mut writer = Writer::new();
        let start = begin_message(&mut writer, frame::ERROR, 0, sequence);
        writer.put(&(-errno).to_ne_bytes());
        writer.zeros(16);
        end_message(&mut writer, start);
        writer.bytes().to_vec()
    }

    #[test]
    fn only_the_last_message_of_a_send_asks_for_an_acknowledgement() {
        let ops: Vec<Op<'_>> = (1..=3).map(delete).collect();
        let mut sequence = 7;
        let chunk = Batch::new(&ops)
            .next_chunk(&mut sequence)
            .expect("something to send");
        assert_eq!(messages(&chunk), [(8, false), (9, false), (10, true)]);
        assert_eq!(sequence, 10);
    }

    #[test]
    fn a_large_batch_goes_out_in_parts_that_are_answered_in_turn() {
        let ops: Vec<Op<'_>> = (1..=300).map(delete).collect();
        let mut sequence = u32::MAX - 5; // Numbers wrap.
        let mut batch = Batch::new(&ops);
        let mut sizes = Vec::new();
        while let Some(mut chunk) = batch.next_chunk(&mut sequence) {
            let sent = messages(&chunk);
            sizes.push(sent.len());
            let (last, _) = *sent.last().expect("not empty");
            chunk
                .exchange
                .absorb(&answer(last, 0), &mut nothing)
                .expect("well framed");
            assert!(chunk.exchange.is_finished());
            batch.finish_chunk(chunk, Ok(()));
        }
        assert_eq!(sizes, [128, 128, 44]);
        assert!(batch.into_results().iter().all(Result::is_ok));
    }

    #[test]
    fn a_broken_socket_leaves_known_results_known_and_the_rest_unsent() {
        let ops: Vec<Op<'_>> = (1..=200).map(delete).collect();
        let mut sequence = 0;
        let mut batch = Batch::new(&ops);
        let mut chunk = batch.next_chunk(&mut sequence).expect("something to send");
        chunk
            .exchange
            .absorb(&answer(3, libc::ESRCH), &mut nothing)
            .expect("well framed");
        assert!(!chunk.exchange.is_finished());
        batch.finish_chunk(chunk, Err(Cause::NoAnswer));
        assert!(batch.next_chunk(&mut sequence).is_none());
        let results = batch.into_results();
        let cause = |place: usize| results[place].as_ref().expect_err("failed").cause().clone();
        assert_eq!(cause(0), Cause::NoAnswer);
        assert_eq!(
            cause(2),
            Cause::Refused {
                errno: libc::ESRCH,
                message: None
            }
        );
        assert_eq!(cause(127), Cause::NoAnswer);
        assert_eq!(cause(128), Cause::NotSent);
    }

    #[test]
    fn a_late_answer_to_another_request_is_no_answer() {
        let ops = [delete(1)];
        let mut sequence = 41;
        let mut chunk = Batch::new(&ops)
            .next_chunk(&mut sequence)
            .expect("something to send");
        for stale in [0, 41, 43, u32::MAX] {
            chunk
                .exchange
                .absorb(&answer(stale, libc::EPERM), &mut nothing)
                .expect("well framed");
            assert!(!chunk.exchange.is_finished());
        }
        chunk
            .exchange
            .absorb(&answer(42, 0), &mut nothing)
            .expect("well framed");
        assert!(chunk.exchange.is_finished());
    }

    fn listing() -> Exchange<SaEntry> {
        list_sas()
            .begin(&mut Writer::new(), &mut 0, body::none)
            .expect("it can be said")
    }

    fn put_message(writer: &mut Writer, kind: u16, flags: u16, body: &[u8]) {
        let start = begin_message(writer, kind, flags, 1);
        writer.put(body);
        end_message(writer, start);
    }

    fn end(flags: u16, errno: i32) -> Vec<u8> {
        let mut writer = Writer::new();
        put_message(&mut writer, frame::DONE, flags, &(-errno).to_ne_bytes());
        writer.bytes().to_vec()
    }

    fn absorb_all(list: &mut Exchange<SaEntry>, datagram: &[u8]) -> Vec<SaEntry> {
        let mut entries = Vec::new();
        list.absorb(datagram, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })
        .expect("well framed");
        entries
    }

    fn sa_body(number: u32) -> Vec<u8> {
        let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let spi = Spi::new(number).expect("not zero");
        let protection = Protection::aes_gcm_16(Key::new(vec![7; 20]));
        let sa = Sa::esp_tunnel(source, destination, spi, Reqid(1), protection);
        let mut writer = Writer::new();
        sa::put_sa(&mut writer, &sa).expect("it can be said");
        writer.bytes().to_vec()
    }

    #[test]
    fn a_list_ends_with_its_end_and_knows_when_the_kernel_says_that_it_changed() {
        let mut whole = listing();
        assert_eq!(absorb_all(&mut whole, &end(0, 0)), []);
        assert!(whole.is_finished());
        assert_eq!(whole.into_end(), Ok(DumpEnd::default()));

        let mut interrupted = listing();
        absorb_all(
            &mut interrupted,
            &end(netlink_packet_core::NLM_F_DUMP_INTR, 0),
        );
        assert!(interrupted.is_finished());
        assert!(interrupted.into_end().expect("no error").changed);

        let mut failed = listing();
        absorb_all(&mut failed, &end(0, libc::ENOMEM));
        let error = failed.into_end().expect_err("the kernel gave up");
        assert_eq!(error.errno(), Some(libc::ENOMEM));
    }

    #[test]
    fn an_entry_that_cannot_be_read_hides_no_other() {
        let mut datagram = Writer::new();
        put_message(&mut datagram, XFRM_MSG_NEWSA, 0, &sa_body(1));
        put_message(&mut datagram, XFRM_MSG_NEWSA, 0, &[1, 2, 3]);
        put_message(&mut datagram, XFRM_MSG_NEWSA, 0, &sa_body(2));
        let mut list = listing();
        let entries = absorb_all(&mut list, datagram.bytes());
        let spis: Vec<_> = entries.iter().map(|it| it.sa.spi).collect();
        assert_eq!(spis, [Spi::new(1), Spi::new(2)]);
        absorb_all(&mut list, &end(0, 0));
        let end = list.into_end().expect("no error");
        assert_eq!((end.visited, end.unreadable), (2, 1));
        let error = end.first_unreadable.expect("one was not readable");
        assert_eq!(error.what, "xfrm_usersa_info");
    }

    #[test]
    fn a_list_that_is_broken_off_hands_on_nothing_more() {
        let mut datagram = Writer::new();
        for number in 1..=3 {
            put_message(&mut datagram, XFRM_MSG_NEWSA, 0, &sa_body(number));
        }
        let mut list = listing();
        let mut visits = 0;
        let mut visit = |_| {
            visits += 1;
            if visits == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        list.absorb(datagram.bytes(), &mut visit)
            .expect("well framed");
        list.absorb(datagram.bytes(), &mut visit)
            .expect("well framed");
        assert_eq!(visits, 2);
        assert!(list.was_stopped() && !list.is_finished());
        let end = list.into_end().expect("no error");
        assert_eq!((end.visited, end.stopped), (2, true));
    }

    #[test]
    fn one_answer_that_cannot_be_read_is_an_error() {
        let mut datagram = Writer::new();
        put_message(&mut datagram, XFRM_MSG_NEWSA, 0, &[1, 2, 3]);
        let mut list = listing();
        absorb_all(&mut list, datagram.bytes());
        let error = list.into_item(None).expect_err("nothing to read");
        assert!(matches!(error.cause(), Cause::Malformed(_)), "{error}");
        let error = listing().into_item(None).expect_err("no answer");
        assert_eq!(error.cause(), &Cause::NoAnswer);
    }
}
