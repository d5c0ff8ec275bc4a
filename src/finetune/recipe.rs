//! A recipe holds every setting of a training run, with its unit, default and bounds. It is plain data.
//!
//! [`Recipe::find`] opens one of the recipes that come with the program or a file, [`Recipe::set`] lays a flag over it,
//! [`Recipe::validate`] reports everything that is wrong at once. Whether files and models that it names are there is
//! for those to say who open them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    data::{guard::GuardSettings, source::Source},
    schedule::{Decline, Schedule, Warmup},
};
use crate::{error::ErrorKind, meant, onnx::Pooling};

mod bounds;
#[cfg(test)]
mod tests;

/// The recipes that come with the program: name and text.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("distilface", include_str!("../../models/recipes/distilface.toml")),
    ("simcse", include_str!("../../models/recipes/simcse.toml")),
    ("domain", include_str!("../../models/recipes/domain.toml")),
    ("distil", include_str!("../../models/recipes/distil.toml")),
];

/// Settings that may change when a run continues, since they change no number. Base and teacher
/// are held by their fingerprints, not by what they are called.
pub const FREE_ON_RESUME: [&str; 4] = ["log_every", "checkpoint_every", "base", "teacher"];

/// All settings of a run. A key that a file leaves out has its default.
///
/// ```
/// use distilface::finetune::recipe::Recipe;
///
/// let recipe = Recipe::parse("mine", "batch = 32").unwrap();
/// assert_eq!((recipe.batch, recipe.temperature), (32, 0.05));
/// assert!(Recipe::parse("mine", "bach = 32").is_err(), "no such setting");
///
/// let domain = Recipe::find("domain").unwrap();
/// assert_ne!(domain, recipe);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Model that training starts from: a name under `home/models`, or a path. Default `minilm-l6`.
    pub base: String,
    /// The objective that training minimises. Default `simcse`.
    pub objective: Objective,
    /// Model that `distil` learns from: a name or a path. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Pairs and SimCSE: the loss of both directions, averaged. Default false.
    pub symmetric: bool,
    /// Similarities are divided by it (tau). 0.001 to 10. Default 0.05.
    pub temperature: f64,
    /// The same for the teacher's similarities. 0.001 to 10. Default 0.05.
    pub teacher_temperature: f64,
    /// Embeddings of earlier texts that `distil` compares with. 0 to 1048576. Default 16384.
    pub queue: usize,
    /// How token vectors become one. Default: the base model's pooling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// A layer between pooling and loss. Default none.
    pub head: Head,
    /// Lengths of beginnings of the embedding that are trained as embeddings, ascending. Default: none.
    pub matryoshka: Vec<usize>,
    /// SimCSE: share of a text's words that may come twice in its second view (ESimCSE's dup rate). 0 to 1. Default 0.
    pub word_repetition: f64,

    /// Examples whose embeddings are compared with each other. 2 to 65536. Default 64.
    pub batch: usize,
    /// Examples encoded at once, the rest of the batch waiting (GradCache). 0: the whole batch. To `batch`. Default 0.
    pub micro_batch: usize,
    /// Batches whose gradients are averaged for one step. 1 to 1024. Default 1.
    pub accumulate: usize,
    /// Passes over the data. Above 0, to 1000. Default 1.
    pub epochs: f64,
    /// Optimizer steps, instead of `epochs`. 1 to 1000000000. Default: as `epochs` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Tokens of a text, with the special ones; longer texts are cut. 4 to 8192. Default 32.
    pub max_tokens: usize,
    /// Each seed is a run of its own: masks, order and what is drawn follow from it. Default 42.
    pub seeds: Vec<u64>,

    /// Largest learning rate. Above 0, to 1. Default 3e-5.
    pub learning_rate: f64,
    /// Course of the learning rate behind the warmup. Default linear.
    pub schedule: Decline,
    /// Share of the steps in which the learning rate rises. 0 to 1. Default 0.
    pub warmup_ratio: f64,
    /// AdamW's decay, of matrices only. 0 to 1. Default 0.01.
    pub weight_decay: f64,
    /// Longest gradient of a step; longer ones are shortened to it. 0: as they are. 0 to 1000000. Default 1.
    pub clip: f64,
    /// AdamW's two betas, each 0 to below 1. Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// AdamW's epsilon. Above 0, to 1. Default 1e-8.
    pub eps: f64,

    /// STS file or folder on which checkpoints are compared. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<PathBuf>,
    /// Steps between two evaluations on `dev`. 0: only at the end. To 1000000000. Default 250.
    pub evaluate_every: u64,
    /// Evaluations in a row without a better one after which a run stops. 0: never. To 1000000. Default 0.
    pub patience: u64,
    /// Steps between two checkpoints to go on from. 1 to 1000000000. Default 500.
    pub checkpoint_every: u64,
    /// Steps between two lines of `metrics.jsonl`. 1 to 1000000000. Default 10.
    pub log_every: u64,

    /// Dropout of hidden states and attention. Default: see [`DropoutRates`].
    pub dropout: DropoutRates,
    /// Train an adapter instead of the weights. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Guards of the training data. Default: see [`GuardSettings`].
    pub guards: GuardSettings,
    /// Sources of training examples, `[[data]]` in the file. Default: none.
    pub data: Vec<Source>,
}

