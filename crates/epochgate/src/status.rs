//! The report of the daemon as text for a person: what passes, what is held, why, and what to do.
//!
//! Several tunnels are a [`table`], one is told in [`details`]; programs get the report as JSON, which
//! is described in docs/daemon.md.

mod details;
mod figures;
mod table;

use std::borrow::Cow;
use std::thread;
use std::time::Duration;

use epochgate_control::{Request, Response};
use epochgate_controller::status::{GateStatus, StatusReport, TunnelStatus};

use crate::cli::PATIENCE;
use crate::client::Client;
use crate::failure::Failure;
use crate::interrupt;
use crate::terminal::{Paint, Screen, Tone, WIDTH, harmless};

/// What is to be shown.
pub(crate) struct Wanted<'w> {
    /// Of this tunnel alone.
    pub(crate) tunnel: Option<&'w str>,
    /// Every tunnel in detail.
    pub(crate) details: bool,
    /// As JSON.
    pub(crate) json: bool,
    /// Again and again.
    pub(crate) every: Option<Duration>,
}

/// Names of tunnels with a trouble, in the line above the table.
const NAMED_MAX: usize = 5;

/// Puts a terminal's cursor at its upper left corner, and clears what is behind the cursor (ECMA-48
/// CUP and ED).
const HOME: &str = "\x1b[H";
const CLEAR_REST: &str = "\x1b[J";
/// Clears to the end of the line (ECMA-48 EL).
const CLEAR_LINE: &str = "\x1b[K";

/// Asks the daemon and writes what it tells, once or again and again.
pub(crate) fn show(
    client: &Client<'_>,
    wanted: &Wanted<'_>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let Some(every) = wanted.every else {
        let text = text(client, wanted, screen)?;
        return screen.write(&text);
    };
    interrupt::is_a_good_end();
    let redraws = screen.is_terminal() && !wanted.json;
    loop {
        let text = match text(client, wanted, screen) {
            Ok(text) => text,
            // A daemon that is started again is seen as soon as it is there.
            Err(failure) if redraws => format!("{failure}\n"),
            Err(failure) => return Err(failure),
        };
        if redraws {
            let text = redrawn(&text, screen.height());
            screen.write(&text)?;
        } else {
            screen.write(&text)?;
            if !wanted.json {
                screen.write("\n")?;
            }
        }
        screen.flush()?;
        thread::sleep(every);
    }
}

/// `text` over what a terminal of so many lines shows; what does not fit is counted.
fn redrawn(text: &str, height: Option<usize>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let height = height.unwrap_or(usize::MAX);
    let mut told = HOME.to_owned();
    let mut draw = |line: &str| told.push_str(&format!("{line}{CLEAR_LINE}\n"));
    // The last line of the terminal stays empty: the cursor is there.
    if lines.len() < height {
        lines.iter().for_each(|line| draw(line));
    } else {
        let seen = height.saturating_sub(2);
        lines.iter().take(seen).for_each(|line| draw(line));
        draw(&format!("… and {} lines more", lines.len() - seen));
    }
    told + CLEAR_REST
}

fn text(client: &Client<'_>, wanted: &Wanted<'_>, screen: &Screen) -> Result<String, Failure> {
    let tunnel = wanted.tunnel.map(str::to_owned);
    let request = Request::Status { tunnel };
    let report = match client.ask(&request, PATIENCE)? {
        Response::Status { report } => *report,
        Response::Failed { message } => return Err(Failure::Refused(message)),
        Response::Done | Response::Event { .. } | Response::LeftOut { .. } | Response::Stopping => {
            return Err(Failure::Unexpected);
        }
    };
    if wanted.json {
        let text = match wanted.every {
            None => serde_json::to_string_pretty(&report),
            Some(_) => serde_json::to_string(&report),
        };
        return Ok(text.map_err(|_| Failure::Unexpected)? + "\n");
    }
    let in_detail = wanted.details || wanted.tunnel.is_some();
    Ok(render(&report, in_detail, screen.paint(), screen.width()))
}

/// The whole report, in lines of at most `width` columns.
pub(crate) fn render(
    report: &StatusReport,
    in_detail: bool,
    paint: Paint,
    width: Option<usize>,
) -> String {
    match report.tunnels.as_slice() {
        [] => "no tunnels are configured\n".to_owned(),
        tunnels if in_detail || tunnels.len() == 1 => {
            let width = width.unwrap_or(WIDTH);
            let tunnels = tunnels
                .iter()
                .map(|status| details::tunnel(status, paint, width));
            tunnels.collect::<Vec<_>>().join("\n")
        }
        tunnels => format!(
            "{}\n{}",
            summary(tunnels, paint, width),
            table::tunnels(tunnels, paint, width)
        ),
    }
}

/// How many tunnels pass, and which do not.
fn summary(tunnels: &[TunnelStatus], paint: Paint, width: Option<usize>) -> String {
    let of = |gate: GateStatus| tunnels.iter().filter(move |tunnel| tunnel.gate == gate);
    let mut parts = Vec::new();
    for (gate, word, tone) in [
        (GateStatus::Open, "open", Tone::Good),
        (GateStatus::Held, "held", Tone::Waiting),
        (GateStatus::Down, "down", Tone::Bad),
    ] {
        let count = of(gate).count();
        if count > 0 {
            parts.push(paint.paint(tone, &format!("{count} {word}")));
        }
    }
    let line = format!("{} tunnels: {}", tunnels.len(), parts.join(", "));
    // Those whose traffic waits; one that merely has none is no trouble.
    let troubled: Vec<Cow<'_, str>> = of(GateStatus::Held)
        .filter(|tunnel| tunnel.waiting_ms.is_some() || tunnel.last_error.is_some())
        .map(|tunnel| harmless(&tunnel.name))
        .collect();
    let named = match troubled.len() {
        0 => return line + "\n",
        count if count > NAMED_MAX => {
            format!(
                "{} and {} more",
                troubled[..NAMED_MAX].join(", "),
                count - NAMED_MAX
            )
        }
        _ => troubled.join(", "),
    };
    let trouble = figures::cut(
        &format!("trouble with {named}"),
        width.unwrap_or(usize::MAX),
    );
    format!("{line}\n{}\n", paint.paint(Tone::Waiting, &trouble))
}

#[cfg(test)]
mod tests;
