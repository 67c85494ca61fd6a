//! The first act as the wire saw it, as a ladder of messages with their times.

use std::time::Duration;

use epochgate_integration::esp::Entry;
use epochgate_integration::{Account, InnerPacket, Packet, Timestamp, Trace};

use crate::ROUND_TRIP;

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// Tells what happened between the first packet's sending and the last held one's delivery.
pub(crate) fn tell(trace: &Trace, account: &Account) {
    let Some(&(_, began)) = account.sent.first() else {
        return;
    };
    let say = |at: Timestamp, what: &str| {
        let after = at.since(began);
        println!("   {:>7.1} ms  {what}", after.as_secs_f64() * 1000.0);
    };
    say(
        began,
        "packet 0 is sent: no epoch is proven, the kernel holds it",
    );
    let mut ike_done = None;
    let mut released = None;
    for entry in &trace.entries {
        match &entry.packet {
            Packet::Ike {
                exchange, response, ..
            } => {
                if let Some(line) = ike_line(*exchange, *response) {
                    say(entry.at, &line);
                }
                if (*exchange, *response) == (IKE_AUTH, true) {
                    ike_done = Some(entry.at);
                    let waiting = sent_before(account, entry.at);
                    say(
                        entry.at,
                        &format!(
                            "IKE is done, both kernels have the SAs; {waiting} packets wait, still held"
                        ),
                    );
                }
            }
            Packet::Esp { spi, .. } if released.is_none() => match ping(entry) {
                Some(false) if entry.sent => {
                    say(entry.at, &format!("-> control ping, ESP SPI {spi:#010x}"));
                }
                Some(true) if !entry.sent => {
                    say(
                        entry.at,
                        "<- its answer: the way is proven, traffic is switched",
                    );
                }
                Some(_) => {}
                None => {
                    if entry.sent {
                        say(entry.at, "-> the first held packet leaves");
                        released = Some(entry.at);
                    }
                }
            },
            Packet::Esp { .. }
            | Packet::EspFragment { .. }
            | Packet::Clear { .. }
            | Packet::Other => {}
        }
    }
    let (Some(ike_done), Some(released)) = (ike_done, released) else {
        println!("   the tunnel did not come up");
        return;
    };
    let trips = |time: Duration| time.as_secs_f64() / ROUND_TRIP.as_secs_f64();
    let held = sent_before(account, released);
    println!(
        "\n   {held} packets were held. The first left {:.1} round trips after it was sent: two for IKE,\n   \
         one for the ping ({:.1} ms after IKE was done). Nothing waited for a timer.",
        trips(released.since(began)),
        released.since(ike_done).as_secs_f64() * 1000.0,
    );
    println!("   {account}");
}

fn ike_line(exchange: u8, response: bool) -> Option<String> {
    let name = match exchange {
        IKE_SA_INIT => "IKE_SA_INIT",
        IKE_AUTH => "IKE_AUTH",
        _ => return None,
    };
    Some(if response {
        format!("<- {name} response")
    } else {
        format!("-> {name} request")
    })
}

/// Whether it is the reply of a control ping, if it is one at all.
fn ping(entry: &Entry) -> Option<bool> {
    let inner: &InnerPacket = entry.inner.as_ref()?;
    inner.control_ping().map(|(reply, _)| reply)
}

fn sent_before(account: &Account, at: Timestamp) -> usize {
    account.sent.iter().filter(|(_, sent)| *sent < at).count()
}
