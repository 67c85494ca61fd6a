//! One IP version inside the other, whatever is outside.

use std::net::IpAddr;

use epochgate_simulator::pair::{CLIENT_OUTER, Plan, SERVER_OUTER};

use crate::{MILLISECOND, Outcome, SECOND, crypto};

const INSIDE: [(&str, &str); 2] = [("10.1.0.1", "10.2.0.1"), ("2001:db8:a::1", "2001:db8:b::1")];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Both IP versions inside, between these outer addresses.
fn plan(client: IpAddr, server: IpAddr) -> Plan {
    let mut plan = Plan::default();
    let nets = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
    plan.client.local.address = Some(client);
    plan.client.remote.address = Some(server);
    plan.server.local.address = Some(server);
    plan.client.local_traffic = nets(["10.1.0.0/16", "2001:db8:a::/64"]);
    plan.client.remote_traffic = nets(["10.2.0.0/16", "2001:db8:b::/64"]);
    plan.server.local_traffic = plan.client.remote_traffic.clone();
    plan.server.remote_traffic = plan.client.local_traffic.clone();
    plan.client_inner = INSIDE.map(|(client, _)| address(client)).to_vec();
    plan.server_inner = INSIDE.map(|(_, server)| address(server)).to_vec();
    plan
}

#[test]
fn both_ip_versions_wait_and_switch_together_inside_either() -> Outcome {
    let over_v6 = (address("2001:db8:1::2"), address("2001:db8:2::1"));
    for (seed, (client, server)) in [(921, over_v6), (922, (CLIENT_OUTER, SERVER_OUTER))] {
        let mut pair = plan(client, server).start(seed, crypto())?;
        let mut flows = Vec::new();
        for (client, server) in INSIDE {
            let (client, server) = (address(client), address(server));
            let up = pair
                .world
                .flow(pair.client, client, server, 10 * MILLISECOND);
            let down = pair
                .world
                .flow(pair.server, server, client, 10 * MILLISECOND);
            flows.extend([up, down]);
        }
        pair.await_open(2 * SECOND)?;
        let open = pair.open_epoch(pair.client).unwrap();
        pair.rekey(pair.client);
        pair.await_newer(open, 2 * SECOND)?;
        for flow in &flows {
            pair.world.stop_flow(*flow);
        }
        pair.world.run_for(SECOND)?;
        for flow in flows {
            let account = pair.world.account(flow);
            assert!(account.delivered > 20, "{account:?}");
            assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
        }
    }
    Ok(())
}
