//! What it costs to list large tables, beside `ip xfrm` in the same run. Not a test: it says what it
//! measured and judges nothing. Needs root and a kernel with ESP:
//!
//! ```text
//! cargo bench -p epochgate-xfrm --no-run
//! scripts/lab -- target/release/deps/lists-… [ENTRIES]
//! ```
//!
//! It fills the SAD and the SPD of a network namespace of its own, and then measures processes of
//! their own, each several times, in turn:
//!
//! - `kernel`: takes the list off a netlink socket and looks at nothing: the kernel's own time;
//! - `visit`: `for_each_sa` or `for_each_policy`, every entry read and dropped;
//! - `collect`: `sas` or `policies`, the whole list in memory;
//! - `ip`: `ip xfrm state` or `ip xfrm policy`, output to `/dev/null`.

use std::error::Error;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::Instant;

use epochgate_xfrm::{
    Key, Op, Policy, PolicyDirection, Prefix, Protection, Reqid, Sa, SaFilter, Selector, Socket,
    Spi, Template,
};
use netlink_sys::SocketAddr;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const ENTRIES: u32 = 100_000;
/// How many members a batch has that fills the tables.
const BATCH: usize = 4096;
/// How often each is measured; the fastest counts, since whatever else runs can only slow it down.
const ROUNDS: usize = 5;

const REQID: Reqid = Reqid(1);

const USAGE: &str = "lists [ENTRIES]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--run", how, table] => run(how, table),
        ["--measure", command @ ..] => measure(command),
        [] | ["--bench"] => compare(ENTRIES),
        [entries] | [entries, "--bench"] => compare(entries.parse().map_err(|_| USAGE)?),
        _ => Err(USAGE.into()),
    }
}

/// Fills the tables and measures every way to list them.
fn compare(entries: u32) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut socket = Socket::open()?;
    let mut tables = Vec::new();
    for (table, fill) in [
        ("state", fill_sad as fn(&mut Socket, u32) -> Result<()>),
        ("policy", fill_spd),
    ] {
        let began = Instant::now();
        match fill(&mut socket, entries) {
            Ok(()) => {
                let seconds = began.elapsed().as_secs_f64();
                println!("{table}: {entries} entries added in {seconds:.2} s");
                tables.push(table);
            }
            // A kernel without ESP has policies all the same.
            Err(error) => println!("{table}: not measured: {error}"),
        }
    }
    let this = std::env::current_exe()?;
    let this = this.to_str().ok_or("a path that is no text")?;
    for table in tables {
        let mut best = [
            ("kernel", vec![this, "--run", "kernel", table]),
            ("visit", vec![this, "--run", "visit", table]),
            ("collect", vec![this, "--run", "collect", table]),
            ("ip", vec!["ip", "xfrm", table]),
        ]
        .map(|(name, command)| (name, command, None::<Cost>));
        for _ in 0..ROUNDS {
            for (_, command, best) in &mut best {
                let cost = cost_of(this, command)?;
                if best.is_none_or(|best| cost.wall < best.wall) {
                    *best = Some(cost);
                }
            }
        }
        println!("\n{table}:      wall ms   CPU ms   memory KiB");
        for (name, _, cost) in &best {
            let cost = cost.ok_or("nothing was measured")?;
            println!(
                "  {name:8} {:8.0} {:8.0} {:12}",
                cost.wall, cost.cpu, cost.memory
            );
        }
        if let [
            (_, _, Some(kernel)),
            (_, _, Some(visit)),
            _,
            (_, _, Some(ip)),
        ] = &best
        {
            let beyond = |cost: &Cost| cost.wall - kernel.wall;
            println!(
                "  ip takes {:.1} times as long as visit; beyond the kernel's time {:.0} ms and {:.0} ms",
                ip.wall / visit.wall,
                beyond(ip),
                beyond(visit)
            );
        }
    }
    Ok(())
}

/// Milliseconds, and KiB at the most.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    memory: i64,
}

/// A process of its own between this one and the measured one: of a child, the kernel tells no more
/// than the most memory of any child so far, and no child starts with less than its parent had.
fn cost_of(this: &str, command: &[&str]) -> Result<Cost> {
    let output = Command::new(this).arg("--measure").args(command).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<f64>, _>>()?;
    match numbers.as_slice() {
        #[allow(clippy::cast_possible_truncation)] // KiB.
        [wall, cpu, memory] => Ok(Cost {
            wall: *wall,
            cpu: *cpu,
            memory: *memory as i64,
        }),
        _ => Err("a measurement has three numbers".into()),
    }
}

