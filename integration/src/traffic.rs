//! Traffic with exact accounts: numbered UDP datagrams at a steady rate, and TCP streams whose
//! every byte is checked.

use crate::capture::Timestamp;
use crate::net::Host;
use crate::pace::Pace;
use crate::sys;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The receiver's queue: seconds of datagrams, so that no loss is its own.
const QUEUE_BYTES: usize = 16 << 20;
/// What a datagram begins with, so that strays are not counted.
pub(crate) const MAGIC: &[u8; 8] = b"EGFLOW\0\x01";
/// Magic, sequence number, and time of sending.
const HEADER_BYTES: usize = 24;
/// How long a reader waits before it looks whether it shall end, unless nobody hurries.
const READ_SLICE: Duration = Duration::from_millis(20);
/// How long a sender sleeps at least: what is due more often goes in small bursts, because on a
/// single CPU it is the waking that costs.
const SHORTEST_NAP: Duration = Duration::from_millis(3);

/// How many datagrams a sender may be ahead of its account.
const MARGIN: u64 = 5;

/// A one-way flow of numbered UDP datagrams.
#[derive(Debug, Clone)]
#[must_use = "start() sends it"]
pub struct UdpFlow {
    from: (Host, SocketAddr),
    to: (Host, SocketAddr),
    per_second: u32,
    count: u64,
    payload_bytes: usize,
    pace: Pace,
}

