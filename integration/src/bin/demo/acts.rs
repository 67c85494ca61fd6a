//! The three acts, each with its traffic.

use std::thread;
use std::time::{Duration, Instant};

use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::{Epochgate, Packets, UdpFlow};
use serde_json::Value;

use crate::table::Row;
use crate::{Stage, ladder};

/// Longest wait for a packet after the last one came.
const SETTLE: Duration = Duration::from_secs(2);

/// How long a change that the daemons make by themselves may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// CREATE_CHILD_SA (RFC 7296 §3.1).
const CREATE_CHILD_SA: u8 = 36;

const REKEYS: u32 = 20;

/// Packets a second in each direction while rekeying.
const BUSY_RATE: u32 = 1_000;

/// Packets a second while ESP is blocked: few enough that the kernel can hold all of them.
const QUIET_RATE: u32 = 20;

pub(crate) fn first_packets(stage: &Stage) -> Row {
    println!(
        "\n1. The first packets. The client sends 100 packets, 10 ms apart. No tunnel exists yet:\n\
         \u{20}  the first of them is what starts it.\n"
    );
    let flow = to_server(stage, 4001).rate(100).count(100).start();
    let account = flow.finish(SETTLE);
    ladder::tell(&stage.client_trace(), &account);
    Row::new("first packets", &[account])
}

pub(crate) fn rekeys(stage: &Stage) -> Row {
    println!(
        "\n2. {REKEYS} rekeys under {BUSY_RATE} packets a second in each direction, started by the client and by\n\
         \u{20}  the server in turn; during every fifth, the server's and the client's IKE responses are\n\
         \u{20}  blocked for a second. Each new epoch is pinged before any of that traffic may use it.\n"
    );
    let up = to_server(stage, 4002)
        .rate(BUSY_RATE)
        .count(u64::MAX)
        .start();
    let down = to_client(stage, 4003)
        .rate(BUSY_RATE)
        .count(u64::MAX)
        .start();
    thread::sleep(Duration::from_millis(300));
    for number in 1..=REKEYS {
        let (who, starter) = if number % 2 == 1 {
            ("client", &stage.client)
        } else {
            ("server", &stage.server)
        };
        let blocked = number % 5 == 0;
        let began = Instant::now();
        let before = open_epoch(&stage.client);
        if blocked {
            rekey_while_blocked(stage, starter);
        } else {
            starter.run(&["rekey", "net"]);
        }
        let status = stage.client.wait_for("net", PATIENCE, |tunnel| {
            tunnel["open_epoch"].as_u64() > before
        });
        println!(
            "   {number:2}  by the {who}{}: epoch {} -> {} after {:>4} ms, ping answered in {} ms",
            if blocked {
                ", IKE responses blocked for 1 s"
            } else {
                ""
            },
            before.unwrap_or_default(),
            status["open_epoch"],
            began.elapsed().as_millis(),
            status["last_round_trip_us"].as_u64().unwrap_or_default() / 1000,
        );
    }
    thread::sleep(Duration::from_millis(300));
    let accounts = [up.stop(SETTLE), down.stop(SETTLE)];
    println!();
    for (way, account) in ["client to server", "server to client"]
        .iter()
        .zip(&accounts)
    {
        println!("   {way}: {account}");
    }
    Row::new("20 rekeys", &accounts)
}

fn rekey_while_blocked(stage: &Stage, starter: &Epochgate) {
    thread::scope(|scope| {
        let block = stage.net.block(&Packets::ike_responses_of(CREATE_CHILD_SA));
        // It may be told that the attempt failed and the next is under way.
        scope.spawn(|| starter.command(&["rekey", "net"]));
        thread::sleep(Duration::from_secs(1));
        block.lift();
    });
}

pub(crate) fn esp_blocked(stage: &Stage) -> Row {
    println!(
        "\n3. ESP alone is blocked on the router. IKE still passes: other daemons would call this tunnel\n\
         \u{20}  established. The client sends {QUIET_RATE} packets a second.\n"
    );
    let flow = to_server(stage, 4004)
        .rate(QUIET_RATE)
        .count(u64::MAX)
        .start();
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let say = |what: &str| println!("   {:>5} ms  {what}", began.elapsed().as_millis());
    let block = stage.net.block(&Packets::esp());
    say("ESP is blocked; IKE is not");
    wait_for_gate(&stage.client, "held");
    say("the client's pings stayed unanswered: it holds its traffic from now on");
    let lost_until = flow.sent();
    thread::sleep(Duration::from_millis(1500));
    say("it has tried new epochs; none is answered; still held");
    block.lift();
    say("ESP passes again");
    wait_for_gate(&stage.client, "open");
    say("a ping was answered: traffic flows");
    thread::sleep(Duration::from_millis(500));
    let account = flow.stop(SETTLE);
    let in_the_hole = account
        .lost()
        .iter()
        .filter(|number| **number < lost_until)
        .count();
    println!(
        "\n   {account}\n   {in_the_hole} packets were lost to the blocked network before the client could know; \
         all {} held ones arrived.",
        account
            .arrivals
            .iter()
            .filter(|arrival| arrival.at.since(arrival.sent_at) > Duration::from_millis(300))
            .count()
    );
    Row::new("ESP blocked", &[account]).excuse(in_the_hole)
}

fn to_server(stage: &Stage, port: u16) -> UdpFlow {
    UdpFlow::new(
        (&stage.net.client, CLIENT_INNER),
        (&stage.net.server, SERVER_INNER),
        port,
    )
}

fn to_client(stage: &Stage, port: u16) -> UdpFlow {
    UdpFlow::new(
        (&stage.net.server, SERVER_INNER),
        (&stage.net.client, CLIENT_INNER),
        port,
    )
}

fn wait_for_gate(daemon: &Epochgate, gate: &str) {
    daemon.wait_for("net", PATIENCE, |tunnel| tunnel["gate"] == gate);
}

fn open_epoch(daemon: &Epochgate) -> Option<u64> {
    let status: Value = daemon.status();
    status["tunnels"][0]["open_epoch"].as_u64()
}