fn measure(command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        return Err("nothing to measure".into());
    };
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()?;
    let wall = began.elapsed();
    if !status.success() {
        return Err(format!("{program} failed").into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let milliseconds = |time: nix::sys::time::TimeVal| {
        #[allow(clippy::cast_precision_loss)]
        let fraction = time.tv_usec() as f64 / 1e3;
        #[allow(clippy::cast_precision_loss)]
        let whole = time.tv_sec() as f64 * 1e3;
        whole + fraction
    };
    let (user, system) = (
        milliseconds(usage.user_time()),
        milliseconds(usage.system_time()),
    );
    println!(
        "{} {} {}",
        wall.as_secs_f64() * 1e3,
        user + system,
        usage.max_rss()
    );
    Ok(())
}

/// What a measured process does.
fn run(how: &str, table: &str) -> Result<()> {
    let entries = match (how, table) {
        ("kernel", "state") => take_list(XFRM_MSG_GETSA)?,
        ("kernel", "policy") => take_list(XFRM_MSG_GETPOLICY)?,
        ("visit", "state") => {
            let end = Socket::open()?.for_each_sa(&SaFilter::ALL, |_| ControlFlow::Continue(()))?;
            end.visited
        }
        ("visit", "policy") => {
            let end = Socket::open()?.for_each_policy(visit)?;
            end.visited
        }
        ("collect", "state") => Socket::open()?.sas()?.len() as u64,
        ("collect", "policy") => Socket::open()?.policies()?.len() as u64,
        _ => return Err("no such measurement".into()),
    };
    println!("{entries}");
    Ok(())
}

/// Nobody may skip the reading of what nobody looks at.
fn visit<T>(entry: T) -> ControlFlow<()> {
    black_box(entry);
    ControlFlow::Continue(())
}

const XFRM_MSG_GETSA: u16 = 0x12;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 1 | 0x300;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER_LENGTH: u32 = 16;

/// Takes a list off the kernel as fast as it gives it, and says how many datagrams it had.
fn take_list(message: u16) -> Result<u64> {
    let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_XFRM)?;
    socket.bind_auto()?;
    let mut request = HEADER_LENGTH.to_ne_bytes().to_vec();
    request.extend_from_slice(&message.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut datagrams = 0;
    loop {
        buffer.clear();
        socket.recv_from(&mut buffer, 0)?;
        datagrams += 1;
        // The end comes in a datagram of its own, or is the only message of an empty list.
        if buffer.get(4..6) == Some(&DONE.to_ne_bytes()) {
            return Ok(datagrams);
        }
    }
}

fn fill_sad(socket: &mut Socket, entries: u32) -> Result<()> {
    let sas = (0..entries)
        .map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let spi = Spi::new(0x1000 + n).ok_or("no SPI")?;
            let key = Key::new(vec![0x42; 20]);
            Ok(Sa::esp_tunnel(
                [192, 0, 2, 1].into(),
                [10, a, b, c].into(),
                spi,
                // One for all: the kernel's hash of SAs takes addresses and reqid together
                // (`__xfrm_dst_hash`), and these two counted up in step cancel each other.
                REQID,
                Protection::aes_gcm_16(key),
            ))
        })
        .collect::<Result<Vec<Sa>>>()?;
    for sas in sas.chunks(BATCH) {
        let ops: Vec<Op<'_>> = sas.iter().map(Op::AddSa).collect();
        for result in socket.batch(&ops) {
            result?;
        }
    }
    Ok(())
}

fn fill_spd(socket: &mut Socket, entries: u32) -> Result<()> {
    let policies = (0..entries)
        .map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let packets = Selector::new(
                // The kernel finds these by a hash, and adds them fast.
                Prefix::host([192, 0, 2, 1].into()),
                Prefix::host([10, a, b, c].into()),
            )?;
            let template =
                Template::esp_tunnel([192, 0, 2, 1].into(), [10, a, b, c].into(), Reqid(n + 1));
            Ok(Policy::protect(
                PolicyDirection::Out,
                packets,
                1000,
                template,
            ))
        })
        .collect::<Result<Vec<Policy>>>()?;
    for policies in policies.chunks(BATCH) {
        let ops: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
        for result in socket.batch(&ops) {
            result?;
        }
    }
    Ok(())
}
