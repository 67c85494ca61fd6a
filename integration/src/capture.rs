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
use crate::pace::Pace;
use crate::ring::{Frame, Ring};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The largest frame there is: an interface without hardware limits on segmentation hands
/// over frames of 64 KiB.
const FRAME_BYTES: usize = 65_536 + 64;
/// How long the kernel may take to hand over the block that it has begun to fill.
const LAST_BLOCK_LIMIT: Duration = Duration::from_secs(2);
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
    fn add(&self, frame: &Frame<'_>) {
        locked(&self.0).push(Record {
            at: Timestamp(frame.at),
            outgoing: frame.outgoing,
            frame: frame.bytes.into(),
        });
    }

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
        Self::start_at(interface, Pace::Prompt)
    }

    /// The same for a run of this pace.
    pub fn start_at(interface: &Iface, pace: Pace) -> Self {
        let host = interface.host();
        let recorder = Arc::<Recorder>::default();
        let name = format!("{}-{}", host.name(), interface.name());
        host.evidence().add_capture(name, Arc::clone(&recorder));
        let ring = host
            .within(|| Ring::open(interface.name(), pace))
            .expect("a packet socket");
        let (stop, stopped) = UnixStream::pair().expect("two sockets");
        let reader = thread::spawn({
            let recorder = Arc::clone(&recorder);
            move || read_until(ring, &recorder, &stopped)
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
fn read_until(mut ring: Ring, recorder: &Recorder, stopped: &UnixStream) -> io::Result<u32> {
    let (mut read, mut seen, mut drops) = (0_u64, 0_u64, 0);
    let mut ended = None;
    loop {
        let mut ready = [
            PollFd::new(ring.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        // Once it shall end, only the ring is waited for.
        let (waited_for, timeout) = match ended {
            None => (&mut ready[..], PollTimeout::NONE),
            Some(_) => (&mut ready[..1], PollTimeout::from(10_u8)),
        };
        match poll(waited_for, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let stop = ended.is_none() && ready[1].any().unwrap_or(true);
        if ready[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
        {
            // The interface went down; packets come again when it is up.
            getsockopt(&ring, sockopt::SocketError)?;
        }
        if stop {
            // What has passed by now is counted, and is read below, block by block.
            let counted = ring.statistics()?;
            seen += u64::from(counted.packets);
            drops += counted.drops;
            ended = Some(Instant::now());
        }
        while let Some(frames) = ring.read(|frame| recorder.add(frame)) {
            read += u64::from(frames);
        }
        if let Some(since) = ended
            && (read + u64::from(drops) >= seen || since.elapsed() > LAST_BLOCK_LIMIT)
        {
            let missing = seen.saturating_sub(read) as u32;
            return Ok(missing.max(drops));
        }
    }
}
