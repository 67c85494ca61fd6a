//! Netlink framing: several messages in one datagram, and NLMSG_ERROR with its extended
//! acknowledgement.

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NetlinkBuffer};

use super::writer::{ALIGNMENT, HEADER_LENGTH, Writer};
use super::{array, attribute, split};
use crate::DecodeError;

/// `NLMSG_ERROR`: an error, or an acknowledgement if its number is 0.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ERROR_TEXT: u16 = 1;
/// Longer words of the kernel's are cut.
const LONGEST_ERROR_TEXT: usize = 512;

/// One message of a datagram.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// Takes the next message off the front of a datagram; `None` at its end.
pub(crate) fn next_message<'a>(
    datagram: &mut &'a [u8],
) -> Result<Option<Message<'a>>, DecodeError> {
    const WHAT: &str = "nlmsghdr";
    let rest: &'a [u8] = datagram;
    if rest.is_empty() {
        return Ok(None);
    }
    let header = NetlinkBuffer::new_checked(rest)
        .map_err(|_| DecodeError::short(WHAT, HEADER_LENGTH, rest.len()))?;
    let length = header.length() as usize;
    let body = rest.get(HEADER_LENGTH..length).ok_or(DecodeError::short(
        WHAT,
        length.max(HEADER_LENGTH),
        rest.len(),
    ))?;
    *datagram = rest
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or_default();
    Ok(Some(Message {
        kind: header.message_type(),
        flags: header.flags(),
        sequence: header.sequence_number(),
        body,
    }))
}

/// Starts a message; the result goes to [`end_message`].
pub(crate) fn begin_message(writer: &mut Writer, kind: u16, flags: u16, sequence: u32) -> usize {
    let start = writer.len();
    writer.zeros(4);
    writer.put(&kind.to_ne_bytes());
    writer.put(&flags.to_ne_bytes());
    writer.put(&sequence.to_ne_bytes());
    writer.zeros(4);
    start
}

/// Fills in the length of the message that began at `start`.
pub(crate) fn end_message(writer: &mut Writer, start: usize) {
    let length = u32::try_from(writer.len() - start).unwrap_or(u32::MAX);
    writer.patch(start, &length.to_ne_bytes());
    writer.align();
}

/// What NLMSG_ERROR says: `None` is an acknowledgement.
pub(crate) fn refusal(
    flags: u16,
    body: &[u8],
) -> Result<Option<(i32, Option<String>)>, DecodeError> {
    const WHAT: &str = "nlmsgerr";
    let (number, rest) = split(WHAT, body, 4)?;
    let number = i32::from_ne_bytes(array(WHAT, number)?);
    if number == 0 {
        return Ok(None);
    }
    Ok(Some((number.saturating_neg(), error_text(flags, rest))))
}

/// The error number that ends a dump, which NLMSG_DONE carries.
pub(crate) fn done(flags: u16, body: &[u8]) -> Option<(i32, Option<String>)> {
    let number = i32::from_ne_bytes(*body.first_chunk()?);
    (number < 0).then(|| {
        let attributes = body.get(4..).unwrap_or_default();
        let text = if flags & NLM_F_ACK_TLVS == 0 {
            None
        } else {
            text_attribute(attributes)
        };
        (number.saturating_neg(), text)
    })
}

/// The kernel's words stand behind the request's header, and behind its body unless that is cut
/// off (NETLINK_CAP_ACK).
fn error_text(flags: u16, rest: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = if flags & NLM_F_CAPPED == 0 {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        length.next_multiple_of(ALIGNMENT)
    } else {
        HEADER_LENGTH
    };
    text_attribute(rest.get(request..)?)
}

fn text_attribute(attributes: &[u8]) -> Option<String> {
    let mut text = None;
    let read = attribute::read("extended acknowledgement", attributes, |kind, payload| {
        if kind == ERROR_TEXT {
            let payload = payload.get(..LONGEST_ERROR_TEXT).unwrap_or(payload);
            let words = payload.split(|byte| *byte == 0).next().unwrap_or_default();
            text = Some(String::from_utf8_lossy(words).into_owned());
        }
        Ok(true)
    });
    read.ok().and(text)
}
