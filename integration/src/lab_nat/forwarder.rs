//! The NAT's program: packets from two TUN interfaces through a [`Masquerade`] and back.

use super::fragments::Fragments;
use super::order::{LabCounters, Order};
use super::packet;
use crate::sys;
use epochgate_nat::{Masquerade, MasqueradeSettings, Nat, Packet, Payload, Side};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Instant;

/// The largest IPv4 packet.
const PACKET_BYTES: usize = 65_535;
/// The longest order; what is longer is no order.
const ORDER_BYTES: usize = 4096;

/// Packets that one side gets forwarded before it is the other one's turn: on a slow machine packets may
/// come faster than they are forwarded, and who sends less must not wait for ever.
const ROUND_PACKETS: usize = 16;
/// Packets that were dropped and are told one by one.
const TOLD_DROPS: u64 = 200;

/// Makes the two interfaces in this thread's network namespace, says `{"ready":true}` on standard
/// output, and forwards between them until standard input ends. Orders come from there.
///
/// `names` are those of the interfaces that what comes from the inside, and from the outside, is
/// routed into. A translated packet is received by the interface that it was read from.
///
/// # Errors
///
/// If an interface cannot be made (`/dev/net/tun`, CAP_NET_ADMIN) or read, or standard output is
/// closed.
pub fn forward(names: [&str; 2], public: Ipv4Addr) -> io::Result<()> {
    let [inside, outside] = names;
    let tuns = [
        (Side::Inside, sys::tun(inside)?),
        (Side::Outside, sys::tun(outside)?),
    ];
    let mut forwarder = Forwarder {
        nat: Masquerade::new(IpAddr::V4(public), MasqueradeSettings::default()),
        fragments: Fragments::default(),
        began: Instant::now(),
        down_until: None,
        truth: BTreeMap::new(),
        counters: LabCounters::default(),
        told: 0,
    };
    answer(&json!({"ready": true}).to_string())?;
    let mut orders = Orders::default();
    loop {
        let stdin = io::stdin();
        let mut ready = [
            PollFd::new(tuns[0].1.as_fd(), PollFlags::POLLIN),
            PollFd::new(tuns[1].1.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let told = ready[2].any().unwrap_or(true);
        for (side, tun) in &tuns {
            forwarder.drain(*side, tun)?;
        }
        if told {
            let Some(lines) = orders.read()? else {
                return Ok(());
            };
            for line in lines {
                answer(&forwarder.obey(&line))?;
            }
        }
    }
}

fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[derive(Debug)]
struct Forwarder {
    nat: Masquerade,
    fragments: Fragments,
    began: Instant,
    /// Rebooting: nothing is forwarded before, and then nothing is known.
    down_until: Option<Instant>,
    /// By server and inbound SPI: who chose it.
    truth: BTreeMap<(IpAddr, u32), IpAddr>,
    counters: LabCounters,
    /// Dropped packets that were told.
    told: u64,
}

impl Forwarder {
    /// Forwards what has been routed into an interface so far, [`ROUND_PACKETS`] at most.
    fn drain(&mut self, side: Side, tun: &File) -> io::Result<()> {
        let mut buffer = vec![0; PACKET_BYTES];
        for _ in 0..ROUND_PACKETS {
            let length = match (&*tun).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let Some(bytes) = self.translated(side, &buffer[..length]) else {
                continue;
            };
            match (&*tun).write_all(&bytes) {
                Ok(()) => {}
                // The interface is down or its queue is full: lost, as on any router.
                Err(error) => eprintln!("a packet of {} octets: {error}", bytes.len()),
            }
        }
        Ok(())
    }

    fn translated(&mut self, side: Side, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.is_down() {
            self.counters.while_down += 1;
            return None;
        }
        let whole = self.fragments.complete(Instant::now(), bytes)?;
        let bytes = &*whole;
        let Ok(packet) = packet::read(bytes) else {
            self.counters.unreadable += 1;
            return None;
        };
        let new = match self.nat.translate(self.began.elapsed(), side, packet) {
            Ok(new) => new,
            Err(reason) => {
                if self.told < TOLD_DROPS {
                    self.told += 1;
                    eprintln!("{side:?} dropped for {reason}: {packet:x?}");
                }
                return None;
            }
        };
        if side == Side::Outside {
            self.judge(new);
        }
        packet::rewrite(bytes, new).ok()
    }

    /// Whether a reboot is under way. At its end the tables are empty.
    fn is_down(&mut self) -> bool {
        match self.down_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.nat.forget();
                self.down_until = None;
                false
            }
            None => false,
        }
    }

    fn judge(&mut self, packet: Packet) {
        if let Payload::Esp { spi } = packet.payload
            && let Some(client) = self.truth.get(&(packet.source, spi))
            && *client != packet.destination
        {
            self.counters.misdelivered += 1;
        }
    }

    fn obey(&mut self, line: &str) -> String {
        let order = match Order::read(line, self.nat.settings()) {
            Ok(order) => order,
            Err(error) => return json!({"error": error}).to_string(),
        };
        match order {
            Order::Set(settings) => self.nat.set_settings(settings),
            Order::Forget => self.nat.forget(),
            Order::Reboot(time) => self.down_until = Some(Instant::now() + time),
            Order::Truth {
                server,
                spi,
                client,
            } => {
                self.truth.insert((server, spi), client);
            }
            Order::Counters => {
                self.counters.nat = self.nat.counters();
                return self.counters.to_json().to_string();
            }
        }
        json!({"ok": true}).to_string()
    }
}

