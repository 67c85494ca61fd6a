//! The built command: what it says and how it exits, alone and against a daemon that a thread
//! plays.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use epochgate_control::{EventRecord, EventsWanted, Level, Request, Response, decode, encode};
use epochgate_controller::status::{GateStatus, STATUS_SCHEMA, StatusReport, TunnelStatus};

#[path = "common/tunnels.rs"]
mod tunnels;

type Outcome = Result<(), Box<dyn Error>>;

const RIGHT: &str = r#"
[tunnel.branch]
role    = "client"
local   = { id = "branch.example", psk-file = "branch.psk" }
remote  = { address = "203.0.113.1" }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;

fn epochgate(arguments: &[&str], socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    command
        .args(arguments)
        .env("EPOCHGATE_SOCKET", socket)
        .env_remove("NO_COLOR");
    command
}

fn nowhere() -> &'static Path {
    Path::new("/nowhere/control.sock")
}

/// Exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

fn said(output: &Output) -> Said {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn run(arguments: &[&str], socket: &Path) -> Result<Said, Box<dyn Error>> {
    Ok(said(&epochgate(arguments, socket).output()?))
}

/// A folder with a configuration and its secret.
fn configured(text: &str) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("branch.psk");
    fs::write(&secret, "a secret of enough octets\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::write(folder.path().join("epochgate.toml"), text)?;
    Ok(folder)
}

#[test]
fn a_right_configuration_is_said_to_be_right() -> Outcome {
    let folder = configured(RIGHT)?;
    let file = folder.path().join("epochgate.toml");
    let (code, out, err) = run(&["check", &file.to_string_lossy()], nowhere())?;
    assert_eq!(err, "");
    let want = format!("{}: no mistakes; 1 tunnel: branch\n", file.display());
    assert_eq!((code, out), (Some(0), want));
    Ok(())
}

#[test]
fn a_wrong_configuration_gets_carets_and_exit_code_2() -> Outcome {
    let folder = configured(&RIGHT.replace("10.1.0.0/16", "10.1.2.3/16"))?;
    let mut command = epochgate(&["check", "epochgate.toml"], nowhere());
    let (code, out, err) = said(&command.current_dir(folder.path()).output()?);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let want = "\
error: `10.1.2.3/16` has bits set behind its prefix
 --> epochgate.toml:7:22
  |
7 | traffic = { local = [\"10.1.2.3/16\"], remote = [\"10.2.0.0/16\"] }
  |                      ^^^^^^^^^^^^^ a host of the network is named
  |
  = help: did you mean \"10.1.0.0/16\"?

epochgate.toml: 1 mistake
";
    assert_eq!(err, want);
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_is_named() -> Outcome {
    let (code, _, err) = run(&["check", "/nowhere.toml"], nowhere())?;
    assert_eq!(code, Some(2));
    let want = "can't read /nowhere.toml: No such file or directory (os error 2)\n";
    assert_eq!(err, want);
    Ok(())
}

#[test]
fn templates_of_another_directory_can_be_checked() -> Outcome {
    let folder = configured(&RIGHT.replace("site-to-site", "own"))?;
    let file = folder.path().join("epochgate.toml");
    let file = file.to_string_lossy();
    let (code, _, err) = run(&["check", &file], nowhere())?;
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no policy template `own`"), "{err}");
    fs::write(folder.path().join("own.toml"), "forward = true\n")?;
    let policies = folder.path().to_string_lossy();
    let (code, _, err) = run(&["check", &file, "--policies", &policies], nowhere())?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    Ok(())
}

#[test]
fn without_a_daemon_every_question_says_so_and_exits_with_3() -> Outcome {
    let questions: [&[&str]; 8] = [
        &["up", "a"],
        &["down", "a"],
        &["rekey", "a"],
        &["reload"],
        &["status", "--json"],
        &["status", "--watch"],
        &["events"],
        &["events", "--follow", "--json"],
    ];
    for question in questions {
        let (code, out, err) = run(question, nowhere())?;
        assert_eq!((code, out.as_str()), (Some(3), ""), "{question:?}");
        let want = "epochgated is not running: nothing listens at /nowhere/control.sock\n";
        assert!(err.starts_with(want), "{err}");
    }
    Ok(())
}

#[test]
fn a_socket_that_a_dead_daemon_left_counts_as_no_daemon() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    drop(UnixListener::bind(&socket)?);
    let (code, _, _) = run(&["status"], &socket)?;
    assert_eq!(code, Some(3));
    Ok(())
}

#[test]
fn a_user_without_rights_to_the_socket_is_told_so() -> Outcome {
    /// `nobody` on Linux: may not do what only root may.
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir()?;
    let open_to_all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open_to_all.clone())?;
    // A copy, because the build folder may be closed to that user.
    let program = folder.path().join("epochgate");
    fs::copy(env!("CARGO_BIN_EXE_epochgate"), &program)?;
    fs::set_permissions(&program, open_to_all)?;
    let socket = folder.path().join("control.sock");
    let _listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000))?;
    let mut command = Command::new(program);
    command.arg("status").arg("--socket").arg(&socket);
    if fs::metadata("/proc/self")?.uid() == 0 {
        command.uid(NOBODY);
    }
    let output = loop {
        match command.output() {
            // A process that another test is just starting still has the copy open for writing.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            other => break other?,
        }
    };
    let (code, _, err) = said(&output);
    assert_eq!(code, Some(4), "{err}");
    assert!(
        err.starts_with("this user may not use the control socket"),
        "{err}"
    );
    Ok(())
}

