//! A packet socket whose frames the kernel copies into memory that it shares with us
//! (PACKET_RX_RING, TPACKET_V3: packet(7), Documentation/networking/packet_mmap.rst).
//!
//! Not for speed: an ordinary packet socket queues *references* to packets. In a lab all hosts
//! share one kernel, and a host that decrypts ESP in place (esp_input, for a packet whose data
//! lies in pages) overwrites what the captures of earlier hosts still have in their queues. The
//! ring is filled by copying, while the packet passes.

#![allow(
    unsafe_code,
    reason = "system calls and shared memory, each with its argument"
)]

use crate::pace::Pace;
use crate::sys::{self, PacketStatistics};
use nix::errno::Errno;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A block takes the largest frame, 64 KiB with segmentation offload, several times.
const BLOCK_BYTES: usize = 256 << 10;
/// 64 MiB in all: half a minute of a test's traffic even if nobody reads.
const BLOCKS: usize = 256;
const RING_BYTES: usize = BLOCK_BYTES * BLOCKS;
/// A block that is not full is handed over after this time, unless nobody hurries.
const RETIRE: Duration = Duration::from_millis(50);
/// Only a granularity in this version; blocks are filled with frames of any length.
const FRAME_BYTES: usize = 2048;

/// Places in `struct tpacket_block_desc` and `struct tpacket_hdr_v1`.
mod block {
    pub(super) const STATUS: usize = 8;
    pub(super) const PACKETS: usize = 12;
    pub(super) const FIRST: usize = 16;
    pub(super) const LENGTH: usize = 20;
}

/// Places in `struct tpacket3_hdr` and the `struct sockaddr_ll` behind it.
mod frame {
    pub(super) const NEXT: usize = 0;
    pub(super) const SECONDS: usize = 4;
    pub(super) const NANOSECONDS: usize = 8;
    pub(super) const LENGTH: usize = 12;
    pub(super) const MAC: usize = 24;
    pub(super) const PACKET_TYPE: usize = size_of::<libc::tpacket3_hdr>() + 10;
}

/// A frame, as it was when it passed the interface.
pub(crate) struct Frame<'a> {
    /// Nanoseconds since the epoch (CLOCK_REALTIME).
    pub(crate) at: u64,
    /// Whether the interface sent it.
    pub(crate) outgoing: bool,
    /// From the Ethernet header on.
    pub(crate) bytes: &'a [u8],
}

/// The ring of one interface.
#[derive(Debug)]
pub(crate) struct Ring {
    fd: OwnedFd,
    memory: NonNull<c_void>,
    next: usize,
    copy: Vec<u8>,
}

// SAFETY: the mapping belongs to this value alone, and is not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Begins to capture an interface of the calling thread's network namespace.
    pub(crate) fn open(interface: &str, pace: Pace) -> io::Result<Self> {
        let fd = sys::packet_socket()?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        sys::set_packet_option(&fd, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: FRAME_BYTES as u32,
            tp_frame_nr: (BLOCK_BYTES / FRAME_BYTES * BLOCKS) as u32,
            tp_retire_blk_tov: pace.or_unhurried(RETIRE).as_millis() as u32,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        sys::set_packet_option(&fd, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping, at an address that the kernel chooses, of the ring above.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RING_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory).ok_or(Errno::EINVAL)?;
        let ring = Self {
            fd,
            memory,
            next: 0,
            copy: Vec::with_capacity(BLOCK_BYTES),
        };
        sys::bind_packet_socket(&ring.fd, interface)?;
        Ok(ring)
    }

    /// Hands over the frames of the next block, if the kernel has filled one: how many.
    pub(crate) fn read(&mut self, mut each: impl FnMut(&Frame<'_>)) -> Option<u32> {
        // SAFETY: `next` is less than BLOCKS, so the block is within the mapping.
        let start = unsafe { self.memory.cast::<u8>().add(self.next * BLOCK_BYTES) };
        // SAFETY: the status is an aligned u32 within the block, which the kernel changes from
        // another CPU: it is only ever accessed atomically.
        let status = unsafe { AtomicU32::from_ptr(start.add(block::STATUS).cast().as_ptr()) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: while its status says so the whole block is ours, and the kernel leaves it
        // alone; BLOCK_BYTES of it are within the mapping. The slice ends before the status is
        // given back.
        let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), BLOCK_BYTES) };
        let length = word(bytes, block::LENGTH).unwrap_or_default() as usize;
        self.copy.clear();
        self.copy
            .extend_from_slice(&bytes[..length.min(BLOCK_BYTES)]);
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % BLOCKS;
        Some(walk(&self.copy, &mut each))
    }

    /// What the kernel has counted since the last call: frames, dropped ones included, and
    /// those that it dropped because the ring was full.
    pub(crate) fn statistics(&self) -> io::Result<PacketStatistics> {
        sys::packet_statistics(&self.fd)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made, and nothing refers to it any more.
        let result = unsafe { libc::munmap(self.memory.as_ptr(), RING_BYTES) };
        debug_assert_eq!(result, 0, "munmap");
    }
}

/// Goes through a block that was copied out of the ring. Returns how many frames it held.
fn walk(bytes: &[u8], each: &mut impl FnMut(&Frame<'_>)) -> u32 {
    let packets = word(bytes, block::PACKETS).unwrap_or_default();
    let mut at = word(bytes, block::FIRST).unwrap_or_default() as usize;
    for seen in 0..packets {
        let Some((frame, step)) = bytes.get(at..).and_then(frame_at) else {
            return seen;
        };
        each(&frame);
        at += step;
    }
    packets
}

/// The frame whose header begins here, and how far it is to the next.
fn frame_at(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let seconds = u64::from(word(bytes, frame::SECONDS)?);
    let nanoseconds = u64::from(word(bytes, frame::NANOSECONDS)?);
    let mac = bytes.get(frame::MAC..)?.first_chunk::<2>()?;
    let mac = usize::from(u16::from_ne_bytes(*mac));
    let length = word(bytes, frame::LENGTH)? as usize;
    let found = Frame {
        at: seconds * 1_000_000_000 + nanoseconds,
        outgoing: *bytes.get(frame::PACKET_TYPE)? == libc::PACKET_OUTGOING,
        bytes: bytes.get(mac..)?.get(..length)?,
    };
    Some((found, word(bytes, frame::NEXT)? as usize))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
