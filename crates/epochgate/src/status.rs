//! The report of the daemon as text for a person: what passes, what is held, why, and what to do.

use std::fmt::Write;
use std::net::IpAddr;

use epochgate_controller::status::{
    EpochStatus, GateStatus, IkeStatus, StatusReport, TunnelStatus,
};

use crate::terminal::{Paint, Tone, WIDTH, harmless, wrapped};

/// Columns of the words before each fact.
const LABEL_WIDTH: usize = 12;

/// State of an IKE SA that knows its algorithms and its peer.
const ESTABLISHED: &str = "established";

/// The whole report.
pub(crate) fn render(report: &StatusReport, paint: Paint) -> String {
    if report.tunnels.is_empty() {
        return "no tunnels are configured\n".to_owned();
    }
    let tunnels = report.tunnels.iter().map(|status| tunnel(status, paint));
    tunnels.collect::<Vec<_>>().join("\n")
}

/// Facts, one under the other.
struct Facts {
    text: String,
}

impl Facts {
    /// Adds a fact; it is wrapped, with `label` before its first line.
    fn add(&mut self, label: &str, fact: &str) {
        let fact = harmless(fact);
        let mut label = label;
        for line in wrapped(&fact, WIDTH - LABEL_WIDTH) {
            self.line(label, &line);
            label = "";
        }
    }

    /// Adds one line as it is.
    fn line(&mut self, label: &str, line: &str) {
        let indented = format!("  {label:width$}{line}", width = LABEL_WIDTH - 2);
        self.text.push_str(indented.trim_end());
        self.text.push('\n');
    }
}