#[test]
fn a_mistyped_command_is_a_usage_error() -> Outcome {
    let (code, _, err) = run(&["statsu"], nowhere())?;
    assert_eq!(code, Some(2));
    assert!(err.contains("status"), "{err}");
    let (code, _, _) = run(&["up", "a", "--timeout", "30"], nowhere())?;
    assert_eq!(code, Some(2));
    Ok(())
}

#[test]
fn help_names_every_exit_code() -> Outcome {
    let (code, out, _) = run(&["--help"], nowhere())?;
    assert_eq!(code, Some(0));
    for exit_code in 0..=6 {
        assert!(out.contains(&format!("\n  {exit_code}  ")), "{out}");
    }
    assert!(out.contains("EPOCHGATE_SOCKET"), "{out}");
    Ok(())
}

/// A daemon that hears one request and answers with these octets; `None`: never.
fn daemon(
    socket: &Path,
    answer: Option<Vec<u8>>,
) -> Result<JoinHandle<std::io::Result<Vec<u8>>>, Box<dyn Error>> {
    let listener = UnixListener::bind(socket)?;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // Nobody listens any more when the answer is there.
        drop(listener);
        let mut request = Vec::new();
        BufReader::new(stream.try_clone()?).read_until(b'\n', &mut request)?;
        match answer {
            Some(answer) => stream.write_all(&answer)?,
            // Until the command gives up and closes its end.
            None => drop(BufReader::new(stream).read_until(b'\n', &mut Vec::new())?),
        }
        Ok(request)
    }))
}

/// What the command says to this answer, and what it asked.
fn answered(arguments: &[&str], answer: &Response) -> Result<(Said, Request), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = daemon(&socket, Some(encode(answer)?))?;
    let said = run(arguments, &socket)?;
    let request = daemon.join().map_err(|_| "the daemon's thread")??;
    Ok((said, decode(&request)?))
}

#[test]
fn each_command_asks_its_question_and_says_that_it_is_done() -> Outcome {
    let branch = || "branch".to_owned();
    let cases: [(&[&str], Request, &str); 4] = [
        (
            &["up", "branch"],
            Request::Up { tunnel: branch() },
            "branch is up\n",
        ),
        (
            &["down", "branch"],
            Request::Down { tunnel: branch() },
            "branch is down: no policies, no SAs\n",
        ),
        (
            &["rekey", "branch", "--timeout", "5s"],
            Request::Rekey { tunnel: branch() },
            "branch has switched to a new epoch\n",
        ),
        (
            &["reload"],
            Request::Reload,
            "the configuration is loaded\n",
        ),
    ];
    for (arguments, want, sentence) in cases {
        let ((code, out, err), asked) = answered(arguments, &Response::Done)?;
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), sentence, ""));
        assert_eq!(asked, want);
    }
    Ok(())
}

#[test]
fn a_refusal_is_passed_on_without_what_a_terminal_would_obey() -> Outcome {
    let refusal = Response::Failed {
        message: "there is no tunnel x\x1b[2J; configured are: branch".into(),
    };
    let ((code, out, err), _) = answered(&["up", "x"], &refusal)?;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "there is no tunnel x\u{fffd}[2J; configured are: branch\n"
    );
    Ok(())
}

fn report() -> Response {
    let tunnel = TunnelStatus {
        held_ms: Some(1),
        ..tunnels::held("waiting for traffic")
    };
    Response::Status {
        report: Box::new(StatusReport {
            schema: STATUS_SCHEMA,
            tunnels: vec![tunnel],
        }),
    }
}

