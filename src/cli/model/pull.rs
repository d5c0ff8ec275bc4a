//! `distilface model pull`: a model of a Hugging Face hub.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use super::OptionArgs;
use crate::{
    cli::{
        App,
        failure::Stop,
        layout,
        output::{Output, Progress},
    },
    hub::{Hub, PullError, PullEvent, Repository},
    model::ModelDir,
};

/// How long nothing may happen: longer than any pause that the hub can ask for, or a sum takes.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Which model, and what its files do not say.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The files stay in the cache of Hugging Face's own tools, where an interrupted download goes on. \
                  HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to those tools."
)]
pub(super) struct PullArgs {
    /// A BERT or DistilBERT encoder with model.safetensors, such as sentence-transformers/all-MiniLM-L6-v2
    #[arg(value_name = "OWNER/NAME[@REVISION]")]
    repository: Repository,
    #[command(flatten)]
    options: OptionArgs,
}

/// Downloads and imports it.
pub(super) async fn run(app: &App, args: PullArgs) -> anyhow::Result<ModelDir> {
    let home = &app.loaded.config.data.home;
    let PullArgs { repository, options } = args;
    let options = options.options();
    let name = options.name.as_deref().unwrap_or(repository.name());
    ModelDir::check_new(home, name, options.force).map_err(crate::Error::from)?;
    let hub = Hub::from_environment(|variable| std::env::var(variable).ok()).map_err(model_error)?;

    let (tell, mut told) = mpsc::unbounded_channel();
    // Nobody listens any more after an interrupt, which ends the process below it.
    let work =
        tokio::task::spawn_blocking(move || hub.pull(&repository, &mut |event| drop(tell.send(event))));
    let mut show = Show { out: &app.out, current: None };
    loop {
        tokio::select! {
            event = told.recv() => match event {
                Some(event) => show.event(event),
                None => break,
            },
            () = app.interrupt.cancelled() => {
                drop(show);
                app.out.note("what came so far is kept; pull again to go on");
                return Err(Stop::Interrupted.into());
            }
            () = tokio::time::sleep(SILENCE_MAX) => {
                let file = show.current.map_or_else(|| "the list of files".to_owned(), |step| step.file);
                let reason = format!("nothing came for {} s", SILENCE_MAX.as_secs());
                return Err(model_error(PullError::Cut { file, reason }).into());
            }
        }
    }
    drop(show);
    let pulled =
        work.await.context("the download ended in a fault of its library")?.map_err(crate::Error::from)?;
    Ok(pulled.import(home, options).map_err(crate::Error::from)?)
}

fn model_error(error: PullError) -> crate::Error {
    error.into()
}

/// Events as bars and lines.
struct Show<'a> {
    out: &'a Output,
    current: Option<Step<'a>>,
}

/// The download of one file.
struct Step<'a> {
    file: String,
    begun: Instant,
    /// Bytes that were there when it began.
    had: u64,
    bar: Progress<'a>,
}

impl Show<'_> {
    fn event(&mut self, event: PullEvent) {
        match event {
            PullEvent::Downloading { file, done, total } => {
                let same = self.current.take().filter(|step| step.file == file);
                let step = self.current.insert(same.unwrap_or_else(|| Step {
                    begun: Instant::now(),
                    had: done,
                    bar: self.out.progress(&format!("downloading {file}"), Some(total)),
                    file,
                }));
                let fresh = done.saturating_sub(step.had) as f64;
                let rate = fresh / step.begun.elapsed().as_secs_f64().max(0.001) / 1e6;
                step.bar.set(
                    done,
                    &format!("{} of {}, {rate:.1} MB/s", layout::bytes(done), layout::bytes(total)),
                );
            }
            PullEvent::Waiting { reason, pause } => {
                self.out.note(&format!("{reason}; asking again in {} s", pause.as_secs()));
            }
        }
    }
}
