//! Routes with a preferred source for remote selectors, and what the routing table says of a
//! destination.
//!
//! A host that owns an address inside its local selectors must send from that address, or its
//! traffic misses the policies. Our routes carry a protocol number of their own
//! ([`ROUTE_PROTOCOL`]), so that leftovers of a crash are known; a route of somebody else's is
//! never replaced. Lookups (`RTM_GETROUTE`) meet no XFRM policy and send no packet.

mod message;

use std::collections::HashMap;
use std::net::IpAddr;

use epochgate_controller::io::{IfId, RouteSpec, Via};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Error, Handle};

pub use self::message::ROUTE_PROTOCOL;
use self::message::{NextHop, halves};
use crate::addresses;

/// Our routes, and the routing table's answers.
#[derive(Debug)]
pub struct Routes {
    handle: Handle,
    /// What was added, by destination as it stands in the table.
    installed: HashMap<IpNet, Installed>,
    /// What an earlier run left and no tunnel has asked for yet.
    leftovers: HashMap<IpNet, RouteMessage>,
}

#[derive(Debug)]
struct Installed {
    message: RouteMessage,
    source: Option<IpAddr>,
    via: Way,
    users: usize,
}

/// Where a route of ours leads.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Where packets to this outer address of a peer leave.
    Peer(IpAddr),
    /// The interface with this index.
    Interface(u32),
}

