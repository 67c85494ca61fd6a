//! What the NAT's program is told on its standard input and answers on its standard output: one
//! JSON object a line, an answer to each order.
//!
//! ```json
//! {"set":{"pending_ms":5000,"idle_ms":1800000,"guessing":false}}
//! {"forget":true}
//! {"reboot_ms":5000}
//! {"truth":{"server":"203.0.113.1","spi":4660,"client":"192.0.2.2"}}
//! {"counters":true}
//! ```
//!
//! Answers are `{"ok":true}`, `{"error":"…"}` or, to the last, the counters.

use epochgate_nat::{Counters, DropReason, MasqueradeSettings};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Behave like this from now on.
    Set(MasqueradeSettings),
    /// Crash: forget every entry.
    Forget,
    /// Forward nothing for this time, then begin with empty tables.
    Reboot(Duration),
    /// An inbound SPI that a client has chosen for a server's packets.
    Truth {
        server: IpAddr,
        spi: u32,
        client: IpAddr,
    },
    /// Say what happened.
    Counters,
}

impl Order {
    /// Reads one line; what it does not say of the settings stays as in `settings`.
    pub(super) fn read(line: &str, settings: MasqueradeSettings) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let object = value.as_object().ok_or("an order is an object")?;
        let mut keys = object.iter();
        let (Some((verb, what)), None) = (keys.next(), keys.next()) else {
            return Err("an order has one key".to_owned());
        };
        match verb.as_str() {
            "set" => changed(settings, what).map(Self::Set),
            "forget" => Ok(Self::Forget),
            "reboot_ms" => milliseconds(what).map(Self::Reboot),
            "truth" => truth(what),
            "counters" => Ok(Self::Counters),
            other => Err(format!("no order is called {other}")),
        }
    }

    /// The line that [`Order::read`] reads.
    pub(super) fn line(&self) -> String {
        let value = match self {
            Self::Set(settings) => json!({"set": {
                "pending_ms": settings.pending.as_millis() as u64,
                "idle_ms": settings.idle.as_millis() as u64,
                "guessing": settings.guessing,
            }}),
            Self::Forget => json!({"forget": true}),
            Self::Reboot(time) => json!({"reboot_ms": time.as_millis() as u64}),
            Self::Truth {
                server,
                spi,
                client,
            } => json!({"truth": {"server": server, "spi": spi, "client": client}}),
            Self::Counters => json!({"counters": true}),
        };
        value.to_string()
    }
}

fn changed(mut settings: MasqueradeSettings, what: &Value) -> Result<MasqueradeSettings, String> {
    let object = what.as_object().ok_or("settings are an object")?;
    for (name, value) in object {
        match name.as_str() {
            "pending_ms" => settings.pending = milliseconds(value)?,
            "idle_ms" => settings.idle = milliseconds(value)?,
            "guessing" => settings.guessing = value.as_bool().ok_or("guessing is true or false")?,
            other => return Err(format!("no setting is called {other}")),
        }
    }
    Ok(settings)
}

fn truth(what: &Value) -> Result<Order, String> {
    let address = |name: &str| -> Result<IpAddr, String> {
        let text = what[name].as_str();
        let address = text.and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("{name} is an IP address"))
    };
    let spi = what["spi"].as_u64().and_then(|spi| spi.try_into().ok());
    Ok(Order::Truth {
        server: address("server")?,
        spi: spi.ok_or("an SPI has 32 bits")?,
        client: address("client")?,
    })
}

fn milliseconds(value: &Value) -> Result<Duration, String> {
    let number = value.as_u64().ok_or("times are whole milliseconds")?;
    Ok(Duration::from_millis(number))
}

/// What a NAT of the lab did. Numbers of packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabCounters {
    /// The translation's own account.
    pub nat: Counters,
    /// Forwarded ESP that went to another client than the one that chose its SPI, as far as the
    /// truth was told ([`LabNat::tell`](super::LabNat::tell)).
    pub misdelivered: u64,
    /// What came while it was rebooting.
    pub while_down: u64,
    /// What could not be read as UDP or ESP.
    pub unreadable: u64,
}

impl LabCounters {
    pub(super) fn to_json(&self) -> Value {
        let dropped: Map<String, Value> = self
            .nat
            .dropped
            .iter()
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        json!({
            "outbound": self.nat.outbound,
            "inbound": self.nat.inbound,
            "tied": self.nat.tied,
            "unanswered": self.nat.unanswered,
            "guessed": self.nat.guessed,
            "dropped": dropped,
            "misdelivered": self.misdelivered,
            "while_down": self.while_down,
            "unreadable": self.unreadable,
        })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_u64();
        let dropped = value["dropped"].as_object()?;
        let reasons = DropReason::ALL.into_iter();
        Some(Self {
            nat: Counters {
                outbound: number("outbound")?,
                inbound: number("inbound")?,
                tied: number("tied")?,
                unanswered: number("unanswered")?,
                guessed: number("guessed")?,
                dropped: reasons
                    .filter_map(|reason| Some((reason, dropped.get(reason.name())?.as_u64()?)))
                    .collect(),
            },
            misdelivered: number("misdelivered")?,
            while_down: number("while_down")?,
            unreadable: number("unreadable")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_as_it_was_written() {
        let settings = MasqueradeSettings::default();
        let orders = [
            Order::Set(MasqueradeSettings {
                pending: Duration::from_millis(1500),
                idle: Duration::from_secs(60),
                guessing: true,
                ..settings
            }),
            Order::Forget,
            Order::Reboot(Duration::from_secs(5)),
            Order::Truth {
                server: IpAddr::from([203, 0, 113, 1]),
                spi: 0xffff_ffff,
                client: IpAddr::from([192, 0, 2, 2]),
            },
            Order::Counters,
        ];
        for order in orders {
            assert_eq!(Order::read(&order.line(), settings), Ok(order));
        }
    }

    #[test]
    fn what_is_no_order_is_refused_with_a_reason() {
        let lines = [
            "",
            "[]",
            "{}",
            r#"{"forget":true,"counters":true}"#,
            r#"{"explode":true}"#,
            r#"{"reboot_ms":-1}"#,
            r#"{"set":{"pending":1}}"#,
            r#"{"truth":{"server":"nowhere","spi":1,"client":"192.0.2.2"}}"#,
            r#"{"truth":{"server":"203.0.113.1","spi":4294967296,"client":"192.0.2.2"}}"#,
        ];
        for line in lines {
            let read = Order::read(line, MasqueradeSettings::default());
            assert!(read.is_err(), "{line}: {read:?}");
        }
    }

    #[test]
    fn counters_are_read_as_they_were_written() {
        let counters = LabCounters {
            nat: Counters {
                outbound: 1,
                inbound: 2,
                tied: 3,
                unanswered: 4,
                guessed: 5,
                dropped: DropReason::ALL.into_iter().zip(6..).collect(),
            },
            misdelivered: 7,
            while_down: 8,
            unreadable: 9,
        };
        assert_eq!(LabCounters::from_json(&counters.to_json()), Some(counters));
    }
}
