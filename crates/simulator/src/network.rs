//! The way between the nodes: delay, and rules that lose, copy or hold up what they match.

use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::io::Spi;
use epochgate_ike_wire::ExchangeType;

use crate::packet::{Body, Frame};
use crate::random::Random;

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// Everything.
    Anything,
    /// IKE requests, of one exchange or of all.
    IkeRequest(Option<ExchangeType>),
    /// IKE responses, of one exchange or of all.
    IkeResponse(Option<ExchangeType>),
    /// All ESP.
    Esp,
    /// ESP with this SPI.
    EspOn(Spi),
    /// ESP with any SPI but these.
    EspExcept(Vec<Spi>),
    /// ESP that carries an echo request: a control ping.
    Ping,
}

impl Matching {
    fn fits(&self, frame: &Frame) -> bool {
        let ike = |wanted: &Option<ExchangeType>, response: bool| {
            frame.ike_header().is_some_and(|header| {
                header.flags.response == response
                    && wanted.is_none_or(|wanted| header.exchange == wanted)
            })
        };
        let esp = match frame {
            Frame::Esp { sa, inner, .. } => Some((sa.spi, inner.body)),
            Frame::Ike(_) | Frame::Keepalive { .. } | Frame::Clear(_) => None,
        };
        match self {
            Self::Anything => true,
            Self::IkeRequest(exchange) => ike(exchange, false),
            Self::IkeResponse(exchange) => ike(exchange, true),
            Self::Esp => esp.is_some(),
            Self::EspOn(spi) => esp.is_some_and(|(used, _)| used == *spi),
            Self::EspExcept(spared) => esp.is_some_and(|(used, _)| !spared.contains(&used)),
            Self::Ping => esp.is_some_and(|(_, body)| matches!(body, Body::EchoRequest(_))),
        }
    }
}

/// What happens to a frame that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is lost.
    Lose,
    /// It arrives twice, the second time this much later; once if no SA protects it.
    Copy(Duration),
    /// It arrives this much later.
    Delay(Duration),
}

/// Names a rule of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

/// A disturbance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Outer (IKE, ESP) or inner (clear) source; `None`: from anywhere. Of a host behind a NAT its
    /// own address fits as well as the NAT's: what is lost is lost beyond the NAT.
    pub from: Option<IpAddr>,
    /// Outer or inner destination; `None`: to anywhere. The own address of a host behind a NAT fits
    /// what the NAT has passed.
    pub to: Option<IpAddr>,
    /// What it matches.
    pub matching: Matching,
    /// What happens then.
    pub verdict: Verdict,
    /// In how many of 1000 cases.
    pub permille: u32,
    /// How often at most; `None`: as long as the rule stands.
    pub times: Option<u32>,
}

impl Rule {
    /// Loses all that matches.
    #[must_use]
    pub fn lose(from: Option<IpAddr>, matching: Matching) -> Self {
        Self {
            from,
            to: None,
            matching,
            verdict: Verdict::Lose,
            permille: 1000,
            times: None,
        }
    }

    /// The same, for the next `times` frames alone.
    #[must_use]
    pub fn next(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    /// One way.
    pub(crate) delay: Duration,
    /// Added to the delay, at most.
    pub(crate) jitter: Duration,
    pub(crate) rules: Vec<(RuleId, Rule)>,
    pub(crate) rules_made: usize,
    /// Whether frames always arrived in the order in which they left.
    pub(crate) in_order: bool,
}

impl Network {
    pub(crate) fn add(&mut self, rule: Rule) -> RuleId {
        match rule.verdict {
            Verdict::Lose => {}
            Verdict::Copy(_) | Verdict::Delay(_) => self.in_order = false,
        }
        let id = RuleId(self.rules_made);
        self.rules_made += 1;
        self.rules.push((id, rule));
        id
    }

    pub(crate) fn remove(&mut self, id: RuleId) {
        self.rules.retain(|(known, _)| *known != id);
    }

    /// When a frame arrives that leaves a site: never, once or twice. `inside` is its source before
    /// a NAT translated it.
    pub(crate) fn arrivals(
        &mut self,
        frame: &Frame,
        inside: Option<IpAddr>,
        now: Timestamp,
        random: &mut Random,
    ) -> Vec<Timestamp> {
        let jitter = random.between(Duration::ZERO, self.jitter.max(Duration::from_nanos(1)));
        let at = now + self.delay + jitter;
        let (source, destination) = (frame.source(), frame.destination());
        self.disturbed(frame, at, random, |rule| {
            rule.from
                .is_none_or(|from| from == source || Some(from) == inside)
                && rule.to.is_none_or(|to| to == destination)
        })
    }

    /// The same for one that a NAT has passed to the inside, where only what names its receiver
    /// disturbs it.
    pub(crate) fn arrivals_inside(
        &mut self,
        frame: &Frame,
        now: Timestamp,
        random: &mut Random,
    ) -> Vec<Timestamp> {
        let (source, destination) = (frame.source(), frame.destination());
        self.disturbed(frame, now, random, |rule| {
            rule.from.is_none_or(|from| from == source) && rule.to == Some(destination)
        })
    }

    fn disturbed(
        &mut self,
        frame: &Frame,
        mut at: Timestamp,
        random: &mut Random,
        concerns: impl Fn(&Rule) -> bool,
    ) -> Vec<Timestamp> {
        let mut copy = None;
        let mut lost = false;
        for (_, rule) in &mut self.rules {
            let fits = concerns(rule) && rule.matching.fits(frame);
            if rule.times == Some(0) || !fits || !random.chance(rule.permille) {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            match rule.verdict {
                Verdict::Lose => lost = true,
                // Nothing tells a copy of a packet that no SA protects: whoever gets it gets it twice.
                Verdict::Copy(_) if matches!(frame, Frame::Clear(_)) => {}
                Verdict::Copy(after) => copy = Some(at + after),
                Verdict::Delay(more) => at = at + more,
            }
        }
        if lost {
            return Vec::new();
        }
        std::iter::once(at).chain(copy).collect()
    }
}
