//! An event as one line of JSON: its name, its time, its sentence, and what it is about.

use std::net::IpAddr;

use epochgate_xfrm::{EventFlags, PolicyId, PolicyKey, SaId, XfrmEvent};
use jiff::Timestamp;
use serde::Serialize;

use super::words;
use crate::xfrm::json::{MarkJson, SCHEMA, SelectorJson, protocol};
use crate::xfrm::policy::json::PolicyJson;
use crate::xfrm::state::json::StateJson;
use crate::xfrm::surroundings::Surroundings;

/// An event.
#[derive(Debug, Serialize)]
struct EventJson {
    schema: u32,
    /// When it was read, RFC 3339.
    time: String,
    event: &'static str,
    /// What it means, as without --json.
    sentence: String,
    #[serde(flatten)]
    about: About,
}

/// What an event is about. What is not there is left out.
#[derive(Debug, Default, Serialize)]
struct About {
    /// Of `expire` and `policy-expire`: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Box<StateJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Box<PolicyJson>>,
    /// The identity of an SA, where its whole is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    sa: Option<SaIdJson>,
    /// The identity of a policy, where its whole is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_id: Option<PolicyIdJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire: Option<AcquireJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<MappingJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<TrafficJson>,
    /// Of a flush or a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<SelectorJson>,
    /// Of what this version can't read: the kernel's number (`XFRM_MSG_*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<u16>,
}

#[derive(Debug, Serialize)]
struct SaIdJson {
    destination: IpAddr,
    protocol: String,
    spi: String,
}

