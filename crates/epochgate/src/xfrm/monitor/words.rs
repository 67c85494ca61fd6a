//! What each event means, in a sentence for the operator.

use epochgate_xfrm::{
    Acquire, EventFlags, EventState, Expire, Mapping, Policy, PolicyAction, PolicyEntry, PolicyId,
    PolicyKey, Protocol, SaEntry, SaId, Selector, XfrmEvent,
};

use super::Telling;
use crate::terminal::Tone;
use crate::xfrm::partners::{SaWay, matching};
use crate::xfrm::surroundings::Surroundings;
use crate::xfrm::{ours, policy, state, words};

/// `IPSEC_PROTO_ANY`, which a flush names.
const ANY_PROTOCOL: u8 = 255;

pub(super) fn telling(event: &XfrmEvent, host: &Surroundings) -> Telling {
    let tell = |name: &str, tone: Tone, sentence: String| Telling {
        name: name.to_owned(),
        tone,
        sentence,
    };
    match event {
        XfrmEvent::Acquire(event) => tell("acquire", Tone::Waiting, acquire(event, host)),
        XfrmEvent::Expire(event) => expire(event, host),
        XfrmEvent::PolicyExpire(event) => {
            let what = policy_text(&event.entry.policy);
            match event.hard {
                true => tell(
                    "expire hard",
                    Tone::Bad,
                    format!(
                        "policy {what} reached its hard limit and is gone: its packets now \
                             meet the next policy, or none"
                    ),
                ),
                false => tell(
                    "expire soft",
                    Tone::Waiting,
                    format!("policy {what} reached its soft limit: whoever set it should renew it"),
                ),
            }
        }
        XfrmEvent::Mapping(event) => tell("mapping", Tone::Waiting, mapping(event)),
        XfrmEvent::NewAe(event) => tell("traffic", Tone::Name, aevent(event)),
        XfrmEvent::NewSa(entry) => tell("SA added", Tone::Good, added(entry, host)),
        XfrmEvent::UpdSa(entry) => tell("SA updated", Tone::Name, sa_text(entry, host)),
        XfrmEvent::DelSa(id, entry) => {
            tell("SA deleted", Tone::Bad, deleted(id, entry.as_deref(), host))
        }
        XfrmEvent::FlushSa(protocol) => tell("SA flush", Tone::Bad, flush(*protocol)),
        XfrmEvent::NewPolicy(entry) => {
            tell("policy added", Tone::Good, policy_sentence(entry, host))
        }
        XfrmEvent::UpdPolicy(entry) => {
            let sentence = policy_sentence(entry, host);
            tell(
                "policy updated",
                Tone::Name,
                format!("from now on: {sentence}"),
            )
        }
        XfrmEvent::DelPolicy(id, entry) => {
            let what = entry
                .as_ref()
                .map_or_else(|| id_text(id), |e| policy_text(&e.policy));
            tell(
                "policy deleted",
                Tone::Bad,
                format!("{what}: its packets now meet the next policy, or leave and come in clear"),
            )
        }
        XfrmEvent::FlushPolicy => tell(
            "policy flush",
            Tone::Bad,
            "somebody deleted all policies at once (as ip xfrm policy flush does): what they \
             protected or held now passes in clear"
                .to_owned(),
        ),
        XfrmEvent::Report(protocol, selector) => {
            let packet = selector.map_or_else(String::new, |selector| format!(" ({selector})"));
            tell(
                "report",
                Tone::Waiting,
                format!("Mobile IPv6: a packet of {protocol} broke a rule{packet}"),
            )
        }
        XfrmEvent::Migrate(id) => tell(
            "migrate",
            Tone::Waiting,
            format!(
                "the templates of policy {} and their SAs were moved to other addresses: see \
                 epochgate xfrm policy",
                id_text(id)
            ),
        ),
        XfrmEvent::Overrun => tell(
            "events lost",
            Tone::Bad,
            "they came faster than they were read, and the kernel threw some away: list states \
             and policies again"
                .to_owned(),
        ),
        XfrmEvent::Malformed {
            message_type,
            error,
        } => tell(
            "unreadable",
            Tone::Bad,
            format!("an event of type {message_type} makes no sense: {error}"),
        ),
        XfrmEvent::Unknown {
            message_type,
            length,
        } => tell(
            "unknown",
            Tone::Name,
            format!(
                "an event of type {message_type}, {length} bytes, that this version does not know"
            ),
        ),
        _ => tell(
            "unknown",
            Tone::Name,
            "an event that this version has no words for".to_owned(),
        ),
    }
}

