//! Semantic textual similarity compares the cosines of sentence pairs with people's scores, by Spearman's rho.
//!
//! The seven sets and the protocol of SentEval as SimCSE reports it (Conneau & Kiela 2018; Gao et al. 2021, table 5):
//! all pairs of a set together give one correlation ("all", never the mean over subsets), no regressor stands
//! between, and the average is the plain mean of the seven. Texts go in as they are, without a model's prompts.
//!
//! A file is tab-separated with the header `subset score sentence1 sentence2` and no quoting. Whatever turns texts
//! into vectors can be measured: the encoder that serves ([`encode_with`]), or a model in the middle of its training.

use std::{collections::HashMap, path::Path};

use serde::Serialize;

use super::{
    EvalError,
    bootstrap::{Difference, Estimate, Resampling},
    check_there,
    rows::Rows,
};
use crate::{
    encoder::{Encoder, TextKind},
    vector::cosine,
};

/// The seven test sets, in the order of the literature: name and file.
pub const TEST_SETS: [(&str, &str); 7] = [
    ("STS12", "sts12.tsv"),
    ("STS13", "sts13.tsv"),
    ("STS14", "sts14.tsv"),
    ("STS15", "sts15.tsv"),
    ("STS16", "sts16.tsv"),
    ("STS-B", "stsb-test.tsv"),
    ("SICK-R", "sickr-test.tsv"),
];
/// The sets that a model may be chosen by.
pub const DEV_SETS: [(&str, &str); 2] = [("STS-B dev", "stsb-dev.tsv"), ("SICK-R dev", "sickr-dev.tsv")];

const HEADER: &str = "subset\tscore\tsentence1\tsentence2";
/// Sentences given to the embedding function at once: bounds what it holds.
const BLOCK: usize = 1024;

/// Two sentences and how similar people found them.
#[derive(Debug, Clone, PartialEq)]
pub struct StsPair {
    /// People's score; larger is more similar. Most sets use 0 to 5.
    pub score: f64,
    /// The first sentence.
    pub first: String,
    /// The second sentence.
    pub second: String,
}

/// One set; it has at least two pairs, and their scores are not all equal.
#[derive(Debug, Clone, PartialEq)]
pub struct StsSet {
    /// Name of the set.
    pub name: String,
    /// The pairs, in the order of the file.
    pub pairs: Vec<StsPair>,
}

/// Encodes texts to one vector each, in order. It is called with at most some thousand texts of like length at once.
pub type Embed<'a, E = EvalError> = dyn FnMut(&[&str]) -> Result<Vec<Vec<f32>>, E> + 'a;

/// Reads one file; the set is named after it.
///
/// # Errors
/// [`EvalError`] naming file and line: another header, a column too few or too many, a score that is no number;
/// fewer than two pairs; scores that are all equal.
pub fn load(path: &Path) -> Result<StsSet, EvalError> {
    let line = |line: usize, reason: String| EvalError::Line { path: path.to_owned(), line, reason };
    let mut rows = Rows::open(path)?;
    let (_, header) = rows.next().transpose()?.unwrap_or_default();
    if header != HEADER {
        let names = "subset, score, sentence1 and sentence2, separated by tabs";
        return Err(line(1, format!("the header is {header:?}, but must be {names}")));
    }
    let mut pairs = Vec::new();
    for row in rows {
        let (number, row) = row?;
        let columns: Vec<&str> = row.split('\t').collect();
        let [_, score, first, second] = columns[..] else {
            let reason = format!("{} columns, but subset, score and two sentences are four", columns.len());
            return Err(line(number, reason));
        };
        let score = score.parse::<f64>().ok().filter(|s| s.is_finite());
        let score =
            score.ok_or_else(|| line(number, format!("the score {:?} is not a number", columns[1])))?;
        pairs.push(StsPair { score, first: first.to_owned(), second: second.to_owned() });
    }
    let wrong = |reason: String| Err(EvalError::Folder { path: path.to_owned(), reason });
    match pairs.as_slice() {
        [] | [_] => wrong(format!("a rank correlation needs at least two pairs, and it has {}", pairs.len())),
        [first, rest @ ..] if rest.iter().all(|p| p.score == first.score) => {
            wrong(format!("all scores are {}, so there is no order to agree with", first.score))
        }
        _ => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(StsSet { name, pairs })
        }
    }
}

/// Where a set is read from: a folder of the seven sets, or one file of the same form.
///
/// # Errors
/// As [`load_test`], [`load_dev`] and [`load`]; [`EvalError::Read`] where nothing is.
pub fn load_any(path: &Path, dev: bool) -> Result<Vec<StsSet>, EvalError> {
    match (path.is_file(), dev) {
        (true, _) => Ok(vec![load(path)?]),
        (false, true) => load_dev(path),
        (false, false) => load_test(path),
    }
}

