//! A sweep makes one run for each combination of its factors' values, and reports the results as a table, plots and a
//! report.
//!
//! The paper's questions are factors of a recipe: pooling, temperature, batch (beyond 256 by `micro_batch`), dropout,
//! learning rate. Every combination sees the same data in the same order of the same seeds. What is compared is the
//! dev score; test sets are for the one model that is chosen at the end.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::recipe::{Recipe, RecipeError};
use crate::eval::plot::{HeatMap, LineChart, Series};

/// A setting and the values that it takes in turn.
///
/// ```
/// use distilface::finetune::sweep::Factor;
///
/// let factor: Factor = "temperature=0.02,0.05".parse().unwrap();
/// assert_eq!((factor.key.as_str(), factor.values.len()), ("temperature", 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// Name of the setting, such as `temperature` or `dropout.hidden`.
    pub key: String,
    /// Its values as text, at least one and none twice.
    pub values: Vec<String>,
}

/// Several settings that change together: `dropout` sets hidden and attention dropout.
const SYNONYMS: [(&str, &[&str]); 1] = [("dropout", &["dropout.hidden", "dropout.attention"])];

impl std::str::FromStr for Factor {
    type Err = String;

    /// `KEY=VALUE,VALUE,...`; values of lists are separated by `;` as `[64];[64,128]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE,VALUE,..."))?;
        let parting = if values.contains(';') { ';' } else { ',' };
        let values: Vec<String> = values.split(parting).map(|v| v.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(format!("{text:?} has an empty key or value"));
        }
        for (n, value) in values.iter().enumerate() {
            if values[..n].contains(value) {
                return Err(format!("{text:?} has {value} twice"));
            }
        }
        Ok(Factor { key: key.trim().to_owned(), values })
    }
}

/// One combination of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// A value for each factor, in the factors' order.
    pub values: Vec<String>,
    /// The recipe with them.
    pub recipe: Recipe,
}

/// All combinations, the last factor changing fastest; each recipe is checked.
///
/// # Errors
/// [`RecipeError`] for a key or value that a recipe cannot have.
pub fn cells(recipe: &Recipe, factors: &[Factor]) -> Result<Vec<Cell>, RecipeError> {
    let mut cells = vec![Cell { values: Vec::new(), recipe: recipe.clone() }];
    for factor in factors {
        let alone = [factor.key.as_str()];
        let keys = SYNONYMS.iter().find(|(key, _)| *key == factor.key).map_or(&alone[..], |(_, keys)| keys);
        let mut more = Vec::with_capacity(cells.len() * factor.values.len());
        for cell in &cells {
            for value in &factor.values {
                let mut cell = cell.clone();
                for key in keys {
                    cell.recipe.set(key, value)?;
                }
                cell.values.push(value.clone());
                more.push(cell);
            }
        }
        cells = more;
    }
    cells.iter().try_for_each(|cell| cell.recipe.validate())?;
    Ok(cells)
}

/// The result of one combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The value of each factor, in the order of the factors.
    pub values: Vec<String>,
    /// Dev score of the base model under this combination's pooling, 0 to 100.
    pub before: f64,
    /// Best dev score of each seed, 0 to 100.
    pub scores: Vec<f64>,
    /// Training examples per second.
    pub examples_per_second: f64,
    /// Why there is no score, if training failed.
    pub failure: Option<String>,
}

impl CellResult {
    /// Mean over the seeds; not a number if there is none.
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len() as f64
    }

    /// Standard deviation over the seeds, where there are two or more.
    pub fn deviation(&self) -> Option<f64> {
        let mean = self.mean();
        let squares: f64 = self.scores.iter().map(|s| (s - mean).powi(2)).sum();
        (self.scores.len() > 1).then(|| (squares / (self.scores.len() - 1) as f64).sqrt())
    }
}

/// The table as rows under headers: factors, before, after, gain, speed.
pub fn rows(factors: &[Factor], results: &[CellResult]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut headers: Vec<String> = factors.iter().map(|f| f.key.clone()).collect();
    headers.extend(["before", "after", "gain", "examples/s"].map(str::to_owned));
    let row = |r: &CellResult| {
        let mut row = r.values.clone();
        let after = match (&r.failure, r.deviation()) {
            (Some(_), _) => "failed".to_owned(),
            (None, Some(deviation)) => format!("{:.2} ± {deviation:.2}", r.mean()),
            (None, None) => format!("{:.2}", r.mean()),
        };
        let gain = match r.failure {
            Some(_) => String::new(),
            None => format!("{:+.2}", r.mean() - r.before),
        };
        row.extend([format!("{:.2}", r.before), after, gain, format!("{:.0}", r.examples_per_second)]);
        row
    };
    (headers, results.iter().map(row).collect())
}

/// The combination with the best mean.
pub fn best(results: &[CellResult]) -> Option<&CellResult> {
    results.iter().filter(|r| r.mean().is_finite()).max_by(|a, b| a.mean().total_cmp(&b.mean()))
}

