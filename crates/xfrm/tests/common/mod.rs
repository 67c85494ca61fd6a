//! What the tests on a real kernel share: a network namespace of their own, `ip`, and keys.
#![allow(dead_code)] // Every test binary uses its part.

use std::net::IpAddr;
use std::process::Command;

use epochgate_xfrm::{Key, Protection, Reqid, Sa, Spi};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace of its own, which goes when the thread ends.
pub(crate) fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: CAP_SYS_ADMIN is needed");
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the calling thread's namespace, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("ip prints text")
}

/// Sets a kernel variable of the calling thread's namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).expect("the variable exists");
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn spi(number: u32) -> Spi {
    Spi::new(number).expect("not zero")
}

/// AES-GCM with key and salt of this many bytes.
pub(crate) fn gcm(length: u8) -> Protection {
    Protection::aes_gcm_16(Key::new((1..=length).collect()))
}

/// An ESP SA in tunnel mode with AES-GCM-128.
pub(crate) fn tunnel_sa(source: &str, destination: &str, number: u32, reqid: u32) -> Sa {
    Sa::esp_tunnel(
        address(source),
        address(destination),
        spi(number),
        Reqid(reqid),
        gcm(20),
    )
}
