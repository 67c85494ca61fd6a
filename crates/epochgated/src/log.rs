//! The daemon's log on standard error: one line per event that an operator would act on.
//!
//! The controller's [`Event`]s come with their tunnel and epoch. As text they are a sentence; as
//! JSON all of an event's fields stand flat in one object, so that SPIs and times can be read by
//! programs.

use std::fmt;
use std::io::IsTerminal;

use epochgate_config::LogLevel;
use epochgate_control::{self as control, EventRecord};
use epochgate_controller::event::{Event, Severity};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::LogFormat;
use crate::feed::{self, Feed};

/// Environment variable with a filter as `tracing-subscriber` reads it, for instance
/// `epochgated=debug`.
const FILTER_VARIABLE: &str = "EPOCHGATE_LOG";
/// What is added to the configured level. Netlink libraries are kept quiet: what they would print of
/// messages that they can't read is nobody's business.
const QUIET: &str = "netlink_proto=off,netlink_packet_core=off";
/// The field that carries a controller event as JSON.
const DETAIL: &str = "detail";
/// The field that names a tunnel.
const TUNNEL: &str = "tunnel";
/// The field with an epoch's number.
const EPOCH: &str = "epoch";

/// Starts the log, and gives what comes to `feed` too; later calls do nothing.
pub fn start(format: LogFormat, level: LogLevel, feed: Feed) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new(format!("{},{QUIET}", level.as_filter())));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .event_format(Lines { format });
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(feed.with_filter(filter_fn(feed::is_event)));
    // Only a second call fails, in tests.
    let _ = subscriber.try_init();
}

/// A line of the log as the object that it is in JSON.
#[must_use]
pub fn record(event: &tracing::Event<'_>) -> EventRecord {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut time = String::new();
    // Writing to a text does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    fields.into_record(time, *event.metadata().level())
}

/// Logs what the controller says.
pub fn event(event: &Event) {
    let tunnel = event.tunnel.as_ref().map(|name| name.0.as_ref());
    let epoch = event.epoch.map(|number| number.0);
    let detail = serde_json::to_string(event).unwrap_or_default();
    match event.kind.severity() {
        Severity::Info => tracing::info!(tunnel, epoch, detail, "{}", event.kind),
        Severity::Warning => tracing::warn!(tunnel, epoch, detail, "{}", event.kind),
        Severity::Error => tracing::error!(tunnel, epoch, detail, "{}", event.kind),
    }
}

struct Lines {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        match self.format {
            LogFormat::Text => {
                let mut fields = Fields::default();
                event.record(&mut fields);
                let mut time = String::new();
                SystemTime.format_time(&mut Writer::new(&mut time))?;
                fields.write_text(&mut writer, &time, event.metadata().level())
            }
            LogFormat::Json => {
                let line = serde_json::to_string(&record(event)).map_err(|_| fmt::Error)?;
                writeln!(writer, "{line}")
            }
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    detail: Option<String>,
    others: Map<String, Value>,
}

impl Fields {
    fn write_text(&self, writer: &mut Writer<'_>, time: &str, level: &Level) -> fmt::Result {
        write!(writer, "{time} {level:>5} ")?;
        if let Some(tunnel) = self.others.get(TUNNEL).and_then(Value::as_str) {
            write!(writer, "{tunnel}")?;
            if let Some(epoch) = self.others.get(EPOCH) {
                write!(writer, "/{epoch}")?;
            }
            writer.write_str(": ")?;
        }
        writer.write_str(&self.message)?;
        for (name, value) in &self.others {
            if name != TUNNEL && name != EPOCH {
                write!(writer, " {name}={value}")?;
            }
        }
        writeln!(writer)
    }

    /// All fields flat.
    fn into_record(self, time: String, level: Level) -> EventRecord {
        let mut fields = self.others;
        let detail = self
            .detail
            .and_then(|detail| serde_json::from_str::<Map<String, Value>>(&detail).ok());
        fields.extend(detail.into_iter().flatten());
        fields.retain(|_, value| !value.is_null());
        let tunnel = match fields.remove(TUNNEL) {
            Some(Value::String(name)) => Some(name),
            Some(_) | None => None,
        };
        let epoch = fields.remove(EPOCH).and_then(|number| number.as_u64());
        EventRecord {
            time,
            level: match level {
                Level::TRACE => control::Level::Trace,
                Level::DEBUG => control::Level::Debug,
                Level::INFO => control::Level::Info,
                Level::WARN => control::Level::Warn,
                Level::ERROR => control::Level::Error,
            },
            message: self.message,
            tunnel,
            epoch,
            fields,
        }
    }

    fn set(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.set(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            DETAIL => self.detail = Some(value.to_owned()),
            _ => self.set(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::num::NonZeroU32;
    use std::sync::{Arc, Mutex};

    use epochgate_controller::config::TunnelName;
    use epochgate_controller::event::{EpochNumber, EventKind};
    use epochgate_controller::io::Spi;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, event: &Event) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(Lines { format })
            .finish();
        tracing::subscriber::with_default(subscriber, || super::event(event));
        let octets = sink.0.lock().expect("lock").clone();
        String::from_utf8(octets).expect("text")
    }

    fn installed() -> Event {
        let spi = |number| Spi(NonZeroU32::new(number).expect("not 0"));
        Event {
            tunnel: Some(TunnelName("branch".into())),
            epoch: Some(EpochNumber(3)),
            kind: EventKind::EpochInstalled {
                inbound: spi(0xc000_0001),
                outbound: spi(0xc000_0002),
            },
        }
    }

    #[test]
    fn text_names_tunnel_and_epoch_before_the_sentence() {
        let line = logged(LogFormat::Text, &installed());
        assert!(line.contains(" INFO branch/3: epoch installed"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn json_has_the_fields_of_an_event_flat_in_one_object() {
        let line = logged(LogFormat::Json, &installed());
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["tunnel"], "branch");
        assert_eq!(value["epoch"], 3);
        assert_eq!(value["event"], "epoch-installed");
        assert_eq!(value["in"], 0xc000_0001_u32);
        assert_eq!(value["level"], "info");
        assert!(value["message"].is_string());
    }

    #[test]
    fn an_event_of_no_tunnel_has_no_such_fields() {
        let event = Event {
            tunnel: None,
            epoch: None,
            kind: EventKind::TookOver {
                policies: 2,
                sas: 1,
            },
        };
        let value: Value = serde_json::from_str(&logged(LogFormat::Json, &event)).expect("JSON");
        assert_eq!(value.get("tunnel"), None);
        assert_eq!(value["policies"], 2);
    }
}