impl Routes {
    /// Remembers what an earlier run left. The handle is that of a socket with strict checks.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn open(handle: Handle) -> Result<Self, String> {
        let mut routes = Self {
            handle,
            installed: HashMap::new(),
            leftovers: HashMap::new(),
        };
        routes.leftovers = routes.present().await?;
        Ok(routes)
    }

    /// The address that this host would send to `destination` from.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn source_for(&self, destination: IpAddr) -> Result<IpAddr, String> {
        let route = self.outer_route(destination).await?;
        let source = match (message::preferred_source(&route), message::next_hop(&route)) {
            (Some(source), _) => Some(source),
            (None, Some(hop)) => self.source_at(hop).await,
            (None, None) => None,
        };
        source.ok_or_else(|| format!("this host has no address to send to {destination} from"))
    }

    /// Adds a route. A default route becomes two halves, so that the host's own one stays.
    ///
    /// # Errors
    /// A sentence that says what failed, and who else has such a route.
    ///
    /// `interfaces` tells the index of a tunnel's xfrm interface.
    pub async fn add(
        &mut self,
        route: RouteSpec,
        interfaces: impl FnOnce(IfId) -> Result<u32, String>,
    ) -> Result<(), String> {
        let way = match route.via {
            Via::Peer(peer) => Way::Peer(peer),
            Via::Interface(if_id) => Way::Interface(interfaces(if_id)?),
        };
        let hop = match way {
            Way::Peer(peer) => message::next_hop(&self.outer_route(peer).await?)
                .ok_or_else(|| format!("there is no route to the peer {peer}"))?,
            Way::Interface(interface) => direct(interface),
        };
        let mut added = Vec::new();
        for destination in halves(route.destination) {
            if let Err(error) = self.add_one(destination, route.source, way, hop).await {
                for destination in added {
                    // The first failure is the one to tell.
                    let _ = self.remove_one(destination).await;
                }
                return Err(error);
            }
            added.push(destination);
        }
        Ok(())
    }

    /// Takes a route away, once nobody uses it any more; one that is gone already counts as
    /// removed.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn remove(&mut self, route: RouteSpec) -> Result<(), String> {
        for destination in halves(route.destination) {
            self.remove_one(destination).await?;
        }
        Ok(())
    }

    /// Removes what an earlier run left and the configuration does not ask for any more.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn remove_leftovers(&mut self) -> Result<usize, String> {
        let leftovers = std::mem::take(&mut self.leftovers);
        let count = leftovers.len();
        for (destination, message) in leftovers {
            self.delete(destination, message).await?;
        }
        Ok(count)
    }

    /// Puts our routes back where the kernel has dropped them with their interface, and moves them
    /// when the way to the peer has changed. A peer without any route keeps the one that it had.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn refresh(&mut self) -> Result<(), String> {
        if self.installed.is_empty() {
            return Ok(());
        }
        let present = self.present().await?;
        for (destination, installed) in &self.installed {
            let hop = match installed.via {
                Way::Peer(peer) => match self.outer_route(peer).await {
                    Ok(route) => message::next_hop(&route),
                    Err(_) => None,
                },
                Way::Interface(interface) => Some(direct(interface)),
            };
            let Some(hop) = hop else {
                continue;
            };
            let message = message::route(*destination, installed.source, hop)?;
            let as_wanted = present
                .get(destination)
                .is_some_and(|route| message::is_as_wanted(route, &message));
            if !as_wanted {
                self.put(*destination, &message).await?;
            }
        }
        Ok(())
    }

    async fn add_one(
        &mut self,
        destination: IpNet,
        source: Option<IpAddr>,
        via: Way,
        hop: NextHop,
    ) -> Result<(), String> {
        if let Some(installed) = self.installed.get(&destination)
            && installed.source != source
        {
            let shown = |source: Option<IpAddr>| {
                source.map_or("none".to_owned(), |source| source.to_string())
            };
            return Err(format!(
                "another tunnel has one with source {}, this one wants {}",
                shown(installed.source),
                shown(source)
            ));
        }
        let message = message::route(destination, source, hop)?;
        if let Some(foreign) = self.foreign(destination).await? {
            return Err(format!(
                "there is one to {destination} already ({foreign}); remove it, or choose a policy \
                 template without routes{}",
                source.map_or_else(String::new, |source| {
                    format!(" and give it the preferred source {source}")
                })
            ));
        }
        // What is there already stays: see `put`.
        let leftover = self.leftovers.get(&destination);
        if !leftover.is_some_and(|route| message::is_as_wanted(route, &message)) {
            self.put(destination, &message).await?;
        }
        self.leftovers.remove(&destination);
        let users = self
            .installed
            .get(&destination)
            .map_or(0, |installed| installed.users);
        self.installed.insert(
            destination,
            Installed {
                message,
                source,
                via,
                users: users + 1,
            },
        );
        Ok(())
    }

    /// Adds a route in place of whatever of ours is there; nothing of anybody else's is.
    ///
    /// Not to be done without need: packets that the kernel holds keep the route by which they
    /// came. An IPv6 route that is replaced leads to the kernel's black hole, whose MTU is 68, and
    /// once the gate opens they leave as fragments of 64 octets.
    async fn put(&self, destination: IpNet, message: &RouteMessage) -> Result<(), String> {
        let request = self.handle.route().add(message.clone()).replace();
        request
            .execute()
            .await
            .map_err(|error| format!("cannot add one to {destination}: {}", text(&error)))
    }

    async fn remove_one(&mut self, destination: IpNet) -> Result<(), String> {
        let Some(installed) = self.installed.get_mut(&destination) else {
            return Ok(());
        };
        installed.users -= 1;
        if installed.users > 0 {
            return Ok(());
        }
        let message = installed.message.clone();
        self.installed.remove(&destination);
        self.delete(destination, message).await
    }

    async fn delete(&self, destination: IpNet, message: RouteMessage) -> Result<(), String> {
        match self.handle.route().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(error) if errno(&error) == Some(libc::ESRCH) => Ok(()),
            Err(error) => Err(format!(
                "cannot remove the one to {destination}: {}",
                text(&error)
            )),
        }
    }

    /// A route of somebody else's to exactly that destination, in the main table.
    ///
    /// Most often the entry that the kernel finds for the destination already tells that there is
    /// none; only else all routes are listed.
    async fn foreign(&self, destination: IpNet) -> Result<Option<String>, String> {
        let request = message::look_up_entry(destination.network());
        let mut answers = Box::pin(self.handle.route().get(request).execute());
        match answers.try_next().await {
            Ok(Some(entry)) if message::shows_no_other(&entry, destination) => return Ok(None),
            Err(error) if errno(&error) == Some(libc::ENETUNREACH) => return Ok(None),
            Ok(_) | Err(_) => {}
        }
        let routes = self.dump(message::everybodys()).await?;
        Ok(routes
            .iter()
            .find(|route| {
                !message::is_ours(route) && message::destination(route) == Some(destination)
            })
            .map(message::describe))
    }

    /// Our routes in the kernel, by destination.
    async fn present(&self) -> Result<HashMap<IpNet, RouteMessage>, String> {
        let routes = self.dump(message::ours()).await?;
        Ok(routes
            .into_iter()
            .filter(message::is_ours)
            .filter_map(|route| Some((message::destination(&route)?, route)))
            .collect())
    }

    /// Routes of the main table. The requests filter in the kernel, on a socket with strict checks.
    async fn dump(&self, requests: [RouteMessage; 2]) -> Result<Vec<RouteMessage>, String> {
        let mut routes = Vec::new();
        for request in requests {
            let mut answers = Box::pin(self.handle.route().get(request).execute());
            loop {
                match answers.try_next().await {
                    Ok(Some(route)) if message::in_main_table(&route) => routes.push(route),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // A kernel without IPv6.
                    Err(error) if errno(&error) == Some(libc::EAFNOSUPPORT) => break,
                    Err(error) => {
                        return Err(format!("cannot list the routes: {}", text(&error)));
                    }
                }
            }
        }
        Ok(routes)
    }

    /// How packets to a peer's outer address leave. Where a route of ours covers the peer itself
    /// (everything goes through the tunnel), the kernel's own answer would be that route, with an
    /// inner source: then the best one of the others in the main table is taken.
    async fn outer_route(&self, destination: IpAddr) -> Result<RouteMessage, String> {
        let mut ours = self.installed.keys().chain(self.leftovers.keys());
        if !ours.any(|network| network.contains(&destination)) {
            return self.look_up(destination).await;
        }
        let routes = self.dump(message::everybodys()).await?;
        message::best(&routes, destination)
            .cloned()
            .ok_or_else(|| format!("there is no route to {destination}"))
    }

    /// The address that packets by this next hop leave from, when the route names none: that for
    /// the gateway, or the first one of the interface.
    async fn source_at(&self, hop: NextHop) -> Option<IpAddr> {
        if let Some(gateway) = hop.gateway {
            let route = self.look_up(gateway).await.ok()?;
            return message::preferred_source(&route);
        }
        let request = self.handle.address().get();
        let mut answers = Box::pin(request.set_link_index_filter(hop.interface).execute());
        while let Ok(Some(address)) = answers.try_next().await {
            if let Some(address) = addresses::usable(&address) {
                return Some(address);
            }
        }
        None
    }

    async fn look_up(&self, destination: IpAddr) -> Result<RouteMessage, String> {
        let mut answers = Box::pin(
            self.handle
                .route()
                .get(message::look_up(destination))
                .execute(),
        );
        match answers.try_next().await {
            Ok(Some(route)) => Ok(route),
            Ok(None) => Err(format!("there is no route to {destination}")),
            Err(error) => Err(format!(
                "there is no route to {destination}: {}",
                text(&error)
            )),
        }
    }
}

/// The next hop of what is routed to an interface.
fn direct(interface: u32) -> NextHop {
    NextHop {
        interface,
        gateway: None,
    }
}

/// The error number, positive, if the kernel gave one.
pub(crate) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(error) => Some(error.raw_code().abs()),
        _ => None,
    }
}

/// What the kernel says, without netlink's wrapping.
pub(crate) fn text(error: &Error) -> String {
    match error {
        Error::NetlinkError(error) => error.to_io().to_string(),
        other => other.to_string(),
    }
}
