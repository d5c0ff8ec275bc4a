//! What a job is asked for becomes what its runs share: models opened, data read, guarded and counted.
//!
//! What is cheap to refuse is refused before the data is read, which may take long: a model that is not there, a source
//! whose name may mean two things.

use std::path::{Path, PathBuf};

use super::{Event, Progress, Records, TrainingError};
use crate::{
    config::EncoderConfig,
    encoder::Encoder,
    eval::{beir, sts},
    finetune::{
        data::{
            self, DataError,
            overlap::HeldOut,
            report::DataReport,
            source::{COLLECTION_MARK, Origin, Source},
        },
        recipe::{Objective, Recipe},
        run::{Event as RunEvent, Plan, RunReport, run},
        step::Machine,
    },
    model::ModelDir,
    threads::{self, pool::Pool},
};

/// What a job is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every setting, valid ([`Recipe::validate`]) and with at least one source of data.
    pub recipe: Recipe,
    /// What the recipe is called in the new model's lineage, such as "domain" or a file's path.
    pub recipe_name: String,
    /// Folders of STS sets or in BEIR layout whose texts and queries must not be trained on. May be empty.
    pub held_out: Vec<PathBuf>,
    /// The home folder, with the models and the runtime.
    pub home: PathBuf,
    /// Where training computes (`device`, `threads`), and how a teacher is opened.
    pub encoder: EncoderConfig,
}

/// Everything that the runs of one job share.
#[derive(Debug)]
pub struct Prepared {
    pub(super) base: ModelDir,
    pub(super) teacher: Option<Encoder>,
    pub(super) loaded: data::Loaded,
    dev: Vec<sts::StsSet>,
    machine: Machine,
    /// Where the data was read and the runs compute.
    pool: Pool,
}

impl Options {
    /// Opens the models, reads the data and guards it; writes nothing. The data is read on the pool of the job, which
    /// this makes.
    ///
    /// # Errors
    /// What is missing or wrong, by name; [`TrainingError::Ambiguous`] for a source that could be two things;
    /// [`TrainingError::Threads`].
    pub fn prepare(
        &self,
        records: &mut dyn Records,
        progress: &mut dyn Progress,
    ) -> Result<Prepared, TrainingError> {
        let Options { recipe, home, encoder, .. } = self;
        let base = ModelDir::find(home, &recipe.base)?;
        base.check_full_precision()?;
        let dev = match &recipe.dev {
            Some(path) if path.is_file() => vec![sts::load(path)?],
            Some(path) => sts::load_dev(path)?.into_iter().take(1).collect(),
            None => Vec::new(),
        };
        let held = held_out(&dev, &self.held_out)?;
        tell_origins(&recipe.data, records, progress)?;
        progress.event(Event::Reading);
        let mut collection = |name: &str| {
            records.documents(name).map_err(|reason| DataError::Unusable {
                name: name.to_owned(),
                reason: format!(
                    "it is no file or folder here, and as a collection it cannot be read: {reason}"
                ),
            })
        };
        let pool = threads::training()?;
        let load = || data::load(&recipe.data, &recipe.guards, &held, &mut collection);
        let loaded = pool.workers().install(load)?;
        let teacher = match (recipe.objective, &recipe.teacher) {
            (Objective::Distil, Some(name)) => {
                Some(Encoder::open(&ModelDir::find(home, name)?, home, encoder)?)
            }
            _ => None,
        };
        let machine =
            Machine { home: home.clone(), device: encoder.device.parse()?, threads: encoder.threads };
        Ok(Prepared { base, teacher, loaded, dev, machine, pool })
    }
}

impl Prepared {
    /// What was read and what of it is used, in numbers.
    pub fn data(&self) -> &DataReport {
        &self.loaded.report
    }

    /// How many examples there are to train on.
    pub fn examples(&self) -> usize {
        self.loaded.datasets.iter().map(|set| set.examples.len()).sum()
    }

    pub(super) fn plan<'a>(&'a self, recipe: &'a Recipe, seed: u64, folder: &'a Path) -> Plan<'a> {
        Plan {
            recipe,
            base: &self.base,
            teacher: self.teacher.as_ref(),
            datasets: &self.loaded.datasets,
            dev: &self.dev,
            seed,
            folder,
            machine: &self.machine,
        }
    }

    /// One run; it goes on from the newest checkpoint in its folder.
    pub(super) fn train(
        &self,
        recipe: &Recipe,
        seed: u64,
        folder: &Path,
        progress: &mut dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<RunReport, TrainingError> {
        progress.event(Event::RunBegan { seed });
        let mut tell = |event: RunEvent| progress.event(Event::Run(event));
        let plan = self.plan(recipe, seed, folder);
        // ONNX Runtime's threads are begun by a thread of the pool, and so have its priority.
        let report = self.pool.workers().install(|| run(&plan, &mut tell, stopped));
        progress.event(Event::RunEnded);
        Ok(report?)
    }
}

fn held_out(dev: &[sts::StsSet], folders: &[PathBuf]) -> Result<HeldOut, TrainingError> {
    let mut held = HeldOut::new();
    for set in dev {
        let texts = set.pairs.iter().flat_map(|p| [p.first.clone(), p.second.clone()]).collect();
        held.add(format!("dev set {}", set.name), texts);
    }
    for dir in folders {
        let beir = beir::corpus_path(dir).is_ok();
        if beir { held.add_beir(dir, false) } else { held.add_sts(dir) }?;
    }
    Ok(held)
}

/// Tells what each source is taken for where its name does not say it, and refuses what could be two things.
fn tell_origins(
    sources: &[Source],
    records: &mut dyn Records,
    progress: &mut dyn Progress,
) -> Result<(), TrainingError> {
    for source in
        sources.iter().filter(|source| source.may_be_either() || source.from.starts_with(COLLECTION_MARK))
    {
        let (from, name) = (source.from.as_str(), source.collection());
        // What cannot be read is an error when it is read.
        let Some(origin) = source.origin() else { continue };
        if origin != Origin::Collection && records.has_collection(name) {
            let database = records.database();
            return Err(TrainingError::Ambiguous { from: from.to_owned(), origin, database });
        }
        progress.event(Event::Source { from, name, origin });
    }
    Ok(())
}
