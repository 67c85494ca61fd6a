//! What happened of late, and what happens now, for `epochgate events`.
//!
//! A layer of the log: every line that an operator would act on comes in, whatever the level of the
//! log itself. A bounded number is kept. Those who follow read from one ring; who is too slow is told
//! how many events were left out, and nobody waits for anybody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use epochgate_control::{
    EVENTS_KEPT_MAX, EVENTS_WAITING_MAX, EventRecord, EventsWanted, PING_EVENTS_KEPT_MAX,
};
use epochgate_controller::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::{clock, log};

/// Whose lines are events: this program's crates.
const TARGET: &str = "epochgate";

/// The kinds of events of control pings, as `EventKind` is serialised.
const PING_EVENTS: [&str; 2] = ["ping-sent", "ping-answered"];

/// Events that are kept, and the way to those who follow. Clones are the same feed.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<EventRecord>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// How many ever came.
    told: u64,
    pings: VecDeque<Entry>,
    others: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Its place among all.
    number: u64,
    at: Timestamp,
    record: Arc<EventRecord>,
}

/// The events to come.
pub type Following = broadcast::Receiver<Arc<EventRecord>>;

impl Feed {
    /// A feed of which nothing came yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, _) = broadcast::channel(EVENTS_WAITING_MAX);
        Self {
            shared: Arc::new(Shared {
                kept: Mutex::default(),
                sender,
            }),
        }
    }

    /// Keeps an event and gives it to all who follow.
    pub fn tell(&self, record: EventRecord) {
        let record = Arc::new(record);
        let mut kept = self.kept();
        kept.told += 1;
        let entry = Entry {
            number: kept.told,
            at: clock::now().unwrap_or(Timestamp::ZERO),
            record: Arc::clone(&record),
        };
        let (queue, kept_max) = if is_ping(&record) {
            (&mut kept.pings, PING_EVENTS_KEPT_MAX)
        } else {
            (&mut kept.others, EVENTS_KEPT_MAX)
        };
        if queue.len() == kept_max {
            queue.pop_front();
        }
        queue.push_back(entry);
        // Still locked: whoever begins to follow gets each event once. An error: nobody follows.
        let _ = self.shared.sender.send(record);
    }

    /// The kept events that are wanted, and those to come.
    #[must_use]
    pub fn read(&self, wanted: &EventsWanted) -> (Vec<Arc<EventRecord>>, Following) {
        let now = clock::now().unwrap_or(Timestamp::ZERO);
        let kept = self.kept();
        let recent = |entry: &&Entry| {
            let age = now.since(entry.at);
            wanted
                .since_ms
                .is_none_or(|since| age <= Duration::from_millis(since))
        };
        let mut entries: Vec<&Entry> = kept
            .pings
            .iter()
            .chain(&kept.others)
            .filter(recent)
            .filter(|entry| is_wanted(&entry.record, wanted))
            .collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        let mut records: Vec<_> = entries
            .into_iter()
            .map(|entry| Arc::clone(&entry.record))
            .collect();
        if let Some(last) = wanted.last.and_then(|last| usize::try_from(last).ok()) {
            records.drain(..records.len().saturating_sub(last));
        }
        (records, self.shared.sender.subscribe())
    }

    /// A writer that panicked left the queue as it was before or after.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        let kept = self.shared.kept.lock();
        kept.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether it tells of a control ping.
fn is_ping(record: &EventRecord) -> bool {
    let kind = record.fields.get("event").and_then(Value::as_str);
    kind.is_some_and(|kind| PING_EVENTS.contains(&kind))
}

/// Whether a reader wants this one.
#[must_use]
pub fn is_wanted(record: &EventRecord, wanted: &EventsWanted) -> bool {
    wanted.tunnel.is_none() || wanted.tunnel == record.tunnel
}

/// Whether a line of the log is an event.
#[must_use]
pub fn is_event(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target().starts_with(TARGET)
}

