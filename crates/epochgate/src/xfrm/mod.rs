//! `epochgate xfrm …`: what is in the kernel's IPsec, whoever made it, without a daemon.
//!
//! Data's way: crates/xfrm lists the SAD and SPD or hands out events → `filter` → each entry is
//! rendered (`state`, `policy`, `monitor`) as a row, in full or as JSON, with its partners from a
//! compact index of the other table (`partners`) → the `Screen`. Nothing here changes the kernel.

pub mod arguments;
mod facts;
mod filter;
#[cfg(test)]
mod fixtures;
mod json;
mod limits;
mod links;
mod listing;
mod monitor;
mod partners;
mod policy;
mod stat;
mod state;
mod surroundings;
mod table;
mod watch;
mod words;

use epochgate_controller::REQIDS;
use epochgate_xfrm::Reqid;

use self::arguments::XfrmCommand;
use self::filter::Filter;
use self::watch::Watch;
use crate::failure::Failure;
use crate::terminal::Screen;

/// Does what is asked and writes the answer.
pub(crate) fn run(command: &XfrmCommand, screen: &mut Screen) -> Result<(), Failure> {
    match command {
        XfrmCommand::State {
            show,
            show_keys,
            filter,
        } => listing::states(*show, *show_keys, &Filter::from(filter), screen),
        XfrmCommand::Policy { show, filter } => {
            listing::policies(*show, &Filter::from(filter), screen)
        }
        XfrmCommand::Stat {
            all,
            json,
            watch,
            count,
        } => watch::stat(*all, *json, *watch, *count, screen),
        XfrmCommand::Monitor {
            json,
            show_keys,
            group,
            aevents,
            count,
            duration,
            filter,
        } => {
            let watch = Watch {
                groups: monitor::groups(group, *aevents),
                filter: Filter::from(filter),
                json: *json,
                show_keys: *show_keys,
                count: *count,
                duration: *duration,
            };
            watch::events(&watch, screen)
        }
    }
}

/// A reqid that epochgate chooses.
fn ours(reqid: Reqid) -> bool {
    REQIDS.contains(&reqid.0)
}