impl From<&SaId> for SaIdJson {
    fn from(id: &SaId) -> Self {
        Self {
            destination: id.destination,
            protocol: protocol(id.protocol),
            spi: id.spi.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
struct PolicyIdJson {
    direction: String,
    selector: Option<SelectorJson>,
    index: Option<u32>,
    mark: Option<MarkJson>,
    if_id: Option<u32>,
    sub_policy: bool,
}

impl From<&PolicyId> for PolicyIdJson {
    fn from(id: &PolicyId) -> Self {
        let (selector, index) = match &id.key {
            PolicyKey::Selector(selector) => (Some(SelectorJson::from(selector)), None),
            PolicyKey::Index(index) => (None, Some(index.get())),
        };
        Self {
            direction: id.direction.to_string(),
            selector,
            index,
            mark: id.mark.map(MarkJson::from),
            if_id: id.if_id.map(|id| id.get()),
            sub_policy: id.sub_policy,
        }
    }
}

#[derive(Debug, Serialize)]
struct AcquireJson {
    /// Of the SA wanted.
    source: IpAddr,
    destination: IpAddr,
    protocol: String,
    reqid: Option<u32>,
    /// The packet itself.
    packet: SelectorJson,
    /// To give back when the SA is installed.
    sequence: u32,
    cpu: Option<u32>,
}

#[derive(Debug, Serialize)]
struct MappingJson {
    reqid: u32,
    old_address: IpAddr,
    old_port: u16,
    new_address: IpAddr,
    new_port: u16,
}

#[derive(Debug, Serialize)]
struct TrafficJson {
    source: IpAddr,
    reqid: u32,
    /// `packets`, `timer`, `update`.
    causes: Vec<&'static str>,
    last_sent: Option<u64>,
    highest_received: Option<u64>,
    packets: Option<u64>,
    bytes: Option<u64>,
    replay_threshold: Option<u32>,
    timer_threshold: Option<u32>,
}

/// The line of an event that was read at `at`.
pub(crate) fn json(
    event: &XfrmEvent,
    at: Timestamp,
    host: &Surroundings,
    show_keys: bool,
) -> serde_json::Result<String> {
    let (name, about) = about(event, host, show_keys);
    let line = EventJson {
        schema: SCHEMA,
        time: format!("{at:.3}"),
        event: name,
        sentence: words::telling(event, host).sentence,
        about,
    };
    Ok(serde_json::to_string(&line)? + "\n")
}

fn about(event: &XfrmEvent, host: &Surroundings, show_keys: bool) -> (&'static str, About) {
    let state = |entry: &epochgate_xfrm::SaEntry| {
        Some(Box::new(StateJson::of_event(entry, host, show_keys)))
    };
    let policy =
        |entry: &epochgate_xfrm::PolicyEntry| Some(Box::new(PolicyJson::of_event(entry, host)));
    let mut about = About::default();
    let name = match event {
        XfrmEvent::Acquire(acquire) => {
            about.policy = policy(&acquire.policy);
            about.acquire = Some(AcquireJson {
                source: acquire.source,
                destination: acquire.destination,
                protocol: protocol(acquire.protocol),
                reqid: acquire.reqid().map(|reqid| reqid.0),
                packet: SelectorJson::from(&acquire.packet),
                sequence: acquire.sequence,
                cpu: acquire.cpu,
            });
            "acquire"
        }
        XfrmEvent::Expire(expire) => {
            about.hard = Some(expire.hard);
            about.state = Some(Box::new(StateJson::of_expire(&expire.entry, host)));
            "expire"
        }
        XfrmEvent::PolicyExpire(expire) => {
            about.hard = Some(expire.hard);
            about.policy = policy(&expire.entry);
            "policy-expire"
        }
        XfrmEvent::Mapping(mapping) => {
            about.sa = Some(SaIdJson::from(&mapping.id));
            about.mapping = Some(MappingJson {
                reqid: mapping.reqid.0,
                old_address: mapping.old_address,
                old_port: mapping.old_port,
                new_address: mapping.new_address,
                new_port: mapping.new_port,
            });
            "mapping"
        }
        XfrmEvent::NewAe(event) => {
            about.sa = Some(SaIdJson::from(&event.id));
            about.traffic = Some(TrafficJson {
                source: event.source,
                reqid: event.reqid.0,
                causes: causes(event.flags),
                last_sent: event.replay.as_ref().map(|replay| replay.outbound),
                highest_received: event.replay.as_ref().map(|replay| replay.inbound),
                packets: event.usage.map(|usage| usage.packets),
                bytes: event.usage.map(|usage| usage.bytes),
                replay_threshold: event.replay_threshold,
                timer_threshold: event.timer_threshold,
            });
            "traffic"
        }
        XfrmEvent::NewSa(entry) => {
            about.state = state(entry);
            "sa-added"
        }
        XfrmEvent::UpdSa(entry) => {
            about.state = state(entry);
            "sa-updated"
        }
        XfrmEvent::DelSa(id, entry) => {
            about.sa = Some(SaIdJson::from(id));
            about.state = entry.as_deref().and_then(state);
            "sa-deleted"
        }
        XfrmEvent::FlushSa(flushed) => {
            about.protocol = Some(protocol(*flushed));
            "sa-flush"
        }
        XfrmEvent::NewPolicy(entry) => {
            about.policy = policy(entry);
            "policy-added"
        }
        XfrmEvent::UpdPolicy(entry) => {
            about.policy = policy(entry);
            "policy-updated"
        }
        XfrmEvent::DelPolicy(id, entry) => {
            about.policy_id = Some(PolicyIdJson::from(id.as_ref()));
            about.policy = entry.as_deref().and_then(policy);
            "policy-deleted"
        }
        XfrmEvent::FlushPolicy => "policy-flush",
        XfrmEvent::Report(reported, selector) => {
            about.protocol = Some(protocol(*reported));
            about.selector = selector.as_ref().map(SelectorJson::from);
            "report"
        }
        XfrmEvent::Migrate(id) => {
            about.policy_id = Some(PolicyIdJson::from(id.as_ref()));
            "migrate"
        }
        XfrmEvent::Overrun => "events-lost",
        XfrmEvent::Malformed { message_type, .. } => {
            about.message_type = Some(*message_type);
            "unreadable"
        }
        XfrmEvent::Unknown { message_type, .. } => {
            about.message_type = Some(*message_type);
            "unknown"
        }
        _ => "unknown",
    };
    (name, about)
}

fn causes(flags: EventFlags) -> Vec<&'static str> {
    let all = [
        (EventFlags::CAUSE_REPLAY, "packets"),
        (EventFlags::CAUSE_TIMER, "timer"),
        (EventFlags::CAUSE_UPDATE, "update"),
    ];
    all.into_iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .map(|(_, name)| name)
        .collect()
}
