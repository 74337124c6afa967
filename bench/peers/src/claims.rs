//! What omniring claims about its tiers beside the rivals, as ratios that one run
//! of `compare` shows to hold or not.

use serde::Serialize;

use crate::compare::Row;
use crate::statistics::paired_ratio;

/// What is compared, and which way it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// CPU per op, at most so many times the rival's.
    Cpu,
    /// Ops a second, at least so many times the rival's.
    Rate,
}

/// One claim.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Whose figure.
    ours: &'static str,
    /// Beside whose.
    rival: &'static str,
    measure: Measure,
    bound: f64,
}

const fn cpu(ours: &'static str, rival: &'static str, bound: f64) -> Claim {
    Claim {
        ours,
        rival,
        measure: Measure::Cpu,
        bound,
    }
}

const fn rate(ours: &'static str, rival: &'static str, bound: f64) -> Claim {
    Claim {
        ours,
        rival,
        measure: Measure::Rate,
        bound,
    }
}

const CACHED_READS: &[Claim] = &[
    cpu("omniring uring fixed", "compio", 0.90),
    cpu("omniring uring fixed", "monoio", 0.90),
    cpu("omniring uring fixed", "tokio-uring-plain", 0.90),
];

const DIRECT_READS: &[Claim] = &[
    cpu("omniring uring fixed", "compio", 0.90),
    cpu("omniring uring fixed", "monoio", 0.90),
    cpu("omniring uring fixed", "tokio-uring-plain", 0.90),
    rate("omniring uring fixed", "compio", 1.05),
    rate("omniring uring fixed", "monoio", 1.05),
    rate("omniring uring fixed", "tokio-uring-plain", 1.05),
    cpu("omniring uring fixed", "fio io_uring", 1.0),
    cpu("omniring aio", "fio libaio", 1.0),
];

const ECHO: &[Claim] = &[
    cpu("omniring uring leased", "tokio", 1.0),
    cpu("omniring uring leased", "monoio", 1.0),
    cpu("omniring uring leased", "compio", 1.0),
    cpu("omniring uring leased", "glommio", 1.0),
];

/// Where there are claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Reads from the page cache, many in flight.
    CachedReads,
    /// Reads past it, many in flight.
    DirectReads,
    /// Echo on many connections.
    Echo,
}

/// What a run says to a claim.
#[derive(Debug, Serialize)]
pub struct Verdict {
    ours: &'static str,
    rival: &'static str,
    measure: Measure,
    bound: f64,
    /// Median over the rounds of ours divided by the rival's.
    ratio: f64,
    holds: bool,
}

/// The verdicts on the claims whose both sides have run.
pub fn judge(field: Field, rows: &[Row]) -> Vec<Verdict> {
    let claims = match field {
        Field::CachedReads => CACHED_READS,
        Field::DirectReads => DIRECT_READS,
        Field::Echo => ECHO,
    };
    let figures = |subject: &str, measure| {
        let row = rows.iter().find(|row| row.subject == subject)?;
        Some(row.figures(measure))
    };
    let judge = |claim: &Claim| {
        let ours = figures(claim.ours, claim.measure)?;
        let ratio = paired_ratio(&ours, &figures(claim.rival, claim.measure)?)?;
        let holds = match claim.measure {
            Measure::Cpu => ratio <= claim.bound,
            Measure::Rate => ratio >= claim.bound,
        };
        let Claim {
            ours,
            rival,
            measure,
            bound,
        } = *claim;
        Some(Verdict {
            ours,
            rival,
            measure,
            bound,
            ratio,
            holds,
        })
    };
    claims.iter().filter_map(judge).collect()
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, which) = match self.measure {
            Measure::Cpu => ("CPU", "at most"),
            Measure::Rate => ("rate", "at least"),
        };
        let verdict = if self.holds { "holds" } else { "does not hold" };
        write!(
            f,
            "{} / {}, {what}: {:.2}, to be {which} {:.2}: {verdict}",
            self.ours, self.rival, self.ratio, self.bound
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_by_the_ratios_within_rounds() {
        let rows = [
            Row::of_figures("omniring uring fixed", &[(0.8, 100.0), (1.6, 50.0)]),
            Row::of_figures("compio", &[(1.0, 90.0), (2.0, 45.0)]),
            Row::of_figures("monoio", &[(0.8, 100.0), (1.6, 50.0)]),
        ];
        let verdicts = judge(Field::DirectReads, &rows);
        let told: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.rival, verdict.measure, verdict.holds))
            .collect();
        assert_eq!(
            told,
            [
                ("compio", Measure::Cpu, true),
                ("monoio", Measure::Cpu, false),
                ("compio", Measure::Rate, true),
                ("monoio", Measure::Rate, false),
            ]
        );
        assert!(judge(Field::Echo, &rows).is_empty());
    }
}
