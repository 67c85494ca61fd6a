//! The control socket: `epochgate` commands come in as JSON lines, answers go back.
//!
//! Each client has a task; requests go to the shell over a bounded channel, with the way back for
//! the answer. Clients, line lengths and waiting times are bounded. Who wants events gets them from
//! the [`Feed`], at its own pace, without the shell.

mod events;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use epochgate_control::{
    EventsWanted, FOLLOWERS_MAX, Lines, REQUEST_LINE_MAX, Received, Request, Response, decode,
    encode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::feed::Feed;

/// Clients that are served at one time, beside those that follow events; more are turned away.
const CLIENTS_MAX: usize = 32;
/// Clients that are told to try again later, at one time.
const TURNED_AWAY_MAX: usize = 32;
/// Requests that wait for the shell.
const REQUESTS_WAITING_MAX: usize = 16;
/// Time in which a client must say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Time in which a client must take its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Time in which those who follow events must take the last ones when the daemon stops.
const FAREWELL_TIME: Duration = Duration::from_millis(200);
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Octets that are read from a client at a time.
const READ_OCTETS: usize = 4096;

/// A client's request, and the way back for the answer.
#[derive(Debug)]
pub struct Asked {
    /// What it wants.
    pub request: Request,
    /// Who asks: user and process.
    pub by: String,
    /// Where the answer goes; the client may have gone meanwhile.
    pub answer: oneshot::Sender<Response>,
}

/// The listening socket. Dropping it ends all clients and removes the socket file.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    task: JoinHandle<()>,
    requests: mpsc::Receiver<Asked>,
    stopping: watch::Sender<bool>,
    following: Arc<Semaphore>,
}

/// What each client's task needs.
#[derive(Clone)]
struct Service {
    requests: mpsc::Sender<Asked>,
    feed: Feed,
    /// True once the daemon stops.
    stopping: watch::Receiver<bool>,
    /// Places of those who follow events.
    following: Arc<Semaphore>,
}

impl ControlServer {
    /// Listens at `path`. The caller holds the lock of the state directory, so that a socket file
    /// that is there already is a dead one.
    ///
    /// # Errors
    /// Those of `bind(2)` and `chmod(2)`.
    pub fn listen(path: &Path, feed: Feed) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        let (sender, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        let (stopping, told) = watch::channel(false);
        let following = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let service = Service {
            requests: sender,
            feed,
            stopping: told,
            following: Arc::clone(&following),
        };
        Ok(Self {
            path: path.to_owned(),
            task: tokio::spawn(serve(listener, service)),
            requests,
            stopping,
            following,
        })
    }

    /// Tells those who follow events that there are no more, and gives them a moment to take the
    /// last ones.
    pub async fn take_leave(&self) {
        // An error: nobody was ever served.
        let _ = self.stopping.send(true);
        let all = u32::try_from(FOLLOWERS_MAX).unwrap_or(u32::MAX);
        // Whoever takes longer misses the rest.
        let _ = timeout(FAREWELL_TIME, self.following.acquire_many(all)).await;
    }

    /// Waits for the next request. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        match self.requests.recv().await {
            Some(asked) => asked,
            // The serving task runs as long as we do.
            None => std::future::pending().await,
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

async fn serve(listener: UnixListener, service: Service) {
    let mut clients = JoinSet::new();
    let asking = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: the clients that we have will free some.
                tracing::warn!("cannot accept a control connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        match Arc::clone(&asking).try_acquire_owned() {
            Ok(place) => {
                clients.spawn(attend(stream, service.clone(), place));
            }
            Err(_) => {
                clients.spawn(turn_away(stream));
            }
        }
        if clients.len() > CLIENTS_MAX + FOLLOWERS_MAX + TURNED_AWAY_MAX {
            clients.join_next().await;
        }
    }
}

async fn turn_away(mut stream: UnixStream) {
    let message = format!("{CLIENTS_MAX} control connections are open already: try again");
    send(&mut stream, &Response::Failed { message }).await.ok();
}

