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
        "the other side speaks version {theirs} of the control protocol, this one {PROTOCOL_VERSION}: install both from one release, and restart the daemon"
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
    use crate::{Request, Response};

    fn text(line: &[u8]) -> String {
        String::from_utf8_lossy(line).into_owned()
    }

    #[test]
    fn requests_and_responses_look_like_this_on_the_socket() -> Result<(), FrameError> {
        let up = Request::Up {
            tunnel: "branch".into(),
        };
        let want = "{\"version\":1,\"request\":\"up\",\"tunnel\":\"branch\"}\n";
        assert_eq!(text(&encode(&up)?), want);
        let reload = "{\"version\":1,\"request\":\"reload\"}\n";
        assert_eq!(text(&encode(&Request::Reload)?), reload);
        let failed = Response::Failed {
            message: "two\nlines".into(),
        };
        let want = "{\"version\":1,\"response\":\"failed\",\"message\":\"two\\nlines\"}\n";
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
            Request::Status,
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
    fn another_version_is_refused_before_its_message_is_looked_at() {
        let line = br#"{"version":2,"request":"levitate"}"#;
        let refused = decode::<Request>(line);
        assert!(matches!(refused, Err(FrameError::Version { theirs: 2 })));
        for wrong in [
            "",
            "{}",
            "[]",
            "\u{0}",
            r#"{"version":1}"#,
            r#"{"version":1,"request":"x"}"#,
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
