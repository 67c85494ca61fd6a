//! What the tests on a real kernel share: a network namespace that ends with the test, `ip` and the
//! built command in it.
#![allow(dead_code)] // Every test binary uses its part.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Runs a test in a network namespace of its own, which ends with it.
pub(crate) fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("CAP_SYS_ADMIN makes a network namespace");
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("ip prints text")
}

/// Runs many lines of `ip`, which must all succeed.
pub(crate) fn ip_batch(lines: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut stdin = child.stdin.take().expect("piped");
    // It stops reading at the first line that it does not take, and says which.
    let written = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("ip ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip -batch: {errors}");
    written.expect("ip has read it");
}

/// The built command with these arguments, not started yet.
pub(crate) fn epochgate(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    command
        .args(arguments.split_whitespace())
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR");
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// What the command writes; it must succeed and say nothing else.
pub(crate) fn shown(arguments: &str) -> String {
    let (code, out, err) = said(&epochgate(arguments).output().expect("it starts"));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments}");
    out
}

/// The same as JSON.
pub(crate) fn json(arguments: &str) -> Value {
    serde_json::from_str(&shown(arguments)).expect("JSON")
}
