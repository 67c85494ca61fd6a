//! What can be typed behind `epochgate xfrm`. Filters are read here and applied by `filter`.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use epochgate_config::parse_duration;
use epochgate_xfrm::{Mark, Prefix};

/// Longest `--for` and `--watch`.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Shortest `--watch`: more often a reader can't follow.
const WATCH_MIN: Duration = Duration::from_millis(100);

/// What to look at in the kernel.
#[derive(Debug, Subcommand)]
pub enum XfrmCommand {
    /// List the SAs (the SAD), whoever made them, each with the policies that lead to it.
    #[command(visible_alias = "states", visible_alias = "sa")]
    State {
        #[command(flatten)]
        /// How much to show.
        show: Show,
        /// Show the keys too. Everybody who sees the screen can then read the traffic.
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        /// Which ones.
        filter: FilterArguments,
    },
    /// List the policies (the SPD), whoever made them, each with the SAs that it would use now.
    #[command(visible_alias = "policies")]
    Policy {
        #[command(flatten)]
        /// How much to show.
        show: Show,
        #[command(flatten)]
        /// Which ones.
        filter: FilterArguments,
    },
    /// Explain the kernel's IPsec counters (/proc/net/xfrm_stat): what each one means, what the
    /// likely cause is, and what to do.
    #[command(visible_alias = "stats")]
    Stat {
        /// Show the counters that are zero, too.
        #[arg(long)]
        all: bool,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Go on: show again every INTERVAL what has grown, with rates.
        #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = interval)]
        watch: Option<Duration>,
        /// With --watch: end after so many intervals.
        #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Say in words what happens in the kernel's IPsec, as it happens.
    ///
    /// While this runs, the kernel has somebody to ask for SAs: each packet that finds none makes a
    /// larval SA, as with any key daemon. Leave out the group `acquire` to watch without that.
    Monitor {
        /// One JSON object a line, for programs.
        #[arg(long)]
        json: bool,
        /// Show the keys of SAs in the JSON too.
        #[arg(long, requires = "json")]
        show_keys: bool,
        /// Only these groups of events.
        #[arg(long, value_name = "GROUP", value_delimiter = ',', value_enum)]
        group: Vec<Group>,
        /// Also what SAs tell of their traffic. Every SA of everybody then sends an event every 2
        /// packets: on a busy host this is slow for all.
        #[arg(long)]
        aevents: bool,
        /// End after so many events.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// End after this time.
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        duration: Option<Duration>,
        #[command(flatten)]
        /// Which ones.
        filter: FilterArguments,
    },
}

/// How much to show of each entry.
#[derive(Clone, Copy, Debug, Args)]
pub struct Show {
    /// Every attribute, several lines for each.
    #[arg(long, short, conflicts_with = "json")]
    pub wide: bool,
    /// As JSON, for programs: every attribute.
    #[arg(long)]
    pub json: bool,
}

/// Which entries to show; all that are given must fit.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArguments {
    /// Outer source in this prefix (policies: that of a template, or the selector's).
    #[arg(long, value_name = "PREFIX")]
    pub src: Option<Prefix>,
    /// Outer destination in this prefix (policies: that of a template, or the selector's).
    #[arg(long, value_name = "PREFIX")]
    pub dst: Option<Prefix>,
    /// SPI (policies: pinned by a template), decimal or 0x….
    #[arg(long, value_name = "SPI", value_parser = number)]
    pub spi: Option<u32>,
    /// Reqid (policies: of a template), decimal or 0x….
    #[arg(long, value_name = "REQID", value_parser = number)]
    pub reqid: Option<u32>,
    /// Mark: this value, among the bits of MASK if there is one.
    #[arg(long, value_name = "VALUE[/MASK]", value_parser = mark)]
    pub mark: Option<Mark>,
    /// xfrm interface ID, decimal or 0x….
    #[arg(long, value_name = "ID", value_parser = number)]
    pub if_id: Option<u32>,
    /// Direction; of SAs the kernel's word or, where it has none, what addresses and policies say.
    #[arg(long, value_name = "DIR", value_enum)]
    pub dir: Option<Direction>,
}

/// A direction to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Packets that come in.
    In,
    /// Packets that go out.
    Out,
    /// Packets that are forwarded (policies only).
    Fwd,
}

/// A group of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Packets that find no SA.
    Acquire,
    /// SAs and policies at their limits.
    Expire,
    /// SAs added, updated, deleted.
    Sa,
    /// Policies added, updated, deleted.
    Policy,
    /// NAT mappings that changed.
    Mapping,
    /// SAs and policies moved to other addresses.
    Migrate,
    /// Mobile IPv6 reports.
    Report,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Fwd => "fwd",
        })
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a number of 32 bits is wanted, decimal or 0x…".to_owned())
}

fn mark(text: &str) -> Result<Mark, String> {
    match text.split_once('/') {
        None => Ok(Mark::exactly(number(text)?)),
        Some((value, mask)) => Ok(Mark {
            value: number(value)?,
            mask: number(mask)?,
        }),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero() && *duration <= TIME_MAX)
        .ok_or_else(|| "a number and a unit are wanted, at most 7 days: 500ms, 30s, 2m".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = time(text)?;
    if duration < WATCH_MIN {
        return Err("at least 100ms".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("4294967295"), Ok(u32::MAX));
        assert_eq!(number("0xc0FFee"), Ok(0x00c0_ffee));
        assert!(number("c0ffee").is_err());
        assert!(number("0x").is_err());
        assert!(number("4294967296").is_err());
    }

    #[test]
    fn a_mark_without_a_mask_is_compared_whole() {
        assert_eq!(mark("0x10"), Ok(Mark::exactly(0x10)));
        let masked = Mark {
            value: 16,
            mask: 0xff,
        };
        assert_eq!(mark("16/0xff"), Ok(masked));
        assert!(mark("1/").is_err());
    }

    #[test]
    fn an_interval_can_be_followed_by_eye() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert!(interval("10ms").is_err());
        assert!(interval("2").is_err());
    }
}
