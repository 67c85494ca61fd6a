//! What the operating system says that this process has used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// CPU time of this process so far, in user and kernel mode (`getrusage(2)`).
pub(crate) fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Octets of anonymous memory that this process has resident (`RssAnon` of `/proc/self/status`):
/// heap and stacks, without the program itself.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("/proc/self/status has no RssAnon")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Octets that the allocator has given out, with what it needs to know about them (`mallinfo2(3)`).
/// Other than [`resident`] it does not count what was freed and is used again.
#[allow(unsafe_code, reason = "glibc tells this in no other way")]
fn allocated() -> u64 {
    // SAFETY: mallinfo2 takes nothing, returns a plain structure, and may be called at any time.
    let info = unsafe { libc::mallinfo2() };
    let octets = info.uordblks.saturating_add(info.hblkhd);
    u64::try_from(octets).unwrap_or(u64::MAX)
}

/// Memory in use: the larger of what both ways of counting say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    resident: u64,
    allocated: u64,
}

impl Memory {
    /// As it is now.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self {
            resident: resident()?,
            allocated: allocated(),
        })
    }

    /// Octets more than at an earlier time.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        let resident = self.resident.saturating_sub(earlier.resident);
        let allocated = self.allocated.saturating_sub(earlier.allocated);
        resident.max(allocated)
    }
}
