//! One send and the answers to it, without a socket: datagrams go in, results come out. Both the
//! blocking and the asynchronous socket drive this.

use netlink_packet_core::NLM_F_DUMP_INTR;

use crate::wire::frame::{self, Message};
use crate::{Cause, DecodeError, Operation, Result, XfrmError};

/// Reads an answer; `None` where its type is not the one asked for.
pub(crate) type Read<T> = fn(u16, &[u8]) -> Result<Option<T>, DecodeError>;

pub(crate) struct Exchange<T> {
    first_sequence: u32,
    operations: Vec<Operation>,
    /// What the kernel refused, one place per operation.
    refusals: Vec<Option<Cause>>,
    is_dump: bool,
    read: Read<T>,
    items: Vec<T>,
    malformed: Option<DecodeError>,
    interrupted: bool,
    finished: bool,
}

impl Exchange<()> {
    /// Messages with consecutive numbers, of which the last asks for an acknowledgement.
    pub(crate) fn acknowledged(first_sequence: u32, operations: Vec<Operation>) -> Self {
        Self::new(first_sequence, operations, false, |_, _| Ok(None))
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
    pub(crate) fn reading(
        sequence: u32,
        operation: Operation,
        is_dump: bool,
        read: Read<T>,
    ) -> Self {
        Self::new(sequence, vec![operation], is_dump, read)
    }

    fn new(first: u32, operations: Vec<Operation>, is_dump: bool, read: Read<T>) -> Self {
        Self {
            first_sequence: first,
            refusals: operations.iter().map(|_| None).collect(),
            operations,
            is_dump,
            read,
            items: Vec::new(),
            malformed: None,
            interrupted: false,
            finished: false,
        }
    }

    /// Everything was answered.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The tables changed while they were listed: the list may lack an entry or have one twice.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Takes a datagram from the kernel.
    ///
    /// # Errors
    /// If its framing makes no sense, after which the exchange can't be finished. An answer whose
    /// content makes no sense is kept as the exchange's result.
    pub(crate) fn absorb(&mut self, mut datagram: &[u8]) -> Result<(), DecodeError> {
        while let Some(message) = frame::next_message(&mut datagram)? {
            self.absorb_message(&message)?;
        }
        Ok(())
    }

    fn absorb_message(&mut self, message: &Message<'_>) -> Result<(), DecodeError> {
        let place = message.sequence.wrapping_sub(self.first_sequence) as usize;
        if place >= self.operations.len() {
            return Ok(()); // The late answer to a request that was given up.
        }
        self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
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
                Ok(Some(item)) if self.is_dump || self.items.is_empty() => self.items.push(item),
                Ok(_) => {}
                Err(error) => {
                    self.malformed.get_or_insert(error);
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

    /// The answers, once finished.
    pub(crate) fn into_items(mut self) -> Result<Vec<T>> {
        let operation = self.operations.first().copied().unwrap_or(Operation::Open);
        let failed = |cause| Err(XfrmError::new(operation, cause));
        if let Some(refusal) = self.refusals.first_mut().and_then(Option::take) {
            return failed(refusal);
        }
        match self.malformed {
            Some(error) => failed(Cause::Malformed(error)),
            None => Ok(self.items),
        }
    }

    /// The one answer, once finished.
    pub(crate) fn into_item(self) -> Result<T> {
        let operation = self.operations.first().copied().unwrap_or(Operation::Open);
        let item = self.into_items()?.into_iter().next();
        item.ok_or_else(|| XfrmError::new(operation, Cause::NoAnswer))
    }
}