impl UdpFlow {
    /// From an address of one host to a port of another: 100 datagrams of 64 bytes, 100 a
    /// second.
    pub fn new(from: (&Host, &str), to: (&Host, &str), port: u16) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("an IP address");
        Self {
            from: (from.0.clone(), SocketAddr::new(address(from.1), 0)),
            to: (to.0.clone(), SocketAddr::new(address(to.1), port)),
            per_second: 100,
            count: 100,
            payload_bytes: 64,
            pace: Pace::Prompt,
        }
    }

    /// Datagrams per second.
    pub fn rate(mut self, per_second: u32) -> Self {
        self.per_second = per_second;
        self
    }

    /// How many datagrams in all; [`RunningFlow::stop`] may end it earlier.
    pub fn count(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// Bytes of payload in each datagram, at least 24.
    pub fn payload(mut self, bytes: usize) -> Self {
        self.payload_bytes = bytes.max(HEADER_BYTES);
        self
    }

    /// For a run of this pace.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Begins to send. The receiver listens when this returns.
    pub fn start(self) -> RunningFlow {
        let receiver = self
            .to
            .0
            .within(|| UdpSocket::bind(self.to.1))
            .expect("the receiver's address");
        setsockopt(&receiver, sockopt::RcvBufForce, &QUEUE_BYTES).expect("a large queue");
        receiver
            .set_read_timeout(Some(self.pace.or_unhurried(READ_SLICE)))
            .expect("a read timeout");
        let sender = self
            .from
            .0
            .within(|| UdpSocket::bind(self.from.1))
            .expect("the sender's address");
        let shared = Arc::new(Shared {
            until: AtomicU64::new(self.count),
            stop_receiving: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
        });
        let receiving = self.to.0.thread({
            let shared = Arc::clone(&shared);
            move || receive(&receiver, &shared)
        });
        let sending = self.from.0.clone().thread({
            let shared = Arc::clone(&shared);
            let to = self.to.1;
            move || send(&sender, to, &self, &shared)
        });
        RunningFlow {
            shared,
            sending,
            receiving,
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// How many datagrams to send in all.
    until: AtomicU64,
    stop_receiving: AtomicBool,
    sent: AtomicU64,
    refused: AtomicU64,
    arrived: AtomicU64,
}

/// What the sender did.
#[derive(Debug, Default)]
struct Sent {
    sent: Vec<(u64, Timestamp)>,
    refused: Vec<(u64, String)>,
}

/// A flow under way.
#[derive(Debug)]
pub struct RunningFlow {
    shared: Arc<Shared>,
    sending: JoinHandle<Sent>,
    receiving: JoinHandle<Vec<Arrival>>,
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 0.
    pub sequence: u64,
    /// When it was handed to the sending kernel.
    pub sent_at: Timestamp,
    /// When the receiver read it.
    pub at: Timestamp,
}

/// Waits until traffic flows in all of these; fails the test when one has none for `limit`.
#[track_caller]
pub fn wait_for_traffic<'a>(flows: impl IntoIterator<Item = &'a RunningFlow>, limit: Duration) {
    for flow in flows {
        // One that was under way already shows nothing.
        flow.wait_for_more(2, limit);
    }
}

impl RunningFlow {
    /// How many datagrams the sending kernel has taken so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// How many it has been given so far, whether it took them or not.
    pub fn tried(&self) -> u64 {
        self.sent() + self.shared.refused.load(Ordering::Acquire)
    }

    /// How many have arrived so far, repeated ones included.
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Acquire)
    }

    /// Waits until `more` datagrams have arrived from now on; fails the test after `limit`.
    #[track_caller]
    pub fn wait_for_more(&self, more: u64, limit: Duration) {
        let began = Instant::now();
        let wanted = self.arrived() + more;
        while self.arrived() < wanted {
            let waited = began.elapsed();
            assert!(waited < limit, "no traffic after {waited:?}");
            thread::sleep(READ_SLICE);
        }
    }

    /// Ends the sending now, then does as [`finish`](Self::finish).
    pub fn stop(self, settle: Duration) -> Account {
        self.shared.until.store(0, Ordering::Release);
        self.finish(settle)
    }

    /// Lets the sending end soon, when the number of datagrams is a multiple of `count`, so that
    /// the account does not depend on a moment.
    pub fn end_at_multiple_of(&self, count: u64) {
        // What is being sent right now does not look at this any more.
        let until = (self.tried() + MARGIN).next_multiple_of(count);
        self.shared.until.store(until, Ordering::Release);
    }

    /// Waits until all is sent, and then until all of it has arrived, or nothing has for
    /// `settle`. Waits 50 ms more, for datagrams that come twice.
    pub fn finish(self, settle: Duration) -> Account {
        let sent = self.sending.join().expect("the sender's thread");
        let mut last = (self.shared.arrived.load(Ordering::Acquire), Instant::now());
        while last.0 < sent.sent.len() as u64 && last.1.elapsed() < settle {
            thread::sleep(READ_SLICE);
            let arrived = self.shared.arrived.load(Ordering::Acquire);
            if arrived != last.0 {
                last = (arrived, Instant::now());
            }
        }
        thread::sleep(Duration::from_millis(50));
        self.shared.stop_receiving.store(true, Ordering::Release);
        let arrivals = self.receiving.join().expect("the receiver's thread");
        Account {
            sent: sent.sent,
            refused: sent.refused,
            arrivals,
        }
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, flow: &UdpFlow, shared: &Shared) -> Sent {
    let mut datagram = vec![0xa5; flow.payload_bytes];
    datagram[..8].copy_from_slice(MAGIC);
    let mut outcome = Sent::default();
    let interval = Duration::from_secs(1) / flow.per_second.max(1);
    let began = Instant::now();
    let mut due = Duration::ZERO;
    let mut elapsed = Duration::ZERO;
    let mut now = Timestamp::now();
    for sequence in 0..flow.count {
        if sequence >= shared.until.load(Ordering::Acquire) {
            break;
        }
        // The clock is read once for all that is due: on a guest that costs as much as a packet.
        if due >= elapsed {
            elapsed = began.elapsed();
            if due > elapsed {
                thread::sleep((due - elapsed).max(SHORTEST_NAP));
                elapsed = began.elapsed();
            }
            now = Timestamp::now();
        }
        due += interval;
        datagram[8..16].copy_from_slice(&sequence.to_be_bytes());
        datagram[16..24].copy_from_slice(&now.0.to_be_bytes());
        match socket.send_to(&datagram, to) {
            Ok(_) => {
                outcome.sent.push((sequence, now));
                shared.sent.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                outcome.refused.push((sequence, error.to_string()));
                shared.refused.fetch_add(1, Ordering::Release);
            }
        }
    }
    outcome
}

