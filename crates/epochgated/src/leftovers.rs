//! `epochgated --remove-leftovers`: takes away all that earlier runs have left on this host, so that
//! nothing of epochgate's outlives its removal.
//!
//! A daemon that stopped leaves policies that hold (`on-stop = "block"`); one that was killed leaves
//! SAs, routes, addresses and a kernel setting too. What is ours is recognised as a daemon that
//! starts recognises it; nothing of anybody else's is touched. The lock of the state directory keeps
//! a running daemon from losing what it uses.

use std::fmt;
use std::io;
use std::process::ExitCode;

use epochgate_config::DaemonSettings;

use crate::cli::Arguments;
use crate::kernel::Kernel;
use crate::route_netlink::RouteNetlink;
use crate::settings::Settings;
use crate::startup::{Lock, StartError};
use crate::sysctl::LarvalDrop;

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// SAs, larval ones among them.
    pub sas: usize,
    /// Policies, exemptions among them.
    pub policies: usize,
    /// xfrm interfaces.
    pub interfaces: usize,
    /// Routes, but those that went with their interfaces.
    pub routes: usize,
    /// Virtual addresses.
    pub addresses: usize,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sas,
            policies,
            interfaces,
            routes,
            addresses,
        } = self;
        write!(
            f,
            "removed what epochgated had left: policies {policies}, SAs {sas}, routes {routes}, \
             interfaces {interfaces}, addresses {addresses}"
        )
    }
}

/// Does it, and says what was done.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let daemon = match Settings::load(arguments) {
        Ok((settings, _)) => settings.daemon,
        // A configuration with mistakes, or none any more, must not keep anything here.
        Err(error) => {
            eprintln!("{error}\nlooking for what is left in the places where it is by default");
            default_places(arguments)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(remove(&daemon)),
        Err(error) => Err(StartError::System {
            action: "cannot start",
            error,
        }),
    };
    match outcome {
        Ok(removed) => {
            println!("{removed}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Where a daemon keeps its things unless its configuration says otherwise.
fn default_places(arguments: &Arguments) -> DaemonSettings {
    let mut daemon = DaemonSettings::default();
    if let Some(state) = &arguments.state {
        daemon.state_dir.clone_from(state);
    }
    if let Some(socket) = &arguments.socket {
        daemon.socket.clone_from(socket);
    }
    daemon
}

/// Removes SAs, policies, interfaces, routes and addresses of ours from this network namespace, and
/// puts `net.core.xfrm_larval_drop` back. A kernel without XFRM has none of them.
///
/// # Errors
/// [`StartError::Running`] if a daemon has the state directory; else what failed. What could be
/// removed is gone then, and doing it again goes on.
pub async fn remove(daemon: &DaemonSettings) -> Result<Removed, StartError> {
    let lock = Lock::take(&daemon.state_dir)?;
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) if error.is_unsupported() => return Ok(Removed::default()),
        Err(error) => return Err(StartError::Xfrm(error)),
    };
    let netlink = RouteNetlink::open(&mut kernel)?;
    let in_kernel = kernel.remove_ours().await.map_err(StartError::Leftovers)?;
    // Only now: routes have gone with their interfaces.
    let (mut routes, mut addresses) = netlink.tables(&daemon.state_dir).await?;
    let routes = routes
        .remove_leftovers()
        .await
        .map_err(|error| StartError::Routing(format!("a route is left: {error}")))?;
    let own = addresses.own();
    for address in &own {
        let outcome = addresses.remove(address).await;
        outcome.map_err(|error| {
            StartError::Routing(format!(
                "cannot remove address {}: {error}",
                address.address
            ))
        })?;
    }
    LarvalDrop::of_earlier_run(&daemon.state_dir).restore()?;
    match std::fs::remove_file(&daemon.socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StartError::Control {
                socket: daemon.socket.clone(),
                error,
            });
        }
        Ok(()) | Err(_) => {}
    }
    drop(lock);
    Ok(Removed {
        routes,
        addresses: own.len(),
        ..in_kernel
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_daemon_keeps_what_it_has() {
        let directory = tempfile::tempdir().expect("directory");
        let daemon = DaemonSettings {
            state_dir: directory.path().to_owned(),
            ..DaemonSettings::default()
        };
        let _running = Lock::take(directory.path()).expect("free");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let refused = runtime.block_on(remove(&daemon)).expect_err("it runs");
        assert!(matches!(refused, StartError::Running { .. }), "{refused}");
    }
}
