//! A run reports its metrics to `metrics.jsonl`, and the curves are drawn from there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::FinetuneError;
use crate::eval::plot::{LineChart, Series};

/// One line; what was not measured at that step is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Optimizer steps made.
    pub step: u64,
    /// Mean since the last line with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Before clipping; mean since the last line with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Examples per second of wall-clock time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts_per_second: Option<f64>,
    /// Dev score, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file of a run for more lines, and holds it: two processes in one folder would tear each other's
    /// checkpoints. The lock is the operating system's, so it ends with the process however that ends. Lines of steps behind `step`, which a run that goes on makes again, and
    /// what a killed process left half written, are taken away.
    ///
    /// # Errors
    /// [`FinetuneError::Busy`] if another run holds it, [`FinetuneError::Io`].
    pub fn open(folder: &Path, step: u64) -> Result<Self, FinetuneError> {
        let path = path(folder);
        let failed = |source| FinetuneError::Io { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FinetuneError::Busy { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // At the beginning nothing was measured that still counts, not even the score of step 0.
        let kept: String = match step {
            0 => String::new(),
            step => read(folder)?.iter().filter(|line| line.step <= step).map(text).collect(),
        };
        file.set_len(0).and_then(|()| file.write_all(kept.as_bytes())).map_err(failed)?;
        Ok(Metrics { path, file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`FinetuneError::Io`].
    pub fn write(&mut self, line: &Line) -> Result<(), FinetuneError> {
        let failed = |source| FinetuneError::Io { path: self.path.clone(), source };
        self.file.write_all(text(line).as_bytes()).map_err(failed)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("metrics.jsonl")
}

fn text(line: &Line) -> String {
    serde_json::to_string(line).expect("a line is plain numbers") + "\n"
}

/// All lines of a run; a last one that is not whole is passed over.
///
/// # Errors
/// [`FinetuneError::Io`] if there is a file that cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Line>, FinetuneError> {
    let path = path(folder);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(FinetuneError::Io { path, source }),
    }
}

/// A run's name for a curve, and its lines.
pub type Curve = (String, Vec<Line>);

/// Draws `loss.svg`, `learning_rate.svg` and, where it was measured, `score.svg` into `folder`.
///
/// # Errors
/// [`FinetuneError::Io`].
pub fn draw(folder: &Path, curves: &[Curve]) -> Result<(), FinetuneError> {
    type Of = fn(&Line) -> Option<f64>;
    let charts: [(&str, &str, Of); 3] = [
        ("loss", "loss", |l| l.loss),
        ("learning_rate", "learning rate", |l| l.learning_rate),
        ("score", "dev score (Spearman x 100)", |l| l.score),
    ];
    for (name, label, of) in charts {
        let series: Vec<Series> = curves
            .iter()
            .map(|(name, lines)| Series {
                name: name.clone(),
                points: lines.iter().filter_map(|l| Some((l.step as f64, of(l)?))).collect(),
            })
            .collect();
        if series.iter().all(|s| s.points.is_empty()) {
            continue;
        }
        let chart = LineChart {
            title: format!("{label} by step"),
            x_label: "step".to_owned(),
            y_label: label.to_owned(),
            log_x: false,
            series,
        };
        let path = folder.join(format!("{name}.svg"));
        fs::write(&path, chart.svg()).map_err(|source| FinetuneError::Io { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_has_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), 0).unwrap();
        for step in [10, 20, 30] {
            metrics.write(&Line { step, loss: Some(1.0 / step as f64), ..Line::default() }).unwrap();
        }
        // Killed while it wrote.
        drop(metrics);
        fs::OpenOptions::new().append(true).open(path(folder.path())).unwrap().write_all(b"{\"st").unwrap();
        let mut metrics = Metrics::open(folder.path(), 20).unwrap();
        metrics.write(&Line { step: 30, score: Some(50.0), ..Line::default() }).unwrap();
        let lines = read(folder.path()).unwrap();
        assert_eq!(lines.iter().map(|l| l.step).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!((lines[2].loss, lines[2].score), (None, Some(50.0)));
        assert!(read(&folder.path().join("nowhere")).unwrap().is_empty());
    }

    #[test]
    fn curves_are_drawn_of_what_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let lines = vec![Line { step: 1, loss: Some(2.0), ..Line::default() }];
        draw(folder.path(), &[("seed 1".into(), lines)]).unwrap();
        assert!(fs::read_to_string(folder.path().join("loss.svg")).unwrap().contains("</svg>"));
        assert!(!folder.path().join("score.svg").exists());
    }
}