fn acquire(acquire: &Acquire, host: &Surroundings) -> String {
    let packet = packet_text(&acquire.packet, host);
    let met = policy_text(&acquire.policy.policy);
    let wanted = match acquire.template() {
        Some(template) => policy::template_text(template).to_string(),
        None => acquire.protocol.to_string(),
    };
    let reqid = acquire.reqid().map_or_else(String::new, |reqid| {
        let owner = if ours(reqid) { ", epochgate's" } else { "" };
        format!(", reqid {}{owner}", state::reqid_text(reqid.0))
    });
    let meanwhile = match host.larval_drop {
        Some(false) => "its packets are held",
        Some(true) => "its packets are dropped",
        None => "its packets are held or dropped",
    };
    let limit = host.acquire_seconds.map_or_else(
        || "in time".to_owned(),
        |seconds| format!("within {seconds} s"),
    );
    format!(
        "a packet {packet} met policy {met} and no SA fits: the kernel asks key daemons for \
         {wanted}{reqid}. Meanwhile {meanwhile}. If none answers {limit}, the larval SA goes, and \
         the next packet asks again"
    )
}

/// The packet of an ACQUIRE: its selector has whole addresses.
fn packet_text(packet: &Selector, host: &Surroundings) -> String {
    let only = policy::only(packet, &|index| host.interface(index));
    let only = if only.is_empty() {
        only
    } else {
        format!(" ({only})")
    };
    format!(
        "{} -> {}{only}",
        packet.source().address(),
        packet.destination().address()
    )
}

fn expire(expire: &Expire, host: &Surroundings) -> Telling {
    let entry = &expire.entry;
    let what = whole_identity(entry, host);
    let carried = carried(entry, host);
    // The kernel tells no algorithms here; a larval SA that has an SPI looks like any other.
    let is_larval = entry.sa.spi.is_none();
    let (name, tone, sentence) = match (expire.hard, is_larval) {
        (true, true) => (
            "expire larval",
            Tone::Bad,
            format!(
                "the larval {what} was never completed and is gone: no key daemon answered in time"
            ),
        ),
        (true, false) => (
            "expire hard",
            Tone::Bad,
            format!(
                "{what} reached its hard limit and is gone ({carried}). Without a successor its \
                 policy loses a packet, and then holds or drops"
            ),
        ),
        (false, _) => (
            "expire soft",
            Tone::Waiting,
            format!("{what} reached its soft limit ({carried}): its key daemon should replace it"),
        ),
    };
    Telling {
        name: name.to_owned(),
        tone,
        sentence,
    }
}

fn mapping(mapping: &Mapping) -> String {
    let socket = |address: std::net::IpAddr, port| std::net::SocketAddr::new(address, port);
    format!(
        "packets of {} come from {} now, no longer from {}: a NAT or the peer moved. The kernel \
         goes on sending to the old one until a key daemon updates the SAs",
        mapping.id,
        socket(mapping.new_address, mapping.new_port),
        socket(mapping.old_address, mapping.old_port)
    )
}

fn aevent(event: &EventState) -> String {
    let mut parts = Vec::new();
    if let Some(replay) = &event.replay {
        parts.push(format!(
            "last sent {}, highest received {}",
            words::digits(replay.outbound),
            words::digits(replay.inbound)
        ));
    }
    if let Some(usage) = event.usage {
        parts.push(format!(
            "{}, {}",
            words::counted(usage.packets, "packet", "packets"),
            words::bytes(usage.bytes)
        ));
    }
    let cause = match event.flags {
        flags if flags.contains(EventFlags::CAUSE_UPDATE) => {
            "somebody changed its thresholds or numbers"
        }
        flags if flags.contains(EventFlags::CAUSE_REPLAY) => "its packet threshold was passed",
        flags if flags.contains(EventFlags::CAUSE_TIMER) => "its timer threshold was passed",
        _ => "no cause is told",
    };
    format!(
        "{} from {}: {} ({cause})",
        event.id,
        event.source,
        parts.join("; ")
    )
}

fn added(entry: &SaEntry, host: &Surroundings) -> String {
    match matching::is_larval(entry) {
        true => format!(
            "{}: reserved, a key daemon must complete it",
            identity(entry, host)
        ),
        false => sa_text(entry, host),
    }
}