#[test]
fn status_is_text_for_a_person_and_json_for_a_program() -> Outcome {
    let ((code, out, _), _) = answered(&["status"], &report())?;
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("branch (client): held for 1ms, no traffic"),
        "{out}"
    );
    assert!(!out.contains('\x1b'), "no colours into a pipe");
    let ((code, out, _), _) = answered(&["status", "branch", "--json"], &report())?;
    assert_eq!(code, Some(0));
    let json: StatusReport = serde_json::from_str(&out)?;
    assert_eq!(json.tunnels[0].gate, GateStatus::Held);
    Ok(())
}

#[test]
fn the_status_of_an_unknown_tunnel_names_the_known_ones() -> Outcome {
    // The daemon knows them.
    let message = "there is no tunnel brunch; configured are: branch; did you mean branch?";
    let refusal = Response::Failed {
        message: message.into(),
    };
    let ((code, _, err), asked) = answered(&["status", "brunch"], &refusal)?;
    let tunnel = Some("brunch".to_owned());
    assert_eq!(asked, Request::Status { tunnel });
    let want = format!("{message}\n");
    assert_eq!((code, err), (Some(1), want));
    Ok(())
}

#[test]
fn a_daemon_of_another_version_or_without_sense_is_told_apart_from_a_refusal() -> Outcome {
    let answers: [(&[u8], &str); 4] = [
        (
            b"{\"version\":9,\"response\":\"done\"}\n",
            "speaks version 9 of the control protocol and this command 2\nAfter an upgrade, restart",
        ),
        (b"HTTP/1.1 400 Bad Request\n", "not a message"),
        (b"", "without an answer"),
        (b"{\"version\":2,\"response\":\"do", "without an answer"),
    ];
    for (answer, want) in answers {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("control.sock");
        let daemon = daemon(&socket, Some(answer.to_vec()))?;
        let (code, _, err) = run(&["reload"], &socket)?;
        assert_eq!(code, Some(1));
        assert!(err.contains(want), "{err}");
        daemon.join().map_err(|_| "the daemon's thread")??;
    }
    Ok(())
}

#[test]
fn a_daemon_that_does_not_answer_in_time_is_not_waited_for() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = daemon(&socket, None)?;
    let (code, _, err) = run(&["up", "branch", "--timeout", "100ms"], &socket)?;
    assert_eq!(code, Some(5));
    assert!(err.starts_with("no answer in 100ms"), "{err}");
    daemon.join().map_err(|_| "the daemon's thread")??;
    Ok(())
}

#[test]
fn a_reader_that_has_gone_is_no_failure() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = daemon(&socket, Some(encode(&report())?))?;
    let mut child = epochgate(&["status"], &socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let (code, _, err) = said(&child.wait_with_output()?);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    daemon.join().map_err(|_| "the daemon's thread")??;
    Ok(())
}

fn event(message: &str) -> Response {
    let mut fields = serde_json::Map::new();
    fields.insert("event".into(), "ping-sent".into());
    fields.insert("attempt".into(), 1.into());
    Response::Event {
        record: Box::new(EventRecord {
            time: "2026-01-02T03:04:05.678901Z".into(),
            level: Level::Info,
            message: message.into(),
            tunnel: Some("branch".into()),
            epoch: Some(3),
            fields,
        }),
    }
}

/// A daemon that tells this, and then ends or, without `ends`, is silent until it is hung up on.
fn telling(
    arguments: &[&str],
    answers: &[Response],
    ends: bool,
) -> Result<(Said, Request), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = story(&socket, answers, ends)?;
    let said = run(arguments, &socket)?;
    let request = daemon.join().map_err(|_| "the daemon's thread")??;
    Ok((said, decode(&request)?))
}

fn story(
    socket: &Path,
    answers: &[Response],
    ends: bool,
) -> Result<JoinHandle<std::io::Result<Vec<u8>>>, Box<dyn Error>> {
    let listener = UnixListener::bind(socket)?;
    let lines: Result<Vec<_>, _> = answers.iter().map(encode).collect();
    let lines = lines?.concat();
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = Vec::new();
        BufReader::new(stream.try_clone()?).read_until(b'\n', &mut request)?;
        stream.write_all(&lines)?;
        if !ends {
            // Until the command hangs up.
            BufReader::new(stream).read_until(b'\n', &mut Vec::new())?;
        }
        Ok(request)
    }))
}

