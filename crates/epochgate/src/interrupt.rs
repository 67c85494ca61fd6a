//! Ctrl-C for commands that go on until they are told to end: it is how they end well.

use std::process;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// From now on SIGINT ends this process with exit code 0. What was flushed is whole lines.
///
/// Where the signal can't be waited for, it ends the process as it always does.
pub(crate) fn is_a_good_end() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    if signals.thread_block().is_err() {
        return;
    }
    let waiting = thread::Builder::new().spawn(move || {
        if signals.wait().is_ok() {
            process::exit(0);
        }
    });
    if waiting.is_err() {
        // Nobody waits: let it be delivered.
        let _ = signals.thread_unblock();
    }
}
