//! The control socket: `epochgate` commands come in as JSON lines, answers go back.
//!
//! Each client has a task; requests go to the shell over a bounded channel, with the way back for
//! the answer. Clients, line lengths and waiting times are bounded.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epochgate_control::{Lines, REQUEST_LINE_MAX, Received, Request, Response, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Clients that are served at one time; more are turned away.
const CLIENTS_MAX: usize = 32;
/// Requests that wait for the shell.
const REQUESTS_WAITING_MAX: usize = 16;
/// Time in which a client must say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Time in which a client must take its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
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
}

impl ControlServer {
    /// Listens at `path`. The caller holds the lock of the state directory, so that a socket file
    /// that is there already is a dead one.
    ///
    /// # Errors
    /// Those of `bind(2)` and `chmod(2)`.
    pub fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        let (sender, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        Ok(Self {
            path: path.to_owned(),
            task: tokio::spawn(serve(listener, sender)),
            requests,
        })
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

async fn serve(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    let mut clients = JoinSet::new();
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
        if clients.len() >= CLIENTS_MAX {
            clients.spawn(turn_away(stream));
            // Those turned away count too, until they are gone.
            if clients.len() > 2 * CLIENTS_MAX {
                clients.join_next().await;
            }
            continue;
        }
        clients.spawn(attend(stream, requests.clone()));
    }
}

async fn turn_away(mut stream: UnixStream) {
    let message = format!("{CLIENTS_MAX} control connections are open already: try again");
    send(&mut stream, &Response::Failed { message }).await.ok();
}

/// Serves one client until it hangs up or errs.
async fn attend(mut stream: UnixStream, requests: mpsc::Sender<Asked>) {
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
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            request,
            by: by.clone(),
            answer,
        };
        if requests.send(asked).await.is_err() {
            return;
        }
        let Some(response) = wait(&mut stream, &mut lines, answered).await else {
            return;
        };
        if send(&mut stream, &response).await.is_err() {
            return;
        }
    }
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
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    fn server() -> (tempfile::TempDir, ControlServer) {
        let directory = tempfile::tempdir().expect("directory");
        let server = ControlServer::listen(&directory.path().join("control.sock")).expect("listen");
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
        ControlServer::listen(&path).expect("listen");
    }
}