/// Pictures by file name: a heat map for each two factors, a curve over each factor whose values are numbers.
/// Where there are more factors than a picture shows, the best over the others is drawn.
pub fn plots(factors: &[Factor], results: &[CellResult]) -> Vec<(String, String)> {
    let mut pictures = Vec::new();
    let best_of = |wanted: &[(usize, &String)]| {
        let fits = |r: &&CellResult| wanted.iter().all(|(n, value)| r.values[*n] == **value);
        let means = results.iter().filter(fits).map(CellResult::mean).filter(|m| m.is_finite());
        means.fold(f64::NAN, f64::max)
    };
    for (a, rows) in factors.iter().enumerate() {
        for (b, columns) in factors.iter().enumerate().skip(a + 1) {
            let map = HeatMap {
                title: format!("dev score by {} and {}", rows.key, columns.key),
                x_label: columns.key.clone(),
                y_label: rows.key.clone(),
                columns: columns.values.clone(),
                rows: rows.values.clone(),
                values: rows
                    .values
                    .iter()
                    .map(|row| {
                        columns.values.iter().map(|column| best_of(&[(a, row), (b, column)])).collect()
                    })
                    .collect(),
            };
            pictures.push((format!("{}-{}.svg", file_word(&rows.key), file_word(&columns.key)), map.svg()));
        }
    }
    for (n, factor) in factors.iter().enumerate() {
        let numbers: Option<Vec<f64>> = factor.values.iter().map(|v| v.parse().ok()).collect();
        let Some(numbers) = numbers.filter(|numbers| numbers.len() > 1) else { continue };
        // Another factor of few values gives a curve each.
        let other = (0..factors.len()).find(|&m| m != n);
        let series = match other {
            Some(m) => factors[m]
                .values
                .iter()
                .map(|value| Series {
                    name: format!("{} {value}", factors[m].key),
                    points: numbers
                        .iter()
                        .zip(&factor.values)
                        .map(|(x, v)| (*x, best_of(&[(n, v), (m, value)])))
                        .collect(),
                })
                .collect(),
            None => vec![Series {
                name: String::new(),
                points: numbers.iter().zip(&factor.values).map(|(x, v)| (*x, best_of(&[(n, v)]))).collect(),
            }],
        };
        let chart = LineChart {
            title: format!("dev score by {}", factor.key),
            x_label: factor.key.clone(),
            y_label: "dev score (Spearman x 100)".to_owned(),
            log_x: numbers.iter().all(|x| *x > 0.0),
            series,
        };
        pictures.push((format!("{}.svg", file_word(&factor.key)), chart.svg()));
    }
    pictures
}

fn file_word(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// The report: what was run, the table, the pictures.
pub fn markdown(
    recipe: &Recipe,
    factors: &[Factor],
    results: &[CellResult],
    pictures: &[(String, String)],
    setting: &str,
) -> String {
    let (headers, rows) = rows(factors, results);
    let mut text = format!(
        "# Sweep of {}\n\nBase model {}, objective {:?}, seeds {:?}.\n{setting}\nScores are Spearman's correlation on the dev set, times 100: the base's before training, and the best of the evaluations during it.\nChosen on the dev set, they say which setting to take, not how good it is; that is for a test set.\n\n",
        factors.iter().map(|f| f.key.as_str()).collect::<Vec<_>>().join(" x "),
        recipe.base,
        recipe.objective,
        recipe.seeds,
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {} |", headers.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(headers.len()));
    for row in &rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    if let Some(best) = best(results) {
        let words: Vec<String> =
            factors.iter().zip(&best.values).map(|(f, v)| format!("{} {v}", f.key)).collect();
        let _ = writeln!(
            text,
            "\nBest: {}, {:.2} ({:+.2}).",
            words.join(", "),
            best.mean(),
            best.mean() - best.before
        );
    }
    for result in results {
        if let Some(failure) = &result.failure {
            let _ = writeln!(text, "\n{}: {failure}", result.values.join(", "));
        }
    }
    for (name, _) in pictures {
        let _ = writeln!(text, "\n![{name}]({name})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(values: &[&str], scores: &[f64]) -> CellResult {
        CellResult {
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            before: 50.0,
            scores: scores.to_vec(),
            examples_per_second: 100.0,
            failure: scores.is_empty().then(|| "training fell apart at step 3".to_owned()),
        }
    }

    #[test]
    fn every_combination_comes_once_with_its_settings() {
        let factors: Vec<Factor> =
            ["pooling=cls,mean", "temperature=0.01,0.05,0.1"].iter().map(|f| f.parse().unwrap()).collect();
        let cells = cells(&Recipe::find("simcse").unwrap(), &factors).unwrap_err();
        // The built-in recipe names no data; a sweep's has some.
        assert!(cells.to_string().contains("data"), "{cells}");
    }

    #[test]
    fn a_factor_is_read_or_refused() {
        let factor: Factor = "matryoshka=[64];[64,128]".parse().unwrap();
        assert_eq!(factor.values, ["[64]", "[64,128]"]);
        for bad in ["pooling", "=a", "pooling=", "pooling=a,,b", "pooling=a,a"] {
            assert!(bad.parse::<Factor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn report_has_table_best_and_failures() {
        let factors: Vec<Factor> = vec!["pooling=cls,mean".parse().unwrap(), "batch=32,64".parse().unwrap()];
        let results = [
            result(&["cls", "32"], &[60.0, 62.0]),
            result(&["cls", "64"], &[]),
            result(&["mean", "32"], &[70.0, 70.0]),
            result(&["mean", "64"], &[65.0, 66.0]),
        ];
        let pictures = plots(&factors, &results);
        let names: Vec<&str> = pictures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["pooling-batch.svg", "batch.svg"]);
        let text = markdown(&Recipe::default(), &factors, &results, &pictures, "");
        assert!(text.contains("| cls | 32 | 50.00 | 61.00 ± 1.41 | +11.00 | 100 |"), "{text}");
        assert!(text.contains("Best: pooling mean, batch 32, 70.00 (+20.00)."), "{text}");
        assert!(text.contains("cls, 64: training fell apart at step 3"), "{text}");
    }
}