/// Reads the seven test sets of a folder.
///
/// # Errors
/// As [`load`]; [`EvalError::Folder`] naming the files that are not there.
pub fn load_test(dir: &Path) -> Result<Vec<StsSet>, EvalError> {
    load_named(dir, &TEST_SETS)
}

/// Reads the development sets of a folder; SICK-R's may be missing.
///
/// # Errors
/// As [`load_test`].
pub fn load_dev(dir: &Path) -> Result<Vec<StsSet>, EvalError> {
    let there = if dir.join(DEV_SETS[1].1).exists() { &DEV_SETS[..] } else { &DEV_SETS[..1] };
    load_named(dir, there)
}

/// Reads the sets that a folder has, of all the seven and the two of development.
///
/// # Errors
/// As [`load`]; [`EvalError::Read`] where nothing is, [`EvalError::Folder`] for a folder without any.
pub fn load_found(dir: &Path) -> Result<Vec<StsSet>, EvalError> {
    let all: Vec<_> = TEST_SETS.into_iter().chain(DEV_SETS).collect();
    let there: Vec<_> = all.iter().copied().filter(|(_, file)| dir.join(file).exists()).collect();
    // What is missing of nothing is all.
    load_named(dir, if there.is_empty() { &all } else { &there })
}

fn load_named(dir: &Path, sets: &[(&str, &str)]) -> Result<Vec<StsSet>, EvalError> {
    check_there(dir)?;
    let missing: Vec<&str> = sets.iter().map(|(_, file)| *file).filter(|f| !dir.join(f).exists()).collect();
    if !missing.is_empty() {
        let reason = format!(
            "it has no {}; a file has the columns {}",
            missing.join(", "),
            HEADER.replace('\t', ", ")
        );
        return Err(EvalError::Folder { path: dir.to_owned(), reason });
    }
    let load =
        |(name, file): &(&str, &str)| Ok(StsSet { name: (*name).to_owned(), ..load(&dir.join(file))? });
    sets.iter().map(load).collect()
}

impl StsSet {
    /// People's scores, pair by pair.
    pub fn gold(&self) -> Vec<f64> {
        self.pairs.iter().map(|p| p.score).collect()
    }

    /// Spearman's rho of the cosines against people's scores, -1 to 1. Each distinct sentence is embedded once.
    ///
    /// # Errors
    /// What `embed` answers; [`EvalError::Vectors`] for vectors that are too few or not finite.
    pub fn score<E: From<EvalError>>(&self, embed: &mut Embed<'_, E>) -> Result<f64, E> {
        let cosines = cosines(std::slice::from_ref(self), embed)?;
        Ok(spearman(&cosines[0], &self.gold()))
    }
}

/// Every distinct sentence of the sets, longest first: texts of like length waste little in one batch, and what
/// does not fit into memory fails at once.
pub fn distinct(sets: &[StsSet]) -> Vec<&str> {
    let mut texts: Vec<&str> =
        sets.iter().flat_map(|s| &s.pairs).flat_map(|p| [p.first.as_str(), p.second.as_str()]).collect();
    texts.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    texts.dedup();
    texts
}

/// The cosine of every pair of every set. A sentence that several sets hold is embedded once.
///
/// # Errors
/// As [`StsSet::score`].
pub fn cosines<E: From<EvalError>>(sets: &[StsSet], embed: &mut Embed<'_, E>) -> Result<Vec<Vec<f64>>, E> {
    let texts = distinct(sets);
    let mut vectors: HashMap<&str, Vec<f32>> = HashMap::with_capacity(texts.len());
    for block in texts.chunks(BLOCK) {
        let made = embed(block)?;
        if made.len() != block.len() {
            let reason = format!("{} vectors for {} texts", made.len(), block.len());
            return Err(EvalError::Vectors { reason }.into());
        }
        if made.iter().flatten().any(|v| !v.is_finite()) {
            return Err(EvalError::Vectors { reason: "a vector is not finite".into() }.into());
        }
        vectors.extend(block.iter().copied().zip(made));
    }
    let cosine = |p: &StsPair| cosine(&vectors[p.first.as_str()], &vectors[p.second.as_str()]);
    Ok(sets.iter().map(|set| set.pairs.iter().map(cosine).collect()).collect())
}

