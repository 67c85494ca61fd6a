//! The table at the end: what was sent, and what became of it.

use epochgate_integration::topology::{CLIENT_NET, SERVER_NET};
use epochgate_integration::{Account, KeyLog, Record, Selectors, Trace, audit};
use serde_json::json;

/// One act's traffic.
pub(crate) struct Row {
    name: &'static str,
    sent: usize,
    delivered: usize,
    duplicated: usize,
    lost: usize,
    /// Lost by a network that was told to lose them, before anybody could know.
    excused: usize,
}

impl Row {
    pub(crate) fn new(name: &'static str, accounts: &[Account]) -> Self {
        let sum = |count: fn(&Account) -> usize| accounts.iter().map(count).sum();
        Self {
            name,
            sent: sum(|account| account.sent.len() + account.refused.len()),
            delivered: sum(Account::delivered),
            duplicated: sum(Account::duplicated),
            lost: sum(|account| account.lost().len() + account.refused.len()),
            excused: 0,
        }
    }

    /// That many of the lost ones the network took before it was known to be broken.
    pub(crate) fn excuse(mut self, packets: usize) -> Self {
        self.excused = packets;
        self.lost = self.lost.saturating_sub(packets);
        self
    }
}

/// All acts, and what the captures say of all of them.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    in_clear: usize,
    unproven: usize,
    violations: Vec<String>,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Judges everything that was on the wire, on the client's side and on the server's.
    pub(crate) fn judge(
        &mut self,
        client_wire: Vec<Record>,
        server_wire: Vec<Record>,
        client_keys: &KeyLog,
        server_keys: &KeyLog,
    ) {
        let protected = Selectors::new(CLIENT_NET, SERVER_NET);
        let client = Trace::of(client_wire, client_keys);
        let server = Trace::of(server_wire, server_keys);
        let server_address = epochgate_integration::topology::SERVER;
        let pairs = server_address
            .parse()
            .map(|address| server_keys.pairs(address));
        for trace in [&client, &server] {
            if let Err(violation) = audit::nothing_in_clear(trace, &protected) {
                self.in_clear += 1;
                self.violations.push(violation.to_string());
            }
        }
        let judged = [
            audit::nothing_before_proof(&client).map(|epochs| epochs.len()),
            audit::server_waits_and_parts(&server, &pairs.unwrap_or_default()),
        ];
        for result in judged {
            match result {
                Ok(epochs) => println!("\n   judged on the wire: {epochs} epochs carried traffic"),
                Err(violation) => {
                    self.unproven += 1;
                    self.violations.push(violation.to_string());
                }
            }
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        let whole = self
            .rows
            .iter()
            .all(|row| row.lost == 0 && row.duplicated == 0);
        whole && self.in_clear == 0 && self.unproven == 0
    }

    pub(crate) fn print(&self, json: bool) {
        println!(
            "\n   {:<16}{:>9}{:>11}{:>7}{:>14}",
            "", "sent", "delivered", "lost", "lost in hole*"
        );
        for row in &self.rows {
            println!(
                "   {:<16}{:>9}{:>11}{:>7}{:>14}",
                row.name, row.sent, row.delivered, row.lost, row.excused
            );
        }
        println!(
            "\n   in clear: {}      sent on an unproven epoch: {}\n\
             \x20  * between the moment the router began to drop ESP and the moment the client noticed",
            self.in_clear, self.unproven
        );
        for violation in &self.violations {
            println!("   VIOLATION: {violation}");
        }
        if json {
            println!("{}", self.json());
        }
    }

    fn json(&self) -> serde_json::Value {
        let sum = |count: fn(&Row) -> usize| self.rows.iter().map(count).sum::<usize>();
        json!({
            "sent": sum(|row| row.sent),
            "delivered": sum(|row| row.delivered),
            "lost": sum(|row| row.lost),
            "in_clear": self.in_clear,
            "unproven": self.unproven,
            "lost_while_blocked": sum(|row| row.excused),
            "duplicated": sum(|row| row.duplicated),
            "acts": self.rows.iter().map(|row| json!({
                "name": row.name,
                "sent": row.sent,
                "delivered": row.delivered,
                "lost": row.lost,
                "lost_while_blocked": row.excused,
            })).collect::<Vec<_>>(),
        })
    }
}
