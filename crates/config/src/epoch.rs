//! `[tunnel.NAME.epoch]`, `[tunnel.NAME.ping]` and `[tunnel.NAME.recovery]`: epochs, what proves them,
//! and what follows when one fails.

use std::time::Duration;

use epochgate_controller::config::{
    EpochConfig, PingConfig, Proof, RecoveryConfig, Role, ServerRekey,
};

use crate::diagnostic::{Sink, quoted};
use crate::keys::{
    BACK_OFF, BACK_OFF_MAX, EPOCH_DRAIN, EPOCH_LIFETIME, EPOCH_WAIT, PING_ATTEMPTS, PING_IDLE,
    PING_INTERVAL,
};
use crate::reader::{At, Section};
use crate::traffic::Sides;
use crate::values::{
    self, Choice, Setting, Words, read_choice, read_duration, read_flag, read_number, read_word,
    shown_duration,
};

pub(crate) const PROOFS: Choice<Proof, 2> = Choice {
    words: Words([("icmp", Proof::Icmp), ("any-inbound", Proof::AnyInbound)]),
    default: 0,
};
pub(crate) const SERVER_REKEYS: Choice<ServerRekey, 2> = Choice {
    words: Words([
        ("accept", ServerRekey::Accept),
        ("ignore", ServerRekey::Ignore),
    ]),
    default: 0,
};

/// The section, and the lifetime in it for comparisons.
pub(crate) fn read_epoch(
    section: &Section<'_>,
    role: Option<Role>,
    sink: &mut Sink,
) -> (EpochConfig, Setting<Duration>) {
    let lifetime = read_duration(section, "lifetime", EPOCH_LIFETIME, sink);
    let drain = read_duration(section, "drain", EPOCH_DRAIN, sink);
    let are_right = !drain.is_wrong && !lifetime.is_wrong;
    if are_right && drain.value >= lifetime.value {
        let title = "an old epoch would drain for longer than an epoch lives";
        sink.error(drain.span, title, shown_duration(drain.value))
            .also(lifetime.span.clone(), shown_duration(lifetime.value));
    }
    let server_rekey = read_word(section, "server-rekey", &SERVER_REKEYS.words, sink);
    if let (Some(Role::Server), Some(word)) = (role, &server_rekey)
        && word.value == ServerRekey::Ignore
    {
        let title = "a server's own rekeys are its client's to ignore";
        sink.error(word.span.clone(), title, "of no meaning here")
            .help("set it on the client, or remove it");
    }
    let config = EpochConfig {
        lifetime: lifetime.value,
        wait: read_flag(section, "wait", EPOCH_WAIT, sink),
        drain: drain.value,
        server_rekey: server_rekey.map_or(SERVER_REKEYS.default(), |word| word.value),
    };
    (config, lifetime)
}

pub(crate) fn read_ping(
    section: &Section<'_>,
    traffic: &Sides,
    lifetime: &Setting<Duration>,
    sink: &mut Sink,
) -> PingConfig {
    let mut inside = |key: &str, side: &str| {
        let text = section.text(key, sink)?;
        let value = values::address(&text, sink)?;
        let networks = match side {
            "local" => &traffic.local,
            _ => &traffic.remote,
        };
        if let Some(networks) = networks
            && !networks
                .iter()
                .any(|network| network.value.contains(&value))
        {
            let title = format!(
                "{} {value} is outside the {side} traffic",
                quoted(&format!("ping.{key}"))
            );
            let shown: Vec<_> = networks.iter().map(|at| at.value.to_string()).collect();
            sink.error(
                text.span.clone(),
                title,
                format!("outside {}", shown.join(", ")),
            )
            .help(format!(
                "a control ping goes through the tunnel: name an address inside traffic.{side}"
            ));
            return None;
        }
        Some(At {
            value,
            span: text.span,
        })
    };
    let source = inside("source", "local");
    let target = inside("target", "remote");
    if let (Some(source), Some(target)) = (&source, &target)
        && source.value.is_ipv4() != target.value.is_ipv4()
    {
        let title = "the ping's source and target are of different IP versions";
        sink.error(target.span.clone(), title, "target")
            .also(source.span.clone(), "source");
    }
    let interval = read_duration(section, "interval", PING_INTERVAL, sink);
    let attempts = read_number(section, "attempts", PING_ATTEMPTS, sink);
    let series = interval.value.saturating_mul(attempts.value);
    let are_right = !interval.is_wrong && !attempts.is_wrong && !lifetime.is_wrong;
    if are_right && series >= lifetime.value {
        let title = "pinging would go on for longer than an epoch lives";
        let label = format!("{} pings take {}", attempts.value, shown_duration(series));
        sink.error(interval.span, title, label).help(format!(
            "an epoch lives for {}",
            shown_duration(lifetime.value)
        ));
    }
    PingConfig {
        source: source.map(|at| at.value),
        target: target.map(|at| at.value),
        interval: interval.value,
        attempts: attempts.value,
        idle: read_duration(section, "idle", PING_IDLE, sink).value,
        proof: read_choice(section, "proof", &PROOFS, sink),
    }
}

pub(crate) fn read_recovery(section: &Section<'_>, sink: &mut Sink) -> RecoveryConfig {
    let first = read_duration(section, "back-off", BACK_OFF, sink);
    let longest = read_duration(section, "back-off-max", BACK_OFF_MAX, sink);
    let are_right = !first.is_wrong && !longest.is_wrong;
    if are_right && longest.value < first.value {
        let title = "the longest wait between attempts is shorter than the first";
        sink.error(longest.span, title, shown_duration(longest.value))
            .also(first.span, shown_duration(first.value));
    }
    RecoveryConfig {
        back_off: first.value,
        back_off_max: longest.value,
    }
}
