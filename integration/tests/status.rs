//! What `epochgate status` and `epochgate events` tell of a real tunnel: the steps of the ladder in
//! their order, the kernel's counters, what was held and left; and readers who do not read.
//!
//! ```text
//! client 192.0.2.2 ── router (masquerade; drops ESP) ── 203.0.113.1 server     20 ms round trip
//! 10.1.0.1                                                        10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::fault::Fault;
use epochgate_integration::peer::{built, client_config, daemon_options, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::{Epochgate, Host, Packets, Topology, UdpFlow};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const UP: u16 = 4000;
/// As many followers as the daemon has places for.
const PLACES: usize = 32;

fn network(name: &str) -> Topology {
    Topology::new(name)
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build()
}

fn is_open(tunnel: &Value) -> bool {
    tunnel["gate"] == "open"
}

/// `epochgate events --follow --json`, writing into a file.
struct Follower {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Follower {
    fn start(host: &Host, name: &str) -> Self {
        let folder = host.folder();
        let (out, err) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        let mut command = Command::new(built("epochgate"));
        command
            .arg("--socket")
            .arg(folder.join("control.sock"))
            .args(["events", "--follow", "--json"])
            .stdout(File::create(&out).expect("its folder"))
            .stderr(File::create(&err).expect("its folder"));
        Self {
            child: host.spawn(&mut command),
            out,
            err,
        }
    }

    /// Every event so far.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).expect("its file");
        // The last line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let parsed = whole.lines().map(serde_json::from_str);
        parsed.collect::<Result<_, _>>().expect("JSON")
    }

    /// Waits until an event of this kind has come.
    fn wait_for(&self, kind: &str) {
        let began = Instant::now();
        while !self.events().iter().any(|event| event["event"] == kind) {
            assert!(began.elapsed() < LIMIT, "no {kind} in {:#?}", self.events());
            sleep(POLL);
        }
    }

    fn ended(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("a process");
        (status, fs::read_to_string(&self.err).expect("its file"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether these kinds come in this order, others between them.
#[track_caller]
fn assert_in_order(events: &[Value], kinds: &[&str]) {
    let mut found = events.iter().map(|event| event["event"].as_str());
    for kind in kinds {
        assert!(
            found.any(|event| event == Some(kind)),
            "no {kind} in its place of {kinds:?}: {events:#?}"
        );
    }
}

#[test]
fn every_step_of_the_ladder_is_told_in_order_by_events_and_status() {
    let net = network("status_ladder");
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"on-demand\""));
    let follower = Follower::start(&net.client, "follower");
    follower.wait_for("holding");
    client.run(&["up", "net"]);
    follower.wait_for("switched");
    let comes_up = [
        "holding",
        "negotiating",
        "ike-established",
        "epoch-installed",
        "ping-sent",
        "ping-answered",
        "switched",
    ];
    let events = follower.events();
    assert_in_order(&events, &comes_up);
    let asked = events
        .iter()
        .any(|event| event["message"] == "asked to start" && event["tunnel"] == "net");
    assert!(asked, "{events:#?}");

    let before = events.len();
    let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    let flow = UdpFlow::new(ends.0, ends.1, UP).rate(5).count(1_000_000);
    let flow = flow.start();
    let (esp, mut ike) = (net.block(&Packets::esp()), None);
    let mut steps: Vec<String> = Vec::new();
    let began = Instant::now();
    let held = loop {
        let status = client.wait_for("net", LIMIT, |_| true);
        let ladder = status["ladder"].as_str().expect("a step");
        let step = ladder.split(' ').next().unwrap_or_default().to_owned();
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        // ESP alone is what it notices. Without IKE each later step takes seconds, and none is missed.
        if status["gate"] == "held" && ike.is_none() {
            ike = Some(net.block(&Packets::ike()));
        }
        let connects = steps.iter().any(|step| step == "connecting");
        if connects && status["waiting_ms"].is_u64() && status["gate"] == "held" {
            break status;
        }
        assert!(began.elapsed() < LIMIT, "{steps:?}: {status:#}");
        sleep(Duration::from_millis(2));
    };
    assert!(!held["reason"].as_str().expect("why").is_empty());
    assert!(held["last_error"].is_string(), "{held:#}");
    assert!(held["pings_lost"].as_u64() > Some(0), "{held:#}");
    let shown = client.run(&["status", "net"]);
    assert!(shown.contains("traffic waits since"), "{shown}");
    esp.lift();
    ike.into_iter().for_each(Fault::lift);
    let open = client.wait_for("net", LIMIT, is_open);
    flow.stop(Duration::from_secs(1)).lost();
    println!("steps {steps:?}\n{shown}");

    let place = |step: &str| steps.iter().position(|seen| seen == step);
    assert!(place("pinging").is_some(), "{steps:?}");
    assert!(place("pinging") < place("backing"), "{steps:?}");
    assert!(place("backing") < place("connecting"), "{steps:?}");
    assert_eq!(open["recoveries"], 1, "{open:#}");
    assert!(open["last_error"].is_null(), "{open:#}");
    let failure = open["last_failure"]["text"].as_str().expect("a failure");
    assert!(failure.contains("does not answer"), "{failure}");
    let climbs = [
        "ping-sent",
        "unanswered",
        "closed",
        "retrying",
        "rekeying",
        "negotiating",
        "switched",
    ];
    let began = Instant::now();
    let is_back = |events: &[Value]| events.iter().filter(|it| it["event"] == "switched").count();
    while is_back(&follower.events()) < 2 {
        assert!(began.elapsed() < LIMIT, "{:#?}", follower.events());
        sleep(POLL);
    }
    assert_in_order(&follower.events()[before..], &climbs);
}

/// Packets and bytes of each SA by its SPI, as `ip -s xfrm state` shows them.
fn counted_by_ip(host: &Host) -> BTreeMap<String, (u64, u64)> {
    let text = host.run("ip -s xfrm state");
    let mut counted = BTreeMap::new();
    let mut spi = String::new();
    let mut current = false;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("spi ") {
            spi = rest.split(['(', ' ']).next().unwrap_or_default().to_owned();
        }
        if current {
            let numbers: Vec<u64> = line
                .split(',')
                .filter_map(|word| word.trim().split('(').next()?.parse().ok())
                .collect();
            assert_eq!(numbers.len(), 2, "{line} in {text}");
            // Bytes come first.
            counted.insert(spi.clone(), (numbers[1], numbers[0]));
        }
        current = line.contains("lifetime current:");
    }
    counted
}

#[test]
fn an_epoch_has_carried_what_ip_xfrm_says() {
    let net = network("status_counters");
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    client.wait_for("net", LIMIT, is_open);
    let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    let flow = UdpFlow::new(ends.0, ends.1, UP).rate(100).count(50);
    flow.start()
        .finish(Duration::from_millis(200))
        .assert_perfect();
    // Control pings go on: read again until none went in between.
    for _ in 0..20 {
        let before = counted_by_ip(&net.client);
        let status = client.wait_for("net", LIMIT, is_open);
        if counted_by_ip(&net.client) != before {
            continue;
        }
        let epoch = &status["epochs"][0];
        for (spi, told) in [("inbound_spi", "received"), ("outbound_spi", "sent")] {
            let spi = epoch[spi].as_str().expect("an SPI");
            let (packets, bytes) = before[spi];
            let told = &epoch[told];
            println!("{spi}: ip says {packets} packets, {bytes} bytes; status {told}");
            assert_eq!(told["packets"], packets, "{status:#}");
            assert_eq!(told["bytes"], bytes, "{status:#}");
            assert!(told["last_ms"].is_u64(), "{status:#}");
        }
        assert!(epoch["sent"]["packets"].as_u64() >= Some(50), "{status:#}");
        return;
    }
    panic!("never 20 ms without a ping");
}

#[test]
fn what_was_held_is_counted_when_it_has_left() {
    let net = network("status_released");
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"on-demand\""));
    let idle = client.wait_for("net", LIMIT, |_| true);
    assert!(idle["waiting_ms"].is_null(), "{idle:#}");
    let fault = net.block(&Packets::ike());
    let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    let flow = UdpFlow::new(ends.0, ends.1, UP).rate(100).count(40).start();
    let waiting = |tunnel: &Value| tunnel["waiting_ms"].is_u64();
    client.wait_for("net", LIMIT, waiting);
    while flow.sent() < 40 {
        sleep(POLL);
    }
    fault.lift();
    let counted = |tunnel: &Value| tunnel["released"].is_object();
    let open = client.wait_for("net", LIMIT, counted);
    flow.finish(Duration::from_secs(1)).assert_perfect();
    println!("{}", open["released"]);
    assert_eq!(open["released"]["packets"], 40, "{open:#}");
    assert_eq!(open["released"]["epoch"], open["open_epoch"], "{open:#}");
    assert!(open["waiting_ms"].is_null(), "{open:#}");
}

