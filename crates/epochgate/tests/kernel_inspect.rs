//! On a real kernel: what `epochgate xfrm` shows of SAs, policies, counters and events that `ip` and
//! packets make, and how it ends when something is in its way.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{epochgate, in_own_namespace, ip, ip_batch, json, said, shown};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";
/// As long as anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn add_sa(source: &str, destination: &str, spi: &str, more: &str) {
    ip(&format!(
        "xfrm state add src {source} dst {destination} proto esp spi {spi} mode tunnel \
         aead rfc4106(gcm(aes)) {KEY} 128 {more}"
    ));
}

/// A tunnel from 203.0.113.9, which is this host's, to 198.51.100.7.
fn tunnel() {
    // Not the loopback interface, where the kernel does no IPsec.
    ip("link add outside type dummy");
    ip("address add 203.0.113.9/24 dev outside");
    ip("address add 10.1.0.1/24 dev outside");
    ip("link set outside up");
    ip("route add default via 203.0.113.1");
    add_sa("203.0.113.9", "198.51.100.7", "0xc5f3a001", "reqid 7");
    add_sa(
        "198.51.100.7",
        "203.0.113.9",
        "0xc0aa0102",
        "reqid 7 replay-window 32",
    );
    for (dir, from, to, outer) in [
        (
            "out",
            "10.1.0.0/16",
            "10.2.0.0/16",
            "src 203.0.113.9 dst 198.51.100.7",
        ),
        (
            "in",
            "10.2.0.0/16",
            "10.1.0.0/16",
            "src 198.51.100.7 dst 203.0.113.9",
        ),
    ] {
        ip(&format!(
            "xfrm policy add src {from} dst {to} dir {dir} tmpl {outer} proto esp reqid 7 mode tunnel"
        ));
    }
}

/// Sends a datagram from this host's inner address.
fn send_to(address: &str) {
    let socket = UdpSocket::bind("10.1.0.1:0").expect("the address is this host's");
    // Where there is no SA it may be refused: that is what is tested.
    socket.send_to(b"hello", (address, 9)).ok();
}

