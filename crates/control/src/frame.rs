//! Messages as lines: JSON, a version, a limit on the length.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PROTOCOL_VERSION;

/// What is wrong with octets from the other side. The connection is of no more use.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A line longer than the reader allows.
    #[error("a message of more than {0} octets")]
    TooLong(usize),
    /// The other side is of another version.
    #[error(
        "the other side speaks version {theirs} of the control protocol, this one {PROTOCOL_VERSION}: restart epochgated after an upgrade (systemctl restart epochgated), and install both programs from one release"
    )]
    Version {
        /// The other side's [`PROTOCOL_VERSION`].
        theirs: u32,
    },
    /// Not JSON, or not a message.
    #[error("not a message of the control protocol: {0}")]
    Malformed(serde_json::Error),
}

#[derive(Serialize)]
struct Outgoing<'m, T> {
    version: u32,
    #[serde(flatten)]
    message: &'m T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The line of a message, with its line feed.
///
/// # Errors
/// [`FrameError::Malformed`] for what JSON can't express; no message of this crate is such.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let outgoing = Outgoing {
        version: PROTOCOL_VERSION,
        message,
    };
    let mut line = serde_json::to_vec(&outgoing).map_err(FrameError::Malformed)?;
    line.push(b'\n');
    Ok(line)
}

/// The message of a line, with or without its line feed.
///
/// # Errors
/// [`FrameError::Version`], or [`FrameError::Malformed`] for what is no message.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, FrameError> {
    let Version { version } = serde_json::from_slice(line).map_err(FrameError::Malformed)?;
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version { theirs: version });
    }
    serde_json::from_slice(line).map_err(FrameError::Malformed)
}

/// Cuts a stream of octets into lines and holds what is not yet a whole one.
#[derive(Debug)]
pub struct Lines {
    line_max: usize,
    pending: Vec<u8>,
    /// Octets of `pending` that are known to have no line feed.
    searched: usize,
}

/// What [`Lines::next_line`] has.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A line, without its line feed.
    Line(Vec<u8>),
    /// More octets are needed.
    Incomplete,
}

impl Lines {
    /// A reader of lines of at most `line_max` octets.
    #[must_use]
    pub const fn new(line_max: usize) -> Self {
        Self {
            line_max,
            pending: Vec::new(),
            searched: 0,
        }
    }

    /// Takes octets as they came from the socket. Give a few KiB at a time and call
    /// [`Lines::next_line`] until it is incomplete: no more than `line_max` and those few are held.
    pub fn push(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
    }