/// The objective that training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// A text is near itself under other dropout, and far from the other texts of the batch: Gao et al. 2021.
    #[default]
    Simcse,
    /// Two texts that belong together are near each other.
    Pairs,
    /// The same, and each has a text that it must be far from.
    Triplets,
    /// Similarities are those that a teacher sees: Limkonchotiwat et al. 2022 (ConGen).
    Distil,
}

/// A layer that only training has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// The loss sees what the model will give.
    #[default]
    None,
    /// Dense and tanh in training, left out of the model: Gao et al. 2021, section 6.3.
    MlpTrain,
}

/// Shares of values that are set to 0 in training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutRates {
    /// Rate behind norms and linear layers. 0 to 0.9. Default 0.1.
    pub hidden: f64,
    /// Rate of the attention's shares. 0 to 0.9. Default 0.1.
    pub attention: f64,
}

/// A low-rank adapter: Hu et al. 2021.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// 1 to 1024. Default 8.
    pub rank: usize,
    /// The adapter counts `alpha / rank`. Above 0, to 10000. Default 16.
    pub alpha: f64,
}

impl Default for DropoutRates {
    fn default() -> Self {
        DropoutRates { hidden: 0.1, attention: 0.1 }
    }
}

impl Default for Lora {
    fn default() -> Self {
        Lora { rank: 8, alpha: 16.0 }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            base: "minilm-l6".to_owned(),
            objective: Objective::default(),
            teacher: None,
            symmetric: false,
            temperature: 0.05,
            teacher_temperature: 0.05,
            queue: 16_384,
            pooling: None,
            head: Head::default(),
            matryoshka: Vec::new(),
            word_repetition: 0.0,
            batch: 64,
            micro_batch: 0,
            accumulate: 1,
            epochs: 1.0,
            steps: None,
            max_tokens: 32,
            seeds: vec![42],
            learning_rate: 3e-5,
            schedule: Decline::default(),
            warmup_ratio: 0.0,
            weight_decay: 0.01,
            clip: 1.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            dev: None,
            evaluate_every: 250,
            patience: 0,
            checkpoint_every: 500,
            log_every: 10,
            dropout: DropoutRates::default(),
            lora: None,
            guards: GuardSettings::default(),
            data: Vec::new(),
        }
    }
}

/// A setting, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting's name.
    pub key: String,
    /// What is wrong with its value.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum RecipeError {
    #[error(
        "no recipe {name:?}{}; there are {}, or give the path of a TOML file",
        meant::hint(name, BUILT_IN.map(|(name, _)| name)),
        names()
    )]
    NotFound { name: String },
    #[error("cannot read the recipe {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the recipe {name} cannot be read: {reason}")]
    Parse { name: String, reason: String },
    #[error("a recipe has no setting {key}{meant}; `distilface finetune --help` lists all of them")]
    UnknownKey { key: String, meant: String },
    #[error("the recipe's {key} cannot be {value:?}: {reason}")]
    Value { key: String, value: String, reason: String },
    #[error("the recipe has settings that cannot be:\n{}", lines(faults))]
    Faults { faults: Vec<Fault> },
}

