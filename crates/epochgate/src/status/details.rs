//! One tunnel, told in full.

use std::net::IpAddr;

use epochgate_controller::status::{
    EpochStatus, GateStatus, IkeStatus, ProofBy, SaTraffic, TunnelStatus,
};

use super::figures::{bytes, counted, grouped, milliseconds, time};
use super::table;
use crate::terminal::{Paint, Tone, harmless, wrapped};

/// Columns of the words before each fact.
const LABEL_WIDTH: usize = 12;

/// State of an IKE SA that knows its algorithms and its peer.
const ESTABLISHED: &str = "established";

/// Longest line of prose: longer ones are hard to read.
const PROSE_WIDTH_MAX: usize = 100;

/// Narrowest line of prose.
const PROSE_WIDTH_MIN: usize = 40;

/// Facts, one under the other.
struct Facts {
    text: String,
    width: usize,
}

impl Facts {
    /// Adds a fact; it is wrapped, with `label` before its first line.
    fn add(&mut self, label: &str, fact: &str) {
        let fact = harmless(fact);
        let mut label = label;
        for line in wrapped(&fact, self.width - LABEL_WIDTH) {
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

/// One tunnel, in lines of at most `width` columns.
pub(super) fn tunnel(status: &TunnelStatus, paint: Paint, width: usize) -> String {
    let name = paint.paint(Tone::Name, &harmless(&status.name));
    let mut facts = Facts {
        text: format!(
            "{name} ({}): {}\n",
            harmless(&status.role),
            gate(status, paint)
        ),
        width: width.clamp(PROSE_WIDTH_MIN, PROSE_WIDTH_MAX),
    };
    if !status.reason.is_empty() {
        facts.add("why", &status.reason);
    }
    if let Some(error) = &status.last_error
        && !status.reason.contains(error.as_str())
    {
        facts.add("error", error);
    }
    failure(status, &mut facts);
    held(status, &mut facts);
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
    if let Some(recent) = recent(status) {
        facts.add("", &recent);
    }
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
    switches(status, &mut facts);
    facts.text
}

/// The latest failure where it is not told as the reason or the error.
fn failure(status: &TunnelStatus, facts: &mut Facts) {
    let Some(failure) = &status.last_failure else {
        return;
    };
    let ago = time(failure.ago_ms);
    match &status.last_error {
        Some(error) if error.contains(&failure.text) => {
            facts.add("", &format!("that error is {ago} old"));
        }
        Some(_) | None => {
            let mended = if status.gate == GateStatus::Open {
                ", mended since"
            } else {
                ""
            };
            facts.add("failed", &format!("{ago} ago{mended}: {}", failure.text));
        }
    }
}

/// What waits in the kernel, as far as that is known.
fn held(status: &TunnelStatus, facts: &mut Facts) {
    if status.gate == GateStatus::Held {
        let waits = match status.waiting_ms {
            Some(ms) => format!("traffic waits since {}", time(ms)),
            None => "nothing has come to wait yet".to_owned(),
        };
        facts.add(
            "kernel",
            &format!(
                "{waits}; it holds up to {} packets per policy, and does not tell how many; of \
                 more, local senders are told (EAGAIN), forwarded ones are dropped",
                status.held_packets_max
            ),
        );
    }
    if let Some(released) = status.released {
        let packets = counted(released.packets, "packet", "packets");
        facts.add(
            "released",
            &format!(
                "{packets} left on epoch {} within {} of the switch {} ago: what was held, and new \
                 ones",
                released.epoch,
                time(released.within_ms),
                time(released.ago_ms)
            ),
        );
    }
}

fn switches(status: &TunnelStatus, facts: &mut Facts) {
    let times = match status.switches {
        0 => return,
        1 => "once".to_owned(),
        many => format!("{} times", grouped(many)),
    };
    let rekeys = counted(status.rekeys, "rekey", "rekeys");
    let recoveries = counted(status.recoveries, "recovery", "recoveries");
    facts.add(
        "switched",
        &format!("{times} since the daemon started: {rekeys}, {recoveries}"),
    );
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
    match status.pings_sent {
        0 => text.push_str("none sent"),
        sent => {
            let (answered, sent) = (grouped(status.pings_answered), grouped(sent));
            text.push_str(&format!("{answered} of {sent} answered"));
            if status.pings_lost > 0 {
                text.push_str(&format!(", {} lost", grouped(status.pings_lost)));
            }
        }
    }
    if let Some(microseconds) = status.last_round_trip_us {
        text.push_str(&format!(", last in {}", milliseconds(microseconds)));
    }
    if let Some(ms) = status.last_proof_ms {
        let by = match status.last_proof_by {
            Some(ProofBy::Reply) => " by a reply",
            Some(ProofBy::Arrival) => " by what arrived",
            None => "",
        };
        text.push_str(&format!("; proven {} ago{by}", time(ms)));
    }
    if let Some(ms) = status.next_ping_ms {
        text.push_str(&format!("; next in {}", time(ms)));
    }
    text
}

/// The pings of late, if there is more to tell of them than of the last.
fn recent(status: &TunnelStatus) -> Option<String> {
    let recent = status.recent_pings;
    if recent.sent < 2 {
        return None;
    }
    let lost = match recent.lost {
        0 => "none".to_owned(),
        lost => lost.to_string(),
    };
    let mut text = format!("{lost} of the last {} lost", recent.sent);
    if let Some(times) = recent.round_trips {
        text.push_str(&format!(
            "; round trip {}, mean {}, at most {}, jitter {}",
            milliseconds(times.min_us),
            milliseconds(times.mean_us),
            milliseconds(times.max_us),
            milliseconds(times.jitter_us)
        ));
    }
    Some(text)
}

/// The step that is under way, and how long all of them may take.
fn ladder(status: &TunnelStatus) -> String {
    // A bound is rounded up.
    let bound = time(status.recovery_bound_ms.div_ceil(1000) * 1000);
    let mut text = match table::step(status) {
        step if step.is_empty() => status.ladder.clone(),
        step => step,
    };
    if let Some(ms) = status.next_step_ms {
        text.push_str(&format!(", goes on in {}", time(ms)));
    }
    format!("{text}; once the network is whole, traffic flows within {bound}")
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
    let coming = [
        ("rekey", sa.rekey_in_ms),
        ("new one", sa.reauthenticate_in_ms),
    ];
    let coming: Vec<String> = coming
        .into_iter()
        .filter_map(|(what, ms)| Some(format!("{what} in {}", time(ms?))))
        .collect();
    let peer = sa.peer_id.iter().map(|id| format!("with {id}"));
    let more: Vec<String> = peer.chain(coming).collect();
    if !more.is_empty() {
        facts.add("", &more.join("; "));
    }
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
        for (way, carried) in [("in", epoch.received), ("out", epoch.sent)] {
            if let Some(carried) = carried {
                line(format!("     {}", traffic(way, carried)));
            }
        }
    }
}

/// What an SA has carried.
fn traffic(way: &str, carried: SaTraffic) -> String {
    let packets = counted(carried.packets, "packet", "packets");
    let mut text = format!("{way:<4}{packets}, {}", bytes(carried.bytes));
    if let Some(ms) = carried.last_ms {
        // The kernel's clock for it counts seconds.
        let last = match ms {
            0 => "in this second".to_owned(),
            ms => format!("{} ago", time(ms)),
        };
        text.push_str(&format!(", last {last}"));
    }
    text
}
