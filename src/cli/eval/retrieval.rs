//! `distilface eval retrieval`: search on judged collections, of one model or of two side by side.

use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::{ResamplingArgs, Scratch, with_interval, with_p};
use crate::{
    cli::{
        App,
        failure::{Stop, usage},
        layout, signals,
    },
    config::Config,
    eval::{
        beir::{self, JudgedCollection},
        bootstrap::{Estimate, Resampling},
        measures::OfEach,
        retrieval::{self, RetrievalComparison, RetrievalReport},
    },
    training::{RetrievalOptions, evaluate},
};

/// nDCG@10, recall@100 and MRR@10 on judged collections in BEIR layout, exact and by the index
#[derive(Debug, clap::Args)]
pub(super) struct RetrievalArgs {
    /// Folders with corpus.jsonl (or .gz, .zst), queries.jsonl and qrels.tsv
    #[arg(required = true, value_hint = clap::ValueHint::DirPath)]
    dirs: Vec<PathBuf>,
    /// Another pair of queries and judgements: `train` reads queries-train.jsonl and qrels-train.tsv
    #[arg(long)]
    split: Option<String>,
    /// One passage per document, cut at the model's limit
    #[arg(long)]
    no_chunking: bool,
    /// Candidates kept by the graph [default: the collection's]
    #[arg(long)]
    ef: Option<usize>,
    /// Compare every vector, and leave the index's searches out
    #[arg(long, conflicts_with = "ef")]
    exact_only: bool,
    /// Also measure this model, and how it differs query by query
    #[arg(long, value_name = "MODEL")]
    compare: Option<String>,
    #[command(flatten)]
    resampling: ResamplingArgs,
}

/// One set.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    first: RetrievalReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<RetrievalComparison>,
    resampling: Resampling,
}

pub(super) fn run(app: &App, args: &RetrievalArgs) -> anyhow::Result<()> {
    let config = &app.loaded.config;
    let none = crate::config::NO_MODEL;
    if config.encoder.model == none || args.compare.as_deref() == Some(none) {
        return Err(usage("retrieval needs an encoder: name a model instead of \"none\""));
    }
    let plan = Resampling::from(&args.resampling);
    let options = RetrievalOptions {
        chunking_disabled: args.no_chunking,
        ef: args.ef,
        exact_only: args.exact_only,
        resampling: plan,
    };
    let second = args.compare.as_ref().map(|name| {
        let mut config = config.clone();
        config.encoder.model.clone_from(name);
        config
    });
    // An interrupt leaves no folder behind.
    signals::follow(app)?;
    let mut reports = Vec::new();
    for dir in &args.dirs {
        let set = beir::load(dir, args.split.as_deref())?;
        let documents = layout::counted(set.corpus.len() as u64, "document");
        let queries = layout::counted_as(set.queries.len() as u64, "query", "queries");
        app.out.note(&format!("{}: {documents}, {queries}", set.name));
        let first = measure(app, &set, config, options)?;
        let comparison = match &second {
            Some(config) => {
                // The index tells nothing more about the encoder.
                let report = measure(app, &set, config, RetrievalOptions { exact_only: true, ..options })?;
                Some(retrieval::compare(&first, report, &plan)?)
            }
            None => None,
        };
        reports.push(Report { first, comparison, resampling: plan });
    }
    app.out.result(&reports, |reports| table(reports, app.out.width()))
}

fn measure(
    app: &App,
    set: &JudgedCollection,
    config: &Config,
    options: RetrievalOptions,
) -> anyhow::Result<RetrievalReport> {
    let folder = Scratch::new("eval")?;
    let runtime = tokio::runtime::Runtime::new().context("starting the async runtime")?;
    let stopped = app.interrupt.cancelled();
    let report = runtime.block_on(evaluate::retrieval(set, config, &folder.0, options, stopped))?;
    report.ok_or_else(|| Stop::Interrupted.into())
}

