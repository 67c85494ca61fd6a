//! An SA in full: every attribute, in lines of a name and a value.

use epochgate_xfrm::{
    Integrity, Iptfs, Key, OffloadFlags, Protection, RawAttribute, SaExtraFlags, SaFlags,
};

use super::row;
use super::{Sequence, State};
use crate::terminal::{Paint, Tone};
use crate::xfrm::facts::Facts;
use crate::xfrm::partners::{SaWay, Told};
use crate::xfrm::{limits, ours, words};

/// The lines of an SA, with an empty one behind them.
pub(crate) fn wide(
    state: &State<'_>,
    show_keys: bool,
    width: Option<usize>,
    paint: Paint,
) -> String {
    let (entry, sa, host) = (state.entry, &state.entry.sa, state.host);
    let notes = state.notes();
    let spi = sa
        .spi
        .map_or_else(|| "(no SPI yet)".to_owned(), |spi| spi.to_string());
    let tone = notes.first().map_or(Tone::Name, |(tone, _)| *tone);
    let title = format!(
        "{} {}  {} -> {}",
        sa.protocol,
        paint.paint(tone, &spi),
        sa.source,
        sa.destination
    );
    let mut facts = Facts::new(title, width, paint);
    for (tone, note) in &notes {
        facts.note(*tone, note);
    }
    facts.add("direction", &direction(state));
    let owner = if ours(sa.reqid) { ", epochgate's" } else { "" };
    let mode = sa.mode.to_string();
    facts.add(
        "mode",
        &format!("{mode}, reqid {}{owner}", row::reqid_text(sa.reqid.0)),
    );
    algorithms(&sa.protection, show_keys, &mut facts);
    if let Some(encap) = &sa.encap {
        let original = encap
            .original_address
            .map(|address| format!(", before translation {address}"));
        facts.add(
            "encapsulated",
            &(row::encap(encap) + &original.unwrap_or_default()),
        );
    }
    if let Some(if_id) = sa.if_id {
        facts.add("if_id", &host.if_id(if_id.get()));
    }
    if let Some(mark) = sa.mark {
        facts.add("mark", &format!("{mark}: packets need it to use the SA"));
    }
    if let Some(mark) = sa.output_mark {
        facts.add(
            "output mark",
            &format!("{mark}: packets get it from the SA"),
        );
    }
    match sa.selector {
        Some(selector) => facts.add("selector", &selector.to_string()),
        None => facts.add("selector", "any packet, of any family"),
    }
    times(state, &mut facts);
    facts.add(
        "carried",
        &format!(
            "{}, {} ({})",
            words::counted(entry.usage.packets, "packet", "packets"),
            words::counted(entry.usage.bytes, "byte", "bytes"),
            words::bytes(entry.usage.bytes)
        ),
    );
    for (name, limit) in [
        ("soft limit", &sa.limits.soft),
        ("hard limit", &sa.limits.hard),
    ] {
        let text = limits::all(limit, &entry.usage, host.now);
        facts.add(name, text.as_deref().unwrap_or("none"));
    }
    replay(state, &mut facts);
    let refused = state.refused();
    facts.add("refused", refused.as_deref().unwrap_or("nothing"));
    flags(state, &mut facts);
    rest(state, &mut facts);
    used_by(state, &mut facts);
    facts.finish()
}

fn direction(state: &State<'_>) -> String {
    let (way, told) = match state.way {
        SaWay::In(told) => ("in", told),
        SaWay::Out(told) => ("out", told),
        SaWay::Unknown => return "not known: neither end is this host's alone".to_owned(),
    };
    match told {
        Told::Kernel => format!("{way} (the kernel says so)"),
        Told::Addresses => {
            let sa = &state.entry.sa;
            let own = if way == "in" {
                sa.destination
            } else {
                sa.source
            };
            format!("{way} (derived: {own} is this host's)")
        }
        Told::Policies => format!("{way} (derived from the policies that lead to it)"),
    }
}

