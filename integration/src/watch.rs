//! Watches a client and a server from before the first packet, and judges afterwards whether the
//! product's invariants held at both ends.

use crate::audit::{self, Selectors};
use crate::capture::{Capture, Packet, Timestamp, exchange_name};
use crate::esp::{Entry, KeyLog, Trace};
use crate::pace::Pace;
use crate::topology::{CLIENT_NET, CLIENT_NET_V6, SERVER, SERVER_NET, SERVER_NET_V6, Topology};
use std::collections::BTreeMap;
use std::time::Duration;

/// Captures at both ends of a [`Topology`], and the keys of both.
#[derive(Debug)]
pub struct Watch {
    /// The wire as the client sees it.
    pub client: Capture,
    /// The wire as the server sees it.
    pub server: Capture,
    client_keys: KeyLog,
    server_keys: KeyLog,
}

/// What both ends did, after it was found to break no invariant.
#[derive(Debug)]
pub struct Judged {
    /// All that the client sent and received.
    pub client: Trace,
    /// All that the server sent and received.
    pub server: Trace,
    /// The client's outbound SPIs that carried more than control pings, each with the time of its
    /// proof.
    pub proofs: BTreeMap<u32, Timestamp>,
}

/// One request of an IKE exchange or one control ping, and its answer, as one host saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// What it is: the name of an IKE exchange (RFC 7296 §1), or `control ping`.
    pub kind: &'static str,
    /// When the request left.
    pub asked: Timestamp,
    /// When the answer arrived.
    pub answered: Timestamp,
}

impl Watch {
    /// Everything after this returned is seen. Start it before the daemons.
    pub fn start(net: &Topology) -> Self {
        Self::start_at(net, Pace::Prompt)
    }

    /// The same for a run of this pace.
    pub fn start_at(net: &Topology, pace: Pace) -> Self {
        Self {
            client_keys: KeyLog::start_at(&net.client, pace),
            server_keys: KeyLog::start_at(&net.server, pace),
            client: Capture::start_at(&net.to_client, pace),
            server: Capture::start_at(&net.to_server, pace),
        }
    }

    /// The client's SPIs so far as (inbound, outbound), in the order of its epochs.
    pub fn client_pairs(&self, client: &str) -> Vec<(u32, u32)> {
        self.client_keys
            .pairs(client.parse().expect("an IP address"))
    }

    /// Ends the captures. Fails the test if, between the networks of the [`Topology`], anything
    /// went in clear at either end (I2), the client sent anything but control pings on an epoch
    /// that was not proven (I1), or the server anything on an epoch on which nothing had
    /// arrived but the one ping that it may part with (I3).
    #[track_caller]
    pub fn judge(self) -> Judged {
        self.judge_beside(&[])
    }

    /// As [`judge`](Self::judge), with SPIs that are not epochgate's left out.
    #[track_caller]
    pub fn judge_beside(self, foreign: &[u32]) -> Judged {
        let ours = |entry: &Entry| match entry.packet {
            Packet::Esp { spi, .. } => !foreign.contains(&spi),
            Packet::EspFragment { .. }
            | Packet::Ike { .. }
            | Packet::Clear { .. }
            | Packet::Other => true,
        };
        let pairs = self
            .server_keys
            .pairs(SERVER.parse().expect("an IP address"));
        let mut client = Trace::of(self.client.stop(), &self.client_keys);
        let mut server = Trace::of(self.server.stop(), &self.server_keys);
        client.entries.retain(ours);
        server.entries.retain(ours);
        for protected in [
            Selectors::new(CLIENT_NET, SERVER_NET),
            Selectors::new(CLIENT_NET_V6, SERVER_NET_V6),
        ] {
            for trace in [&client, &server] {
                if let Err(violation) = audit::nothing_in_clear(trace, &protected) {
                    panic!("I2: {violation}");
                }
            }
        }
        let proofs = match audit::nothing_before_proof(&client) {
            Ok(proofs) => proofs,
            Err(violation) => panic!("I1: {violation}"),
        };
        if let Err(violation) = audit::server_waits_and_parts(&server, &pairs) {
            panic!("I3: {violation}");
        }
        Judged {
            client,
            server,
            proofs,
        }
    }
}

impl Judged {
    /// When the client's first packet that is no control ping left through the tunnel.
    pub fn first_use(&self) -> Option<Timestamp> {
        let mut traffic = self.client.sent().filter(|entry| {
            let inner = entry.inner.as_ref();
            inner.is_some_and(|inner| inner.control_ping().is_none())
        });
        traffic.next().map(|entry| entry.at)
    }

    /// The client's exchanges until `end`: those that it began, by the order of their requests.
    /// A request that was sent more than once is there as often.
    pub fn exchanges_until(&self, end: Timestamp) -> Vec<Exchange> {
        let mut open = Vec::<(Key, &'static str, Timestamp)>::new();
        let mut done = Vec::new();
        for entry in self.client.entries.iter().filter(|entry| entry.at <= end) {
            let Some((key, kind, answer)) = exchange_of(entry) else {
                continue;
            };
            if entry.sent && !answer {
                open.push((key, kind, entry.at));
            } else if !entry.sent && answer {
                let asked = open.iter().filter(|(open, _, _)| *open == key);
                done.extend(asked.map(|(_, kind, asked)| Exchange {
                    kind,
                    asked: *asked,
                    answered: entry.at,
                }));
                open.retain(|(open, _, _)| *open != key);
            }
        }
        let unanswered = open.into_iter().map(|(_, kind, asked)| Exchange {
            kind,
            asked,
            answered: end,
        });
        done.extend(unanswered);
        done.sort_by_key(|exchange| exchange.asked);
        done
    }
}

/// What ties an answer to its request.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Ike(u64, u32),
    Ping(Vec<u8>),
}

/// What exchange a packet belongs to, and whether it is the answer.
fn exchange_of(entry: &Entry) -> Option<(Key, &'static str, bool)> {
    match &entry.packet {
        Packet::Ike {
            initiator_spi,
            exchange,
            message_id,
            response,
            ..
        } => {
            let key = Key::Ike(*initiator_spi, *message_id);
            Some((key, exchange_name(*exchange), *response))
        }
        Packet::Esp { .. } => {
            let (reply, payload) = entry.inner.as_ref()?.control_ping()?;
            Some((Key::Ping(payload.to_vec()), "control ping", reply))
        }
        Packet::EspFragment { .. } | Packet::Clear { .. } | Packet::Other => None,
    }
}

/// How often `time` goes into `total`, for printing times in round trips.
pub fn times(total: Duration, time: Duration) -> f64 {
    total.as_secs_f64() / time.as_secs_f64()
}
