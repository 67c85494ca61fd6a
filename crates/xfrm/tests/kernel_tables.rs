//! On a real kernel: what this crate writes, `ip xfrm` reads back, and the other way round.

mod common;

use common::{gcm, in_own_namespace, ip, tunnel_sa};
use epochgate_xfrm::{Encap, Mark, ReplayWindow, SaFlags, Socket};

#[test]
fn ip_xfrm_shows_the_sa_that_was_added() {
    in_own_namespace(|| {
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        sa.protection = gcm(36);
        sa.encap = Some(Encap::udp(4500, 4501));
        sa.replay_window = ReplayWindow::extended(64);
        sa.mark = Some(Mark {
            value: 0x10,
            mask: 0xff,
        });
        sa.flags = SaFlags::AF_UNSPEC;
        sa.limits.soft.bytes = Some(1000);
        sa.limits.hard.seconds_since_added = Some(3600);
        let mut socket = Socket::open().expect("open");
        socket.add_sa(&sa).expect("add");

        let shown = ip("-s xfrm state");
        for part in [
            "src 192.0.2.1 dst 192.0.2.2",
            "proto esp spi 0xc0000001",
            "reqid 7",
            "mode tunnel",
            "af-unspec",
            "esn",
            "replay_window 64",
            "mark 0x10/0xff",
            "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324",
            "(288 bits) 128",
            "encap type espinudp sport 4500 dport 4501",
            "limit: soft 1000(bytes)",
            "hard 3600(sec)",
        ] {
            assert!(shown.contains(part), "{part} is missing in:\n{shown}");
        }
    });
}