impl crate::error::Fault for RecipeError {
    fn kind(&self) -> ErrorKind {
        match self {
            RecipeError::NotFound { .. } => ErrorKind::NotFound,
            RecipeError::Read { .. } => ErrorKind::Precondition,
            RecipeError::Parse { .. }
            | RecipeError::UnknownKey { .. }
            | RecipeError::Value { .. }
            | RecipeError::Faults { .. } => ErrorKind::Invalid,
        }
    }
}

fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}

impl Recipe {
    /// The recipe of this name that comes with the program, or else the file of this path.
    ///
    /// # Errors
    /// [`RecipeError::NotFound`], [`RecipeError::Read`], [`RecipeError::Parse`]; bounds are not looked at.
    pub fn find(name_or_path: &str) -> Result<Self, RecipeError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Recipe::parse(name, text);
        }
        let path = Path::new(name_or_path);
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RecipeError::NotFound { name: name_or_path.to_owned() },
            _ => RecipeError::Read { path: path.to_owned(), source },
        })?;
        Recipe::parse(name_or_path, &text)
    }

    /// Reads TOML; `name` is for messages.
    ///
    /// # Errors
    /// [`RecipeError::Parse`] with the place, for what is no TOML, has an unknown key or a value of another type.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let reason = format!("{}{}", error.to_string().trim_end(), meant::hint_of(error.message()));
            RecipeError::Parse { name: name.to_owned(), reason }
        })
    }

    /// Sets one key, such as `temperature` or `dropout.hidden`, to a value as a command line has it: TOML, or a bare
    /// word for a text. An empty value takes a key back to its default. A `micro_batch` that is more than a new `batch`
    /// becomes that batch, so that who asks for a small batch need not know of the other setting.
    ///
    /// # Errors
    /// [`RecipeError::UnknownKey`]; [`RecipeError::Value`] if the key cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), RecipeError> {
        let wrong = |reason: String| RecipeError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            reason: reason.trim_end().to_owned(),
        };
        let mut whole = toml::Table::try_from(&*self).map_err(|error| wrong(error.to_string()))?;
        let mut table = &mut whole;
        let (path, last) = key.rsplit_once('.').map_or((None, key), |(path, last)| (Some(path), last));
        for part in path.iter().flat_map(|path| path.split('.')) {
            let entry = table.entry(part).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().ok_or_else(|| wrong(format!("{part} is no table")))?;
        }
        if value.is_empty() {
            table.remove(last);
        } else {
            // What is no TOML by itself is a word without its quotes.
            let parsed: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
            let parsed = parsed.and_then(|mut table| table.remove("value"));
            table.insert(last.to_owned(), parsed.unwrap_or_else(|| value.into()));
        }
        *self = whole.try_into().map_err(|error: toml::de::Error| {
            if Recipe::keys().all(|(known, _)| known != key) {
                let meant = meant::hint(key, Recipe::keys().map(|(known, _)| known));
                return RecipeError::UnknownKey { key: key.to_owned(), meant };
            }
            let allowed = Recipe::keys().find(|(known, _)| *known == key).map_or("", |(_, allowed)| allowed);
            wrong(format!(
                "{}{}; allowed: {allowed}",
                error.message().trim_end(),
                meant::hint_of(error.message())
            ))
        })?;
        if key == "batch" {
            self.micro_batch = self.micro_batch.min(self.batch);
        }
        Ok(())
    }

    /// Checks every bound, and what settings ask of each other.
    ///
    /// # Errors
    /// [`RecipeError::Faults`] with all of them.
    pub fn validate(&self) -> Result<(), RecipeError> {
        let faults = bounds::faults(self);
        if faults.is_empty() { Ok(()) } else { Err(RecipeError::Faults { faults }) }
    }

    /// The learning rate's course.
    pub fn schedule(&self) -> Schedule {
        Schedule { decline: self.schedule, warmup: Warmup::Ratio(self.warmup_ratio) }
    }

    /// Every key of a recipe with what it allows, in the file's order.
    pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        bounds::KEYS.iter().map(|key| (key.name, key.allowed))
    }
}