#[test]
fn followers_that_do_not_read_disturb_nobody_and_places_are_limited() {
    let net = network("status_followers");
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    client.wait_for("net", LIMIT, is_open);
    let socket = net.client.folder().join("control.sock");
    // Deaf, all but one.
    let deaf: Vec<UnixStream> = (1..PLACES)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).expect("the control socket");
            let request = "{\"version\":2,\"request\":\"events\",\"follow\":true}\n";
            stream.write_all(request.as_bytes()).expect("a request");
            // It has its place.
            stream.read_exact(&mut [0]).expect("the first event");
            stream
        })
        .collect();
    let mut follower = Follower::start(&net.client, "follower");
    follower.wait_for("switched");
    let refused = client.command(&["events", "--follow", "--last", "0"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("follow events already"), "{said}");
    for _ in 0..20 {
        client.run(&["rekey", "net"]);
    }
    let status = client.wait_for("net", LIMIT, is_open);
    assert_eq!(status["rekeys"], 20, "{status:#}");
    assert_eq!(status["recoveries"], 0, "{status:#}");
    let kept = client.run(&["events", "--last", "5"]);
    assert_eq!(kept.lines().count(), 5, "{kept}");
    drop(deaf);
    client.stop();
    let (status, said) = follower.ended();
    println!("{status}: {said}");
    assert_eq!(status.code(), Some(3), "{said}");
    assert_eq!(said, "epochgated has stopped: there are no more events\n");
    let switches = |events: &[Value]| events.iter().filter(|it| it["event"] == "switched").count();
    assert_eq!(switches(&follower.events()), 21);
    let last = follower.events().pop().expect("events");
    println!("the last: {last}");
}

