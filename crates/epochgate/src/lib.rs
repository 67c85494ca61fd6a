//! The command `epochgate`: asks the daemon over its control socket and shows what it answers. By
//! itself it checks configuration files and shows what is in the kernel's IPsec.
//!
//! [`cli`] defines what can be typed (manual pages and completions are made from it); each command
//! writes to one `Screen`, which knows the terminal.

mod check;
pub mod cli;
mod client;
mod doctor;
mod events;
mod failure;
mod interrupt;
mod status;
mod terminal;
mod xfrm;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use epochgate_control::{EventsWanted, Request, Response};

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
        // Its report was the answer.
        Err(Failure::Diagnosed(code)) => ExitCode::from(code),
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
            Response::Status { .. }
            | Response::Event { .. }
            | Response::LeftOut { .. }
            | Response::Stopping => Err(Failure::Unexpected),
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
        Command::Status {
            tunnel,
            details,
            json,
            watch,
        } => {
            let wanted = status::Wanted {
                tunnel: tunnel.as_deref(),
                details: *details,
                json: *json,
                every: *watch,
            };
            status::show(&client, &wanted, screen)
        }
        Command::Events {
            follow,
            tunnel,
            last,
            since,
            json,
        } => {
            let wanted = EventsWanted {
                follow: *follow,
                tunnel: tunnel.clone(),
                last: *last,
                since_ms: since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            };
            events::show(&client, wanted, *json, screen)
        }
        Command::Doctor { probe: true, .. } => doctor::probe(screen),
        Command::Doctor {
            tunnels,
            config,
            policies,
            json,
            probe: false,
        } => doctor::doctor(
            &doctor::Question {
                tunnels,
                config: config.as_deref(),
                default_config: Path::new(cli::DEFAULT_CONFIG),
                policies: policies.clone(),
                socket: &arguments.socket,
                json: *json,
                now: check::now(),
            },
            screen,
        ),
        Command::Xfrm { command } => xfrm::run(command, screen),
        Command::Check { file, policies } => screen.write(&check::check(file, policies.clone())?),
    }
}
