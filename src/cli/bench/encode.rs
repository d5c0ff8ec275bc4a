//! `distilface bench encode`: the encoder in every way this machine has ([`bench::encode`]).

use std::{fmt::Write as _, path::PathBuf};

use crate::{
    bench::encode::{self, Asked, COSINE_MIN, EncodeReport, arithmetic::Arithmetic},
    cli::{App, eval::Scratch, layout},
    encoder::tune::arithmetic::Part,
};

/// Measure the encoder
#[derive(Debug, clap::Args)]
pub struct EncodeArgs {
    /// Texts, each source a load: a folder in BEIR layout, a folder or table of STS pairs, or a file with one text a line;
    /// several are also measured mixed [default: the sample corpus, short and long]
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<PathBuf>,
    /// Only the first N texts of each source
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How often everything runs, in turn; medians are compared
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only these ways, such as cpu/int8 [default: all that can be had]
    #[arg(long, value_name = "DEVICE/PRECISION", value_delimiter = ',')]
    only: Vec<String>,
    /// Let `auto` use the fastest way from now on
    #[arg(long)]
    save: bool,
    /// Python with sentence-transformers, to run benches/peers/encode.py in turn with this
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Where encode.py lies
    #[arg(long, value_name = "FILE", default_value = "benches/peers/encode.py")]
    peer_script: PathBuf,
}

/// Runs `distilface bench encode`.
pub fn run(app: &App, args: &EncodeArgs) -> anyhow::Result<()> {
    let asked = Asked {
        sources: args.sources.clone(),
        limit: args.limit as usize,
        rounds: args.rounds as usize,
        only: args.only.clone(),
        save: args.save,
        peer: args.peer.clone().map(|python| (python, args.peer_script.clone())),
    };
    let folder = Scratch::new("encode")?;
    let note = |text: &str| app.out.note(text);
    let report = encode::measure(&app.loaded.config, &asked, &folder.0, &note)?;
    app.out.result(&report, |r| table(r, app.out.width()))
}

fn table(report: &EncodeReport, width: usize) -> String {
    let headers: Vec<String> = ["".to_owned()]
        .into_iter()
        .chain(report.loads.iter().map(|(name, _)| format!("#{name}/s")))
        .chain(["#cosine".into(), "#least".into(), "#query ms".into(), "#padding".into()])
        .collect();
    let rows: Vec<Vec<String>> = report
        .ways
        .iter()
        .map(|way| {
            let mut row = vec![way.name.clone()];
            row.extend(way.texts_per_second.iter().map(|r| format!("{r:.1}")));
            row.push(format!("{:.5}", way.cosine_mean));
            row.push(format!("{:.5}", way.cosine_min));
            row.push(format!("{:.2}", way.query_p50_ms));
            row.push(way.padding.map_or_else(String::new, |p| format!("{:.1} %", 100.0 * p)));
            row
        })
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let sizes: Vec<String> = report.loads.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut text = format!(
        "{}, {} threads, texts: {}, medians of {} rounds in turn\n",
        report.model,
        report.threads,
        sizes.join(", "),
        report.rounds
    );
    text += &layout::table(&headers, &rows, width);
    // Writing to a String cannot fail.
    if !report.ratio_to_best_peer.is_empty() {
        let ratios = report.loads.iter().zip(&report.ratio_to_best_peer);
        let ratios: Vec<String> = ratios.map(|((name, _), r)| format!("{name} {r:.2}")).collect();
        let _ =
            write!(text, "\nover the fastest peer with a mean cosine of {COSINE_MIN}: {}", ratios.join(", "));
    }
    for way in &report.ways {
        if let Some(arithmetic) = &way.arithmetic {
            let _ = write!(text, "\n\n{}", arithmetic_table(arithmetic, &way.name, width));
        }
    }
    if let Some(path) = &report.saved {
        let _ = write!(text, "\nkept in {}; encoder.device = \"auto\" goes by it", path.display());
    }
    text
}

fn arithmetic_table(found: &Arithmetic, name: &str, width: usize) -> String {
    let headers = ["", "#tokens/text", "#10^9 products/s", "#of the peak", "#tokenizer", "#graph", "#rest"];
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rows: Vec<Vec<String>> = found
        .loads
        .iter()
        .map(|l| {
            vec![
                l.name.clone(),
                format!("{:.1}", l.tokens_per_text),
                format!("{:.0}", l.gmacs),
                percent(l.of_peak),
                percent(l.tokenizer_share),
                percent(l.graph_share),
                percent((1.0 - l.tokenizer_share - l.graph_share).max(0.0)),
            ]
        })
        .collect();
    let mut text = format!(
        "{name}: one large product of matrices does {:.0} 10^9 products/s\n{}",
        found.peak_gmacs,
        layout::table(&headers, &rows, width)
    );
    let profiles: Vec<_> =
        found.loads.iter().filter_map(|l| Some((l.name.as_str(), l.layer.as_ref()?))).collect();
    let Some((_, first)) = profiles.first() else { return text };
    let mut headers = vec!["a layer's time, one core".to_owned()];
    headers.extend(profiles.iter().map(|(name, _)| format!("#{name}")));
    let cell = |part: &Part| {
        let rate = part.gmacs.map_or_else(String::new, |g| format!(" ({g:.0})"));
        format!("{}{rate}", percent(part.share))
    };
    let rows: Vec<Vec<String>> = (0..first.len())
        .map(|n| {
            let name = first[n].name.to_owned();
            std::iter::once(name).chain(profiles.iter().map(|(_, parts)| cell(&parts[n]))).collect()
        })
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n{}\n(in brackets 10^9 products/s of the part)",
        layout::table(&headers, &rows, width)
    );
    text
}