fn receive(socket: &UdpSocket, shared: &Shared) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !shared.stop_receiving.load(Ordering::Acquire) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                if let Some((sequence, sent_at)) = header_of(&buffer[..length]) {
                    arrivals.push(Arrival {
                        sequence,
                        sent_at,
                        at: Timestamp::now(),
                    });
                    shared.arrived.fetch_add(1, Ordering::Release);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("the receiver's socket: {error}"),
        }
    }
    arrivals
}

fn header_of(payload: &[u8]) -> Option<(u64, Timestamp)> {
    let header = payload.strip_prefix(MAGIC)?.first_chunk::<16>()?;
    let (sequence, sent_at) = header.split_first_chunk::<8>()?;
    let sent_at = sent_at.first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*sequence),
        Timestamp(u64::from_be_bytes(*sent_at)),
    ))
}

/// The number of a flow's datagram, if it is one.
pub(crate) fn sequence_of(payload: &[u8]) -> Option<u64> {
    header_of(payload).map(|(sequence, _)| sequence)
}

/// What became of a flow's datagrams.
#[derive(Debug, Clone)]
pub struct Account {
    /// What the sending kernel took: number and time.
    pub sent: Vec<(u64, Timestamp)>,
    /// What it refused, and why (EAGAIN when a hold queue is full).
    pub refused: Vec<(u64, String)>,
    /// What arrived, in the order of arrival.
    pub arrivals: Vec<Arrival>,
}

impl Account {
    /// How many different datagrams arrived.
    pub fn delivered(&self) -> usize {
        self.numbers().len()
    }

    /// The numbers that were sent and never arrived.
    pub fn lost(&self) -> Vec<u64> {
        let numbers = self.numbers();
        let sent = self.sent.iter().map(|(sequence, _)| *sequence);
        sent.filter(|sequence| !numbers.contains(sequence))
            .collect()
    }

    /// How many arrivals were repetitions.
    pub fn duplicated(&self) -> usize {
        self.arrivals.len() - self.delivered()
    }

    /// The arrivals that came after one with a higher number.
    pub fn reordered(&self) -> Vec<Arrival> {
        let mut highest = None;
        let mut late = Vec::new();
        for arrival in &self.arrivals {
            if highest.is_some_and(|highest| arrival.sequence < highest) {
                late.push(*arrival);
            }
            highest = highest.max(Some(arrival.sequence));
        }
        late
    }

    /// The longest time from sending to arrival.
    pub fn longest_latency(&self) -> Duration {
        let latencies = self
            .arrivals
            .iter()
            .map(|arrival| arrival.at.since(arrival.sent_at));
        latencies.max().unwrap_or_default()
    }

    /// Fails the test unless all was taken, and all arrived once and in order.
    #[track_caller]
    pub fn assert_perfect(&self) {
        assert!(self.refused.is_empty(), "refused: {:?}", self.refused);
        assert!(self.lost().is_empty(), "{self}: {:?}", self.lost());
        assert_eq!(self.duplicated(), 0, "{self}");
        assert!(
            self.reordered().is_empty(),
            "{self}: {:?}",
            self.reordered()
        );
    }

    fn numbers(&self) -> BTreeSet<u64> {
        self.arrivals
            .iter()
            .map(|arrival| arrival.sequence)
            .collect()
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sent, {} refused, {} delivered, {} lost, {} duplicated, {} reordered, {:?} at most",
            self.sent.len(),
            self.refused.len(),
            self.delivered(),
            self.lost().len(),
            self.duplicated(),
            self.reordered().len(),
            self.longest_latency(),
        )
    }
}

/// A TCP connection that carries a known stream of bytes from one host to another.
#[derive(Debug, Clone)]
#[must_use = "start() opens it"]
pub struct TcpFlow {
    from: (Host, SocketAddr),
    to: (Host, SocketAddr),
    bytes: usize,
    pace: Duration,
}

