//! Runs a program that is asked something, for a limited time.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Time that a program gets. `nft` lists 100,000 rules in less.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Octets of output that are read.
const OUTPUT_OCTETS_MAX: u64 = 32 << 20;
/// Octets of an error message that are read.
const MESSAGE_OCTETS_MAX: u64 = 4 << 10;
/// How often it is looked whether the program has ended.
const POLL: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Debug)]
pub(super) enum Ran {
    /// It is not installed.
    NotInstalled,
    /// It ended well, with this output.
    Said(Vec<u8>),
    /// It ended otherwise, with this output and message.
    Failed { output: Vec<u8>, message: String },
}

/// Runs `program` to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Ran {
    run_for(Command::new(program).args(arguments), TIME_MAX)
}

/// The same with a time limit of the caller's; what goes on after it is killed.
pub(super) fn run_for(command: &mut Command, limit: Duration) -> Ran {
    let spawned = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ran::NotInstalled,
        Err(error) => return failed(Vec::new(), error.to_string()),
    };
    let output = reader(child.stdout.take(), OUTPUT_OCTETS_MAX);
    let message = reader(child.stderr.take(), MESSAGE_OCTETS_MAX);
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) => {
                end(&mut child);
                return failed(Vec::new(), format!("it did not end in {limit:?}"));
            }
            Err(error) => return failed(Vec::new(), error.to_string()),
        }
    };
    // A grandchild may hold the pipe open for ever.
    let left = || deadline.saturating_duration_since(Instant::now()) + POLL;
    let output = output.recv_timeout(left()).unwrap_or_default();
    if status.success() {
        return Ran::Said(output);
    }
    let message = message.recv_timeout(left()).unwrap_or_default();
    let message = String::from_utf8_lossy(&message);
    let first = message.lines().find(|line| !line.trim().is_empty());
    failed(output, first.unwrap_or("it says nothing").trim().to_owned())
}

fn failed(output: Vec<u8>, message: String) -> Ran {
    Ran::Failed { output, message }
}

/// Nothing is to be done if it has ended meanwhile.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads a pipe to its end, and what is too long away, so that the program can go on.
fn reader(pipe: Option<impl Read + Send + 'static>, most: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut octets = Vec::new();
        let read = pipe.by_ref().take(most).read_to_end(&mut octets);
        if read.is_ok() {
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        // Whoever has given up does not listen.
        let _ = sender.send(octets);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_no_error() {
        assert!(matches!(run("epochgate-no-such", &[]), Ran::NotInstalled));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let limit = Duration::from_millis(50);
        let Ran::Failed { message, .. } = run_for(Command::new("sleep").arg("60"), limit) else {
            panic!("it ended");
        };
        assert!(message.contains("did not end"), "{message}");
    }

    #[test]
    fn output_and_message_are_told_apart() {
        let Ran::Said(output) = run("sh", &["-c", "echo out; echo err >&2"]) else {
            panic!("it failed");
        };
        assert_eq!(output, b"out\n");
        let Ran::Failed { message, .. } = run("sh", &["-c", "echo out; echo err >&2; exit 3"])
        else {
            panic!("it ended well");
        };
        assert_eq!(message, "err");
    }
}
