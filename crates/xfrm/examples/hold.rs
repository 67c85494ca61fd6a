//! Holds the packets of a selector in the kernel until there is an SA for them, and then lets all
//! of them go through it: none is lost and none leaves in clear.
//!
//! ```text
//! cargo run --example hold -- SOURCE DESTINATION
//! ```
//!
//! Needs CAP_NET_ADMIN, and `net.core.xfrm_larval_drop = 0` in the network namespace: else the
//! kernel drops what it should hold. The kernel holds 101 packets, and gives up on them after some
//! minutes.

use std::net::IpAddr;

use epochgate_xfrm::{
    EventGroup, EventSocket, Key, Policy, PolicyDirection, Prefix, Protection, Reqid, Sa, Selector,
    Socket, Spi, Template, XfrmEvent,
};

/// No SA ever has this reqid, so that what needs one waits.
const HOLD: Reqid = Reqid(0x7001);
const OPEN: Reqid = Reqid(0x7002);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<IpAddr> = std::env::args()
        .skip(1)
        .map(|it| it.parse())
        .collect::<Result<_, _>>()?;
    let [source, destination] = addresses.as_slice() else {
        return Err("hold SOURCE DESTINATION".into());
    };
    let (source, destination) = (*source, *destination);

    let mut socket = Socket::open()?;
    let mut events = EventSocket::open(&[EventGroup::Acquire])?;
    let packets = Selector::new(Prefix::host(source), Prefix::host(destination))?;
    let hold = Template::esp_tunnel(source, destination, HOLD);
    let mut policy = Policy::protect(PolicyDirection::Out, packets, 1000, hold);
    socket.update_policy(&policy)?;
    println!("holding {packets}");

    // The first packet that waits raises an ACQUIRE: time to agree on keys with the peer.
    let acquire = loop {
        match events.next(None)? {
            Some(XfrmEvent::Acquire(acquire)) if acquire.reqid() == Some(HOLD) => break acquire,
            Some(_) => {}
            None => return Err("the event socket has ended".into()),
        }
    };
    println!("a packet waits: {}", acquire.packet);

    let spi = Spi::new(0xc000_7001).ok_or("an SPI is not zero")?;
    let key = Key::new(vec![0x42; 20]); // From a key exchange.
    let sa = Sa::esp_tunnel(source, destination, spi, OPEN, Protection::aes_gcm_16(key));
    socket.add_sa(&sa)?;
    // The SA is there for certain now: only then the policy may name it.
    policy.templates = vec![Template::esp_tunnel(source, destination, OPEN).pinned_to(spi)];
    socket.update_policy(&policy)?;
    println!("open through {spi}");
    Ok(())
}
