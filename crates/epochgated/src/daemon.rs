//! The daemon from start to end: checks, opens everything, runs the shell, puts back.

use std::process::ExitCode;
use std::sync::Arc;

use epochgate_controller::Controller;
use epochgate_controller::config::Config;
use epochgate_controller::crypto::Crypto;
use epochgate_crypto::Ring;
use tokio::sync::mpsc;

use crate::addresses::Addresses;
use crate::cli::Arguments;
use crate::control::ControlServer;
use crate::feed::Feed;
use crate::kernel::Kernel;
use crate::leftovers;
use crate::log;
use crate::ping::Pinger;
use crate::route_netlink::RouteNetlink;
use crate::settings::Settings;
use crate::shell::{Hands, Shell, Sources};
use crate::startup::{self, Lock, StartError};
use crate::sysctl::LarvalDrop;
use crate::udp::IkeSockets;

/// Something failed at run time.
const FAILED: u8 = 1;
/// The configuration is wrong; the same number as clap's for a wrong command line.
const WRONG_CONFIGURATION: u8 = 2;
/// Changes of the host's addresses and routes that wait for the shell.
const ADDRESSES_WAITING_MAX: usize = 1;

/// Does what the command line says and tells how it ended.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    main_with(arguments, Arc::new(Ring::new()))
}

/// The same with another provider of cryptography, which also draws SPIs: for tests that need
/// chosen ones.
#[must_use]
pub fn main_with(arguments: &Arguments, crypto: Arc<dyn Crypto>) -> ExitCode {
    if arguments.remove_leftovers {
        return leftovers::main(arguments);
    }
    let (settings, config) = match Settings::load(arguments) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    if arguments.check {
        println!(
            "{}: no mistakes, {} tunnels",
            arguments.config.display(),
            config.tunnels.len()
        );
        return ExitCode::SUCCESS;
    }
    let feed = Feed::new();
    log::start(arguments.log_format, settings.daemon.log, feed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(settings, config, crypto, feed)),
        Err(error) => Err(StartError::System {
            action: "cannot start",
            error,
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(FAILED)
        }
    }
}

async fn run(
    settings: Settings,
    config: Config,
    crypto: Arc<dyn Crypto>,
    feed: Feed,
) -> Result<(), StartError> {
    startup::check_capabilities()?;
    let lock = Lock::take(&settings.daemon.state_dir)?;
    let mut kernel = Kernel::open().map_err(startup::explain_kernel)?;
    kernel.probe_esp().await.map_err(startup::explain_kernel)?;
    let sockets = IkeSockets::open().map_err(startup::explain)?;
    let pinger = Pinger::open().map_err(StartError::Ping)?;

    let netlink = RouteNetlink::open(&mut kernel)?;
    let (routes, virtual_addresses) = netlink.tables(&settings.daemon.state_dir).await?;
    let addresses = Addresses::watch(netlink.handle()).map_err(|error| StartError::System {
        action: "cannot watch the host's addresses",
        error,
    })?;
    let owned = addresses.now().await.map_err(StartError::Routing)?;
    let (sender, receiver) = mpsc::channel(ADDRESSES_WAITING_MAX);
    let watching = tokio::spawn(addresses.tell(sender));
    let socket = &settings.daemon.socket;
    let control = ControlServer::listen(socket, feed).map_err(|error| StartError::Control {
        socket: socket.clone(),
        error,
    })?;

    let larval_drop = LarvalDrop::queue_packets(&settings.daemon.state_dir)?;
    let hands = Hands {
        kernel,
        sockets,
        pinger,
        routes,
        virtual_addresses,
    };
    let controller = controller(crypto);
    let mut shell = Shell::new(controller, settings, hands);
    let sources = Sources {
        control,
        addresses: receiver,
    };
    let outcome = shell.run(config, owned, sources).await;
    if let Err(error) = larval_drop.restore() {
        tracing::warn!("{error}");
    }
    watching.abort();
    drop(netlink);
    drop(lock);
    outcome.map_err(|error| StartError::System {
        action: "the daemon cannot go on",
        error,
    })
}

#[cfg(not(feature = "ungated"))]
fn controller(crypto: Arc<dyn Crypto>) -> Controller {
    Controller::new(crypto)
}

#[cfg(feature = "ungated")]
fn controller(crypto: Arc<dyn Crypto>) -> Controller {
    tracing::warn!("this build has no gate: it is for comparison, and proves no path");
    Controller::ungated(crypto)
}