/// Serves one client until it hangs up or errs. `place` is one of those who ask.
async fn attend(mut stream: UnixStream, service: Service, place: OwnedSemaphorePermit) {
    let by = match stream.peer_cred() {
        Ok(peer) => match peer.pid() {
            Some(pid) => format!("uid {}, pid {pid}", peer.uid()),
            None => format!("uid {}", peer.uid()),
        },
        Err(_) => "unknown".to_owned(),
    };
    let mut lines = Lines::new(REQUEST_LINE_MAX);
    loop {
        let line = match next_line(&mut stream, &mut lines).await {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(message) => {
                send(&mut stream, &Response::Failed { message }).await.ok();
                return;
            }
        };
        let request = match decode::<Request>(&line) {
            Ok(request) => request,
            Err(error) => {
                let message = error.to_string();
                send(&mut stream, &Response::Failed { message }).await.ok();
                return;
            }
        };
        // The shell knows which tunnels there are.
        let (request, events) = match request {
            Request::Events(wanted) => (
                Request::Status {
                    tunnel: wanted.tunnel.clone(),
                },
                Some(wanted),
            ),
            request => (request, None),
        };
        let asks = events.as_ref().is_none_or(|wanted| wanted.tunnel.is_some());
        let mut response = Response::Done;
        if asks {
            let (answer, answered) = oneshot::channel();
            let asked = Asked {
                request,
                by: by.clone(),
                answer,
            };
            if service.requests.send(asked).await.is_err() {
                return;
            }
            match wait(&mut stream, &mut lines, answered).await {
                Some(answer) => response = answer,
                None => return,
            }
        }
        let sent = match (events, response) {
            (Some(wanted), Response::Done | Response::Status { .. }) if wanted.follow => {
                drop(place);
                return follow(&mut stream, &wanted, service).await;
            }
            (Some(wanted), Response::Done | Response::Status { .. }) => {
                events::kept(&mut stream, &service.feed, &wanted).await
            }
            (_, response) => send(&mut stream, &response).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Serves one who follows events, if there is a place.
async fn follow(stream: &mut UnixStream, wanted: &EventsWanted, service: Service) {
    let Ok(_place) = service.following.try_acquire() else {
        let message = format!("{FOLLOWERS_MAX} commands follow events already: end one of them");
        send(stream, &Response::Failed { message }).await.ok();
        return;
    };
    // An error: the reader has gone.
    let _ = events::follow(stream, &service.feed, wanted, service.stopping.clone()).await;
}

async fn next_line(stream: &mut UnixStream, lines: &mut Lines) -> Result<Option<Vec<u8>>, String> {
    loop {
        match lines.next_line() {
            Ok(Received::Line(line)) => return Ok(Some(line)),
            Ok(Received::Incomplete) => {}
            Err(error) => return Err(error.to_string()),
        }
        let mut octets = [0; READ_OCTETS];
        match timeout(REQUEST_TIME, stream.read(&mut octets)).await {
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Ok(Ok(length)) => lines.push(&octets[..length]),
            Err(_) => return Err(format!("no request within {REQUEST_TIME:?}")),
        }
    }
}

/// Waits for the shell's answer; `None` when the client hangs up before, or sends more than it may
/// while it has to wait.
async fn wait(
    stream: &mut UnixStream,
    lines: &mut Lines,
    mut answered: oneshot::Receiver<Response>,
) -> Option<Response> {
    let mut ahead = 0;
    loop {
        let mut octets = [0; READ_OCTETS];
        tokio::select! {
            response = &mut answered => return Some(response.unwrap_or_else(|_| Response::Failed {
                message: "the daemon is stopping".to_owned(),
            })),
            read = stream.read(&mut octets) => match read {
                Ok(0) | Err(_) => return None,
                Ok(length) => {
                    ahead += length;
                    if ahead > REQUEST_LINE_MAX {
                        return None;
                    }
                    lines.push(&octets[..length]);
                }
            },
        }
    }
}

async fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let line = encode(response).map_err(io::Error::other)?;
    timeout(ANSWER_TIME, stream.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use epochgate_control::{EVENTS_WAITING_MAX, EventRecord, Level};
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    fn server() -> (tempfile::TempDir, ControlServer) {
        let directory = tempfile::tempdir().expect("directory");
        let server = ControlServer::listen(&directory.path().join("control.sock"), Feed::new())
            .expect("listen");
        (directory, server)
    }

    async fn ask(server: &ControlServer, octets: &[u8]) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&server.path).await.expect("connect");
        stream.write_all(octets).await.expect("write");
        BufReader::new(stream)
    }

    async fn answer(client: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        client.read_line(&mut line).await.expect("read");
        line
    }

    #[tokio::test]
    async fn a_request_is_answered_on_the_same_connection() {
        let (_directory, mut server) = server();
        let up = Request::Up {
            tunnel: "branch".to_owned(),
        };
        let mut client = ask(&server, &encode(&up).expect("encode")).await;
        let asked = server.next().await;
        assert_eq!(asked.request, up);
        assert!(asked.by.starts_with("uid "), "{}", asked.by);
        asked.answer.send(Response::Done).expect("client is there");
        assert!(answer(&mut client).await.contains("done"));
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_are_told_so_and_hung_up_on() {
        let (_directory, server) = server();
        for octets in [&b"nonsense\n"[..], &vec![b'a'; REQUEST_LINE_MAX + 1]] {
            let mut client = ask(&server, octets).await;
            assert!(answer(&mut client).await.contains("failed"));
            assert_eq!(answer(&mut client).await, "");
        }
    }

    #[tokio::test]
    async fn one_client_too_many_is_turned_away() {
        let (_directory, server) = server();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS_MAX {
            clients.push(ask(&server, b"").await);
        }
        let mut refused = ask(&server, b"").await;
        assert!(answer(&mut refused).await.contains("try again"));
    }

    fn record(message: &str) -> EventRecord {
        EventRecord {
            time: "2026-01-02T03:04:05.000000Z".to_owned(),
            level: Level::Info,
            message: message.to_owned(),
            tunnel: Some("branch".to_owned()),
            epoch: None,
            fields: serde_json::Map::new(),
        }
    }

    fn fed_server() -> (tempfile::TempDir, ControlServer, Feed) {
        let directory = tempfile::tempdir().expect("directory");
        let feed = Feed::new();
        let path = directory.path().join("control.sock");
        let server = ControlServer::listen(&path, feed.clone()).expect("listen");
        (directory, server, feed)
    }

    fn events(follow: bool) -> Vec<u8> {
        let wanted = EventsWanted {
            follow,
            ..EventsWanted::default()
        };
        encode(&Request::Events(wanted)).expect("encode")
    }

    #[tokio::test]
    async fn kept_events_are_told_and_another_question_may_follow() {
        let (_directory, server, feed) = fed_server();
        feed.tell(record("one"));
        feed.tell(record("two"));
        let mut client = ask(&server, &events(false).repeat(2)).await;
        for _ in 0..2 {
            for word in ["one", "two", "done"] {
                let line = answer(&mut client).await;
                assert!(line.contains(word), "{line}");
            }
        }
    }

    #[tokio::test]
    async fn who_follows_gets_what_happens_and_is_told_of_the_end() {
        let (_directory, server, feed) = fed_server();
        feed.tell(record("before"));
        let mut client = ask(&server, &events(true)).await;
        assert!(answer(&mut client).await.contains("before"));
        feed.tell(record("now"));
        assert!(answer(&mut client).await.contains("now"));
        feed.tell(record("the last"));
        server.take_leave().await;
        assert!(answer(&mut client).await.contains("the last"));
        assert!(answer(&mut client).await.contains("stopping"));
        assert_eq!(answer(&mut client).await, "");
    }

    #[tokio::test]
    async fn who_follows_and_does_not_read_keeps_nobody_waiting_and_learns_what_it_missed() {
        let (_directory, server, feed) = fed_server();
        let mut slow = ask(&server, &events(true)).await;
        feed.tell(record("the first"));
        assert!(answer(&mut slow).await.contains("the first"));
        // More than the socket and the queue take together.
        let long = "x".repeat(1000);
        let mut told = 1;
        for _ in 0..4 {
            for _ in 0..EVENTS_WAITING_MAX {
                feed.tell(record(&long));
                told += 1;
            }
            tokio::task::yield_now().await;
        }
        feed.tell(record("the end"));
        told += 1;
        let (mut events, mut left_out) = (1, 0);
        loop {
            let line = answer(&mut slow).await;
            match decode::<Response>(line.as_bytes()).expect("a response") {
                Response::Event { record } => {
                    events += 1;
                    if record.message == "the end" {
                        break;
                    }
                }
                Response::LeftOut { count } => left_out += count,
                other => panic!("{other:?}"),
            }
        }
        assert!(left_out > 0);
        assert_eq!(events + left_out, told);
    }

    #[tokio::test]
    async fn those_who_follow_leave_the_places_of_others_and_free_theirs_when_they_go() {
        let (_directory, server, feed) = fed_server();
        feed.tell(record("kept"));
        let mut followers = Vec::new();
        for _ in 0..FOLLOWERS_MAX {
            let mut client = ask(&server, &events(true)).await;
            assert!(answer(&mut client).await.contains("kept"));
            followers.push(client);
        }
        let mut refused = ask(&server, &events(true)).await;
        assert!(answer(&mut refused).await.contains("follow events already"));
        let mut other = ask(&server, &events(false)).await;
        assert!(answer(&mut other).await.contains("kept"));
        drop(followers.pop());
        // The server hears of it when it gets to run.
        loop {
            let mut client = ask(&server, &events(true)).await;
            if answer(&mut client).await.contains("kept") {
                break;
            }
        }
    }

    #[tokio::test]
    async fn events_of_an_unknown_tunnel_are_refused_by_whoever_knows_the_tunnels() {
        let (_directory, mut server, feed) = fed_server();
        feed.tell(record("kept"));
        let wanted = EventsWanted {
            tunnel: Some("brunch".to_owned()),
            ..EventsWanted::default()
        };
        let request = encode(&Request::Events(wanted)).expect("encode");
        let mut client = ask(&server, &request).await;
        let asked = server.next().await;
        let tunnel = Some("brunch".to_owned());
        assert_eq!(asked.request, Request::Status { tunnel });
        let message = "there is no tunnel brunch".to_owned();
        let refusal = Response::Failed { message };
        asked.answer.send(refusal).expect("client is there");
        assert!(answer(&mut client).await.contains("no tunnel brunch"));
    }

    #[tokio::test]
    async fn the_socket_file_goes_with_the_server_and_a_dead_one_is_replaced() {
        let (directory, server) = server();
        let path = server.path.clone();
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop(server);
        assert!(!path.exists());
        std::fs::write(directory.path().join("control.sock"), "").expect("write");
        ControlServer::listen(&path, Feed::new()).expect("listen");
    }
}
