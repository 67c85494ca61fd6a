//! The daemon's log on standard error: one line per event that an operator would act on.
//!
//! The controller's [`Event`]s come with their tunnel and epoch. As text they are a sentence; as
//! JSON all of an event's fields stand flat in one object, so that SPIs and times can be read by
//! programs.

use std::fmt;
use std::io::IsTerminal;

use epochgate_config::LogLevel;
use epochgate_controller::event::{Event, Severity};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::LogFormat;

/// Environment variable with a filter as `tracing-subscriber` reads it, for instance
/// `epochgated=debug`.
const FILTER_VARIABLE: &str = "EPOCHGATE_LOG";
/// What is added to the configured level. Netlink libraries are kept quiet: what they would print of
/// messages that they can't read is nobody's business.
const QUIET: &str = "netlink_proto=off,netlink_packet_core=off";
/// The field that carries a controller event as JSON.
const DETAIL: &str = "detail";

/// Starts the log; later calls do nothing.
pub fn start(format: LogFormat, level: LogLevel) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new(format!("{},{QUIET}", level.as_filter())));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .event_format(Lines { format });
    // Only a second call fails, in tests.
    let _ = subscriber.try_init();
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
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = event.metadata().level();
        match self.format {
            LogFormat::Text => fields.write_text(&mut writer, &time, level),
            LogFormat::Json => fields.write_json(&mut writer, &time, level),
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
        if let Some(tunnel) = self.others.get("tunnel").and_then(Value::as_str) {
            write!(writer, "{tunnel}")?;
            if let Some(epoch) = self.others.get("epoch") {
                write!(writer, "/{epoch}")?;
            }
            writer.write_str(": ")?;
        }
        writer.write_str(&self.message)?;
        for (name, value) in &self.others {
            if name != "tunnel" && name != "epoch" {
                write!(writer, " {name}={value}")?;
            }
        }
        writeln!(writer)
    }

    fn write_json(self, writer: &mut Writer<'_>, time: &str, level: &Level) -> fmt::Result {
        let mut object = Map::new();
        object.insert("time".to_owned(), time.into());
        object.insert(
            "level".to_owned(),
            level.as_str().to_ascii_lowercase().into(),
        );
        object.insert("message".to_owned(), self.message.into());
        object.extend(self.others);
        let detail = self
            .detail
            .and_then(|detail| serde_json::from_str::<Map<String, Value>>(&detail).ok());
        for (name, value) in detail.into_iter().flatten() {
            if !value.is_null() {
                object.insert(name, value);
            }
        }
        writeln!(writer, "{}", Value::Object(object))
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
