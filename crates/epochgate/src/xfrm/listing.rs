//! Lists of SAs and of policies: the other table is read into an index first, then every entry goes
//! from the kernel through the filter to the screen. No list is ever whole in memory.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use epochgate_xfrm::{DumpEnd, PolicyEntry, Prefix, SaEntry, SaFilter, Socket, SpdInfo};
use serde::Serialize;

use super::arguments::Show;
use super::filter::Filter;
use super::json::SCHEMA;
use super::partners::{PolicyIndex, SaWay, StateIndex};
use super::policy::{self, Rule};
use super::state::{self, State};
use super::surroundings::Surroundings;
use super::table::{Column, Row, Table};
use super::words;
use crate::failure::Failure;
use crate::terminal::{Paint, Screen, Tone, wrapped};

/// Lists the SAs.
pub(crate) fn states(
    show: Show,
    show_keys: bool,
    filter: &Filter,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut socket = Socket::open()?;
    let host = Surroundings::read();
    let mut policies = PolicyIndex::for_entries(count_of(&socket.spd_info()?));
    let indexed = socket.for_each_policy(|entry| {
        policies.add(&entry.policy);
        ControlFlow::Continue(())
    })?;
    let policies = policies.sorted();
    let mut view = View::new(show, "states", &state::COLUMNS, screen);
    let mut totals = StateTotals::default();
    let mut failure = None;
    let end = socket.for_each_sa(&kernel_filter(filter), |entry| {
        let written = state(
            &entry,
            &policies,
            &host,
            filter,
            show_keys,
            &mut totals,
            &mut view,
        );
        flow(written, &mut failure)
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    view.finish(&totals.sentence(policies.budget.was_exhausted()), &end)?;
    tell(&[("SAs", &end), ("policies", &indexed)]);
    Ok(())
}

fn state(
    entry: &SaEntry,
    policies: &PolicyIndex,
    host: &Surroundings,
    filter: &Filter,
    show_keys: bool,
    totals: &mut StateTotals,
    view: &mut View<'_>,
) -> Result<(), Failure> {
    let (way, leads) = state::partners(entry, policies, host);
    if !filter.takes_sa(&entry.sa, way) {
        return Ok(());
    }
    let state = State {
        entry,
        way,
        leads: &leads,
        host,
    };
    totals.add(&state);
    match view.show {
        Show { json: true, .. } => view.json(&state::json::StateJson::of(&state, show_keys)),
        Show { wide: true, .. } => {
            let text = state::wide(&state, show_keys, view.screen.width(), view.paint());
            view.screen.write(&text)
        }
        Show { .. } => view.row(|row| state::fill(row, &state)),
    }
}

/// Lists the policies.
pub(crate) fn policies(show: Show, filter: &Filter, screen: &mut Screen) -> Result<(), Failure> {
    let mut socket = Socket::open()?;
    let host = Surroundings::read();
    let mut states = StateIndex::for_entries(socket.sad_info()?.sas.into());
    let indexed = socket.for_each_sa(&SaFilter::ALL, |entry| {
        states.add(&entry, host.now, &host.addresses);
        ControlFlow::Continue(())
    })?;
    let states = states.sorted();
    let mut view = View::new(show, "policies", &policy::COLUMNS, screen);
    let mut totals = PolicyTotals::default();
    let mut failure = None;
    let end = socket.for_each_policy(|entry| {
        let written = rule(&entry, &states, &host, filter, &mut totals, &mut view);
        flow(written, &mut failure)
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    view.finish(&totals.sentence(states.budget.was_exhausted()), &end)?;
    tell(&[("policies", &end), ("SAs", &indexed)]);
    Ok(())
}

fn rule(
    entry: &PolicyEntry,
    states: &StateIndex,
    host: &Surroundings,
    filter: &Filter,
    totals: &mut PolicyTotals,
    view: &mut View<'_>,
) -> Result<(), Failure> {
    if !filter.takes_policy(&entry.policy) {
        return Ok(());
    }
    let outcomes = states.outcomes(&entry.policy);
    let rule = Rule {
        entry,
        outcomes: &outcomes,
        host,
    };
    totals.add(&rule);
    match view.show {
        Show { json: true, .. } => view.json(&policy::json::PolicyJson::of(&rule)),
        Show { wide: true, .. } => {
            let text = policy::wide(&rule, view.screen.width(), view.paint());
            view.screen.write(&text)
        }
        Show { .. } => view.row(|row| policy::fill(row, &rule)),
    }
}

/// The policies that may have templates.
fn count_of(spd: &SpdInfo) -> u64 {
    let counts = [spd.inbound, spd.outbound, spd.forward];
    counts.into_iter().map(u64::from).sum()
}

/// What the kernel can leave out by itself. It takes both prefixes of one family only.
fn kernel_filter(filter: &Filter) -> SaFilter {
    let is_v4 = |prefix: Prefix| prefix.address().is_ipv4();
    match (filter.source(), filter.destination()) {
        (Some(source), Some(destination)) if is_v4(source) != is_v4(destination) => SaFilter::ALL,
        (source, destination) => {
            let mut wanted = SaFilter::ALL;
            wanted.source = source;
            wanted.destination = destination;
            wanted
        }
    }
}

/// Goes on with a list as long as what is written arrives.
fn flow(written: Result<(), Failure>, failure: &mut Option<Failure>) -> ControlFlow<()> {
    match written {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *failure = Some(error);
            ControlFlow::Break(())
        }
    }
}

/// Says on standard error what the lists lack.
fn tell(lists: &[(&str, &DumpEnd)]) {
    let paint = Paint::for_stderr();
    for (what, end) in lists {
        for note in shortcomings(what, end) {
            let note = paint.paint(Tone::Waiting, &note);
            // Nobody is left to hear of a failure to say so.
            let _ = writeln!(io::stderr(), "{note}");
        }
    }
}

/// What a list lacks.
fn shortcomings(what: &str, end: &DumpEnd) -> Vec<String> {
    let mut notes = Vec::new();
    if end.changed {
        notes.push(format!(
            "note: the list of {what} changed while it was read; what came or went meanwhile may \
             be missing"
        ));
    }
    if end.unreadable > 0 {
        let why = end
            .first_unreadable
            .map(|error| format!(" (the first: {error})"));
        notes.push(format!(
            "note: {} could not be read{}; report this with the kernel's version (uname -r)",
            words::counted(
                end.unreadable,
                &format!("of the {what}"),
                &format!("of the {what}")
            ),
            why.unwrap_or_default()
        ));
    }
    notes
}

/// Where entries go: a table, text in full, or JSON.
struct View<'a> {
    show: Show,
    name: &'static str,
    table: Table,
    entries: u64,
    screen: &'a mut Screen,
}

impl<'a> View<'a> {
    fn new(
        show: Show,
        name: &'static str,
        columns: &'static [Column],
        screen: &'a mut Screen,
    ) -> Self {
        Self {
            show,
            name,
            table: Table::new(columns, screen.width(), screen.paint()),
            entries: 0,
            screen,
        }
    }

    fn paint(&self) -> Paint {
        self.screen.paint()
    }

    fn row(&mut self, fill: impl FnOnce(&mut Row)) -> Result<(), Failure> {
        self.screen.write(self.table.add(fill))
    }

    /// One entry a line, inside one object.
    fn json(&mut self, entry: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(entry).map_err(|_| Failure::Unexpected)?;
        match self.entries {
            0 => self.begin()?,
            _ => self.screen.write(",\n")?,
        }
        self.entries += 1;
        self.screen.write(&text)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let text = format!("{{\"schema\":{SCHEMA},\"{}\":[\n", self.name);
        self.screen.write(&text)
    }

    fn finish(mut self, totals: &str, end: &DumpEnd) -> Result<(), Failure> {
        if self.show.json {
            if self.entries == 0 {
                self.begin()?;
            }
            let text = format!(
                "\n],\"changed_while_read\":{},\"unreadable\":{}}}\n",
                end.changed, end.unreadable
            );
            return self.screen.write(&text);
        }
        self.screen.write(self.table.finish())?;
        let width = self.screen.width();
        self.screen.write(&fitted(totals, width))
    }
}

/// Sentences in lines that fit.
fn fitted(sentences: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return sentences.to_owned();
    };
    let lines = sentences
        .lines()
        .flat_map(|sentence| wrapped(sentence, width));
    lines.map(|line| line + "\n").collect()
}

/// What the last line of a list of SAs says.
#[derive(Debug, Default)]
struct StateTotals {
    all: u64,
    inbound: u64,
    outbound: u64,
    larval: u64,
    orphans: u64,
    refusing: u64,
    derived: bool,
}

impl StateTotals {
    fn add(&mut self, state: &State<'_>) {
        self.all += 1;
        match state.way {
            SaWay::In(_) => self.inbound += 1,
            SaWay::Out(_) => self.outbound += 1,
            SaWay::Unknown => {}
        }
        self.derived |= state.is_derived();
        self.larval += u64::from(state.is_larval());
        let is_orphan = state.leads.count() == 0 && !state.leads.incomplete;
        self.orphans += u64::from(is_orphan && !state.is_larval());
        self.refusing += u64::from(state.refused().is_some());
    }

    fn sentence(&self, exhausted: bool) -> String {
        if self.all == 0 {
            return "no SAs\n".to_owned();
        }
        let mut text = words::counted(self.all, "SA", "SAs");
        text.push_str(&format!(
            ": {} in, {} out",
            words::digits(self.inbound),
            words::digits(self.outbound)
        ));
        for (number, what) in [
            (self.larval, "larval"),
            (self.orphans, "without a policy"),
            (self.refusing, "refused packets"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {} {what}", words::digits(number)));
            }
        }
        text.push('\n');
        if self.derived {
            text.push_str("~ the kernel does not say it: derived from addresses or policies\n");
        }
        text + not_all(exhausted, "policies")
    }
}

/// What the last line of a list of policies says.
#[derive(Debug, Default)]
struct PolicyTotals {
    all: u64,
    protecting: u64,
    without: u64,
    blocking: u64,
}

impl PolicyTotals {
    fn add(&mut self, rule: &Rule<'_>) {
        self.all += 1;
        match rule.effect() {
            policy::Effect::Protect => self.protecting += 1,
            policy::Effect::Block => self.blocking += 1,
            policy::Effect::Clear => {}
        }
        self.without += u64::from(rule.lacks_an_sa());
    }

    fn sentence(&self, exhausted: bool) -> String {
        if self.all == 0 {
            return "no policies\n".to_owned();
        }
        let mut text = words::counted(self.all, "policy", "policies");
        text.push_str(&format!(": {} protect", words::digits(self.protecting)));
        for (number, what) in [(self.without, "without an SA"), (self.blocking, "block")] {
            if number > 0 {
                text.push_str(&format!(", {} {what}", words::digits(number)));
            }
        }
        text.push('\n');
        text + not_all(exhausted, "SAs")
    }
}

fn not_all(exhausted: bool, what: &str) -> &'static str {
    match (exhausted, what) {
        (false, _) => "",
        (true, "SAs") => "not all partners were looked for: too many SAs share a reqid\n",
        (true, _) => "not all partners were looked for: too many policies share a reqid\n",
    }
}

#[cfg(test)]
mod tests;
