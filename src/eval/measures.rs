//! Measures of one ranked list against judgements, their means, and how sure those are.

use std::collections::HashMap;

use serde::Serialize;

use super::bootstrap::{Difference, Estimate, Resampling};

/// Judged documents of one query: the gain of each id, above 0 where it is relevant.
pub type Judgements = HashMap<String, f64>;

/// The measures of one query, or their means over queries; each is 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Measures {
    /// Normalised discounted cumulative gain of the first 10 (Järvelin & Kekäläinen 2002), with the gain itself in the
    /// numerator as trec_eval and BEIR have it.
    pub ndcg_at_10: f64,
    /// Share of the relevant documents among the first 100.
    pub recall_at_100: f64,
    /// One over the rank of the first relevant document among the first 10, else 0.
    pub mrr_at_10: f64,
}

/// Measures one ranking of document ids, best first. Without any relevant judgement all measures are 0.
///
/// ```
/// use distilface::eval::measures::{Judgements, measure};
///
/// let judgements = Judgements::from([("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]);
/// let ranking = ["x", "a"].map(String::from);
/// let measures = measure(&ranking, &judgements);
/// assert_eq!((measures.mrr_at_10, measures.recall_at_100), (0.5, 0.5));
/// ```
pub fn measure(ranking: &[String], judgements: &Judgements) -> Measures {
    let gain = |id: &String| judgements.get(id).copied().unwrap_or(0.0).max(0.0);
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        gains.take(10).enumerate().map(|(i, g)| g / (i as f64 + 2.0).log2()).sum()
    };
    let mut ideal: Vec<f64> = judgements.values().copied().filter(|g| *g > 0.0).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let relevant = ideal.len();
    if relevant == 0 {
        return Measures::default();
    }
    let ideal = discounted(&mut ideal.into_iter());
    let found = ranking.iter().take(100).filter(|id| gain(id) > 0.0).count();
    let first = ranking.iter().take(10).position(|id| gain(id) > 0.0);
    Measures {
        ndcg_at_10: discounted(&mut ranking.iter().map(gain)) / ideal,
        recall_at_100: found as f64 / relevant as f64,
        mrr_at_10: first.map_or(0.0, |i| 1.0 / (i as f64 + 1.0)),
    }
}

/// The plain means of several queries' measures.
pub fn mean(all: &[Measures]) -> Measures {
    let n = all.len().max(1) as f64;
    let sum = |f: fn(&Measures) -> f64| all.iter().map(f).sum::<f64>() / n;
    Measures {
        ndcg_at_10: sum(|m| m.ndcg_at_10),
        recall_at_100: sum(|m| m.recall_at_100),
        mrr_at_10: sum(|m| m.mrr_at_10),
    }
}

/// A value for each of the [`Measures`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OfEach<T> {
    /// Of [`Measures::ndcg_at_10`].
    pub ndcg_at_10: T,
    /// Of [`Measures::recall_at_100`].
    pub recall_at_100: T,
    /// Of [`Measures::mrr_at_10`].
    pub mrr_at_10: T,
}

impl<T> OfEach<T> {
    fn of(f: impl Fn(fn(&Measures) -> f64) -> T) -> Self {
        OfEach {
            ndcg_at_10: f(|m| m.ndcg_at_10),
            recall_at_100: f(|m| m.recall_at_100),
            mrr_at_10: f(|m| m.mrr_at_10),
        }
    }
}

/// The means with their intervals.
pub fn intervals(all: &[Measures], plan: &Resampling) -> OfEach<Estimate> {
    OfEach::of(|f| plan.mean(&all.iter().map(f).collect::<Vec<_>>()))
}

/// The second system's means less the first's, of the same queries.
///
/// # Panics
/// If the two have not as many queries.
pub fn differences(first: &[Measures], second: &[Measures], plan: &Resampling) -> OfEach<Difference> {
    let values = |all: &[Measures], f: fn(&Measures) -> f64| all.iter().map(f).collect::<Vec<_>>();
    OfEach::of(|f| plan.paired_means(&values(first, f), &values(second, f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measure_has_its_own_interval_and_difference() {
        let of = |ndcg_at_10, mrr_at_10| Measures { ndcg_at_10, recall_at_100: 1.0, mrr_at_10 };
        let (first, second) = ([of(0.2, 0.5), of(0.4, 1.0)], [of(0.4, 0.5), of(0.6, 0.5)]);
        let plan = Resampling::default();
        let e = intervals(&first, &plan);
        assert!((e.ndcg_at_10.value - 0.3).abs() < 1e-12);
        assert_eq!((e.ndcg_at_10.low, e.ndcg_at_10.high), (0.2, 0.4));
        assert_eq!((e.recall_at_100.low, e.recall_at_100.high), (1.0, 1.0));
        assert_eq!((e.mrr_at_10.low, e.mrr_at_10.high), (0.5, 1.0));
        let d = differences(&first, &second, &plan);
        assert!((d.ndcg_at_10.difference - 0.2).abs() < 1e-12 && d.ndcg_at_10.p < 0.002);
        assert_eq!((d.recall_at_100.difference, d.recall_at_100.p), (0.0, 1.0));
        assert_eq!((d.mrr_at_10.difference, d.mrr_at_10.low, d.mrr_at_10.high), (-0.25, -0.5, 0.0));
    }

    fn judged(pairs: &[(&str, f64)]) -> Judgements {
        pairs.iter().map(|(id, g)| ((*id).to_owned(), *g)).collect()
    }

    fn ranked(ids: &str) -> Vec<String> {
        ids.chars().map(String::from).collect()
    }

    #[test]
    fn worked_by_hand() {
        // Relevant a (gain 2) at rank 2, b (gain 1) at rank 3; c (gain 1) is missing.
        let m = measure(&ranked("xab"), &judged(&[("a", 2.0), ("b", 1.0), ("c", 1.0), ("x", 0.0)]));
        let dcg = 2.0 / 3f64.log2() + 1.0 / 4f64.log2();
        let ideal = 2.0 + 1.0 / 3f64.log2() + 1.0 / 4f64.log2();
        assert!((m.ndcg_at_10 - dcg / ideal).abs() < 1e-12);
        assert!((m.recall_at_100 - 2.0 / 3.0).abs() < 1e-12);
        assert!((m.mrr_at_10 - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_perfect_list_is_one_and_an_empty_one_zero() {
        let judgements = judged(&[("a", 1.0), ("b", 1.0)]);
        let m = measure(&ranked("ba"), &judgements);
        assert_eq!((m.ndcg_at_10, m.recall_at_100, m.mrr_at_10), (1.0, 1.0, 1.0));
        assert_eq!(measure(&[], &judgements), Measures::default());
        assert_eq!(measure(&ranked("a"), &judged(&[("a", 0.0)])), Measures::default());
    }

    #[test]
    fn rank_eleven_counts_for_recall_only() {
        let m = measure(&ranked("qwertzuiopa"), &judged(&[("a", 1.0)]));
        assert_eq!((m.ndcg_at_10, m.recall_at_100, m.mrr_at_10), (0.0, 1.0, 0.0));
    }
}
