//! What goes on until somebody stops it: `epochgate xfrm monitor`, and `stat --watch`. Both end, with
//! exit code 0, at SIGINT and SIGTERM, after a time or a count, and when nobody reads any more.

use std::future::pending;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use epochgate_xfrm::counters::Counters;
use epochgate_xfrm::{AsyncEventSocket, EventGroup, XfrmError, XfrmEvent};
use jiff::Timestamp;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant as Moment, interval, sleep_until};

use super::filter::Filter;
use super::monitor;
use super::stat::{self, Readings};
use super::surroundings::{self, Surroundings};
use crate::failure::Failure;
use crate::terminal::Screen;

/// How often it is checked whether anybody reads, while nothing is written.
const READER_CHECK: Duration = Duration::from_millis(500);

/// What to watch for, and how to say it.
pub(crate) struct Watch {
    pub(crate) groups: Vec<EventGroup>,
    pub(crate) filter: Filter,
    pub(crate) json: bool,
    pub(crate) show_keys: bool,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Option<Duration>,
}

/// The signals that end it.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::Runtime)?.block_on(work)
}

/// Says what happens, as it happens.
pub(crate) fn events(watch: &Watch, screen: &mut Screen) -> Result<(), Failure> {
    run(watch_events(watch, screen))
}

async fn watch_events(watch: &Watch, screen: &mut Screen) -> Result<(), Failure> {
    let mut stop = Stop::new().map_err(Failure::Runtime)?;
    let mut events = AsyncEventSocket::open(&watch.groups)?;
    let mut host = Surroundings::read();
    let deadline = watch.duration.map(|duration| Moment::now() + duration);
    let mut reader = interval(READER_CHECK);
    let mut left = watch.count;
    let mut unflushed = false;
    begin(&watch.groups);
    while left != Some(0) {
        let event: Result<XfrmEvent, XfrmError> = tokio::select! {
            biased;
            () = stop.asked() => break,
            () = at(deadline) => break,
            event = events.next() => event,
            // Nothing more has come: now is the time to let it be seen.
            () = std::future::ready(()), if unflushed => {
                screen.flush()?;
                unflushed = false;
                continue;
            }
            _ = reader.tick() => {
                if screen.has_lost_its_reader() {
                    break;
                }
                continue;
            }
        };
        let event = event?;
        host.now = surroundings::now();
        if !monitor::is_wanted(&event, &watch.filter, &host) {
            continue;
        }
        let now = Timestamp::now();
        let text = match watch.json {
            true => monitor::json(&event, now, &host, watch.show_keys)
                .map_err(|_| Failure::Unexpected)?,
            false => monitor::render(&event, now, &host, screen.width(), screen.paint()),
        };
        screen.write(&text)?;
        unflushed = true;
        left = left.map(|left| left - 1);
    }
    screen.flush()
}

/// Tells a person that it has begun: nothing may happen for long.
fn begin(groups: &[EventGroup]) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let _ = writeln!(stderr, "watching {}; Ctrl-C ends it", names.join(", "));
    }
}

async fn at(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Shows the counters, and again after every `interval`, `count` times if that is given.
pub(crate) fn stat(
    all: bool,
    json: bool,
    interval: Option<Duration>,
    count: Option<u64>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let first = Counters::read()?;
    let readings = Readings {
        now: &first,
        before: None,
    };
    show(&readings, all, json, screen)?;
    match interval {
        None => Ok(()),
        Some(interval) => run(watch_counters(first, interval, count, all, json, screen)),
    }
}

async fn watch_counters(
    first: Counters,
    every: Duration,
    count: Option<u64>,
    all: bool,
    json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut stop = Stop::new().map_err(Failure::Runtime)?;
    let mut now = first;
    let mut read_at = Instant::now();
    let mut left = count;
    let mut next = Moment::now() + every;
    let mut reader = interval(READER_CHECK);
    while left != Some(0) {
        tokio::select! {
            biased;
            () = stop.asked() => break,
            () = sleep_until(next) => next += every,
            _ = reader.tick() => {
                if screen.has_lost_its_reader() {
                    break;
                }
                continue;
            }
        }
        let before = std::mem::replace(&mut now, Counters::read()?);
        let seconds = read_at.elapsed().as_secs_f64();
        read_at = Instant::now();
        if !json {
            let time = Timestamp::now().to_zoned(jiff::tz::TimeZone::system());
            screen.write(&format!("\n{}\n", time.strftime("%H:%M:%S")))?;
        }
        let readings = Readings {
            now: &now,
            before: Some((&before, seconds)),
        };
        show(&readings, all, json, screen)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn show(
    readings: &Readings<'_>,
    all: bool,
    json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let text = match json {
        true => stat::json(readings).map_err(|_| Failure::Unexpected)?,
        false => stat::render(readings, all, screen.width(), screen.paint()),
    };
    screen.write(&text)?;
    screen.flush()
}
