//! What the doctor says about one thing, and about all of them.

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Good,
    /// A tunnel works, and something else will surprise somebody.
    Warn,
    /// It could not be found out.
    Unknown,
    /// It prevents a tunnel, or takes its protection away.
    Bad,
}

/// What it is about. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topic {
    Configuration,
    Kernel,
    Privileges,
    Ports,
    Settings,
    Firewall,
    Path,
    Policies,
    Daemon,
}

impl Topic {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Kernel => "Kernel",
            Self::Privileges => "Privileges",
            Self::Ports => "Ports and key daemons",
            Self::Settings => "Kernel settings",
            Self::Firewall => "Firewall",
            Self::Path => "Path to the peers",
            Self::Policies => "Policies of others",
            Self::Daemon => "Daemon",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) topic: Topic,
    /// A name that stays, for programs.
    pub(crate) check: &'static str,
    /// The tunnel that it is about; none: the whole host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    pub(crate) verdict: Verdict,
    /// Whether a tunnel can't be judged without it.
    pub(crate) essential: bool,
    /// One sentence: what was found.
    pub(crate) summary: String,
    /// What it means, and how it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// Commands or sentences: what to do, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cure: Vec<String>,
}

impl Finding {
    pub(crate) fn new(
        topic: Topic,
        check: &'static str,
        verdict: Verdict,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            topic,
            check,
            tunnel: None,
            verdict,
            essential: false,
            summary: summary.into(),
            detail: None,
            cure: Vec::new(),
        }
    }

    pub(crate) fn of(mut self, tunnel: impl ToString) -> Self {
        self.tunnel = Some(tunnel.to_string());
        self
    }

    /// Without an answer here nobody can say whether a tunnel works.
    pub(crate) fn essential(mut self) -> Self {
        self.essential = true;
        self
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure.push(cure.into());
        self
    }
}

/// The whole: whether a tunnel can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Nothing prevents it.
    CanWork,
    /// Something prevents it.
    CannotWork,
    /// The configuration has mistakes.
    Mistakes,
    /// Something essential could not be found out.
    Unknown,
}

impl Outcome {
    pub(crate) fn of(findings: &[Finding]) -> Self {
        let is_bad = |finding: &&Finding| finding.verdict == Verdict::Bad;
        let bad = findings.iter().filter(is_bad);
        if bad.clone().any(|f| f.topic == Topic::Configuration) {
            Self::Mistakes
        } else if bad.count() > 0 {
            Self::CannotWork
        } else if findings
            .iter()
            .any(|finding| finding.essential && finding.verdict == Verdict::Unknown)
        {
            Self::Unknown
        } else {
            Self::CanWork
        }
    }

    /// As `epochgate doctor --help` lists them.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::CanWork => 0,
            Self::CannotWork => 1,
            Self::Mistakes => 2,
            Self::Unknown => 4,
        }
    }
}
