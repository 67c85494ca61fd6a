//! Events on their way to one reader, who takes them at its own pace.

use std::io;
use std::sync::Arc;

use epochgate_control::{EventRecord, EventsWanted, Response, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ANSWER_TIME;
use crate::feed::{Feed, is_wanted};

/// Octets that are written at once, about.
const CHUNK_OCTETS: usize = 16 << 10;

/// Tells the kept events, and that this is all.
pub(super) async fn kept(
    stream: &mut UnixStream,
    feed: &Feed,
    wanted: &EventsWanted,
) -> io::Result<()> {
    let (records, _) = feed.read(wanted);
    let mut chunk = Vec::new();
    for record in records {
        add(&mut chunk, &record)?;
        if chunk.len() >= CHUNK_OCTETS {
            timeout(ANSWER_TIME, stream.write_all(&chunk)).await??;
            chunk.clear();
        }
    }
    chunk.extend(line(&Response::Done)?);
    timeout(ANSWER_TIME, stream.write_all(&chunk)).await?
}

/// Tells the kept events and those to come, until the reader hangs up or the daemon stops. A reader
/// may stop reading for as long as it likes.
pub(super) async fn follow(
    stream: &mut UnixStream,
    feed: &Feed,
    wanted: &EventsWanted,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let (records, mut following) = feed.read(wanted);
    let mut chunk = Vec::new();
    for record in records {
        add(&mut chunk, &record)?;
        if chunk.len() >= CHUNK_OCTETS {
            write(&mut reader, &mut writer, &mut chunk).await?;
        }
    }
    loop {
        write(&mut reader, &mut writer, &mut chunk).await?;
        let first = tokio::select! {
            first = following.recv() => first,
            // An error: the server is gone, and so are its events.
            _ = stopping.wait_for(|stops| *stops) => Err(RecvError::Closed),
            gone = hung_up(&mut reader) => return Err(gone),
        };
        match first {
            Ok(record) => add_wanted(&mut chunk, &record, wanted)?,
            Err(RecvError::Lagged(count)) => chunk.extend(line(&Response::LeftOut { count })?),
            Err(RecvError::Closed) => {
                // What waits is still told.
                while let Some(more) = next(&mut following)? {
                    match more {
                        More::Event(record) => add_wanted(&mut chunk, &record, wanted)?,
                        More::LeftOut(count) => {
                            chunk.extend(line(&Response::LeftOut { count })?);
                        }
                    }
                }
                chunk.extend(line(&Response::Stopping)?);
                return write(&mut reader, &mut writer, &mut chunk).await;
            }
        }
        // A burst goes in few writes.
        while chunk.len() < CHUNK_OCTETS {
            match next(&mut following)? {
                Some(More::Event(record)) => add_wanted(&mut chunk, &record, wanted)?,
                Some(More::LeftOut(count)) => chunk.extend(line(&Response::LeftOut { count })?),
                None => break,
            }
        }
    }
}

enum More {
    Event(Arc<EventRecord>),
    LeftOut(u64),
}

/// What waits, if anything.
fn next(following: &mut crate::feed::Following) -> io::Result<Option<More>> {
    match following.try_recv() {
        Ok(record) => Ok(Some(More::Event(record))),
        Err(TryRecvError::Lagged(count)) => Ok(Some(More::LeftOut(count))),
        Err(TryRecvError::Empty | TryRecvError::Closed) => Ok(None),
    }
}

/// Writes all of `chunk` and empties it; ends with an error as soon as the reader has gone.
async fn write(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    chunk: &mut Vec<u8>,
) -> io::Result<()> {
    tokio::select! {
        written = writer.write_all(chunk) => written?,
        gone = hung_up(reader) => return Err(gone),
    }
    chunk.clear();
    Ok(())
}

/// Waits until the reader hangs up. It has nothing more to say: whatever it does counts as that.
async fn hung_up(reader: &mut ReadHalf<'_>) -> io::Error {
    let mut octet = [0];
    match reader.read(&mut octet).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

fn add_wanted(chunk: &mut Vec<u8>, record: &EventRecord, wanted: &EventsWanted) -> io::Result<()> {
    if is_wanted(record, wanted) {
        add(chunk, record)?;
    }
    Ok(())
}

fn add(chunk: &mut Vec<u8>, record: &EventRecord) -> io::Result<()> {
    let record = Box::new(record.clone());
    chunk.extend(line(&Response::Event { record })?);
    Ok(())
}

fn line(response: &Response) -> io::Result<Vec<u8>> {
    encode(response).map_err(io::Error::other)
}