#[test]
fn events_that_are_kept_are_told_and_then_it_ends() -> Outcome {
    let answers = [
        event("control ping 1 sent"),
        event("and more"),
        Response::Done,
    ];
    let arguments = ["events", "--tunnel", "branch", "-n", "7", "--since", "10m"];
    let ((code, out, err), asked) = telling(&arguments, &answers, false)?;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let want = "2026-01-02T03:04:05.678Z  INFO branch/3: control ping 1 sent\n\
                2026-01-02T03:04:05.678Z  INFO branch/3: and more\n";
    assert_eq!(out, want);
    let wanted = EventsWanted {
        follow: false,
        tunnel: Some("branch".into()),
        last: Some(7),
        since_ms: Some(600_000),
    };
    assert_eq!(asked, Request::Events(wanted));
    Ok(())
}

#[test]
fn events_as_json_are_the_objects_of_the_log() -> Outcome {
    let answers = [
        event("control ping 1 sent"),
        Response::LeftOut { count: 12 },
        Response::Done,
    ];
    let ((code, out, _), _) = telling(&["events", "--json"], &answers, false)?;
    assert_eq!(code, Some(0));
    let lines: Result<Vec<serde_json::Value>, _> = out.lines().map(serde_json::from_str).collect();
    let want = serde_json::json!({
        "time": "2026-01-02T03:04:05.678901Z", "level": "info",
        "message": "control ping 1 sent", "tunnel": "branch", "epoch": 3,
        "event": "ping-sent", "attempt": 1,
    });
    let lines = lines?;
    assert_eq!(lines[0], want);
    assert_eq!(lines[1]["event"], "left-out");
    assert_eq!(lines[1]["count"], 12);
    Ok(())
}

#[test]
fn who_follows_is_told_why_there_is_no_more_and_gets_exit_code_3() -> Outcome {
    let ends: [(&[Response], &str); 2] = [
        (
            &[event("the last"), Response::Stopping],
            "epochgated has stopped: there are no more events\n",
        ),
        (
            &[event("the last")],
            "epochgated has ended without a word; see its log (journalctl -u epochgated)\n",
        ),
    ];
    for (answers, want) in ends {
        let ((code, out, err), _) = telling(&["events", "--follow"], answers, true)?;
        assert_eq!((code, err.as_str()), (Some(3), want));
        assert!(out.ends_with("branch/3: the last\n"), "{out}");
    }
    Ok(())
}

#[test]
fn a_follower_without_a_place_is_told_so() -> Outcome {
    let message = "32 commands follow events already: end one of them".to_owned();
    let answers = [Response::Failed { message }];
    let ((code, _, err), _) = telling(&["events", "-f"], &answers, true)?;
    assert_eq!(code, Some(1));
    assert!(err.starts_with("32 commands follow"), "{err}");
    Ok(())
}

/// A follower that has shown one event and waits for more.
fn waiting_follower(socket: &Path) -> Result<std::process::Child, Box<dyn Error>> {
    let mut child = epochgate(&["events", "--follow"], socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or("a pipe")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    assert!(line.contains("seen at once"), "{line}");
    child.stdout = Some(out.into_inner());
    Ok(child)
}

#[test]
fn ctrl_c_is_how_following_ends_well() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = story(&socket, &[event("seen at once")], false)?;
    let child = waiting_follower(&socket)?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    let (code, _, err) = said(&child.wait_with_output()?);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    daemon.join().map_err(|_| "the daemon's thread")??;
    Ok(())
}

#[test]
fn a_pipe_that_nobody_reads_ends_following_though_nothing_happens() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = story(&socket, &[event("seen at once")], false)?;
    let mut child = waiting_follower(&socket)?;
    drop(child.stdout.take());
    let (code, _, err) = said(&child.wait_with_output()?);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    daemon.join().map_err(|_| "the daemon's thread")??;
    Ok(())
}

#[test]
fn watching_into_a_pipe_is_one_object_a_line_and_ends_with_the_daemon() -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("control.sock");
    let daemon = daemon(&socket, Some(encode(&report())?))?;
    let arguments = ["status", "--json", "--watch=10ms"];
    let (code, out, err) = run(&arguments, &socket)?;
    daemon.join().map_err(|_| "the daemon's thread")??;
    assert_eq!(code, Some(3), "{err}");
    assert_eq!(out.lines().count(), 1);
    serde_json::from_str::<StatusReport>(&out)?;
    Ok(())
}
