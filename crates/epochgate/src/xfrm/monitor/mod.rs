//! `epochgate xfrm monitor`: what the kernel tells of its IPsec, in words or as JSON. Each event is
//! rendered from itself, the time it was read and the [`Surroundings`] alone; `watch` reads them.

mod json;
mod words;

use epochgate_xfrm::{EventGroup, Policy, PolicyId, PolicyKey, Sa, SaId, XfrmEvent};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::arguments::{Direction, Group};
use super::filter::{self, Filter, Traits};
use super::partners::SaWay;
use super::surroundings::Surroundings;
use crate::terminal::{Paint, Tone, harmless, wrapped};

pub(crate) use json::json;

/// Columns before the sentence: time and name.
const INDENT: usize = 28;
/// Columns of an event's name.
const NAME_WIDTH: usize = 14;
/// Narrowest column of sentences.
const SENTENCE_MIN: usize = 30;

/// An event in words.
#[derive(Debug)]
struct Telling {
    /// What it is called, such as `expire soft`.
    name: String,
    tone: Tone,
    sentence: String,
}

/// The lines of an event that was read at `at`.
pub(crate) fn render(
    event: &XfrmEvent,
    at: Timestamp,
    host: &Surroundings,
    width: Option<usize>,
    paint: Paint,
) -> String {
    let telling = words::telling(event, host);
    let name = paint.paint(telling.tone, &format!("{:<NAME_WIDTH$}", telling.name));
    let sentence = harmless(&telling.sentence);
    let lines = match width {
        Some(width) => wrapped(&sentence, width.saturating_sub(INDENT).max(SENTENCE_MIN)),
        None => vec![sentence.into_owned()],
    };
    let mut text = format!("{} {name} ", time_of_day(at, &host.zone));
    for (place, line) in lines.iter().enumerate() {
        if place > 0 {
            text.push_str(&" ".repeat(INDENT));
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `16:20:31.123`.
fn time_of_day(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone())
        .strftime("%H:%M:%S.%3f")
        .to_string()
}

/// The kernel's groups for those asked for: all but aevents, if none is.
pub(crate) fn groups(wanted: &[Group], aevents: bool) -> Vec<EventGroup> {
    let is_wanted = |group: &EventGroup| match group {
        EventGroup::Acquire => wanted.contains(&Group::Acquire),
        EventGroup::Expire => wanted.contains(&Group::Expire),
        EventGroup::Sa => wanted.contains(&Group::Sa),
        EventGroup::Policy => wanted.contains(&Group::Policy),
        EventGroup::Mapping => wanted.contains(&Group::Mapping),
        EventGroup::Migrate => wanted.contains(&Group::Migrate),
        EventGroup::Report => wanted.contains(&Group::Report),
        _ => false,
    };
    let chosen = |group: &EventGroup| match group {
        EventGroup::Aevents => aevents,
        // Aevents alone are asked for by that option alone.
        _ if wanted.is_empty() => true,
        other => is_wanted(other),
    };
    EventGroup::ALL.into_iter().filter(chosen).collect()
}

/// Whether an event is to be shown. What concerns everything always is.
pub(crate) fn is_wanted(event: &XfrmEvent, filter: &Filter, host: &Surroundings) -> bool {
    match subject(event, host) {
        Subject::Everything => true,
        Subject::Sa(traits) => filter.takes(&traits),
        Subject::Policy(policy) => filter.takes_policy(policy),
        Subject::Both(traits, policy) => filter.takes(&traits) || filter.takes_policy(policy),
    }
}

/// What an event is about, as a filter asks for it.
enum Subject<'a> {
    Everything,
    Sa(Traits),
    Policy(&'a Policy),
    Both(Traits, &'a Policy),
}

fn subject<'a>(event: &'a XfrmEvent, host: &Surroundings) -> Subject<'a> {
    match event {
        XfrmEvent::Acquire(acquire) => {
            let policy = &acquire.policy.policy;
            let wanted = Traits {
                source: Some(acquire.source),
                destination: Some(acquire.destination),
                reqid: acquire.reqid().map(|reqid| reqid.0),
                spi: Some(0),
                mark: policy.mark,
                if_id: policy.if_id.map(|id| id.get()),
                direction: Some(filter::direction(policy.direction)),
            };
            Subject::Both(wanted, policy)
        }
        XfrmEvent::Expire(expire) => Subject::Sa(of_sa(&expire.entry.sa, host)),
        XfrmEvent::NewSa(entry) | XfrmEvent::UpdSa(entry) => Subject::Sa(of_sa(&entry.sa, host)),
        XfrmEvent::DelSa(_, Some(entry)) => Subject::Sa(of_sa(&entry.sa, host)),
        XfrmEvent::DelSa(id, None) => Subject::Sa(of_id(id)),
        XfrmEvent::Mapping(mapping) => Subject::Sa(Traits {
            source: Some(mapping.old_address),
            reqid: Some(mapping.reqid.0),
            direction: Some(Direction::In),
            ..of_id(&mapping.id)
        }),
        XfrmEvent::NewAe(state) => Subject::Sa(Traits {
            source: Some(state.source),
            reqid: Some(state.reqid.0),
            mark: state.mark,
            if_id: state.if_id.map(|id| id.get()),
            ..of_id(&state.id)
        }),
        XfrmEvent::NewPolicy(entry) | XfrmEvent::UpdPolicy(entry) => Subject::Policy(&entry.policy),
        XfrmEvent::DelPolicy(_, Some(entry)) => Subject::Policy(&entry.policy),
        XfrmEvent::PolicyExpire(expire) => Subject::Policy(&expire.entry.policy),
        XfrmEvent::DelPolicy(id, None) | XfrmEvent::Migrate(id) => Subject::Sa(of_policy(id)),
        _ => Subject::Everything,
    }
}

fn of_sa(sa: &Sa, host: &Surroundings) -> Traits {
    Traits::of_sa(sa, SaWay::of(sa, &host.addresses))
}

fn of_id(id: &SaId) -> Traits {
    Traits {
        destination: Some(id.destination),
        spi: Some(id.spi.get()),
        ..Traits::default()
    }
}

fn of_policy(id: &PolicyId) -> Traits {
    let selector = match id.key {
        PolicyKey::Selector(selector) => Some(selector),
        PolicyKey::Index(_) => None,
    };
    Traits {
        source: selector.map(|selector| selector.source().address()),
        destination: selector.map(|selector| selector.destination().address()),
        mark: id.mark,
        if_id: id.if_id.map(|id| id.get()),
        direction: Some(filter::direction(id.direction)),
        ..Traits::default()
    }
}

#[cfg(test)]
mod tests;