impl<S: Subscriber> Layer<S> for Feed {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.tell(log::record(event));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn told(feed: &Feed, tunnel: &str, count: usize) {
        for number in 0..count {
            feed.tell(EventRecord {
                time: String::new(),
                level: epochgate_control::Level::Info,
                message: number.to_string(),
                tunnel: Some(tunnel.to_owned()),
                epoch: None,
                fields: serde_json::Map::new(),
            });
        }
    }

    fn messages(feed: &Feed, wanted: &EventsWanted) -> Vec<String> {
        let (records, _) = feed.read(wanted);
        let messages = records.iter().map(|record| record.message.clone());
        messages.collect()
    }

    #[test]
    fn the_latest_are_kept_and_the_others_forgotten() {
        let feed = Feed::new();
        told(&feed, "a", EVENTS_KEPT_MAX + 10);
        let kept = messages(&feed, &EventsWanted::default());
        assert_eq!(kept.len(), EVENTS_KEPT_MAX);
        assert_eq!(kept.first().map(String::as_str), Some("10"));
    }

    #[test]
    fn pings_do_not_displace_what_matters_more_and_keep_their_place() {
        use epochgate_controller::event::EventKind;
        let ping = |message: String| {
            let told = [
                EventKind::PingSent { attempt: 1 },
                EventKind::PingAnswered {
                    round_trip_us: 1,
                    proven: true,
                },
            ]
            .map(|kind| serde_json::to_value(kind).expect("JSON")["event"].clone());
            assert_eq!(told, PING_EVENTS);
            let mut fields = serde_json::Map::new();
            fields.insert("event".to_owned(), PING_EVENTS[0].into());
            EventRecord {
                time: String::new(),
                level: epochgate_control::Level::Info,
                message,
                tunnel: Some("a".to_owned()),
                epoch: None,
                fields,
            }
        };
        let feed = Feed::new();
        told(&feed, "a", 1);
        for number in 0..2 * PING_EVENTS_KEPT_MAX {
            feed.tell(ping(format!("ping {number}")));
        }
        told(&feed, "a", 2);
        let kept = messages(&feed, &EventsWanted::default());
        assert_eq!(kept.len(), 3 + PING_EVENTS_KEPT_MAX);
        assert_eq!(kept.first().map(String::as_str), Some("0"));
        assert_eq!(kept[1], format!("ping {PING_EVENTS_KEPT_MAX}"));
        assert_eq!(kept.last().map(String::as_str), Some("1"));
    }

    #[test]
    fn a_reader_gets_those_of_its_tunnel_and_no_more_than_it_wants() {
        let feed = Feed::new();
        told(&feed, "a", 3);
        told(&feed, "b", 5);
        let of = |tunnel: &str, last| EventsWanted {
            tunnel: Some(tunnel.to_owned()),
            last,
            ..EventsWanted::default()
        };
        assert_eq!(messages(&feed, &of("a", None)), ["0", "1", "2"]);
        assert_eq!(messages(&feed, &of("b", Some(2))), ["3", "4"]);
        let none: [&str; 0] = [];
        assert_eq!(messages(&feed, &of("b", Some(0))), none);
        assert_eq!(messages(&feed, &of("c", None)), none);
    }

    #[test]
    fn who_is_too_slow_is_told_how_many_were_left_out() {
        let feed = Feed::new();
        let (_, mut slow) = feed.read(&EventsWanted::default());
        told(&feed, "a", EVENTS_WAITING_MAX + 7);
        assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(7))));
        assert_eq!(slow.try_recv().expect("kept").message, "7");
    }

    #[test]
    fn what_the_log_says_is_an_event_unless_it_is_for_developers() {
        use tracing_subscriber::filter::filter_fn;
        let feed = Feed::new();
        let layer = feed.clone().with_filter(filter_fn(is_event));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(tunnel = "branch", by = "uid 0", "asked to start");
            tracing::debug!("a detail");
            tracing::warn!(target: "rtnetlink", "somebody else's");
        });
        let (records, _) = feed.read(&EventsWanted::default());
        let [record] = records.as_slice() else {
            panic!("one event: {records:?}")
        };
        assert_eq!(record.message, "asked to start");
        assert_eq!(record.tunnel.as_deref(), Some("branch"));
        assert_eq!(record.fields["by"], "uid 0");
    }
}