/// One set, a measure a line, so that both models stand side by side in a narrow window.
fn beside(Report { first, comparison, .. }: &Report, width: usize) -> String {
    const MEASURES: [&str; 3] = ["nDCG@10", "R@100", "MRR@10"];
    let cells = |e: &OfEach<Estimate>| {
        [e.ndcg_at_10, e.recall_at_100, e.mrr_at_10].map(|estimate| with_interval(&estimate, 3))
    };
    let speed = |r: &RetrievalReport| format!("{:.0}", r.documents_per_second);
    let second = comparison.as_ref().map(|c| &c.report);
    let model = |r: &RetrievalReport| format!("#{}", r.model);
    let mut headers = vec![first.set.clone(), model(first)];
    headers.extend(second.map(model));
    headers.extend(comparison.iter().flat_map(|_| ["#difference".to_owned(), "#p".to_owned()]));
    let differences = comparison
        .as_ref()
        .map(|c| [c.difference.ndcg_at_10, c.difference.recall_at_100, c.difference.mrr_at_10]);
    let exact = (cells(&first.exact_intervals), second.map(|r| cells(&r.exact_intervals)));
    let mut rows = Vec::new();
    for (i, measure) in MEASURES.iter().enumerate() {
        let mut row = vec![(*measure).to_owned(), exact.0[i].clone()];
        row.extend(exact.1.as_ref().map(|cells| cells[i].clone()));
        row.extend(differences.iter().flat_map(|d| with_p(&d[i], 3)));
        rows.push(row);
    }
    for (i, of_index) in first.indexed.iter().flat_map(|r| cells(&r.index_intervals)).enumerate() {
        rows.push(vec![format!("{}, index", MEASURES[i]), of_index]);
    }
    let mut row = vec!["doc/s".to_owned(), speed(first)];
    row.extend(second.map(speed));
    rows.push(row);
    for row in &mut rows {
        row.resize(headers.len(), String::new());
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    layout::figures(&headers, &rows, width)
}

fn table(reports: &[Report], width: usize) -> String {
    let mut rows = Vec::new();
    let estimates = |set: &str, model: &str, search: &str, e: &OfEach<Estimate>, speed: String| {
        let [ndcg, recall, mrr] = [e.ndcg_at_10, e.recall_at_100, e.mrr_at_10].map(|e| with_interval(&e, 3));
        vec![set.to_owned(), model.to_owned(), search.to_owned(), ndcg, recall, mrr, speed]
    };
    for Report { first, comparison, .. } in reports {
        let speed = |r: &RetrievalReport| format!("{:.0}", r.documents_per_second);
        rows.push(estimates(&first.set, &first.model, "exact", &first.exact_intervals, speed(first)));
        if let Some(indexed) = &first.indexed {
            rows.push(estimates(&first.set, &first.model, "index", &indexed.index_intervals, String::new()));
        }
        if let Some(RetrievalComparison { report: r, difference: d }) = comparison {
            rows.push(estimates(&r.set, &r.model, "exact", &r.exact_intervals, speed(r)));
            let [ndcg, recall, mrr] = [d.ndcg_at_10, d.recall_at_100, d.mrr_at_10].map(|d| with_p(&d, 3));
            let name = "difference".to_owned();
            rows.push(vec![
                r.set.clone(),
                name,
                "exact".into(),
                ndcg[0].clone(),
                recall[0].clone(),
                mrr[0].clone(),
                String::new(),
            ]);
            let p = [ndcg, recall, mrr].map(|[_, p]| format!("p = {p}"));
            let [ndcg, recall, mrr] = p;
            rows.push(vec![r.set.clone(), String::new(), String::new(), ndcg, recall, mrr, String::new()]);
        }
    }
    let headers = ["set", "model", "search", "#nDCG@10", "#R@100", "#MRR@10", "#doc/s"];
    let compared = reports.iter().any(|report| report.comparison.is_some());
    let mut text = if compared && !layout::fits(&headers, &rows, width) {
        reports.iter().map(|report| beside(report, width)).collect::<Vec<_>>().join("\n\n")
    } else {
        layout::figures(&headers, &rows, width)
    };
    if let Some(Report { first, comparison, resampling }) = reports.first() {
        let resamples = layout::thousands(resampling.resamples as u64);
        text += &format!("\n\nIn brackets the 95 % interval of {resamples} resamples of the queries.");
        if let Some(RetrievalComparison { report, .. }) = comparison {
            text += &format!("\nThe difference is {} less {}, query by query.", report.model, first.model);
        }
    }
    text
}
