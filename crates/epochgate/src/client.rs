//! A question to the daemon, and one answer from it or a stream of them.

use std::io::{self, Read, StdoutLock, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use epochgate_control::{Lines, RESPONSE_LINE_MAX, Received, Request, Response, decode, encode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;

/// Octets that are read at once.
const CHUNK_LEN: usize = 64 << 10;

/// Speaks to the daemon behind a control socket.
pub(crate) struct Client<'p> {
    socket: &'p Path,
}

/// The answers to one question.
pub(crate) struct Answers<'c> {
    client: &'c Client<'c>,
    stream: UnixStream,
    lines: Lines,
    chunk: Vec<u8>,
}

impl<'p> Client<'p> {
    pub(crate) fn new(socket: &'p Path) -> Self {
        Self { socket }
    }

    /// The answer to `request`, if it comes within `timeout`.
    pub(crate) fn ask(&self, request: &Request, timeout: Duration) -> Result<Response, Failure> {
        self.begin(request, timeout)?.within(timeout)
    }

    /// Asks; the answers are to be fetched. The daemon has `timeout` to take the question.
    pub(crate) fn begin(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answers<'_>, Failure> {
        let failed = |error| self.failure(error, timeout);
        let mut stream = UnixStream::connect(self.socket).map_err(failed)?;
        stream
            .set_write_timeout(Some(timeout))
            .and_then(|()| stream.write_all(&encode(request).map_err(io::Error::other)?))
            .map_err(failed)?;
        Ok(Answers {
            client: self,
            stream,
            lines: Lines::new(RESPONSE_LINE_MAX),
            chunk: vec![0; CHUNK_LEN],
        })
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

impl Answers<'_> {
    /// The next answer, if it comes within `timeout`.
    pub(crate) fn within(&mut self, timeout: Duration) -> Result<Response, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(response) = self.received()? {
                return Ok(response);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::TimedOut(timeout));
            }
            let failed = |error| self.client.failure(error, timeout);
            self.stream.set_read_timeout(Some(left)).map_err(failed)?;
            if !self.read(timeout)? {
                return Err(Failure::Closed);
            }
        }
    }

    /// The next answer that has come already.
    pub(crate) fn received(&mut self) -> Result<Option<Response>, Failure> {
        match self.lines.next_line()? {
            Received::Line(line) => Ok(Some(decode(&line)?)),
            Received::Incomplete => Ok(None),
        }
    }

    /// Waits for more, however long that takes; [`Answers::received`] has it then. A reader of our
    /// output that has gone ends the wait as a write to it would.
    pub(crate) fn wait(&mut self, out: &StdoutLock<'_>) -> Result<(), Failure> {
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP;
        let mut ends = [
            PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            // Without a wish: errors alone, which is what a pipe has that nobody reads.
            PollFd::new(out.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut ends, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Failure::Output(error.into())),
        }
        let [answers, output] = ends.map(|end| end.revents().unwrap_or(PollFlags::empty()));
        if output.intersects(broken) {
            return Err(Failure::Output(io::ErrorKind::BrokenPipe.into()));
        }
        if !answers.is_empty() && !self.read(Duration::ZERO)? {
            return Err(Failure::Gone);
        }
        Ok(())
    }

    /// Reads some; false at the end.
    fn read(&mut self, timeout: Duration) -> Result<bool, Failure> {
        match self.stream.read(&mut self.chunk) {
            Ok(length) => {
                self.lines.push(&self.chunk[..length]);
                Ok(length > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(self.client.failure(error, timeout)),
        }
    }
}