/// Lines as they come from a monitor, read by a thread so that none is waited for too long.
struct Monitor {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Monitor {
    /// Starts it, and waits until it watches.
    fn start(arguments: &str) -> Self {
        let mut child = epochgate(&format!("xfrm monitor {arguments}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout: ChildStdout = child.stdout.take().expect("piped");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let monitor = Self { child, lines };
        monitor.wait_until_it_watches();
        monitor
    }

    /// The kernel lists who listens to which groups.
    fn wait_until_it_watches(&self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let table = std::fs::read_to_string("/proc/thread-self/net/netlink").expect("procfs");
            // Eth (protocol 6 is NETLINK_XFRM), and a bitmap of groups.
            let watches = table.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.get(1) == Some(&"6") && words.get(3).is_some_and(|g| *g != "00000000")
            });
            if watches {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the monitor does not watch");
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("an event")
    }

    fn event(&self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }

    /// Its exit code and what it says on standard error, once it has ended.
    fn end(self) -> (Option<i32>, String) {
        ended(self.child)
    }
}

/// The exit code of a child that ends by itself, and what it says on standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if child.try_wait().expect("it is ours").is_some() {
            let (code, _, err) = said(&child.wait_with_output().expect("it has ended"));
            return (code, err);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().ok();
    child.wait().ok();
    panic!("it does not end");
}

#[test]
fn states_are_shown_with_the_policies_that_lead_to_them() {
    in_own_namespace(|| {
        tunnel();
        add_sa(
            "203.0.113.9",
            "198.51.100.44",
            "0xdead0001",
            "reqid 44 mark 0x10 mask 0xff",
        );
        let table = shown("xfrm state");
        let mut lines = table.lines();
        assert!(
            lines.next().is_some_and(|line| line.starts_with("DIR")),
            "{table}"
        );
        for part in [
            "~out  0xc5f3a001",
            "~in   0xc0aa0102",
            "out 10.1.0.0/16 -> 10.2.0.0/16",
            "in 10.2.0.0/16 -> 10.1.0.0/16",
            "aes128gcm16",
            "0x10/0xff",
            "! no policy leads to it: nothing is sent through it",
            "3 SAs: 1 in, 2 out, 1 without a policy",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        assert!(!table.contains('\x1b'), "a pipe has no colours");
        let states = json("xfrm state --json");
        let states = states["states"].as_array().expect("states");
        let pairs: Vec<_> = states
            .iter()
            .map(|s| (&s["spi"], &s["used_by"]["count"]))
            .collect();
        assert_eq!(
            format!("{pairs:?}"),
            "[(String(\"0xdead0001\"), Number(0)), (String(\"0xc0aa0102\"), Number(1)), \
             (String(\"0xc5f3a001\"), Number(1))]"
        );
        assert!(!shown("xfrm state --json").contains(KEY), "keys are hidden");
        assert!(shown("xfrm state --json --show-keys").contains(KEY));
        assert!(!shown("xfrm state --wide").contains(KEY), "keys are hidden");
        assert!(shown("xfrm state --wide --show-keys").contains(KEY));
    });
}

#[test]
fn filters_leave_out_what_does_not_fit() {
    in_own_namespace(|| {
        tunnel();
        add_sa("2001:db8::1", "2001:db8::2", "0x1234", "reqid 44 if_id 9");
        add_sa(
            "203.0.113.9",
            "198.51.100.44",
            "0xdead0001",
            "reqid 44 mark 0x10 mask 0xff",
        );
        for (filter, wanted) in [
            ("", 4),
            ("--src 203.0.113.9", 2),
            ("--dst 198.51.100.0/24", 2),
            ("--src ::/0", 1),
            ("--src 203.0.113.0/24 --dst ::/0", 0),
            ("--spi 0xdead0001", 1),
            ("--spi 4660", 1),
            ("--reqid 44", 2),
            ("--reqid 0x2c --if-id 9", 1),
            ("--mark 0x10", 1),
            ("--mark 0x10/0xf0", 1),
            ("--mark 0x20/0xf0", 0),
            ("--dir in", 1),
            ("--dir out", 2),
        ] {
            let states = json(&format!("xfrm state --json {filter}"));
            let found = states["states"].as_array().expect("states").len();
            assert_eq!(found, wanted, "{filter}");
        }
        let policies = json("xfrm policy --json --dir in --reqid 7");
        assert_eq!(policies["policies"].as_array().map(Vec::len), Some(1));
    });
}

/// For each policy what the kernel does with a packet, and what was said before it did.
#[test]
fn the_sa_that_is_shown_is_the_one_that_the_kernel_takes() {
    in_own_namespace(|| {
        tunnel();
        let used = || {
            let policies = json("xfrm policy --json --dir out");
            policies["policies"][0]["templates"][0]["now"].clone()
        };
        let packets = |spi: &str| {
            let states = json(&format!("xfrm state --json --spi {spi}"));
            states["states"][0]["usage"]["packets"]
                .as_u64()
                .expect("a count")
        };
        assert_eq!(used()["spis"][0], "0xc5f3a001");
        // A second later than the first: the kernel counts seconds.
        std::thread::sleep(Duration::from_millis(1100));
        add_sa("203.0.113.9", "198.51.100.7", "0xc5f3a002", "reqid 7");
        assert_eq!(used()["spis"][0], "0xc5f3a002");
        assert_eq!(used()["fitting"], 2);
        send_to("10.2.0.5");
        assert_eq!((packets("0xc5f3a001"), packets("0xc5f3a002")), (0, 1));
        // Pinned, the older one is.
        let update = "xfrm policy update src 10.1.0.0/16 dst 10.2.0.0/16 dir out tmpl \
                      src 203.0.113.9 dst 198.51.100.7 proto esp";
        ip(&format!("{update} spi 0xc5f3a001 reqid 7 mode tunnel"));
        assert_eq!(used()["spis"][0], "0xc5f3a001");
        send_to("10.2.0.5");
        assert_eq!((packets("0xc5f3a001"), packets("0xc5f3a002")), (1, 1));
        // With another reqid it does not fit, and the kernel counts an error.
        ip(&format!("{update} spi 0xc5f3a001 reqid 8 mode tunnel"));
        assert_eq!(used()["outcome"], "refuses");
        let errors = || {
            let stat = json("xfrm stat --json");
            let counters = stat["counters"].as_array().expect("counters");
            let error = counters.iter().find(|c| c["name"] == "XfrmOutPolError");
            error.and_then(|c| c["value"].as_u64()).expect("a count")
        };
        let before = errors();
        send_to("10.2.0.5");
        assert_eq!(errors(), before + 1);
        // And without any SA that fits, packets wait or are dropped.
        ip(&format!("{update} reqid 9 mode tunnel"));
        assert_eq!(used()["outcome"], "nothing");
        assert_eq!(used()["packets"], "dropped");
        std::fs::write("/proc/sys/net/core/xfrm_larval_drop", "0").expect("it exists");
        assert_eq!(used()["packets"], "held");
        let table = shown("xfrm policy --dir out");
        assert!(table.contains("! no SA: packets are held"), "{table}");
    });
}

#[test]
fn counters_are_explained_where_packets_were_lost() {
    in_own_namespace(|| {
        tunnel();
        assert_eq!(
            shown("xfrm stat").lines().count(),
            1,
            "a new namespace has lost nothing"
        );
        ip("xfrm state flush");
        send_to("10.2.0.5");
        let text = shown("xfrm stat");
        assert!(text.starts_with("XfrmOutNoStates"), "{text}");
        assert!(text.contains("found no SA and was not held"), "{text}");
        let watched = shown("xfrm stat --watch 100ms --count 2");
        assert_eq!(watched.matches("+0 (0.0/s)").count(), 2, "{watched}");
    });
}

/// No name that this kernel has is unknown.
#[test]
fn every_counter_of_this_kernel_is_known() {
    in_own_namespace(|| {
        let stat = json("xfrm stat --json");
        let counters = stat["counters"].as_array().expect("counters");
        assert!(counters.len() >= 28, "{}", counters.len());
        for counter in counters {
            assert!(counter["meaning"].is_string(), "{}", counter["name"]);
        }
    });
}

#[test]
fn events_are_told_as_they_happen() {
    in_own_namespace(|| {
        let monitor = Monitor::start("--json --show-keys");
        tunnel();
        for name in ["sa-added", "sa-added", "policy-added", "policy-added"] {
            assert_eq!(monitor.event()["event"], name);
        }
        ip("xfrm state delete src 203.0.113.9 dst 198.51.100.7 proto esp spi 0xc5f3a001");
        let deleted = monitor.event();
        assert_eq!(deleted["event"], "sa-deleted");
        assert_eq!(deleted["state"]["spi"], "0xc5f3a001");
        send_to("10.2.0.5");
        let acquire = monitor.event();
        assert_eq!(acquire["event"], "acquire");
        assert_eq!(acquire["acquire"]["packet"]["destination"], "10.2.0.5/32");
        assert_eq!(acquire["acquire"]["reqid"], 7);
        let sentence = acquire["sentence"].as_str().expect("a sentence");
        assert!(
            sentence.starts_with("a packet 10.1.0.1 -> 10.2.0.5"),
            "{sentence}"
        );
        // The larval SA is listed, and the policy waits for it.
        let table = shown("xfrm state");
        assert!(
            table.contains("larval: a packet waits for this SA"),
            "{table}"
        );
        let policies = shown("xfrm policy --dir out");
        assert!(
            policies.contains("a key daemon has been asked"),
            "{policies}"
        );
        ip("xfrm policy flush");
        assert_eq!(monitor.event()["event"], "policy-flush");
        let pid = Pid::from_raw(i32::try_from(monitor.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert_eq!(monitor.end(), (Some(0), String::new()));
    });
}

#[test]
fn an_sa_at_its_limits_is_told_softly_and_then_hard() {
    in_own_namespace(|| {
        let monitor = Monitor::start("--group expire --count 2");
        add_sa(
            "203.0.113.9",
            "198.51.100.7",
            "0xc5f3a001",
            "limit time-soft 1 limit time-hard 3",
        );
        let soft = monitor.line();
        assert!(soft.contains("expire soft"), "{soft}");
        assert!(soft.contains("0xc5f3a001"), "{soft}");
        let hard = monitor.line();
        assert!(
            hard.contains("reached its hard limit and is gone"),
            "{hard}"
        );
        assert_eq!(monitor.end(), (Some(0), String::new()));
    });
}

#[test]
fn a_monitor_ends_after_its_time_and_at_an_interrupt() {
    in_own_namespace(|| {
        let (code, out, err) = said(
            &epochgate("xfrm monitor --for 200ms")
                .output()
                .expect("it starts"),
        );
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
        let monitor = Monitor::start("");
        let pid = Pid::from_raw(i32::try_from(monitor.child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        assert_eq!(monitor.end(), (Some(0), String::new()));
    });
}

#[test]
fn a_monitor_ends_when_nobody_reads_it_any_more() {
    in_own_namespace(|| {
        let mut child = epochgate("xfrm monitor")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        assert_eq!(ended(child), (Some(0), String::new()));
    });
}

/// Many states: far more than a pipe holds.
fn many_states() {
    let line = |number: u32| {
        format!(
            "xfrm state add src 203.0.113.9 dst 198.51.100.7 proto esp spi {} mode tunnel \
             aead rfc4106(gcm(aes)) {KEY} 128\n",
            0x1000 + number
        )
    };
    ip_batch(&(0..3000).map(line).collect::<String>());
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    in_own_namespace(|| {
        many_states();
        for arguments in ["xfrm state", "xfrm state --wide", "xfrm state --json"] {
            let mut child = epochgate(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts");
            let mut first = String::new();
            let mut reader = BufReader::new(child.stdout.take().expect("piped"));
            reader.read_line(&mut first).expect("a line");
            drop(reader);
            let (code, _, err) = said(&child.wait_with_output().expect("it ends"));
            assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments}");
            assert!(!first.is_empty());
        }
    });
}

#[test]
fn states_that_vanish_while_they_are_listed_are_a_note_and_no_failure() {
    in_own_namespace(|| {
        many_states();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // A thread begins in the namespace of the one that starts it.
        let churn = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let line = |word: &str, more: &str| {
                    let of = |number: u32| {
                        format!(
                            "xfrm state {word} src 203.0.113.9 dst 198.51.100.7 proto esp \
                             spi {} {more}\n",
                            0x1000 + number
                        )
                    };
                    (0..200).map(of).collect::<String>()
                };
                ip_batch(&line("delete", ""));
                let more = format!("mode tunnel aead rfc4106(gcm(aes)) {KEY} 128");
                ip_batch(&line("add", &more));
            }
        });
        let began = Instant::now();
        let mut noted = false;
        while !noted && began.elapsed() < PATIENCE {
            let (code, out, err) =
                said(&epochgate("xfrm state --json").output().expect("it starts"));
            assert_eq!(code, Some(0), "{err}");
            let list: Value = serde_json::from_str(&out).expect("JSON");
            noted = list["changed_while_read"] == true;
            assert_eq!(err.contains("changed while it was read"), noted, "{err}");
            assert!(
                list["states"]
                    .as_array()
                    .is_some_and(|states| states.len() > 2000)
            );
        }
        stop.store(true, Ordering::Relaxed);
        churn.join().expect("ip goes on");
        assert!(noted, "no list was disturbed");
    });
}

#[test]
fn a_user_without_privileges_is_told_what_to_do() {
    /// `nobody` on Linux.
    const NOBODY: u32 = 65534;
    in_own_namespace(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let open_to_all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open_to_all.clone()).expect("it is ours");
        // A copy, because the build folder may be closed to that user.
        let program = folder.path().join("epochgate");
        std::fs::copy(env!("CARGO_BIN_EXE_epochgate"), &program).expect("copied");
        std::fs::set_permissions(&program, open_to_all).expect("it is ours");
        for arguments in [["xfrm", "state"], ["xfrm", "policy"], ["xfrm", "monitor"]] {
            let mut command = std::process::Command::new(&program);
            let (code, out, err) = said(
                &command
                    .args(arguments)
                    .uid(NOBODY)
                    .output()
                    .expect("it starts"),
            );
            assert_eq!((code, out.as_str()), (Some(4), ""), "{arguments:?}: {err}");
            assert!(err.starts_with("this user may not"), "{err}");
            assert!(err.contains("Become root"), "{err}");
        }
        let mut command = std::process::Command::new(&program);
        let output = command.args(["xfrm", "stat"]).uid(NOBODY).output();
        assert_eq!(
            said(&output.expect("it starts")).0,
            Some(0),
            "counters are everybody's"
        );
    });
}
