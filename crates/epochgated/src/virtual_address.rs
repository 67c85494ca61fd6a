//! The virtual addresses that servers assign to this host's clients, and the files that tell of their
//! DNS servers.
//!
//! Our addresses carry a protocol number of their own ([`ADDRESS_PROTOCOL`], IFA_PROTO), so that
//! what a crash left is known; an address of somebody else's is never touched. Kernels before 5.18
//! do not keep the number: there a crash's leftovers stay.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use epochgate_controller::io::{AddressSpec, ResolverSpec};
use futures_util::TryStreamExt;
use nix::net::if_::{if_indextoname, if_nametoindex};
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol,
};

use crate::addresses;
use crate::route::{errno, text};

/// Protocol of the addresses that we add (IFA_PROTO), which recent versions of `ip address` show. The
/// same number as our routes have.
pub const ADDRESS_PROTOCOL: u8 = crate::route::ROUTE_PROTOCOL;

/// End of the names of the files about DNS servers.
const RESOLVER_FILE: &str = ".resolv.conf";

/// Our addresses.
#[derive(Debug)]
pub struct VirtualAddresses {
    handle: Handle,
    directory: PathBuf,
    /// What was added or taken over from an earlier run.
    own: BTreeSet<AddressSpec>,
}

impl VirtualAddresses {
    /// Finds what an earlier run left on the host. What it left in `directory`, where files about
    /// DNS servers go, is removed: it holds no longer.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn open(handle: Handle, directory: &Path) -> Result<Self, String> {
        remove_resolver_files(directory);
        let mut own = BTreeSet::new();
        let mut answers = Box::pin(handle.address().get().execute());
        loop {
            match answers.try_next().await {
                Ok(Some(message)) => own.extend(ours(&message)),
                Ok(None) => break,
                Err(error) => return Err(format!("cannot list the addresses: {}", text(&error))),
            }
        }
        drop(answers);
        Ok(Self {
            handle,
            directory: directory.to_owned(),
            own,
        })
    }

    /// Ours that are on the host.
    #[must_use]
    pub fn own(&self) -> Vec<AddressSpec> {
        self.own.iter().cloned().collect()
    }

    /// All addresses of the host, as [`crate::addresses`] tells them.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn all(&self) -> Result<Vec<IpAddr>, String> {
        Ok(addresses::read(&self.handle).await?.into_iter().collect())
    }

    /// Puts an address on its interface.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn add(&mut self, spec: AddressSpec) -> Result<(), String> {
        if self.own.contains(&spec) {
            return Ok(());
        }
        let index = interface(&spec)?;
        let request = self.handle.address();
        let mut request = request.add(index, spec.address, host_prefix(spec.address));
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::from(
            ADDRESS_PROTOCOL,
        )));
        if spec.address.is_ipv6() {
            // The server alone gives it away: there is nobody on the link to ask (RFC 4862 §5.4).
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Ok(()) => {
                self.own.insert(spec);
                Ok(())
            }
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                Err("it is there already, and not ours".to_owned())
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// Takes an address of ours away; one that is gone already counts as removed.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub async fn remove(&mut self, spec: &AddressSpec) -> Result<(), String> {
        if !self.own.remove(spec) {
            return Ok(());
        }
        let Ok(index) = interface(spec) else {
            // It went with its interface.
            return Ok(());
        };
        let request = self.handle.address();
        let mut add = request.add(index, spec.address, host_prefix(spec.address));
        let message = add.message_mut().clone();
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => Ok(()),
            Err(error) => Err(text(&error)),
        }
    }

    /// Writes what a server told of name resolution, in the form of resolv.conf(5); without DNS
    /// servers, removes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn tell_resolver(&self, spec: &ResolverSpec) -> io::Result<()> {
        let file = self
            .directory
            .join(format!("{}{RESOLVER_FILE}", spec.tunnel));
        if spec.dns.is_empty() {
            return match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        // Readers see the old file or the new one, whole.
        let new = file.with_extension("new");
        std::fs::write(&new, resolver_text(spec))?;
        std::fs::rename(&new, &file)
    }
}

fn resolver_text(spec: &ResolverSpec) -> String {
    let mut text = format!(
        "# Told by the server of epochgate tunnel {}.\n",
        spec.tunnel
    );
    if !spec.domains.is_empty() {
        text.push_str(&format!("search {}\n", spec.domains.join(" ")));
    }
    for server in &spec.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// Files of an earlier run; what cannot be removed does no harm.
fn remove_resolver_files(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(RESOLVER_FILE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn interface(spec: &AddressSpec) -> Result<u32, String> {
    if_nametoindex(&*spec.interface)
        .map_err(|error| format!("interface {}: {}", spec.interface, error.desc()))
}

/// The address, if it is one of ours.
fn ours(message: &AddressMessage) -> Option<AddressSpec> {
    let protocol = AddressProtocol::from(ADDRESS_PROTOCOL);
    let mut is_ours = false;
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Protocol(value) => is_ours = *value == protocol,
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            _ => {}
        }
    }
    let name = if_indextoname(message.header.index).ok()?;
    let found = AddressSpec {
        address: local.or(address)?,
        interface: Arc::from(name.to_str().ok()?),
    };
    is_ours.then_some(found)
}

#[cfg(test)]
mod tests {
    use epochgate_controller::config::TunnelName;

    use super::*;

    fn spec(dns: &[&str]) -> ResolverSpec {
        ResolverSpec {
            tunnel: TunnelName("laptop".into()),
            dns: dns.iter().map(|it| it.parse().expect("address")).collect(),
            domains: vec!["hq.example".into(), "lab.example".into()],
        }
    }

    #[test]
    fn a_resolver_file_has_the_form_of_resolv_conf() {
        assert_eq!(
            resolver_text(&spec(&["10.2.0.53", "2001:db8::53"])),
            "# Told by the server of epochgate tunnel laptop.\n\
             search hq.example lab.example\n\
             nameserver 10.2.0.53\n\
             nameserver 2001:db8::53\n"
        );
    }

    #[test]
    fn only_an_address_with_our_protocol_number_is_ours() {
        let mut message = AddressMessage::default();
        message.header.index = 1;
        let address: IpAddr = "10.99.0.7".parse().expect("address");
        message.attributes = vec![AddressAttribute::Local(address)];
        assert_eq!(ours(&message), None);
        message
            .attributes
            .push(AddressAttribute::Protocol(ADDRESS_PROTOCOL.into()));
        let found = ours(&message).map(|it| it.address);
        assert_eq!(found, Some(address));
    }
}