/// What the service manager hears, until it has heard this.
fn heard_until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    let mut octets = [0; 4096];
    while !heard.iter().any(|line| line.starts_with(wanted)) {
        let length = socket.recv(&mut octets);
        assert!(length.is_ok(), "no {wanted} in {heard:?}: {length:?}");
        let length = length.unwrap_or_default();
        let text = String::from_utf8_lossy(&octets[..length]).into_owned();
        heard.extend(text.lines().map(str::to_owned));
    }
    heard
}

#[test]
fn the_service_manager_hears_of_start_tunnels_watchdog_reload_and_stop() {
    let net = network("status_notify");
    let _server = Epochgate::start(&net.server, &server_config(""));
    // Its files are there then.
    Epochgate::start(&net.client, &client_config("start = \"always\"")).stop();
    let folder = net.client.folder();
    let socket = UnixDatagram::bind(folder.join("notify")).expect("its folder");
    socket.set_read_timeout(Some(LIMIT)).expect("a time");
    let mut command = Command::new(built("epochgated"));
    command
        .args(daemon_options(&net.client))
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .env("WATCHDOG_USEC", "500000")
        .stderr(File::create(folder.join("notified.log")).expect("its folder"));
    let mut daemon = net.client.spawn(&mut command);
    let signal = |signal| {
        let pid = i32::try_from(daemon.id()).expect("a process number");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    };
    let start = heard_until(&socket, "STATUS=1 of 1 tunnels open");
    assert!(start.contains(&"READY=1".to_owned()), "{start:?}");
    let fed = heard_until(&socket, "WATCHDOG=1");
    signal(nix::sys::signal::Signal::SIGHUP);
    let mut reload = heard_until(&socket, "RELOADING=1");
    reload.extend(heard_until(&socket, "READY=1"));
    // Type=notify-reload wants to know since when (sd_notify(3)).
    let since = reload
        .iter()
        .any(|line| line.starts_with("MONOTONIC_USEC="));
    assert!(since, "{reload:?}");
    signal(nix::sys::signal::Signal::SIGTERM);
    let stop = heard_until(&socket, "STOPPING=1");
    let status = daemon.wait().expect("a process");
    println!("{start:?} {fed:?} {reload:?} {stop:?} {status}");
    assert!(status.success(), "{status}");
}