/// The serving encoder as an embedding function.
pub fn encode_with(encoder: &Encoder) -> impl FnMut(&[&str]) -> Result<Vec<Vec<f32>>, EvalError> + '_ {
    |texts| {
        let embeddings = encoder.encode(texts, TextKind::Raw)?;
        Ok(embeddings.into_iter().map(|e| e.values).collect())
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of their ranks.
///
/// Between -1 and 1; 0 where one side is all equal, since it then says nothing about order (a collapsed encoder).
/// Rank correlation of two lists, -1 to 1 (Spearman 1904; ties as in Kendall & Gibbons 1990, section 3.8).
///
/// ```
/// use distilface::eval::sts::spearman;
///
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 40.0]), 1.0);
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
/// ```
///
/// # Panics
/// If the two have not as many values.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "values are paired");
    let (a, b) = (ranks(a), ranks(b));
    // Shared ranks keep the sum, so both means are known without adding up.
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (x, y) in a.iter().zip(&b) {
        ab += (x - mean) * (y - mean);
        aa += (x - mean) * (x - mean);
        bb += (y - mean) * (y - mean);
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0) }
}

/// Ranks from 1, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0;
    while at < order.len() {
        let equal = order[at..].iter().take_while(|&&i| values[i] == values[order[at]]).count().max(1);
        // The mean of at+1 to at+equal.
        let rank = at as f64 + (equal as f64 + 1.0) / 2.0;
        order[at..at + equal].iter().for_each(|&i| ranks[i] = rank);
        at += equal;
    }
    ranks
}

/// One set's figure, times 100 as the literature gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetScore {
    /// Name of the set.
    pub set: String,
    /// Number of pairs.
    pub pairs: usize,
    /// Spearman correlation times 100, with its interval.
    #[serde(flatten)]
    pub spearman: Estimate,
}

/// One model's scores on all sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StsScores {
    /// The score on each set.
    pub sets: Vec<SetScore>,
    /// Plain mean over the sets; its interval resamples each set on its own.
    pub average: Estimate,
}

/// The differences of two models' scores, times 100.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StsDifferences {
    /// The difference on each set, by its name.
    pub sets: Vec<(String, Difference)>,
    /// The difference of the averages.
    pub average: Difference,
}

/// Scores of several models on the same pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct StsEvaluation {
    /// Model by model.
    pub scores: Vec<StsScores>,
    /// Every further model less the first, on the same resamples.
    pub differences: Vec<StsDifferences>,
}

/// Scores models by their [`cosines`] on the sets, with intervals, and each further model against the first.
pub fn evaluate(sets: &[StsSet], models: &[Vec<Vec<f64>>], plan: &Resampling) -> StsEvaluation {
    let golds: Vec<Vec<f64>> = sets.iter().map(StsSet::gold).collect();
    // [model][set] and [model][set][resample]; every model sees the same resamples.
    let value = |model: &Vec<Vec<f64>>| -> Vec<f64> {
        model.iter().zip(&golds).map(|(cosines, gold)| 100.0 * spearman(cosines, gold)).collect()
    };
    let resampled = |model: &Vec<Vec<f64>>| -> Vec<Vec<f64>> {
        let one = |(stream, (cosines, gold)): (u64, (&Vec<f64>, &Vec<f64>))| {
            plan.replicates(gold.len(), stream, |drawn| {
                let pick = |values: &[f64]| drawn.iter().map(|&i| values[i]).collect::<Vec<_>>();
                100.0 * spearman(&pick(cosines), &pick(gold))
            })
        };
        (0..).zip(model.iter().zip(&golds)).map(one).collect()
    };
    let values: Vec<Vec<f64>> = models.iter().map(value).collect();
    let replicates: Vec<Vec<Vec<f64>>> = models.iter().map(resampled).collect();

    let score = |(values, replicates): (&Vec<f64>, &Vec<Vec<f64>>)| StsScores {
        sets: sets
            .iter()
            .zip(values.iter().zip(replicates))
            .map(|(set, (&value, replicates))| SetScore {
                set: set.name.clone(),
                pairs: set.pairs.len(),
                spearman: plan.estimate(value, replicates),
            })
            .collect(),
        average: plan.estimate(mean(values), &across(replicates)),
    };
    let differ = |model: usize| {
        let less = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| b - a).collect() };
        let observed = less(&values[0], &values[model]);
        let replicates: Vec<Vec<f64>> =
            replicates[0].iter().zip(&replicates[model]).map(|(a, b)| less(a, b)).collect();
        StsDifferences {
            sets: sets
                .iter()
                .zip(observed.iter().zip(&replicates))
                .map(|(set, (&observed, replicates))| {
                    (set.name.clone(), plan.difference(observed, replicates))
                })
                .collect(),
            average: plan.difference(mean(&observed), &across(&replicates)),
        }
    };
    StsEvaluation {
        scores: values.iter().zip(&replicates).map(score).collect(),
        differences: (1..models.len()).map(differ).collect(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean over the sets, resample by resample.
fn across(sets: &[Vec<f64>]) -> Vec<f64> {
    let resamples = sets.first().map_or(0, Vec::len);
    (0..resamples).map(|r| sets.iter().map(|set| set[r]).sum::<f64>() / sets.len() as f64).collect()
}

#[cfg(test)]
mod tests;
