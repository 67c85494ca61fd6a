//! On a real kernel: the programs in `examples/` do what they say, and print it.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{
    CLIENT, Pair, SERVER, address, hold_packets, in_own_namespace, selector, spi, tunnel_sa, udp,
};
use epochgate_xfrm::{Key, Policy, PolicyDirection, Protection, Reqid, Sa, Socket, Template};

fn open() -> Socket {
    Socket::open().expect("a netlink socket")
}

/// An example that runs in the network namespace of the thread that started it, and ends with the
/// test.
struct Example {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let program = path_of(name);
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; cargo build --examples", program.display())
            });
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            input: child.stdin.take(),
            child,
            output,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it prints text");
        line.trim_end().to_owned()
    }

    fn press_enter(&mut self) {
        let mut input = self.input.take().expect("it was not pressed yet");
        input.write_all(b"\n").expect("it reads");
    }

    /// The lines that are left, once it has ended well.
    fn rest(mut self) -> Vec<String> {
        let lines = self.output.by_ref().lines();
        let lines = lines.collect::<Result<_, _>>().expect("it prints text");
        assert!(self.child.wait().expect("it ends").success());
        lines
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Cargo puts examples beside the directory that tests are in.
fn path_of(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    profile.join("examples").join(example)
}

fn protect(source: &str, destination: &str, template: Template) -> Policy {
    let packets = selector(source, destination);
    Policy::protect(PolicyDirection::Out, packets, 100, template)
}

#[test]
fn list_shows_who_leads_to_what_and_what_has_no_partner() {
    in_own_namespace(|| {
        let mut socket = open();
        let tunnel = |reqid| Template::esp_tunnel(address(CLIENT), address(SERVER), Reqid(reqid));
        let alone = tunnel_sa(CLIENT, SERVER, 0x100, 9);
        for sa in [&tunnel_sa(CLIENT, SERVER, 0x700, 7), &alone] {
            socket.add_sa(sa).expect("add");
        }
        for policy in [
            protect("10.1.0.0/16", "10.2.0.0/16", tunnel(7)),
            protect("10.1.0.0/16", "10.3.0.0/16", tunnel(8)),
            // It is of that reqid, and pinned to an SA that is not there.
            protect("10.1.0.0/16", "10.4.0.0/16", tunnel(7).pinned_to(spi(5))),
        ] {
            socket.add_policy(&policy).expect("add");
        }
        let mut lines = Example::start("list", &[]).rest();
        let mut without_sa = lines.split_off(4);
        without_sa.sort();
        assert_eq!(
            lines,
            [
                "esp 0x00000100 192.0.2.1 -> 192.0.2.2 tunnel, 0 packets, 0 bytes",
                "  no policy leads to it",
                "esp 0x00000700 192.0.2.1 -> 192.0.2.2 tunnel, 0 packets, 0 bytes",
                "  out 10.1.0.0/16 -> 10.2.0.0/16",
            ]
        );
        assert_eq!(
            without_sa,
            [
                "out 10.1.0.0/16 -> 10.3.0.0/16: no SA",
                "out 10.1.0.0/16 -> 10.4.0.0/16: no SA",
            ]
        );
    });
}

#[test]
fn watch_says_in_words_what_happens() {
    in_own_namespace(|| {
        let mut watch = Example::start("watch", &["6"]);
        assert_eq!(watch.line(), "listening");
        let mut socket = open();
        let mut sa = tunnel_sa(CLIENT, SERVER, 0x700, 7);
        socket.add_sa(&sa).expect("add");
        sa.limits.hard.packets = Some(1000);
        socket.update_sa(&sa).expect("update");
        socket.delete_sa(sa.id().expect("an SPI")).expect("delete");
        let template = Template::esp_tunnel(address(CLIENT), address(SERVER), Reqid(7));
        let policy = protect("10.1.0.0/16", "10.2.0.0/16", template);
        socket.add_policy(&policy).expect("add");
        socket.update_policy(&policy).expect("update");
        socket.delete_policy(&policy.id()).expect("delete");
        assert_eq!(
            watch.rest(),
            [
                "SA esp 0x00000700 to 192.0.2.2 was added",
                "SA esp 0x00000700 to 192.0.2.2 was updated",
                "esp 0x00000700 to 192.0.2.2 was deleted after 0 packets",
                "policy out 10.1.0.0/16 -> 10.2.0.0/16 was added",
                "policy out 10.1.0.0/16 -> 10.2.0.0/16 was replaced",
                "policy out 10.1.0.0/16 -> 10.2.0.0/16 was deleted",
            ]
        );
    });
}

#[test]
fn hold_keeps_packets_until_there_is_an_sa_and_then_sends_them_through_it() {
    let pair = Pair::new();
    let receiver = pair.server.run(|| {
        let key = Protection::aes_gcm_16(Key::new(vec![0x42; 20]));
        let (from, to) = (address(CLIENT), address(SERVER));
        let sa = Sa::esp_tunnel(from, to, spi(0xc000_7001), Reqid(1), key);
        let mut socket = open();
        socket.add_sa(&sa).expect("add");
        // Nothing in clear is taken.
        let template = Template::esp_tunnel(from, to, Reqid(1));
        let mut policy = protect(CLIENT, SERVER, template);
        policy.direction = PolicyDirection::In;
        socket.add_policy(&policy).expect("add");
        udp(SERVER, 5000)
    });
    pair.client.run(|| {
        hold_packets();
        let mut hold = Example::start("hold", &[CLIENT, SERVER]);
        assert_eq!(hold.line(), "holding 192.0.2.1/32 -> 192.0.2.2/32");
        let sender = udp(CLIENT, 4000);
        for number in [1, 2, 3] {
            sender.send_to(&[number], (SERVER, 5000)).expect("it waits");
        }
        let waiting = hold.line();
        let packet = "a packet waits: 192.0.2.1/32 -> 192.0.2.2/32 proto 17 sport 4000 dport 5000";
        assert!(waiting.starts_with(packet), "{waiting}");
        assert_eq!(hold.rest(), ["open through 0xc0007001"]);
    });
    pair.server.run(move || {
        for number in [1, 2, 3] {
            let mut buffer = [0; 8];
            let length = receiver.recv(&mut buffer).expect("what was held arrives");
            assert_eq!(buffer[..length], [number]);
        }
    });
}

#[test]
fn tunnel_protects_both_ways_and_leaves_nothing_behind() {
    let pair = Pair::new();
    let start = |host: &common::Namespace, arguments: [&'static str; 4]| {
        host.run(move || {
            let mut tunnel = Example::start("tunnel", &arguments);
            assert_eq!(tunnel.line(), "up");
            tunnel
        })
    };
    let mut client = start(&pair.client, [CLIENT, SERVER, "4097", "4098"]);
    let mut server = start(&pair.server, [SERVER, CLIENT, "4098", "4097"]);
    let ponger = pair.server.run(|| udp(SERVER, 5000));
    let pinger = pair.client.run(|| udp(CLIENT, 4000));
    for _ in 0..3 {
        let mut buffer = [0; 8];
        pinger.send_to(b"ping", (SERVER, 5000)).expect("send");
        let (_, peer) = ponger.recv_from(&mut buffer).expect("the ping arrives");
        ponger.send_to(b"pong", peer).expect("send");
        pinger.recv_from(&mut buffer).expect("the pong arrives");
    }
    client.press_enter();
    server.press_enter();
    let inbound = "esp 0x00001001 to 192.0.2.1: 3 packets";
    let outbound = "esp 0x00001002 to 192.0.2.2: 3 packets";
    assert_eq!(client.rest(), [inbound, outbound, "down"]);
    assert_eq!(server.rest(), [outbound, inbound, "down"]);
    for host in [&pair.client, &pair.server] {
        host.run(|| {
            assert_eq!(open().sas(), Ok(Vec::new()));
            assert_eq!(open().policies(), Ok(Vec::new()));
        });
    }
}

#[test]
fn an_example_says_what_is_wrong_with_its_arguments() {
    let output = Command::new(path_of("tunnel")).output().expect("it runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("tunnel LOCAL REMOTE"), "{errors}");
}
