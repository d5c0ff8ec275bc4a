//! `distilface doctor` reports what is installed, what is chosen and why, what is missing and which command repairs it.

use std::time::Duration;

use serde::Serialize;

use super::{
    layout,
    output::{Output, Style},
};
use crate::{
    config::{Loaded, Origin},
    engine,
    setup::survey::{Finding, Severity, Survey},
};

/// Tell what is installed, what is chosen and why, and what is missing
///
/// Loads the configured model and encodes a sentence with it. Of the data folder it looks at rights and lock, and tells
/// what its last opening found; `distilface verify` reads what is in it. Exits with 1 if something is missing that serving
/// needs.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}

/// The answer under `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    healthy: bool,
    config_file: Option<&'a std::path::Path>,
    #[serde(flatten)]
    survey: &'a Survey,
}

/// Examines, prints, and fails if something needed is missing.
pub fn run(_args: &DoctorArgs, out: &Output, loaded: &Loaded) -> anyhow::Result<()> {
    if matches!(loaded.origin("data.dir"), Origin::Flag(_)) {
        engine::check_data_folder(&loaded.config.data.dir).map_err(crate::Error::from)?;
    }
    let survey = Survey::take(&loaded.config);
    let answer = Answer { healthy: survey.healthy(), config_file: loaded.file.as_deref(), survey: &survey };
    out.result(&answer, |answer| text(answer, out))?;
    let missing = survey.findings.iter().filter(|f| f.severity == Severity::Missing).count();
    anyhow::ensure!(
        missing == 0,
        "{} missing that serving needs",
        if missing == 1 { "one thing is".to_owned() } else { format!("{missing} things are") }
    );
    Ok(())
}

fn text(answer: &Answer<'_>, out: &Output) -> String {
    let Survey { version, machine, home, data, runtime, models, encoder, .. } = answer.survey;
    let bad = |why: &str| out.paint(Style::Warn, &format!("no: {why}"));
    let yes_no = |what: &Result<std::path::PathBuf, String>| match what {
        Ok(path) => path.display().to_string(),
        Err(why) => bad(why),
    };
    let features = machine.features.iter().map(|f| {
        let style = if f.present { Style::Good } else { Style::Dim };
        out.paint(style, &format!("{}{}", if f.present { "" } else { "no " }, f.name))
    });
    let features = features.collect::<Vec<_>>().join(", ");
    let memory = [
        machine.memory_bytes.map(layout::bytes),
        machine.memory_available_bytes.map(|n| format!("{} available", layout::bytes(n))),
        machine.memory_limit_bytes.map(|n| format!("limited to {}", layout::bytes(n))),
    ];
    let memory: Vec<String> = memory.into_iter().flatten().collect();
    let mut folder = data.path.display().to_string();
    folder.push_str(match (data.exists, data.writable) {
        (true, true) => "",
        (false, true) => " (will be made)",
        (_, false) => " (cannot be written)",
    });
    if let Some(holder) = &data.locked_by {
        folder.push_str(&format!(" (open in {holder})"));
    }
    let mut lines = vec![
        ("distilface", (*version).to_owned()),
        ("system", format!("{} {}", machine.system, machine.architecture)),
        ("processor", machine.processor.clone().unwrap_or_else(|| "unknown".into())),
        ("cores", machine.cores.to_string()),
        ("features", if features.is_empty() { "unknown".into() } else { features }),
        ("memory", if memory.is_empty() { "unknown".into() } else { memory.join(", ") }),
        ("config", answer.config_file.map_or_else(|| "no file".to_owned(), |p| p.display().to_string())),
        ("home", home.display().to_string()),
        ("data", folder),
        (
            "onnxruntime",
            match (&runtime.library, &runtime.version) {
                // Some builds have no number but a description of their build, which the path says shorter.
                (Ok(path), Some(version)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
                    format!("{version}, {}", path.display())
                }
                (library, _) => yes_no(library),
            },
        ),
        ("openvino", yes_no(&runtime.openvino)),
        ("cuda", runtime.cuda.clone().unwrap_or_else(|why| bad(&why))),
    ];
    if models.is_empty() {
        lines.push(("models", bad("none is installed")));
    }
    for model in models {
        // A fingerprint is compared by eye: its beginning is enough, `--json` has all of it.
        let print = model.fingerprint.get(..12).unwrap_or(&model.fingerprint);
        lines.push((
            "model",
            format!(
                "{}, {} dimensions, {} tokens, fingerprint {print}, {}, {}",
                model.name,
                model.dimension,
                model.max_tokens,
                model.licence,
                model.path.display()
            ),
        ));
    }
    if let Some(trial) = encoder {
        let time = |seconds: f64| layout::duration(Duration::from_secs_f64(seconds));
        lines.push(("device", format!("{} (asked for: {}): {}", trial.device, trial.asked, trial.reason)));
        lines.push((
            "encoder",
            format!(
                "{} loaded in {}, {} tokens encoded in {}",
                trial.model,
                time(trial.load_seconds),
                trial.tokens,
                time(trial.encode_seconds)
            ),
        ));
    }
    let mut text = layout::pairs(&lines, out.width());
    for finding in &answer.survey.findings {
        text.push_str(&format!("\n\n{}", finding_text(finding, out)));
    }
    if answer.survey.findings.is_empty() {
        let well = "nothing is missing: machine, runtime, models and encoder were looked at";
        text.push_str(&format!(
            "\n\n{}",
            layout::wrap_after("", &out.paint(Style::Good, well), out.width(), layout::LongWords::Keep)
        ));
    }
    if data.exists {
        let unread = "what is in the data folder was not read: `distilface verify` reads it, while no server has it open";
        text.push_str(&format!("\n{}", layout::wrap_after("", unread, out.width(), layout::LongWords::Keep)));
    }
    text
}

fn finding_text(finding: &Finding, out: &Output) -> String {
    let (label, style) = match finding.severity {
        Severity::Missing => ("missing: ", Style::Bad),
        Severity::Warning => ("warning: ", Style::Warn),
    };
    let what = layout::wrap_after(label, &finding.what, out.width(), layout::LongWords::Keep);
    let what = what.replacen(label, &out.paint(style, label), 1);
    // A missing model names the command that gets it in its own message.
    let told = |repair: &&String| finding.what.contains(repair.split(" (").next().unwrap_or(repair));
    match finding.repair.as_ref().filter(|repair| !told(repair)) {
        Some(repair) => format!("{what}\n  repair: {}", out.paint(Style::Bold, repair)),
        None => what,
    }
}