fn algorithms(protection: &Protection, show_keys: bool, facts: &mut Facts) {
    let key_of = |key: &Key| match show_keys {
        true => format!("key {} ({} bits)", words::hex(key.expose()), key.bits()),
        false => format!("key of {} bits", key.bits()),
    };
    match protection {
        Protection::Larval => facts.add("algorithms", "none yet"),
        Protection::Aead(aead) => facts.add(
            "AEAD",
            &format!(
                "{}: {}, {}, ICV of {} bits",
                words::aead(aead),
                aead.name,
                key_of(&aead.key),
                aead.icv_bits
            ),
        ),
        Protection::Encryption { cipher, integrity } => {
            let text = format!(
                "{}: {}, {}",
                words::cipher(cipher),
                cipher.name,
                key_of(&cipher.key)
            );
            facts.add("encryption", &text);
            match integrity {
                Some(integrity) => facts.add("integrity", &authentication(integrity, &key_of)),
                None => facts.add("integrity", "none"),
            }
        }
        Protection::Integrity(integrity) => {
            facts.add("integrity", &authentication(integrity, &key_of));
        }
        Protection::Compression(compression) => facts.add("compression", &compression.name),
    }
}

fn authentication(integrity: &Integrity, key_of: &dyn Fn(&Key) -> String) -> String {
    let icv = integrity
        .truncation_bits
        .map(|bits| format!(", ICV of {bits} bits"));
    format!(
        "{}: {}, {}{}",
        words::integrity(integrity),
        integrity.name,
        key_of(&integrity.key),
        icv.unwrap_or_default()
    )
}

fn times(state: &State<'_>, facts: &mut Facts) {
    let (usage, host) = (&state.entry.usage, state.host);
    let moment = |then: u64| {
        format!(
            "{} ago ({})",
            words::seconds(host.ago(then)),
            host.time(then)
        )
    };
    facts.add("added", &moment(usage.added));
    match usage.first_used {
        Some(first) => facts.add("first used", &moment(first)),
        None => facts.add("first used", "never"),
    }
    if let Some(last) = state.entry.last_used {
        facts.add("last used", &moment(last));
    }
}

fn replay(state: &State<'_>, facts: &mut Facts) {
    let window = state.entry.sa.replay_window;
    let mut text = match window.packets {
        0 => "no protection (window 0)".to_owned(),
        packets => format!(
            "window of {}",
            words::counted(packets.into(), "packet", "packets")
        ),
    };
    text.push_str(match window.extended {
        true => ", extended sequence numbers",
        false => ", 32-bit sequence numbers",
    });
    facts.add("replay", &text);
    let Some((outbound, inbound)) = state.sequences() else {
        return;
    };
    let shown = |sequence: Sequence| {
        let percent = sequence.left / (sequence.all / 100);
        format!(
            "{} ({} left, {} %)",
            words::digits(sequence.last),
            words::digits(sequence.left),
            percent.min(100)
        )
    };
    match state.way {
        SaWay::Out(_) => facts.add("sequence", &format!("last sent {}", shown(outbound))),
        SaWay::In(_) => facts.add("sequence", &format!("highest received {}", shown(inbound))),
        SaWay::Unknown => facts.add(
            "sequence",
            &format!(
                "last sent {}; highest received {}",
                shown(outbound),
                shown(inbound)
            ),
        ),
    }
    let bitmap = state.entry.replay.iter().flat_map(|replay| &replay.bitmap);
    let words: Vec<String> = bitmap.map(|word| format!("{word:08x}")).collect();
    if !words.is_empty() && !matches!(state.way, SaWay::Out(_)) {
        facts.add("received", &format!("bitmap {}", words.join(" ")));
    }
}

/// The names of flags, as `ip xfrm` has them; a number for the ones that this version does not know.
pub(crate) fn flag_names(flags: SaFlags, extra: SaExtraFlags) -> Vec<String> {
    let known = [
        (SaFlags::NO_ECN, "noecn"),
        (SaFlags::DECAP_DSCP, "decap-dscp"),
        (SaFlags::NO_PMTU_DISCOVERY, "nopmtudisc"),
        (SaFlags::WILDCARD_RECEIVE, "wildrecv"),
        (SaFlags::ICMP, "icmp"),
        (SaFlags::AF_UNSPEC, "af-unspec"),
        (SaFlags::ALIGN4, "align4"),
    ];
    let known = known.map(|(flag, name)| (flag.bits().into(), name));
    let mut names = words::names_of_bits(flags.bits().into(), &known, "");
    let known = [
        (SaExtraFlags::DONT_ENCAP_DSCP, "dont-encap-dscp"),
        (SaExtraFlags::OUTBOUND_SEQUENCE_MAY_WRAP, "oseq-may-wrap"),
    ];
    let known = known.map(|(flag, name)| (flag.bits(), name));
    names.extend(words::names_of_bits(extra.bits(), &known, "extra "));
    names
}