fn joined(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn tunnel(status: &TunnelStatus, paint: Paint) -> String {
    let name = paint.paint(Tone::Name, &harmless(&status.name));
    let mut facts = Facts {
        text: format!(
            "{name} ({}): {}\n",
            harmless(&status.role),
            gate(status, paint)
        ),
    };
    if !status.reason.is_empty() {
        facts.add("why", &status.reason);
    }
    if let Some(error) = &status.last_error
        && !status.reason.contains(error.as_str())
    {
        facts.add("error", error);
    }
    facts.add(
        "traffic",
        &format!(
            "{} to {}",
            status.local_traffic.join(", "),
            status.remote_traffic.join(", ")
        ),
    );
    if !status.refused_traffic.is_empty() {
        let refused = status.refused_traffic.join(", ");
        facts.add(
            "refused",
            &format!("{refused}: the peer did not agree to it, so it stays held"),
        );
    }
    if !status.virtual_addresses.is_empty() {
        let given = if status.role == "client" {
            "assigned by the server"
        } else {
            "leased to the client"
        };
        let addresses = joined(&status.virtual_addresses);
        facts.add("virtual", &format!("{addresses}, {given}"));
    }
    if !status.dns.is_empty() {
        let mut text = joined(&status.dns);
        if !status.dns_domains.is_empty() {
            text.push_str(&format!(" for {}", status.dns_domains.join(", ")));
        }
        facts.add("DNS", &text);
    }
    facts.add("ping", &ping(status));
    if status.gate != GateStatus::Down && status.recovery_bound_ms > 0 {
        facts.add("ladder", &ladder(status));
    }
    for sa in &status.ike {
        ike(sa, &mut facts);
    }
    if status.ike.is_empty() {
        facts.add("IKE", "no SA");
    }
    epochs(&status.epochs, &mut facts);
    match status.switches {
        0 => {}
        1 => facts.add("switched", "once since the daemon started"),
        many => facts.add(
            "switched",
            &format!("{many} times since the daemon started"),
        ),
    }
    if status.gate == GateStatus::Held {
        facts.add(
            "kernel",
            &format!(
                "holds up to {} packets per policy; of more, local senders are told (EAGAIN), \
                 forwarded ones are dropped",
                status.held_packets_max
            ),
        );
    }
    facts.text
}

fn gate(status: &TunnelStatus, paint: Paint) -> String {
    match status.gate {
        GateStatus::Open => {
            let epoch = match status.open_epoch {
                Some(number) => format!(", traffic passes through epoch {number}"),
                None => String::new(),
            };
            paint.paint(Tone::Good, "open") + &epoch
        }
        GateStatus::Held => {
            let since = match status.held_ms {
                Some(ms) => format!(" for {}, no traffic passes", time(ms)),
                None => ", no traffic passes".to_owned(),
            };
            paint.paint(Tone::Waiting, "held") + &since
        }
        GateStatus::Down => {
            paint.paint(Tone::Bad, "down")
                + ", no policies: its traffic is neither protected nor held"
        }
    }
}

fn ping(status: &TunnelStatus) -> String {
    let mut text = match status.ping_target {
        Some(target) => format!("{target}, "),
        None => "no address known, ".to_owned(),
    };
    let answered = format!(
        "{} of {} answered",
        status.pings_answered, status.pings_sent
    );
    text.push_str(match status.pings_sent {
        0 => "none sent",
        _ => &answered,
    });
    if let Some(microseconds) = status.last_round_trip_us {
        let _ = write!(text, ", last in {}", milliseconds(microseconds));
    }
    if let Some(ms) = status.last_proof_ms {
        let _ = write!(text, "; proven {} ago", time(ms));
    }
    text
}

/// The step that is under way, and how long all of them may take.
fn ladder(status: &TunnelStatus) -> String {
    // A bound is rounded up.
    let bound = time(status.recovery_bound_ms.div_ceil(1000) * 1000);
    format!(
        "{}; once the network is whole, traffic flows within {bound}",
        status.ladder
    )
}

fn ike(sa: &IkeStatus, facts: &mut Facts) {
    let state = format!(
        "{}, {} old, {} to {}",
        sa.state,
        time(sa.age_ms),
        sa.local,
        sa.remote
    );
    facts.add("IKE", &state);
    let spis = format!("SPIs {} {}", sa.initiator_spi, sa.responder_spi);
    facts.add("", &spis);
    if sa.state == ESTABLISHED {
        let nat = if sa.nat { "behind NAT" } else { "no NAT" };
        let peer = if sa.epochgate {
            "epochgate"
        } else {
            "another implementation"
        };
        facts.add("", &format!("{}; {nat}; peer: {peer}", sa.suite));
    }
}

fn epochs(epochs: &[EpochStatus], facts: &mut Facts) {
    if epochs.is_empty() {
        facts.add("epochs", "none");
        return;
    }
    let row = |cells: [&str; 7]| {
        let [number, state, inbound, outbound, esp, age, rekey] = cells;
        format!("{number:>4} {state:<11}{inbound:<11}{outbound:<11}{esp:<17}{age:<9}{rekey}")
    };
    // The table is wider than the other facts: it begins at the margin.
    let mut line = |text: String| {
        facts.text.push_str("  ");
        facts.text.push_str(harmless(&text).trim_end());
        facts.text.push('\n');
    };
    line(row([
        "no.", "epoch", "SPI in", "SPI out", "cipher", "age", "rekey in",
    ]));
    for epoch in epochs {
        let cipher = match epoch.udp_encapsulated {
            true => format!("{}/UDP", epoch.cipher),
            false => epoch.cipher.clone(),
        };
        line(row([
            &epoch.number.to_string(),
            &epoch.state,
            &epoch.inbound_spi,
            &epoch.outbound_spi,
            &cipher,
            &time(epoch.age_ms),
            &epoch.rekey_in_ms.map_or_else(String::new, time),
        ]));
    }
}

/// A time in its two largest units.
fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else if seconds > 0 {
        format!("{seconds}s")
    } else {
        format!("{milliseconds}ms")
    }
}

fn milliseconds(microseconds: u64) -> String {
    let tenths = microseconds.saturating_add(50) / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
