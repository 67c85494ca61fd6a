//! What a terminal needs: colours where they are wanted, lines that fit, nothing that it would obey.

use std::env;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;

/// Columns of a terminal that text is made for.
pub(crate) const WIDTH: usize = 80;

/// Environment variable with the terminal's columns, as shells and `watch` set it.
const COLUMNS: &str = "COLUMNS";

/// Standard output: where text goes, whether it is coloured, and how wide it may be.
#[derive(Debug)]
pub(crate) struct Screen {
    out: BufWriter<StdoutLock<'static>>,
    paint: Paint,
    width: Option<usize>,
}

impl Screen {
    pub(crate) fn stdout() -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        let named = env::var(COLUMNS).ok().and_then(|text| text.parse().ok());
        let of_terminal = || {
            let (width, _) = terminal_size::terminal_size_of(&out)?;
            Some(usize::from(width.0))
        };
        Self {
            paint: Paint::for_terminal(is_terminal),
            width: named.or_else(of_terminal).filter(|width| *width > 0),
            out: BufWriter::new(out),
        }
    }

    /// Whether to colour.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Where it is written to.
    pub(crate) fn output(&self) -> &StdoutLock<'static> {
        self.out.get_ref()
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.out.get_ref().is_terminal()
    }

    /// Lines that are seen at once, where it is a terminal.
    pub(crate) fn height(&self) -> Option<usize> {
        let (_, height) = terminal_size::terminal_size_of(self.out.get_ref())?;
        Some(usize::from(height.0)).filter(|height| *height > 0)
    }

    /// Columns that lines must fit in; `None` where nothing limits them, as in a pipe.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes text; it may wait for [`Screen::flush`].
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).map_err(Failure::Output)
    }

    /// Makes everything written so far visible.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }

    /// Nobody will read what is written: the other end of the pipe is closed.
    pub(crate) fn has_lost_its_reader(&self) -> bool {
        let mut stdout = [PollFd::new(self.out.get_ref().as_fd(), PollFlags::empty())];
        let polled = poll(&mut stdout, PollTimeout::ZERO);
        let [stdout] = stdout;
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        polled.is_ok()
            && stdout
                .revents()
                .is_some_and(|events| events.intersects(gone))
    }

    /// The end of the output.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Coloured,
}

/// What a colour says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Good,
    Waiting,
    Bad,
    Name,
}

impl Paint {
    pub(crate) fn for_stderr() -> Self {
        Self::for_terminal(io::stderr().is_terminal())
    }

    /// Colours only on a terminal that knows them, and not if `NO_COLOR` is set to anything
    /// (no-color.org).
    fn for_terminal(is_terminal: bool) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        if is_terminal && !refused && !is_dumb {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// `text` in the colour of `tone` (ECMA-48 SGR).
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "1;32",
            Tone::Waiting => "1;33",
            Tone::Bad => "1;31",
            Tone::Name => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Text that came over the network or from a file, without characters that a terminal obeys; line
/// feeds stay.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// `text` in lines of at most `width` characters, broken at blanks; a longer word stays whole.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_a_peer_are_not_obeyed() {
        assert_eq!(
            harmless("a\x1b[2Jb\r\n\u{9b}c"),
            "a\u{fffd}[2Jb\u{fffd}\n\u{fffd}c"
        );
    }

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable x", 4), ["unbreakable", "x"]);
        assert!(wrapped(" ", 4).is_empty());
    }

    #[test]
    fn plain_paint_adds_nothing() {
        assert_eq!(Paint::Plain.paint(Tone::Good, "open"), "open");
        assert_eq!(Paint::Coloured.paint(Tone::Bad, "x"), "\x1b[1;31mx\x1b[0m");
    }
}
