//! Says in words what happens to SAs and policies, whoever does it, until it has said so many
//! things as the argument asks for; without one, for ever.
//!
//! ```text
//! cargo run --example watch -- 10
//! ```
//!
//! Needs CAP_NET_ADMIN. It does not listen to acquires: a listener there makes the kernel leave a
//! larval SA for each packet that waits. Nor to aevents, which come every two packets.

use std::io::Write;

use epochgate_xfrm::{EventGroup, EventSocket, SaEntry, XfrmEvent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limit: Option<usize> = std::env::args().nth(1).map(|it| it.parse()).transpose()?;
    let mut events = EventSocket::open(&[
        EventGroup::Sa,
        EventGroup::Policy,
        EventGroup::Expire,
        EventGroup::Mapping,
    ])?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening")?;
    let mut said = 0;
    while limit.is_none_or(|limit| said < limit)
        && let Some(event) = events.next(None)?
    {
        writeln!(stdout, "{}", in_words(&event))?;
        said += 1;
    }
    Ok(())
}

fn in_words(event: &XfrmEvent) -> String {
    match event {
        XfrmEvent::NewSa(entry) => format!("{} was added", name(entry)),
        XfrmEvent::UpdSa(entry) => format!("{} was updated", name(entry)),
        XfrmEvent::DelSa(id, Some(entry)) => {
            format!("{id} was deleted after {} packets", entry.usage.packets)
        }
        XfrmEvent::DelSa(id, None) => format!("{id} was deleted"),
        XfrmEvent::FlushSa(protocol) => format!("somebody deleted all {protocol} SAs"),
        XfrmEvent::NewPolicy(entry) => {
            let policy = &entry.policy;
            format!("policy {} {} was added", policy.direction, policy.selector)
        }
        XfrmEvent::UpdPolicy(entry) => {
            let policy = &entry.policy;
            format!(
                "policy {} {} was replaced",
                policy.direction, policy.selector
            )
        }
        XfrmEvent::DelPolicy(id, _) => format!("policy {id} was deleted"),
        XfrmEvent::FlushPolicy => "somebody deleted all policies".to_owned(),
        XfrmEvent::Expire(expire) if expire.hard => {
            format!(
                "{} has ended: its hard limit was reached",
                name(&expire.entry)
            )
        }
        XfrmEvent::Expire(expire) => {
            format!(
                "{} ends soon: its soft limit was reached",
                name(&expire.entry)
            )
        }
        XfrmEvent::Mapping(mapping) => format!(
            "the peer of {} moved from port {} to {} port {}",
            mapping.id, mapping.old_port, mapping.new_address, mapping.new_port
        ),
        XfrmEvent::Overrun => "events were lost: list everything again".to_owned(),
        other => format!("{other:?}"),
    }
}

fn name(entry: &SaEntry) -> String {
    match entry.sa.id() {
        Some(id) => format!("SA {id}"),
        None => format!("a larval SA to {}", entry.sa.destination),
    }
}