/// Lines of standard input, as far as they have come.
#[derive(Debug, Default)]
struct Orders {
    partial: Vec<u8>,
}

impl Orders {
    /// The lines that are complete after one read; `None` at the end of input.
    fn read(&mut self) -> io::Result<Option<Vec<String>>> {
        let mut buffer = [0; ORDER_BYTES];
        // Not through `Stdin`, whose buffer poll does not see.
        let length = nix::unistd::read(io::stdin().as_fd(), &mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        self.partial.extend_from_slice(&buffer[..length]);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        if self.partial.len() > ORDER_BYTES {
            return Err(io::Error::other("an order is too long"));
        }
        Ok(Some(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254));

    fn forwarder() -> Forwarder {
        Forwarder {
            nat: Masquerade::new(PUBLIC, MasqueradeSettings::default()),
            fragments: Fragments::default(),
            began: Instant::now(),
            down_until: None,
            truth: BTreeMap::new(),
            counters: LabCounters::default(),
            told: 0,
        }
    }

    fn esp(source: IpAddr, destination: IpAddr, spi: u32) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
            panic!("IPv4 only");
        };
        let builder = etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), 63);
        let mut bytes = Vec::new();
        let payload = [spi.to_be_bytes(), [0; 4]].concat();
        let esp = etherparse::IpNumber::ENCAPSULATING_SECURITY_PAYLOAD;
        builder.write(&mut bytes, esp, &payload).unwrap();
        bytes
    }

    fn counters(forwarder: &mut Forwarder) -> LabCounters {
        let line = forwarder.obey(&Order::Counters.line());
        LabCounters::from_json(&serde_json::from_str(&line).unwrap()).unwrap()
    }

    #[test]
    fn esp_that_reaches_another_client_than_its_chooser_is_counted_as_misdelivered() {
        let mut nat = forwarder();
        let truth = Order::Truth {
            server: SERVER,
            spi: 7,
            client: OTHER,
        };
        assert_eq!(nat.obey(&truth.line()), r#"{"ok":true}"#);
        assert!(
            nat.translated(Side::Inside, &esp(CLIENT, SERVER, 1))
                .is_some()
        );
        assert!(
            nat.translated(Side::Outside, &esp(SERVER, PUBLIC, 7))
                .is_some()
        );
        assert!(
            nat.translated(Side::Outside, &esp(SERVER, PUBLIC, 7))
                .is_some()
        );
        assert_eq!(counters(&mut nat).misdelivered, 2);
    }

    #[test]
    fn a_reboot_drops_everything_and_ends_with_empty_tables() {
        let mut nat = forwarder();
        nat.translated(Side::Inside, &esp(CLIENT, SERVER, 1))
            .unwrap();
        nat.translated(Side::Outside, &esp(SERVER, PUBLIC, 7))
            .unwrap();
        nat.obey(&Order::Reboot(Duration::from_secs(3600)).line());
        assert_eq!(nat.translated(Side::Outside, &esp(SERVER, PUBLIC, 7)), None);
        nat.obey(&Order::Reboot(Duration::ZERO).line());
        assert_eq!(nat.translated(Side::Outside, &esp(SERVER, PUBLIC, 7)), None);
        let counters = counters(&mut nat);
        assert_eq!(counters.while_down, 1);
        assert_eq!(counters.nat.dropped_total(), 1);
    }

    #[test]
    fn what_is_no_order_is_answered_with_an_error_and_changes_nothing() {
        let mut nat = forwarder();
        assert!(nat.obey("forget").starts_with(r#"{"error":"#));
        assert_eq!(counters(&mut nat), LabCounters::default());
    }
}