/// What is written to a TCP stream at a time.
const CHUNK_BYTES: usize = 1_000;

impl TcpFlow {
    /// From an address of one host to a port of another: 100,000 bytes as fast as they go.
    pub fn new(from: (&Host, &str), to: (&Host, &str), port: u16) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("an IP address");
        Self {
            from: (from.0.clone(), SocketAddr::new(address(from.1), 0)),
            to: (to.0.clone(), SocketAddr::new(address(to.1), port)),
            bytes: 100_000,
            pace: Duration::ZERO,
        }
    }

    /// How many bytes.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The pause between two writes of 1,000 bytes.
    pub fn pace(mut self, pause: Duration) -> Self {
        self.pace = pause;
        self
    }

    /// Connects, within `limit`, and streams. The server listens when this returns.
    pub fn start(self, limit: Duration) -> RunningTcp {
        let listener = self
            .to
            .0
            .within(|| TcpListener::bind(self.to.1))
            .expect("the server's address");
        let reading = self.to.0.thread(move || read_stream(&listener, limit));
        let writing = self.from.0.clone().thread(move || self.write_stream(limit));
        RunningTcp { writing, reading }
    }

    fn write_stream(&self, limit: Duration) -> io::Result<TcpReport> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(self.to.1),
            socket2::Type::STREAM,
            None,
        )?;
        socket.bind(&self.from.1.into())?;
        let began = Instant::now();
        socket.connect_timeout(&self.to.1.into(), limit)?;
        let connected_in = began.elapsed();
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limit))?;
        let mut at = 0;
        while at < self.bytes {
            let length = CHUNK_BYTES.min(self.bytes - at);
            let chunk: Vec<u8> = (at..at + length).map(pattern).collect();
            stream.write_all(&chunk)?;
            at += length;
            thread::sleep(self.pace);
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // The peer closes once it has read everything: only then are the counts final.
        stream.set_read_timeout(Some(limit))?;
        stream.read_to_end(&mut Vec::new())?;
        let retransmissions = sys::tcp_info(&stream)?.tcpi_total_retrans;
        Ok(TcpReport {
            connected_in,
            retransmissions,
            bytes: at,
        })
    }
}

/// The byte at a place of the stream: a missing, repeated or displaced piece shows.
fn pattern(place: usize) -> u8 {
    (place.wrapping_mul(2_654_435_761) >> 11) as u8
}

/// Returns how many bytes came; fails at the first wrong one.
fn read_stream(listener: &TcpListener, limit: Duration) -> io::Result<usize> {
    listener.set_nonblocking(true)?;
    let began = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < limit => {
                thread::sleep(READ_SLICE);
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(limit))?;
    let mut buffer = vec![0; 65_536];
    let mut place = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(place);
        }
        for byte in &buffer[..length] {
            if *byte != pattern(place) {
                return Err(io::Error::other(format!(
                    "byte {place} of the stream is wrong"
                )));
            }
            place += 1;
        }
    }
}

/// A TCP stream under way.
#[derive(Debug)]
pub struct RunningTcp {
    writing: JoinHandle<io::Result<TcpReport>>,
    reading: JoinHandle<io::Result<usize>>,
}

/// What became of a TCP stream of which every byte arrived, once and in its place.
#[derive(Debug, Clone, Copy)]
pub struct TcpReport {
    /// From the first SYN until the connection was made.
    pub connected_in: Duration,
    /// Segments that the writer sent again, SYNs included (tcpi_total_retrans).
    pub retransmissions: u32,
    /// How many bytes it carried.
    pub bytes: usize,
}

impl RunningTcp {
    /// Waits for the end. Fails if the connection failed or a byte is missing or wrong.
    pub fn finish(self) -> io::Result<TcpReport> {
        let report = self.writing.join().expect("the writer's thread")?;
        let read = self.reading.join().expect("the reader's thread")?;
        if read != report.bytes {
            let written = report.bytes;
            return Err(io::Error::other(format!(
                "{read} of {written} bytes arrived"
            )));
        }
        Ok(report)
    }
}
