//! One question to the daemon, one answer from it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use epochgate_control::{Lines, RESPONSE_LINE_MAX, Received, Request, Response, decode, encode};

use crate::failure::Failure;

/// Octets that are read at once.
const CHUNK_LEN: usize = 64 << 10;

/// Speaks to the daemon behind a control socket.
pub(crate) struct Client<'p> {
    socket: &'p Path,
}

impl<'p> Client<'p> {
    pub(crate) fn new(socket: &'p Path) -> Self {
        Self { socket }
    }

    /// The answer to `request`, if it comes within `timeout`.
    pub(crate) fn ask(&self, request: &Request, timeout: Duration) -> Result<Response, Failure> {
        let deadline = Instant::now() + timeout;
        let failed = |error| self.failure(error, timeout);
        let mut stream = UnixStream::connect(self.socket).map_err(failed)?;
        stream
            .set_write_timeout(Some(timeout))
            .and_then(|()| stream.write_all(&encode(request).map_err(io::Error::other)?))
            .map_err(failed)?;
        let mut lines = Lines::new(RESPONSE_LINE_MAX);
        let mut chunk = vec![0; CHUNK_LEN];
        loop {
            if let Received::Line(line) = lines.next_line()? {
                return Ok(decode(&line)?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::TimedOut(timeout));
            }
            stream.set_read_timeout(Some(left)).map_err(failed)?;
            match stream.read(&mut chunk) {
                Ok(0) => return Err(Failure::Closed),
                Ok(length) => lines.push(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn failure(&self, error: io::Error, timeout: Duration) -> Failure {
        let path = self.socket.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::NotRunning(path),
            io::ErrorKind::PermissionDenied => Failure::NotAllowed(path),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::TimedOut(timeout),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Failure::Closed,
            _ => Failure::Socket { path, error },
        }
    }
}
