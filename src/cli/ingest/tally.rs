//! Counts and describes what a run did with its documents.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use super::mode::Mode;
use crate::{
    cli::{
        layout::{self, LongWords},
        output::{Output, Style},
    },
    source::Remarks,
};

/// Remarks on files that a person is told.
const REMARKS_TOLD: usize = 10;

/// Counts, from the beginning of a run.
#[derive(Debug, Clone)]
pub struct Tally {
    pub inserted: u64,
    pub updated: u64,
    pub unchanged: u64,
    /// Not written since the mode of the run does not fit what is stored; not counted as failed.
    pub refused: u64,
    pub failed: u64,
    pub passages: u64,
    pub tokens: u64,
    pub truncated: u64,
    pub titles_truncated: u64,
    /// Documents with words that are one unknown token each, and those words.
    pub with_unknown: u64,
    pub unknown_tokens: u64,
    /// Sent, and without an answer when the run ended: stored or not.
    pub unanswered: u64,
    /// Documents that took the place of an earlier one of this run, and the first of them in words.
    pub repeated: u64,
    repeated_first: String,
    /// Whole files that were stored from each folder.
    pub of_folder: HashMap<Arc<str>, u64>,
    /// Documents whose files are no longer there, and how many of them were removed.
    pub missing: u64,
    pub pruned: u64,
    /// What was remarked on single files, and how many more remarks there were than these.
    remarks: Vec<String>,
    remarks_more: u64,
    /// Types that were told for fields that no document has.
    types_unmet: Vec<String>,
    started: Instant,
}

impl Tally {
    /// Counts from now.
    pub fn new() -> Self {
        Tally {
            inserted: 0,
            updated: 0,
            unchanged: 0,
            refused: 0,
            failed: 0,
            passages: 0,
            tokens: 0,
            truncated: 0,
            titles_truncated: 0,
            with_unknown: 0,
            unknown_tokens: 0,
            unanswered: 0,
            repeated: 0,
            repeated_first: String::new(),
            of_folder: HashMap::new(),
            missing: 0,
            pruned: 0,
            remarks: Vec::new(),
            remarks_more: 0,
            types_unmet: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Documents that are now as they were sent.
    pub fn stored(&self) -> u64 {
        self.inserted + self.updated + self.unchanged
    }

    /// Documents of which it is known what became of them.
    pub fn done(&self) -> u64 {
        self.stored() + self.refused + self.failed
    }

    /// One more document took the place of an earlier one of this run.
    pub fn replaced(&mut self, place: &str, id: &str) {
        if self.repeated == 0 {
            self.repeated_first = format!("{place}, id {id:?}");
        }
        self.repeated += 1;
    }

    /// Takes over what was remarked while the files were read; what no document had, only where all were read.
    pub fn remark(&mut self, remarks: &Remarks, complete: bool) {
        (self.remarks, self.remarks_more) = remarks.take();
        if complete {
            self.types_unmet = remarks.unmet();
        }
    }

    /// A short form for a progress bar.
    pub fn so_far(&self) -> String {
        let done = self.done();
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let documents = layout::counted(done, "document");
        let unchanged = match self.unchanged {
            0 => String::new(),
            n => format!(" ({} unchanged)", layout::thousands(n)),
        };
        // What is unchanged is skipped, and its passages are not counted.
        let passages = match self.passages {
            0 if self.unchanged > 0 => String::new(),
            n => format!(", {}", layout::counted(n, "passage")),
        };
        format!("{documents}{unchanged}{passages}, {}/s", layout::rate(rate))
    }

    /// Everything, for programs.
    pub fn json(&self, collection: &str, complete: bool) -> Json {
        let elapsed = self.started.elapsed();
        json!({
            "collection": collection,
            "inserted": self.inserted,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "refused": self.refused,
            "failed": self.failed,
            "unanswered": self.unanswered,
            "repeated": self.repeated,
            "missing": self.missing,
            "pruned": self.pruned,
            "passages": self.passages,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "titles_truncated": self.titles_truncated,
            "unknown_tokens": self.unknown_tokens,
            "seconds": elapsed.as_secs_f64(),
            "documents_per_second": self.rate(elapsed),
            "complete": complete,
        })
    }

    /// The result, for people.
    pub fn words(&self, out: &Output, collection: &str, mode: Mode) -> String {
        let elapsed = self.started.elapsed();
        let mut counts = vec![
            (self.inserted, "inserted", Style::Good),
            (self.updated, "updated", Style::Good),
            (self.unchanged, "unchanged", Style::Dim),
            (self.failed, "failed", Style::Bad),
        ];
        if mode != Mode::Upsert {
            counts.insert(3, (self.refused, "refused", Style::Bad));
        }
        if self.pruned > 0 {
            counts.push((self.pruned, "removed", Style::Warn));
        }
        let paint = |(n, word, style)| {
            let text = format!("{} {word}", layout::thousands(n));
            if n > 0 { out.paint(style, &text) } else { text }
        };
        let counts: Vec<String> = counts.into_iter().map(paint).collect();
        let passages = layout::counted(self.passages, "passage");
        let mut second = format!("{passages} in {}", layout::duration(elapsed));
        if self.inserted + self.updated > 0 {
            second.push_str(&format!(" ({:.1} documents/s)", self.rate(elapsed)));
        }
        let second = layout::wrap(&second, out.width(), LongWords::Keep).join("\n");
        let name = out.paint(Style::Bold, collection);
        let one_line = format!("{name}: {}", counts.join(", "));
        let first = if layout::columns(&one_line) <= out.width() {
            one_line
        } else {
            format!("{name}:\n  {}", counts.join("\n  "))
        };
        format!("{first}\n{second}")
    }

    /// Remarks for people besides the counts.
    pub fn tell(&self, out: &Output) {
        let told = if out.is_json() { self.remarks.len() } else { self.remarks.len().min(REMARKS_TOLD) };
        self.remarks[..told].iter().for_each(|remark| out.warn(remark));
        let more = (self.remarks.len() - told) as u64 + self.remarks_more;
        if more > 0 {
            let files = layout::counted(more, "more file");
            out.warn(&format!("{files} with front matter that cannot be read (--json tells up to 1,000)"));
        }
        self.types_unmet.iter().for_each(|unmet| out.warn(unmet));
        if self.truncated > 0 {
            let documents = layout::counted(self.truncated, "document");
            out.warn(&format!(
                "{documents} had text past the model's limit, which cannot be found (chunking is off)"
            ));
        }
        if self.titles_truncated > 0 {
            let documents = layout::counted(self.titles_truncated, "document");
            out.warn(&format!(
                "{documents} had a long title: its beginning alone is looked at, and the text is whole"
            ));
        }
        if self.unknown_tokens > 0 {
            let documents = layout::counted(self.with_unknown, "document");
            let words = layout::counted(self.unknown_tokens, "word");
            out.note(&format!(
                "{documents} had {words} that the model does not know, which nothing is found by: \
                 of more than 100 characters, or not in its vocabulary"
            ));
        }
        if self.repeated > 0 {
            let documents = layout::counted(self.repeated, "document");
            out.warn(&format!(
                "{documents} replaced an earlier one of the same id in this run; the later one stays (first: {})",
                self.repeated_first
            ));
        }
    }

    fn rate(&self, elapsed: Duration) -> f64 {
        self.stored() as f64 / elapsed.as_secs_f64().max(1e-3)
    }
}
