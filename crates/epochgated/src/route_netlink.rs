//! The route netlink socket (rtnetlink(7)), and what of the host is read and changed through it:
//! interfaces, routes, addresses.

use std::path::Path;

use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::kernel::Kernel;
use crate::route::Routes;
use crate::startup::StartError;
use crate::virtual_address::VirtualAddresses;

/// The open socket. Dropping it ends what is done through it.
#[derive(Debug)]
pub struct RouteNetlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl RouteNetlink {
    /// Opens the socket, with strict checks of what is asked; `kernel` makes its interfaces through
    /// it.
    ///
    /// # Errors
    /// [`StartError::System`], as socket(2) says.
    pub fn open(kernel: &mut Kernel) -> Result<Self, StartError> {
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(|error| StartError::System {
                action: "cannot open a route netlink socket",
                error,
            })?;
        kernel.use_links(handle.clone());
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// For others who use the socket.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Our routes and virtual addresses, with what an earlier run has left of them by now.
    ///
    /// # Errors
    /// [`StartError::Routing`] if they can't be listed.
    pub async fn tables(&self, state_dir: &Path) -> Result<(Routes, VirtualAddresses), StartError> {
        let routes = Routes::open(self.handle());
        let routes = routes.await.map_err(StartError::Routing)?;
        let addresses = VirtualAddresses::open(self.handle(), state_dir);
        let addresses = addresses.await.map_err(StartError::Routing)?;
        Ok((routes, addresses))
    }
}

impl Drop for RouteNetlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
