//! Keeps what the kernel says of a host's SAs: listens first, then lists what there is, so that
//! no SA is missed, however short it lives.

use super::key::EspKey;
use crate::capture::Timestamp;
use crate::net::Host;
use crate::pace::Pace;
use epochgate_xfrm::{
    EventGroup, EventSocket, Protection, Protocol, Reqid, Sa, Socket, XfrmError, XfrmEvent,
};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long events may lie in the socket, which has room for thousands, unless nobody hurries.
const EVENTS_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take before something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// One SA that a host has or had.
#[derive(Clone)]
pub struct LoggedSa {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// The SPI, chosen by the destination.
    pub spi: u32,
    /// The policies' templates name it.
    pub reqid: u32,
    /// When this log took note of it, up to 100 ms after the kernel had it.
    pub at: Timestamp,
    /// The kernel's name of its algorithm, as `ip xfrm` prints it.
    pub algorithm: String,
    pub(super) key: Option<Arc<EspKey>>,
}

impl LoggedSa {
    /// `None` for what is not ESP or has no keys yet.
    pub(super) fn new(sa: &Sa) -> Option<Self> {
        let algorithm = match &sa.protection {
            Protection::Aead(aead) => &aead.name,
            Protection::Encryption { cipher, .. } => &cipher.name,
            Protection::Larval | Protection::Integrity(_) | Protection::Compression(_) => {
                return None;
            }
        };
        let Reqid(reqid) = sa.reqid;
        (sa.protocol == Protocol::Esp).then_some(())?;
        Some(Self {
            src: sa.source,
            dst: sa.destination,
            spi: sa.spi?.get(),
            reqid,
            at: Timestamp::now(),
            algorithm: algorithm.clone(),
            key: EspKey::of(sa).map(Arc::new),
        })
    }

    fn id(&self) -> (IpAddr, u32) {
        (self.dst, self.spi)
    }
}

impl fmt::Debug for LoggedSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            src,
            dst,
            spi,
            reqid,
            algorithm,
            ..
        } = self;
        write!(f, "{src} > {dst} {spi:#010x} reqid {reqid} {algorithm}")
    }
}

/// Keeps every ESP SA that a host's kernel is given, with its key.
#[derive(Debug)]
pub struct KeyLog {
    questions: Option<SyncSender<SyncSender<Vec<LoggedSa>>>>,
    reader: Option<JoinHandle<Result<(), XfrmError>>>,
}

impl KeyLog {
    /// Begins with the SAs that the host has; all that come later are added.
    pub fn start(host: &Host) -> Self {
        Self::start_at(host, Pace::Prompt)
    }

    /// The same for a run of this pace.
    pub fn start_at(host: &Host, pace: Pace) -> Self {
        let (questions, asked) = sync_channel(0);
        let (listens, listening) = sync_channel(1);
        let reader = host.thread(move || {
            let mut listener = Listener::open()?;
            // Nobody waits for this any more if the test has failed meanwhile.
            let _ = listens.send(());
            listener.run(&asked, pace.or_unhurried(EVENTS_EVERY))
        });
        let mut log = Self {
            questions: Some(questions),
            reader: Some(reader),
        };
        if listening.recv().is_err() {
            log.fail();
        }
        log
    }

    /// All SAs so far, in the order in which they appeared.
    pub fn sas(&self) -> Vec<LoggedSa> {
        let (answer, answered) = sync_channel(1);
        let questions = self.questions.as_ref().expect("until it is dropped");
        questions.send(answer).expect("the kernel goes on telling");
        answered
            .recv_timeout(ANSWER_LIMIT)
            .expect("an end of the SA events")
    }

    /// Pairs of inbound and outbound SPI as `local` has them, by the order in which each reqid
    /// got them: the first inbound SA belongs to the first outbound one, and so on. Right as
    /// long as every Child SA that was begun was completed.
    pub fn pairs(&self, local: IpAddr) -> Vec<(u32, u32)> {
        let sas = self.sas();
        let (inbound, outbound): (Vec<_>, Vec<_>) = sas.iter().partition(|sa| sa.dst == local);
        let mut pairs = Vec::new();
        let mut taken = vec![false; outbound.len()];
        for sa in inbound {
            let partner = outbound.iter().enumerate().find(|(index, other)| {
                !taken[*index] && other.reqid == sa.reqid && other.dst == sa.src
            });
            if let Some((index, other)) = partner {
                taken[index] = true;
                pairs.push((sa.spi, other.spi));
            }
        }
        pairs
    }

    fn fail(&mut self) {
        let outcome = self.reader.take().map(JoinHandle::join);
        panic!("cannot watch SAs: {outcome:?}");
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(reader) = self.reader.take() {
            // What it failed with has shown in an answer that did not come.
            let _ = reader.join();
        }
    }
}

struct Listener {
    events: EventSocket,
    socket: Socket,
    seen: Vec<LoggedSa>,
    /// The ones that are in the kernel now, so that none is logged twice; an SPI that comes
    /// again later is another SA's.
    present: HashSet<(IpAddr, u32)>,
}

impl Listener {
    fn open() -> Result<Self, XfrmError> {
        let mut listener = Self {
            events: EventSocket::open(&[EventGroup::Sa, EventGroup::Expire])?,
            socket: Socket::open()?,
            seen: Vec::new(),
            present: HashSet::new(),
        };
        listener.list()?;
        Ok(listener)
    }

    fn run(
        &mut self,
        asked: &Receiver<SyncSender<Vec<LoggedSa>>>,
        every: Duration,
    ) -> Result<(), XfrmError> {
        loop {
            match asked.recv_timeout(every) {
                Ok(answer) => {
                    // The kernel has queued what it told before the question came.
                    self.take_events()?;
                    let _ = answer.send(self.seen.clone());
                }
                Err(RecvTimeoutError::Timeout) => self.take_events()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn take_events(&mut self) -> Result<(), XfrmError> {
        while let Some(event) = self.events.next(Some(Duration::ZERO))? {
            match event {
                XfrmEvent::NewSa(entry) | XfrmEvent::UpdSa(entry) => self.add(&entry.sa),
                XfrmEvent::DelSa(id, _) => {
                    let gone = (id.destination, id.spi.get());
                    self.present.remove(&gone);
                }
                XfrmEvent::Expire(expire) if expire.hard => {
                    if let Some(id) = expire.entry.sa.id() {
                        self.present.remove(&(id.destination, id.spi.get()));
                    }
                }
                XfrmEvent::FlushSa(_) => self.present.clear(),
                XfrmEvent::Overrun => self.list()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&mut self) -> Result<(), XfrmError> {
        for entry in self.socket.sas()? {
            self.add(&entry.sa);
        }
        Ok(())
    }

    fn add(&mut self, sa: &Sa) {
        if let Some(sa) = LoggedSa::new(sa)
            && self.present.insert(sa.id())
        {
            self.seen.push(sa);
        }
    }
}
