//! The command `epochgate`: asks the daemon over its control socket, shows what it answers, and
//! checks configuration files by itself.
//!
//! [`cli`] defines what can be typed (manual pages and completions are made from it); each command
//! writes to one `Screen`, which knows the terminal.

mod check;
pub mod cli;
mod client;
mod failure;
mod status;
mod terminal;

use std::io::{self, Write};
use std::process::ExitCode;

use epochgate_control::{Request, Response};
use epochgate_controller::status::StatusReport;

use crate::cli::{Arguments, Command};
use crate::client::Client;
use crate::failure::Failure;
use crate::terminal::Screen;

/// Does what is asked; the process ends with what this gives back.
pub fn main(arguments: &Arguments) -> ExitCode {
    let mut screen = Screen::stdout();
    match run(arguments, &mut screen).and_then(|()| screen.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone (`epochgate status | head -1`) has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Nobody is left to hear of a failure to say so.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

/// Does what is asked and writes the answer.
fn run(arguments: &Arguments, screen: &mut Screen) -> Result<(), Failure> {
    let client = Client::new(&arguments.socket);
    let mut done = |request: Request, timeout, sentence: String| -> Result<(), Failure> {
        match client.ask(&request, timeout)? {
            Response::Done => screen.write(&sentence),
            Response::Failed { message } => Err(Failure::Refused(message)),
            Response::Status { .. } => Err(Failure::Unexpected),
        }
    };
    match &arguments.command {
        Command::Up { tunnel, timeout } => {
            let request = Request::Up {
                tunnel: tunnel.clone(),
            };
            done(request, *timeout, format!("{tunnel} is up\n"))
        }
        Command::Down { tunnel } => {
            let request = Request::Down {
                tunnel: tunnel.clone(),
            };
            let sentence = format!("{tunnel} is down: no policies, no SAs\n");
            done(request, cli::PATIENCE, sentence)
        }
        Command::Rekey {
            tunnel,
            ike,
            reauthenticate,
            timeout,
        } => {
            let (name, tunnel) = (tunnel.clone(), tunnel.clone());
            let (request, sentence) = match (ike, reauthenticate) {
                (true, _) => (Request::RekeyIke { tunnel }, "'s IKE SA has new keys"),
                (false, true) => (
                    Request::Reauthenticate { tunnel },
                    " has switched to a new IKE SA",
                ),
                (false, false) => (Request::Rekey { tunnel }, " has switched to a new epoch"),
            };
            done(request, *timeout, format!("{name}{sentence}\n"))
        }
        Command::Reload => done(
            Request::Reload,
            cli::PATIENCE,
            "the configuration is loaded\n".to_owned(),
        ),
        Command::Status { tunnel, json } => {
            let report = match client.ask(&Request::Status, cli::PATIENCE)? {
                Response::Status { report } => *report,
                Response::Failed { message } => return Err(Failure::Refused(message)),
                Response::Done => return Err(Failure::Unexpected),
            };
            let report = only(report, tunnel.as_deref())?;
            if *json {
                let text = serde_json::to_string_pretty(&report);
                return screen.write(&(text.map_err(|_| Failure::Unexpected)? + "\n"));
            }
            screen.write(&status::render(&report, screen.paint()))
        }
        Command::Check { file, policies } => screen.write(&check::check(file, policies.clone())?),
    }
}

/// The report of one tunnel, if one is named.
fn only(mut report: StatusReport, tunnel: Option<&str>) -> Result<StatusReport, Failure> {
    let Some(tunnel) = tunnel else {
        return Ok(report);
    };
    let names: Vec<_> = report.tunnels.iter().map(|t| t.name.clone()).collect();
    report.tunnels.retain(|status| status.name == tunnel);
    if report.tunnels.is_empty() {
        let configured = match names.as_slice() {
            [] => "none is configured".to_owned(),
            names => format!("configured are: {}", names.join(", ")),
        };
        let message = format!("there is no tunnel {tunnel}; {configured}");
        return Err(Failure::Refused(message));
    }
    Ok(report)
}