    /// The next whole line.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn next_line(&mut self) -> Result<Received, FrameError> {
        let fresh = self.pending[self.searched..].iter();
        let end = fresh.clone().position(|octet| *octet == b'\n');
        let length = self.searched + end.unwrap_or(fresh.len());
        if length > self.line_max {
            return Err(FrameError::TooLong(self.line_max));
        }
        if end.is_none() {
            self.searched = length;
            return Ok(Received::Incomplete);
        }
        let rest = self.pending.split_off(length + 1);
        let mut line = std::mem::replace(&mut self.pending, rest);
        line.truncate(length);
        self.searched = 0;
        Ok(Received::Line(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventRecord, EventsWanted, Level, Request, Response};

    fn text(line: &[u8]) -> String {
        String::from_utf8_lossy(line).into_owned()
    }

    #[test]
    fn requests_and_responses_look_like_this_on_the_socket() -> Result<(), FrameError> {
        let up = Request::Up {
            tunnel: "branch".into(),
        };
        let want = "{\"version\":2,\"request\":\"up\",\"tunnel\":\"branch\"}\n";
        assert_eq!(text(&encode(&up)?), want);
        let reload = "{\"version\":2,\"request\":\"reload\"}\n";
        assert_eq!(text(&encode(&Request::Reload)?), reload);
        let failed = Response::Failed {
            message: "two\nlines".into(),
        };
        let want = "{\"version\":2,\"response\":\"failed\",\"message\":\"two\\nlines\"}\n";
        assert_eq!(text(&encode(&failed)?), want);
        Ok(())
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() -> Result<(), FrameError> {
        let requests = [
            Request::Up { tunnel: "a".into() },
            Request::Down {
                tunnel: "é\n".into(),
            },
            Request::Rekey {
                tunnel: String::new(),
            },
            Request::RekeyIke { tunnel: "a".into() },
            Request::Reauthenticate { tunnel: "a".into() },
            Request::Status { tunnel: None },
            Request::Status {
                tunnel: Some("a".into()),
            },
            Request::Events(EventsWanted {
                follow: true,
                tunnel: None,
                last: Some(10),
                since_ms: Some(60_000),
            }),
            Request::Reload,
        ];
        for request in requests {
            assert_eq!(decode::<Request>(&encode(&request)?)?, request);
        }
        assert_eq!(
            decode::<Response>(&encode(&Response::Done)?)?,
            Response::Done
        );
        Ok(())
    }

    #[test]
    fn what_is_optional_may_be_missing() -> Result<(), FrameError> {
        let status: Request = decode(br#"{"version":2,"request":"status"}"#)?;
        assert_eq!(status, Request::Status { tunnel: None });
        let events: Request = decode(br#"{"version":2,"request":"events"}"#)?;
        assert_eq!(events, Request::Events(EventsWanted::default()));
        Ok(())
    }

    #[test]
    fn an_event_is_told_with_its_fields_flat() -> Result<(), FrameError> {
        let mut fields = serde_json::Map::new();
        fields.insert("event".into(), "ping-sent".into());
        fields.insert("attempt".into(), 2.into());
        let event = Response::Event {
            record: Box::new(EventRecord {
                time: "2026-01-02T03:04:05.678901Z".into(),
                level: Level::Info,
                message: "control ping 2 sent".into(),
                tunnel: Some("branch".into()),
                epoch: None,
                fields,
            }),
        };
        let line = encode(&event)?;
        let want = "{\"version\":2,\"response\":\"event\",\"record\":{\"time\":\
                    \"2026-01-02T03:04:05.678901Z\",\"level\":\"info\",\"message\":\
                    \"control ping 2 sent\",\"tunnel\":\"branch\",\"attempt\":2,\
                    \"event\":\"ping-sent\"}}\n";
        assert_eq!(text(&line), want);
        assert_eq!(decode::<Response>(&line)?, event);
        Ok(())
    }

    #[test]
    fn another_version_is_refused_before_its_message_is_looked_at() {
        let line = br#"{"version":1,"request":"levitate"}"#;
        let refused = decode::<Request>(line);
        assert!(matches!(refused, Err(FrameError::Version { theirs: 1 })));
        for wrong in [
            "",
            "{}",
            "[]",
            "\u{0}",
            r#"{"version":2}"#,
            r#"{"version":2,"request":"x"}"#,
        ] {
            let refused = decode::<Request>(wrong.as_bytes());
            assert!(matches!(refused, Err(FrameError::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn lines_come_out_however_the_octets_were_cut() -> Result<(), FrameError> {
        let stream = b"one\n\nthree\nfour";
        for cut in 1..=stream.len() {
            let mut lines = Lines::new(5);
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                lines.push(piece);
                while let Received::Line(line) = lines.next_line()? {
                    got.push(text(&line));
                }
            }
            assert_eq!(got, ["one", "", "three"], "cut every {cut}");
        }
        Ok(())
    }

    #[test]
    fn a_line_without_an_end_is_given_up_at_the_limit() {
        let mut lines = Lines::new(4);
        lines.push(b"1234");
        assert!(matches!(lines.next_line(), Ok(Received::Incomplete)));
        lines.push(b"5");
        assert!(matches!(lines.next_line(), Err(FrameError::TooLong(4))));
    }
}
