//! Every ESP algorithm on the real kernel: packets pass, before and after a rekey, and what is
//! captured on the wire is opened with nothing but the keys that the kernel was given.
//!
//! ```text
//! client 10.1.0.1 ── router (masquerade) ── 10.2.0.1 server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::{Epochgate, Judged, KeyLog, Topology, UdpFlow, Watch, audit};
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(20);
const PACKETS: u64 = 40;
/// With this SPI the daemon tries whether the kernel has ESP.
const PROBE: u32 = u32::MAX;
const UP: u16 = 4000;
const DOWN: u16 = 4001;

/// A cipher as configured, and what the kernel calls it.
const CIPHERS: [(&str, &str); 9] = [
    ("aes128gcm16", "rfc4106(gcm(aes))"),
    ("aes256gcm16", "rfc4106(gcm(aes))"),
    ("chacha20poly1305", "rfc7539esp(chacha20,poly1305)"),
    ("aes128-sha256", "cbc(aes)"),
    ("aes256-sha256", "cbc(aes)"),
    ("aes128-sha384", "cbc(aes)"),
    ("aes256-sha384", "cbc(aes)"),
    ("aes128-sha512", "cbc(aes)"),
    ("aes256-sha512", "cbc(aes)"),
];

/// Sends both ways through a cold tunnel, rekeys it, and sends again.
#[track_caller]
fn passes_packets(net: &Topology, cipher: &str, in_kernel: &str, esn: &str) {
    let watch = Watch::start(net);
    let keys: KeyLog = net.client_keys();
    let before = keys.sas().len();
    // IKE's own messages have the same cipher.
    let algorithms = format!(
        "[tunnel.net.algorithms]\n\
         ike = {{ cipher = [\"{cipher}\"] }}\n\
         esp = {{ cipher = [\"{cipher}\"], esn = \"{esn}\" }}\n"
    );
    let server = Epochgate::start(&net.server, &server_config(&algorithms));
    let client = Epochgate::start(&net.client, &client_config(&algorithms));
    client.run(&["up", "net"]);
    for _ in 0..2 {
        let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
        for (from, to, port) in [(ends.0, ends.1, UP), (ends.1, ends.0, DOWN)] {
            let account = UdpFlow::new(from, to, port)
                .count(PACKETS)
                .start()
                .finish(SETTLE);
            println!("{cipher}, esn {esn}: {account}");
            account.assert_perfect();
        }
        client.run(&["rekey", "net"]);
    }
    client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open");
    let sas = keys.sas();
    assert!(sas.len() >= before + 4, "two epochs at least");
    for sa in sas[before..].iter().filter(|sa| sa.spi != PROBE) {
        assert_eq!(sa.algorithm, in_kernel);
    }
    drop((client, server));
    let Judged { client, server, .. } = watch.judge();
    // Only what a key of the kernel opens is known to be a datagram of ours.
    for (trace, port) in [(&client, UP), (&server, DOWN)] {
        let carried = audit::carried(trace, port);
        assert_eq!(carried.len() as u64, 2 * PACKETS, "{cipher} {port}");
    }
}

#[test]
fn every_cipher_carries_packets_with_extended_sequence_numbers() {
    for (cipher, in_kernel) in CIPHERS {
        let net = Topology::new("ciphers_esn").masquerade().build();
        passes_packets(&net, cipher, in_kernel, "require");
    }
}

#[test]
fn every_cipher_carries_packets_without_extended_sequence_numbers() {
    for (cipher, in_kernel) in CIPHERS {
        let net = Topology::new("ciphers").masquerade().build();
        passes_packets(&net, cipher, in_kernel, "off");
    }
}
