//! Everything that is printed: results on stdout, all else on stderr.
//!
//! For people: wrapped to the terminal, coloured only where it shows (`--color`, `NO_COLOR`, `TERM=dumb`).
//! For programs (`--json`): one JSON document or JSON lines on stdout, warnings and errors as JSON lines on stderr.
//! A reader that goes away (`| head`) surfaces as an [`std::io::Error`] of kind `BrokenPipe`, which [`super::main`]
//! turns into a quiet end.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use super::layout::{self, LongWords};

/// Columns where the terminal does not tell.
const WIDTH_DEFAULT: usize = 80;
/// Lines longer than this are hard to read, however wide the window is.
const WIDTH_MAX: usize = 120;
/// Time between two reports of progress where it cannot be drawn.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The emphasis of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Style {
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Accent,
}

/// The one way out. Cheap to make and to clone; clones share what is shown.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    quiet: bool,
    color_out: bool,
    color_err: bool,
    width: usize,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Output {
    /// Looks at the terminal and the environment.
    pub fn new(json: bool, quiet: bool, color: ColorChoice) -> Self {
        let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let plain = env("NO_COLOR").is_some() || env("TERM").is_some_and(|term| term == "dumb");
        let colored = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain,
        };
        let terminal = [
            io::stdout().is_terminal().then(|| terminal_size::terminal_size_of(io::stdout())),
            io::stderr().is_terminal().then(|| terminal_size::terminal_size_of(io::stderr())),
        ];
        let terminal = terminal.into_iter().flatten().flatten().next().map(|(width, _)| usize::from(width.0));
        let told = || env("COLUMNS").and_then(|v| v.to_str()?.parse().ok());
        let width = terminal.filter(|w| *w > 0).or_else(told).unwrap_or(WIDTH_DEFAULT);
        Output {
            json,
            quiet,
            color_out: !json && colored(io::stdout().is_terminal()),
            color_err: !json && colored(io::stderr().is_terminal()),
            width: width.clamp(20, WIDTH_MAX),
            bar: Arc::default(),
        }
    }

    /// The same as under `--json`.
    pub fn into_json(self) -> Self {
        Output { json: true, color_out: false, color_err: false, ..self }
    }

    /// Whether results go out as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Columns to fill, 20 to 120.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `text` in a style, for stdout; as it is where colours are off. It may be laid out like any other text.
    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color_out, style, text)
    }

    /// A result for people: `text` and a line end on stdout.
    ///
    /// # Errors
    /// Writing.
    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        self.exactly(&layout::render(text))
    }

    /// Every byte of it: JSON may hold anything.
    fn exactly(&self, text: &str) -> anyhow::Result<()> {
        self.suspend(|| {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("cannot write to stdout")
        })
    }

    /// A result for programs: one indented JSON document on stdout.
    ///
    /// # Errors
    /// Writing.
    pub fn document(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.exactly(&serde_json::to_string_pretty(value)?)
    }

    /// A result for programs: one JSON document in one line on stdout.
    ///
    /// # Errors
    /// Writing.
    pub fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.exactly(&serde_json::to_string(value)?)
    }

    /// `value` under `--json`, else the text that `human` makes.
    ///
    /// # Errors
    /// Writing.
    pub fn result<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { self.document(value) } else { self.line(human(value).trim_end_matches('\n')) }
    }

    /// What is going on, on stderr; nothing under `--quiet` and `--json`.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.stderr(&layout::render(&self.wrapped("", text)));
        }
    }

    /// What the reader of the result must know to use it, on stderr, also under `--json`; nothing under `--quiet`.
    pub fn remark(&self, text: &str) {
        if self.json && !self.quiet {
            self.stderr(&serde_json::json!({ "note": text }).to_string());
        } else {
            self.note(text);
        }
    }

    /// Something that was wrong and did not stop us, on stderr, also under `--quiet`.
    pub fn warn(&self, text: &str) {
        if self.json {
            self.stderr(&serde_json::json!({ "warning": text }).to_string());
        } else {
            let label = paint(self.color_err, Style::Warn, "warning:");
            self.stderr(&layout::render(&self.wrapped("warning: ", text).replacen("warning:", &label, 1)));
        }
    }

    /// What the server remarks on a request, such as a filter on a field that no document has; as warnings.
    pub fn hints(&self, hints: &[String]) {
        hints.iter().for_each(|hint| self.warn(hint));
    }

    /// Why we stopped, on stderr.
    pub fn error(&self, message: &str, kind: &str, exit: u8) {
        if self.json {
            let error =
                serde_json::json!({ "error": { "message": message, "kind": kind, "exit_code": exit } });
            self.stderr(&error.to_string());
        } else {
            let label = paint(self.color_err, Style::Bad, "error:");
            self.stderr(&layout::render(&self.wrapped("error: ", message).replacen("error:", &label, 1)));
        }
    }

    /// Whether somebody can be asked.
    pub fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Text that is laid out already, on stderr.
    pub fn as_it_is(&self, text: &str) {
        self.stderr(text.trim_end());
    }

    /// Puts a question on the terminal; the answer is read elsewhere.
    ///
    /// # Errors
    /// Writing.
    pub fn ask(&self, question: &str) -> anyhow::Result<()> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{} [y/N] ", self.wrapped("", question))?;
        Ok(stderr.flush()?)
    }

    /// Ends the line of a question.
    pub fn end_line(&self) {
        self.stderr("");
    }

    /// Begins to show how far something is: a bar on a terminal, a line now and then elsewhere, nothing under
    /// `--quiet` and `--json`. `total` in bytes, steps or whatever is counted; `None` or 0 while it is not known.
    /// One at a time; notes and warnings pass above it.
    pub fn progress(&self, what: &str, total: Option<u64>) -> Progress<'_> {
        let total = total.filter(|total| *total > 0);
        let shown = !self.quiet && !self.json;
        let drawn = shown && io::stderr().is_terminal();
        if drawn {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(bar_style(total.is_some(), self.width));
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        }
        let now = Instant::now();
        Progress { out: self, what: what.to_owned(), total, plain: shown && !drawn, begun: now, told: now }
    }

    fn wrapped(&self, first: &str, text: &str) -> String {
        if !io::stderr().is_terminal() {
            return format!("{first}{text}");
        }
        let lines = text.lines().enumerate().map(|(i, line)| {
            // What was indented stays so: lists of faults are.
            let indent = &line[..line.len() - line.trim_start().len()];
            let before = if i == 0 { first } else { indent };
            if layout::columns(before) + layout::columns(line.trim_start()) <= self.width {
                // As it is: a table's columns stand where they stand.
                return format!("{before}{}", layout::printable(line.trim_start()));
            }
            layout::wrap_after(before, line, self.width, LongWords::Keep)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Nobody can be told that stderr is gone.
    fn stderr(&self, text: &str) {
        self.suspend(|| drop(writeln!(io::stderr().lock(), "{text}")));
    }

    /// Takes the bar away while something else is printed.
    fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn paint(on: bool, style: Style, text: &str) -> String {
    if on && !text.is_empty() { layout::mark(style as usize, text) } else { text.to_owned() }
}

/// Two lines: how far and how long, and below it what is counted. The time goes on while nothing else does, so that a
/// slow beginning does not look like a stop.
fn bar_style(known: bool, width: usize) -> ProgressStyle {
    let template = match (known, width >= 70) {
        (true, true) => "{prefix} {bar:20} {percent:>3}%  {time}\n  {msg}",
        // Narrow windows get the bare figures: a bar of three cells tells nothing.
        (true, false) => "{prefix} {percent:>3}%  {time}\n  {msg}",
        (false, _) => "{spinner} {prefix}  {time}\n  {msg}",
    };
    let time = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        let left = left(state.len(), state.pos(), state.elapsed());
        let left = left.map(|left| format!(", {} left", layout::duration(left))).unwrap_or_default();
        // Writing to a terminal's line cannot fail.
        let _ = write!(to, "{}{left}", layout::duration(Duration::from_secs(state.elapsed().as_secs())));
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are well formed")
        .with_key("time", time)
        .progress_chars("█▉▊▋▌▍▎▏ ")
}

/// At the pace so far, in whole seconds; unknown while little is done.
fn left(total: Option<u64>, done: u64, elapsed: Duration) -> Option<Duration> {
    let elapsed = elapsed.as_secs_f64();
    let total = total.filter(|total| done > 0 && *total > done && elapsed > 1.0)?;
    Some(Duration::from_secs((elapsed * (total - done) as f64 / done as f64).ceil() as u64))
}

/// A line that shows progress; it disappears when dropped.
#[derive(Debug)]
pub struct Progress<'a> {
    out: &'a Output,
    what: String,
    total: Option<u64>,
    plain: bool,
    begun: Instant,
    told: Instant,
}

impl Progress<'_> {
    /// How much of the total is done, and what else there is to say: a list in words, `a, b, c`, whose last parts are
    /// left out where the window is narrow.
    pub fn set(&mut self, done: u64, message: &str) {
        if self.plain && self.told.elapsed() >= PLAIN_EVERY {
            self.told = Instant::now();
            let percent = self.total.map(|t| format!("{}%, ", (done.saturating_mul(100) / t).min(100)));
            let left = left(self.total, done, self.begun.elapsed());
            let left = left.map(|left| format!(", {} left", layout::duration(left))).unwrap_or_default();
            let elapsed = layout::duration(Duration::from_secs(self.begun.elapsed().as_secs()));
            let percent = percent.unwrap_or_default();
            self.out.note(&format!("{}: {percent}{message}, {elapsed}{left}", self.what));
        }
        if let Some(bar) = &*self.out.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.set_position(done);
            bar.set_message(layout::fit_list(message, self.out.width.saturating_sub(3)).to_owned());
        }
    }

    /// Another total, where it became known.
    pub fn set_total(&mut self, total: u64) {
        if self.total == Some(total) || total == 0 {
            return;
        }
        self.total = Some(total);
        if let Some(bar) = &*self.out.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.set_style(bar_style(true, self.out.width));
            bar.set_length(total);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.out.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
