//! What a terminal needs: colours where they are wanted, lines that fit, nothing that it would obey.

use std::borrow::Cow;
use std::env;
use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::iter;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;

/// Columns of a terminal that text is made for.
pub(crate) const WIDTH: usize = 80;

/// Bytes that wait for [`Screen::flush`] at most.
const BUFFER_LENGTH: usize = 64 * 1024;

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
            out: BufWriter::with_capacity(BUFFER_LENGTH, out),
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

    /// `text` in the colour of `tone`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let mut painted = String::with_capacity(text.len());
        self.put(&mut painted, tone, text);
        painted
    }

    /// Puts `text` behind what is in `to`, in the colour of `tone` (ECMA-48 SGR).
    pub(crate) fn put(self, to: &mut String, tone: Tone, text: impl Display) {
        let code = match tone {
            Tone::Good => "1;32",
            Tone::Waiting => "1;33",
            Tone::Bad => "1;31",
            Tone::Name => "1",
        };
        // A string takes whatever is written to it.
        let _ = match self {
            Self::Plain => write!(to, "{text}"),
            Self::Coloured => write!(to, "\x1b[{code}m{text}\x1b[0m"),
        };
    }
}

/// Text that came over the network or from a file, without characters that a terminal obeys or that
/// change the order in which it shows others; line feeds stay.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte == b'\n' || matches!(byte, b' '..=b'~');
    // To the end, whatever comes: the compiler then looks at many bytes at once.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return Cow::Borrowed(text);
    }
    let harmless = |c: char| match c {
        '\n' => c,
        c if c.is_control() || turns_text(c) => '\u{fffd}',
        c => c,
    };
    Cow::Owned(text.chars().map(harmless).collect())
}

/// Characters that only order others, or end a line for some (Unicode Standard Annex 9 §2, and the
/// separators of lines and paragraphs): with them a name could look like another one.
fn turns_text(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// How many columns text takes, a character one each.
pub(crate) fn columns(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.chars().count()
    }
}

/// `text` in lines of at most `width` characters, broken at blanks; a longer word stays whole. Of
/// several blanks one is left.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    lines(&text, width).map(str::to_owned).collect()
}

/// The lines of [`wrapped`], for a text that has no more than one blank between its words.
pub(crate) fn lines(text: &str, width: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    iter::from_fn(move || {
        let (line, after) = rest.split_at(end_of_line(rest, width));
        rest = after.trim_start();
        (!line.is_empty()).then_some(line)
    })
}

/// Where the first line of a text ends: at the last blank that has at most `width` characters before
/// it, else at the first one.
fn end_of_line(text: &str, width: usize) -> usize {
    let beyond = if text.is_ascii() {
        width
    } else {
        let mut starts = text.char_indices().map(|(start, _)| start);
        starts.nth(width).unwrap_or(text.len())
    };
    let Some(next) = text.get(beyond..).and_then(|text| text.chars().next()) else {
        return text.len();
    };
    let fitting = text.get(..beyond + next.len_utf8()).unwrap_or(text);
    let blank = fitting.rfind(char::is_whitespace);
    blank
        .or_else(|| text.find(char::is_whitespace))
        .unwrap_or(text.len())
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
    fn a_name_cannot_turn_the_characters_after_it_around() {
        for c in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{2029}".chars() {
            assert_eq!(harmless(&format!("a{c}b")), "a\u{fffd}b");
        }
        assert_eq!(harmless("zwölf\u{2003}\u{5d0}"), "zwölf\u{2003}\u{5d0}");
    }

    #[test]
    fn plain_text_is_not_copied() {
        let plain: String = (' '..='~').chain(['\n']).collect();
        assert!(matches!(harmless(&plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(harmless("\x7f"), "\u{fffd}");
    }

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable x", 4), ["unbreakable", "x"]);
        assert_eq!(wrapped("xy unbreakable", 4), ["xy", "unbreakable"]);
        assert_eq!(wrapped(" a\tb\n c ", 3), ["a b", "c"]);
        assert!(wrapped(" ", 4).is_empty());
    }

    #[test]
    fn lines_are_as_long_as_they_can_be_in_any_script() {
        assert_eq!(wrapped("one two three", 6), ["one", "two", "three"]);
        assert_eq!(wrapped("eins zwölf über", 10), ["eins zwölf", "über"]);
        assert_eq!(wrapped("eins zwölf über", 9), ["eins", "zwölf", "über"]);
        assert_eq!(wrapped("ü\u{2003}ö", 2), ["ü", "ö"]);
    }

    #[test]
    fn plain_paint_adds_nothing() {
        assert_eq!(Paint::Plain.paint(Tone::Good, "open"), "open");
        assert_eq!(Paint::Coloured.paint(Tone::Bad, "x"), "\x1b[1;31mx\x1b[0m");
    }
}
