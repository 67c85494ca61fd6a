//! Makes one end of an ESP connection between two hosts by hand: an SA for each direction and the
//! policies that need them. Waits for a line on its input, then says what went through and takes
//! everything away again.
//!
//! ```text
//! cargo run --example tunnel -- LOCAL REMOTE INBOUND-SPI OUTBOUND-SPI
//! ```
//!
//! The other host runs the same with both pairs swapped. Needs CAP_NET_ADMIN. The key is part of
//! this file, so this protects nothing: real keys come from a key exchange, new ones for each SA.

use std::net::IpAddr;

use epochgate_xfrm::{
    Key, Op, Policy, PolicyDirection, Prefix, Protection, Reqid, Sa, SaId, Selector, Socket, Spi,
    Template,
};

const REQID: Reqid = Reqid(0x7003);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [local, remote, inbound, outbound] = arguments.as_slice() else {
        return Err("tunnel LOCAL REMOTE INBOUND-SPI OUTBOUND-SPI".into());
    };
    let (local, remote) = (local.parse()?, remote.parse()?);
    let (inbound, outbound) = (spi(inbound)?, spi(outbound)?);

    let inbound_sa = sa(remote, local, inbound);
    let outbound_sa = sa(local, remote, outbound);
    let policies = [
        policy(PolicyDirection::In, remote, local)?,
        policy(PolicyDirection::Out, local, remote)?,
    ];
    let mut socket = Socket::open()?;
    // In one send, in this order: a policy before its SA would drop packets.
    let all = [
        Op::AddSa(&inbound_sa),
        Op::AddSa(&outbound_sa),
        Op::AddPolicy(&policies[0]),
        Op::AddPolicy(&policies[1]),
    ];
    for result in socket.batch(&all) {
        result?;
    }
    println!("up");

    std::io::stdin().read_line(&mut String::new())?;
    for id in [SaId::esp(local, inbound), SaId::esp(remote, outbound)] {
        let entry = socket.sa(id)?;
        println!("{id}: {} packets", entry.usage.packets);
    }
    for policy in &policies {
        socket.delete_policy(&policy.id())?;
    }
    for id in [SaId::esp(local, inbound), SaId::esp(remote, outbound)] {
        socket.delete_sa(id)?;
    }
    println!("down");
    Ok(())
}

fn spi(text: &str) -> Result<Spi, Box<dyn std::error::Error>> {
    Ok(Spi::new(text.parse()?).ok_or("an SPI is not zero")?)
}

fn sa(source: IpAddr, destination: IpAddr, spi: Spi) -> Sa {
    let key = Key::new(vec![0x42; 36]); // AES-256 key and salt.
    Sa::esp_transport(source, destination, spi, REQID, Protection::aes_gcm_16(key))
}

fn policy(
    direction: PolicyDirection,
    source: IpAddr,
    destination: IpAddr,
) -> Result<Policy, Box<dyn std::error::Error>> {
    let packets = Selector::new(Prefix::host(source), Prefix::host(destination))?;
    let template = Template::esp_transport(source, REQID);
    Ok(Policy::protect(direction, packets, 1000, template))
}
