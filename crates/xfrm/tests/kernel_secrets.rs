//! On a real kernel: once all that had a key is gone, the key is nowhere in the process's memory,
//! whichever way it went to the kernel and came back.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::time::Duration;

use common::{CLIENT, SERVER, address, in_own_namespace, spi};
use epochgate_xfrm::{
    AsyncEventSocket, AsyncSocket, EventGroup, EventSocket, Key, Protection, Reqid, Sa, SaFilter,
    Socket, XfrmEvent,
};

/// The key is never in the program's file, nor anywhere else but where it is used: this is it with
/// every bit turned.
const TURNED: [u8; 36] = *b"\x91\x3c\x07\xe8\x55\xa9\xd1\x6b\x22\xfe\x48\x90\x1d\xc3\x7a\x05\
                           \xbb\x64\x39\xf2\x8e\x10\xd7\x4f\xa3\x5c\x86\x2b\xe1\x79\x0d\xb4\
                           \x61\xca\x33\x98";
/// So many bytes in a row are found, wherever they begin in the key.
const TRACE: usize = 12;
const PAGE: usize = 4096;

fn turn_into_key() -> Key {
    let mut bytes = Vec::with_capacity(TURNED.len());
    bytes.extend(TURNED.iter().map(|byte| !byte));
    Key::new(bytes)
}

/// How often a part of the key stands in what the process may write to.
fn traces() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    let mut memory = std::fs::File::open("/proc/self/mem").expect("procfs");
    let mut found = 0;
    // One buffer for all, so that what was read is nothing that is read again. It takes a page, and
    // the beginning of the next, lest a trace lies across.
    let mut buffer = [0; PAGE + TRACE];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("a start and an end");
        let number = |text| u64::from_str_radix(text, 16).expect("a hexadecimal number");
        let (start, end) = (number(start), number(end));
        for place in (start..end).step_by(PAGE) {
            memory.seek(SeekFrom::Start(place)).expect("seek");
            let length = memory.read(&mut buffer).unwrap_or(0);
            let page = buffer.get(..length).expect("no more was read");
            if page != &[0; PAGE + TRACE][..length] {
                let windows = page.windows(TRACE);
                found += windows.filter(|window| is_trace(window)).count();
            }
            buffer.fill(0);
        }
    }
    found
}

/// Without turning the key back: that would leave traces by itself.
fn is_trace(window: &[u8]) -> bool {
    TURNED.windows(TRACE).step_by(TRACE).any(|part| {
        part.iter()
            .zip(window)
            .all(|(turned, byte)| *turned == !byte)
    })
}

fn keyed_sa() -> Sa {
    let protection = Protection::aes_gcm_16(turn_into_key());
    Sa::esp_tunnel(
        address(CLIENT),
        address(SERVER),
        spi(0x700),
        Reqid(7),
        protection,
    )
}

fn the_key_goes_everywhere() -> (Socket, EventSocket) {
    let mut events = EventSocket::open(&[EventGroup::Sa]).expect("open");
    let mut socket = Socket::open().expect("open");
    let sa = keyed_sa();
    let id = sa.id().expect("an SPI");
    socket.add_sa(&sa).expect("add");
    assert!(
        socket.add_sa(&sa).is_err(),
        "it is refused with its key in it"
    );
    assert_eq!(socket.sa(id).expect("get").sa.protection, sa.protection);
    assert_eq!(socket.sas().expect("list").len(), 1);
    for flow in [ControlFlow::Continue(()), ControlFlow::Break(())] {
        let end = socket.for_each_sa(&SaFilter::ALL, |_| flow);
        assert_eq!(end.expect("list").visited, 1);
    }
    socket.update_sa(&sa).expect("update");
    socket.delete_sa(id).expect("delete");
    for _ in 0..3 {
        let event = events.next(Some(Duration::from_secs(5))).expect("it lives");
        let (XfrmEvent::NewSa(entry) | XfrmEvent::UpdSa(entry) | XfrmEvent::DelSa(_, Some(entry))) =
            event.expect("it comes")
        else {
            panic!("no SA")
        };
        assert_eq!(entry.sa.protection, sa.protection);
    }
    (socket, events)
}

async fn the_key_goes_everywhere_on_tokio() -> (AsyncSocket, AsyncEventSocket) {
    let mut events = AsyncEventSocket::open(&[EventGroup::Sa]).expect("open");
    let mut socket = AsyncSocket::open().expect("open");
    let sa = keyed_sa();
    socket.add_sa(&sa).await.expect("add");
    assert!(matches!(events.next().await, Ok(XfrmEvent::NewSa(_))));
    assert_eq!(socket.sas().await.expect("list").len(), 1);
    let end = socket.for_each_sa(&SaFilter::ALL, |_| ControlFlow::Break(()));
    assert!(end.await.expect("list").stopped);
    socket
        .delete_sa(sa.id().expect("an SPI"))
        .await
        .expect("delete");
    (socket, events)
}

#[test]
fn no_trace_of_a_key_outlives_what_had_it() {
    in_own_namespace(|| {
        let key = turn_into_key();
        assert!(traces() > 0, "a key that is there is found");
        drop(key);
        assert_eq!(traces(), 0, "of a key that was dropped");

        // Their sockets live on, with the buffers that the key went through.
        let sockets = the_key_goes_everywhere();
        assert_eq!(traces(), 0, "in blocking sockets");
        drop(sockets);
        assert_eq!(traces(), 0, "of blocking sockets");

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let sockets = runtime.block_on(the_key_goes_everywhere_on_tokio());
        assert_eq!(traces(), 0, "in asynchronous sockets");
        drop(sockets);
        assert_eq!(traces(), 0, "of asynchronous sockets");
    });
}
