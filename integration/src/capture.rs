//! Captures every packet of an interface, with the time the kernel saw it, and says what it
//! is on the wire: clear text, ESP, IKE.
//!
//! Capture on the *router's* interface towards a host to see the wire as that host does: there
//! every packet appears once, as it was sent or as it arrives. On the host itself the kernel
//! shows inbound packets a second time, decrypted, and outbound ones only after netem's delay.

mod packet;

pub use packet::Packet;
pub(crate) use packet::{Network, exchange_name, network};

use crate::net::{Iface, locked};
use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt,
};
use std::fmt;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel's queue for one capture: seconds of full-size frames even if nobody reads.
const QUEUE_BYTES: usize = 128 << 20;
/// Frames read by one system call.
const BATCH: usize = 64;
/// An interface without hardware segmentation limits hands over frames up to this size.
const FRAME_BYTES: usize = 65_536 + 64;
/// How long [`Capture::wait_for`] sleeps between two looks.
const NAP: Duration = Duration::from_millis(5);
/// Ethernet, in the pcap format's list of link types.
const LINKTYPE_ETHERNET: u32 = 1;

/// Nanoseconds since the epoch (CLOCK_REALTIME, which also stamps captured packets).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The clock now.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(since.as_nanos() as u64)
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

/// One captured frame.
#[derive(Clone)]
pub struct Record {
    /// When the kernel sent or received it.
    pub at: Timestamp,
    /// Whether the capturing interface sent it, rather than received it.
    pub outgoing: bool,
    frame: Box<[u8]>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.outgoing { "out" } else { "in" };
        write!(f, "{:?} {arrow} {:?}", self.at, self.packet())
    }
}

impl Record {
    #[cfg(test)]
    pub(crate) fn new(at: Timestamp, outgoing: bool, frame: &[u8]) -> Self {
        Self {
            at,
            outgoing,
            frame: frame.into(),
        }
    }

    /// What it is.
    pub fn packet(&self) -> Packet {
        packet::parse_frame(&self.frame).0
    }

    /// The ESP packet that it carries, beginning with the SPI (RFC 4303 §2), if it does.
    pub fn esp(&self) -> Option<&[u8]> {
        packet::parse_frame(&self.frame).1
    }

    /// The whole Ethernet frame.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }
}

/// Where a capture puts its records.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Record>>);

impl Recorder {
    pub(crate) fn write_pcap(&self, file: &mut impl Write) -> io::Result<()> {
        write_pcap(&locked(&self.0), file)
    }
}

/// Writes frames in the pcap format, with nanoseconds.
pub fn write_pcap(records: &[Record], file: &mut impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(file);
    // Magic of the nanosecond variant, version 2.4, no time zone, no accuracy, no snapping.
    for word in [
        0xa1b2_3c4d_u32,
        2 | 4 << 16,
        0,
        0,
        FRAME_BYTES as u32,
        LINKTYPE_ETHERNET,
    ] {
        out.write_all(&word.to_le_bytes())?;
    }
    for record in records {
        let length = record.frame.len() as u32;
        let (seconds, nanos) = (record.at.0 / 1_000_000_000, record.at.0 % 1_000_000_000);
        for word in [seconds as u32, nanos as u32, length, length] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&record.frame)?;
    }
    out.flush()
}

/// A running capture of one interface. A failing test keeps it as a pcap file.
#[derive(Debug)]
pub struct Capture {
    recorder: Arc<Recorder>,
    /// Closing it ends the reader.
    stop: Option<UnixStream>,
    reader: Option<JoinHandle<io::Result<u32>>>,
}

impl Capture {
    /// Begins to record what `interface` sends and receives. Every packet after this call
    /// returned is in it.
    pub fn start(interface: &Iface) -> Self {
        let host = interface.host();
        let recorder = Arc::<Recorder>::default();
        let name = format!("{}-{}", host.name(), interface.name());
        host.evidence().add_capture(name, Arc::clone(&recorder));
        let socket = host
            .within(|| -> io::Result<OwnedFd> {
                let socket = sys::packet_socket(interface.name())?;
                setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
                setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
                Ok(socket)
            })
            .expect("a packet socket");
        let (stop, stopped) = UnixStream::pair().expect("two sockets");
        let reader = thread::spawn({
            let recorder = Arc::clone(&recorder);
            move || read_until(&socket, &recorder, &stopped)
        });
        Self {
            recorder,
            stop: Some(stop),
            reader: Some(reader),
        }
    }

    /// What was captured so far, to look at while it goes on.
    pub fn so_far(&self) -> Vec<Record> {
        locked(&self.recorder.0).clone()
    }

    /// Waits until a packet that was captured satisfies `wanted`; `None` after `limit`.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
        let began = Timestamp::now();
        let mut looked = 0;
        loop {
            {
                let records = locked(&self.recorder.0);
                if let Some(found) = records[looked..].iter().find(|record| wanted(record)) {
                    return Some(found.clone());
                }
                looked = records.len();
            }
            if Timestamp::now().since(began) > limit {
                return None;
            }
            thread::sleep(NAP);
        }
    }

    /// Ends the capture and returns all of it, in the order of its times. Panics if the
    /// kernel could not keep a packet for it: such a capture proves nothing.
    pub fn stop(mut self) -> Vec<Record> {
        self.finish();
        let mut records = locked(&self.recorder.0).clone();
        records.sort_by_key(|record| record.at);
        records
    }

    fn finish(&mut self) {
        self.stop = None;
        let Some(reader) = self.reader.take() else {
            return;
        };
        let drops = reader
            .join()
            .expect("its thread")
            .expect("its packet socket");
        assert!(
            drops == 0 || thread::panicking(),
            "the capture missed {drops} packets"
        );
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Reads until the other end of `stopped` is closed, and then until nothing is left. Returns
/// how many the kernel dropped for want of space.
fn read_until(socket: &OwnedFd, recorder: &Recorder, stopped: &UnixStream) -> io::Result<u32> {
    let mut headers =
        MultiHeaders::<LinkAddr>::preallocate(BATCH, Some(nix::cmsg_space!(libc::timespec)));
    let mut storage = vec![0; BATCH * FRAME_BYTES];
    loop {
        let mut ready = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Asked before reading: what had been sent by then is read below.
        let last_round = ready[1].any().unwrap_or(true);
        while read_batch(socket, &mut headers, &mut storage, recorder)? {}
        if last_round {
            return Ok(sys::packet_statistics(socket)?.drops);
        }
    }
}

fn read_batch(
    socket: &OwnedFd,
    headers: &mut MultiHeaders<LinkAddr>,
    storage: &mut [u8],
    recorder: &Recorder,
) -> io::Result<bool> {
    let mut slots: Vec<_> = storage
        .chunks_exact_mut(FRAME_BYTES)
        .map(|slot| [IoSliceMut::new(slot)])
        .collect();
    let received = match recvmmsg(
        socket.as_raw_fd(),
        headers,
        slots.iter_mut(),
        MsgFlags::MSG_DONTWAIT,
        None,
    ) {
        Ok(received) => received,
        // The interface went down; packets come again when it is up.
        Err(Errno::EAGAIN | Errno::ENETDOWN | Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut batch = Vec::with_capacity(BATCH);
    for message in received {
        let mut at = Timestamp::default();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(time) = control {
                at = Timestamp(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64);
            }
        }
        let outgoing = message
            .address
            .is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
        let frame = message.iovs().flatten().copied().collect();
        batch.push(Record {
            at,
            outgoing,
            frame,
        });
    }
    let some = !batch.is_empty();
    locked(&recorder.0).append(&mut batch);
    Ok(some)
}
