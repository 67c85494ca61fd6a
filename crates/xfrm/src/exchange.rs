//! One send and the answers to it, without a socket: datagrams go in, what was asked for comes out
//! piece by piece, and at the end how it went. Both the blocking and the asynchronous socket drive
//! this.

use std::ops::ControlFlow;

use netlink_packet_core::NLM_F_DUMP_INTR;

use crate::wire::frame::{self, Message};
use crate::{Cause, DecodeError, DumpEnd, Operation, Result, XfrmError};

/// Reads an answer; `None` where its type is not the one asked for.
pub(crate) type Read<T> = fn(u16, &[u8]) -> Result<Option<T>, DecodeError>;

pub(crate) struct Exchange<T> {
    first_sequence: u32,
    operations: Vec<Operation>,
    /// What the kernel refused, one place per operation.
    refusals: Vec<Option<Cause>>,
    read: Read<T>,
    /// What became of the answers so far.
    end: DumpEnd,
    finished: bool,
}

impl Exchange<()> {
    /// Messages with consecutive numbers, of which the last asks for an acknowledgement.
    pub(crate) fn acknowledged(first_sequence: u32, operations: Vec<Operation>) -> Self {
        Self::new(first_sequence, operations, |_, _| Ok(None))
    }

    /// The operations that were done, and the refusals of the others.
    pub(crate) fn into_results(self) -> impl Iterator<Item = Result<Operation>> {
        self.operations
            .into_iter()
            .zip(self.refusals)
            .map(|(operation, refusal)| match refusal {
                None => Ok(operation),
                Some(cause) => Err(XfrmError::new(operation, cause)),
            })
    }
}

impl<T> Exchange<T> {
    /// One message that is answered by something to read.
    pub(crate) fn reading(sequence: u32, operation: Operation, read: Read<T>) -> Self {
        Self::new(sequence, vec![operation], read)
    }

    fn new(first: u32, operations: Vec<Operation>, read: Read<T>) -> Self {
        Self {
            first_sequence: first,
            refusals: operations.iter().map(|_| None).collect(),
            operations,
            read,
            end: DumpEnd::default(),
            finished: false,
        }
    }

    /// Everything was answered: no more datagrams come.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whoever takes the answers wants no more of them. More may come all the same.
    pub(crate) fn was_stopped(&self) -> bool {
        self.end.stopped
    }

    /// Takes a datagram from the kernel, and hands on what is in it until `take` breaks.
    ///
    /// # Errors
    /// If its framing makes no sense, after which the exchange can't be finished. An answer whose
    /// content makes no sense is counted, and hides no other.
    pub(crate) fn absorb(
        &mut self,
        mut datagram: &[u8],
        take: &mut impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), DecodeError> {
        while !self.end.stopped
            && let Some(message) = frame::next_message(&mut datagram)?
        {
            self.absorb_message(&message, take)?;
        }
        Ok(())
    }

    fn absorb_message(
        &mut self,
        message: &Message<'_>,
        take: &mut impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), DecodeError> {
        let place = message.sequence.wrapping_sub(self.first_sequence) as usize;
        if place >= self.operations.len() {
            return Ok(()); // The late answer to a request that was given up.
        }
        self.end.changed |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            frame::ERROR => {
                let refusal = frame::refusal(message.flags, message.body)?;
                self.settle(place, refusal);
                self.finished |= place + 1 == self.operations.len();
            }
            frame::DONE => {
                self.settle(place, frame::done(message.flags, message.body));
                self.finished = true;
            }
            kind => match (self.read)(kind, message.body) {
                Ok(Some(item)) => {
                    self.end.visited += 1;
                    self.end.stopped = take(item).is_break();
                }
                Ok(None) => {}
                Err(error) => {
                    self.end.unreadable += 1;
                    self.end.first_unreadable.get_or_insert(error);
                }
            },
        }
        Ok(())
    }

    fn settle(&mut self, place: usize, refusal: Option<(i32, Option<String>)>) {
        if let (Some((errno, message)), Some(slot)) = (refusal, self.refusals.get_mut(place)) {
            *slot = Some(Cause::Refused { errno, message });
        }
    }

    /// How the list went, once finished or stopped.
    pub(crate) fn into_end(mut self) -> Result<DumpEnd> {
        match self.refusals.first_mut().and_then(Option::take) {
            Some(refusal) => Err(XfrmError::new(self.operation(), refusal)),
            None => Ok(self.end),
        }
    }

    /// The one answer that was asked for and has been taken, once finished.
    pub(crate) fn into_item(self, taken: Option<T>) -> Result<T> {
        let operation = self.operation();
        let end = self.into_end()?;
        taken.ok_or_else(|| {
            let cause = end
                .first_unreadable
                .map_or(Cause::NoAnswer, Cause::Malformed);
            XfrmError::new(operation, cause)
        })
    }

    fn operation(&self) -> Operation {
        self.operations.first().copied().unwrap_or(Operation::Open)
    }
}