fn flags(state: &State<'_>, facts: &mut Facts) {
    let names = flag_names(state.entry.sa.flags, state.entry.sa.extra_flags);
    if !names.is_empty() {
        facts.add("flags", &names.join(", "));
    }
}

fn rest(state: &State<'_>, facts: &mut Facts) {
    let sa = &state.entry.sa;
    if let Some(offload) = sa.offload {
        let device = state.host.interface(offload.interface_index);
        facts.add(
            "offload",
            &format!("{device}, {}", offload_flags(offload.flags).join(", ")),
        );
    }
    if let Some(address) = sa.care_of {
        facts.add("care-of", &address.to_string());
    }
    if let Some(bytes) = sa.tfc_padding {
        facts.add("padding", &format!("up to {bytes} bytes"));
    }
    if let Some(seconds) = sa.mapping_interval_seconds {
        facts.add(
            "mapping",
            &format!("a changed one is told every {seconds} s at most"),
        );
    }
    if let Some(packets) = sa.replay_threshold {
        facts.add("aevents", &format!("every {packets} packets"));
    }
    if let Some(time) = sa.timer_threshold {
        facts.add("aevents", &format!("after {time} ticks"));
    }
    if let Some(seconds) = sa.nat_keepalive_interval_seconds {
        facts.add(
            "keepalive",
            &format!("to the NAT, after {seconds} s without a packet"),
        );
    }
    if let Some(cpu) = sa.cpu {
        facts.add("CPU", &format!("{cpu} alone"));
    }
    if let Some(label) = &sa.security_context {
        facts.add("label", &label.to_string());
    }
    if let Some(iptfs) = &sa.iptfs {
        facts.add("IP-TFS", &iptfs_text(iptfs));
    }
    if state.entry.acquire_sequence != 0 {
        facts.add(
            "answers",
            &format!("ACQUIRE number {}", state.entry.acquire_sequence),
        );
    }
    raw(&sa.other, facts);
}

/// What a device does for an SA or a policy; a number for what this version does not know.
pub(crate) fn offload_flags(flags: OffloadFlags) -> Vec<String> {
    let kind = match flags.contains(OffloadFlags::PACKET) {
        true => "packet",
        false => "crypto",
    };
    let known = [
        (OffloadFlags::INBOUND, "inbound"),
        (OffloadFlags::IPV6, "ipv6"),
    ];
    let known = known.map(|(flag, name)| (flag.bits().into(), name));
    let rest = flags.difference(OffloadFlags::PACKET).bits().into();
    let mut names = vec![kind.to_owned()];
    names.extend(words::names_of_bits(rest, &known, ""));
    names
}

/// RFC 9347's settings, those that the kernel reports.
fn iptfs_text(iptfs: &Iptfs) -> String {
    let mut parts = Vec::new();
    let mut part = |number: Option<u32>, what: &str| {
        parts.extend(number.map(|number| format!("{what} {number}")));
    };
    part(iptfs.drop_time_microseconds, "drop time in us");
    part(
        iptfs.reorder_window_packets.map(u32::from),
        "reorder window",
    );
    part(iptfs.initial_delay_microseconds, "initial delay in us");
    part(iptfs.queue_octets_max, "queue in bytes");
    part(iptfs.packet_octets, "packet size");
    if iptfs.dont_fragment {
        parts.push("no fragmentation".to_owned());
    }
    match parts.is_empty() {
        true => "as the kernel does it by default".to_owned(),
        false => parts.join(", "),
    }
}

/// Attributes that crates/xfrm does not know.
pub(crate) fn raw(attributes: &[RawAttribute], facts: &mut Facts) {
    for attribute in attributes {
        let text = format!(
            "number {}: {}",
            attribute.kind,
            words::hex(&attribute.value)
        );
        facts.add("attribute", &text);
    }
}

fn used_by(state: &State<'_>, facts: &mut Facts) {
    let leads = state.leads;
    for lead in &leads.first {
        let pinned = if lead.pinned { ", pins this SPI" } else { "" };
        facts.add(
            "used by",
            &format!(
                "{} {}, priority {}, index {}{pinned}",
                lead.direction, lead.selector, lead.priority, lead.index
            ),
        );
    }
    let others = leads.count().saturating_sub(leads.first.len() as u64);
    if others > 0 {
        facts.add("used by", &format!("{} more", words::digits(others)));
    }
    if leads.incomplete {
        facts.add(
            "used by",
            "not all policies were looked at: too many share its reqid",
        );
    } else if leads.count() == 0 {
        facts.add("used by", "no policy");
    }
}