fn deleted(id: &SaId, entry: Option<&SaEntry>, host: &Surroundings) -> String {
    match entry {
        Some(entry) => format!("{} ({})", identity(entry, host), carried(entry, host)),
        None => id.to_string(),
    }
}

fn flush(protocol: Protocol) -> String {
    let which = match protocol.number() {
        0 | ANY_PROTOCOL => "all SAs".to_owned(),
        _ => format!("all {protocol} SAs"),
    };
    format!(
        "somebody deleted {which} at once (as ip xfrm state flush does): nothing that needs them \
         passes until they are negotiated anew"
    )
}

/// The same, and whether it is a larval one.
fn identity(entry: &SaEntry, host: &Surroundings) -> String {
    let larval = if matching::is_larval(entry) {
        "larval "
    } else {
        ""
    };
    larval.to_owned() + &whole_identity(entry, host)
}

/// `outbound esp 0xc5f3a001 203.0.113.9 -> 198.51.100.7, reqid 1`.
fn whole_identity(entry: &SaEntry, host: &Surroundings) -> String {
    let sa = &entry.sa;
    let spi = match sa.spi {
        Some(spi) => format!(" {spi}"),
        None => " without an SPI".to_owned(),
    };
    let way = match SaWay::of(sa, &host.addresses) {
        SaWay::In(_) => "inbound ",
        SaWay::Out(_) => "outbound ",
        SaWay::Unknown => "",
    };
    let owner = if ours(sa.reqid) { ", epochgate's" } else { "" };
    format!(
        "{way}{}{spi} {} -> {}, reqid {}{owner}",
        sa.protocol,
        sa.source,
        sa.destination,
        state::reqid_text(sa.reqid.0)
    )
}

/// An SA with all that tells it from others.
fn sa_text(entry: &SaEntry, host: &Surroundings) -> String {
    let sa = &entry.sa;
    let mut text = format!(
        "{}, {} {}",
        identity(entry, host),
        sa.mode,
        words::algorithms(&sa.protection)
    );
    if let Some(encap) = &sa.encap {
        text.push_str(&format!(", {}", state::encap(encap)));
    }
    if let Some(mark) = sa.mark {
        text.push_str(&format!(", mark {}", state::mark(mark)));
    }
    if let Some(id) = sa.if_id {
        text.push_str(&format!(", if_id {}", host.if_id(id.get())));
    }
    text
}

fn carried(entry: &SaEntry, host: &Surroundings) -> String {
    let usage = &entry.usage;
    format!(
        "{} old, {}, {}",
        words::seconds(host.ago(usage.added)),
        words::counted(usage.packets, "packet", "packets"),
        words::bytes(usage.bytes)
    )
}

fn policy_text(policy: &Policy) -> String {
    format!("{} {}", policy.direction, policy.selector)
}

fn id_text(id: &PolicyId) -> String {
    match id.key {
        PolicyKey::Selector(selector) => format!("{} {selector}", id.direction),
        PolicyKey::Index(index) => format!("{} of index {index}", id.direction),
    }
}

/// A policy with all that tells it from others, and what it does.
fn policy_sentence(entry: &PolicyEntry, host: &Surroundings) -> String {
    let policy = &entry.policy;
    let mut text = format!("{}, priority {}", policy_text(policy), policy.priority);
    if let Some(mark) = policy.mark {
        text.push_str(&format!(", mark {}", state::mark(mark)));
    }
    if let Some(id) = policy.if_id {
        text.push_str(&format!(", if_id {}", host.if_id(id.get())));
    }
    match (policy.action, policy.templates.as_slice()) {
        (PolicyAction::Block, _) => text.push_str(": drop"),
        (PolicyAction::Allow, []) => text.push_str(": pass in clear"),
        (PolicyAction::Allow, templates) => {
            let one = |template: &epochgate_xfrm::Template| {
                let owner = if ours(template.reqid) {
                    " (epochgate's)"
                } else {
                    ""
                };
                let reqid = state::reqid_text(template.reqid.0);
                format!("{}, reqid {reqid}{owner}", policy::template_text(template))
            };
            let all: Vec<String> = templates.iter().map(one).collect();
            text.push_str(&format!(": protect with {}", all.join(", then ")));
        }
    }
    text
}
