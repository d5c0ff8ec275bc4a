//! The bounds of every setting of a recipe, what settings require of each other, and the words that state it.
//!
//! [`KEYS`] is the list of all keys with what each allows; a test holds it against [`Recipe`]'s own fields.

use std::{
    fmt::Display,
    ops::{Bound, RangeBounds},
};

use super::{Fault, Objective, Recipe};

const STEPS_MAX: u64 = 1_000_000_000;

/// A key and what it allows, in words.
pub(super) struct Key {
    pub name: &'static str,
    pub allowed: &'static str,
}

const fn key(name: &'static str, allowed: &'static str) -> Key {
    Key { name, allowed }
}

/// Every setting, in the order of the file.
pub(super) const KEYS: [Key; 53] = [
    key("base", "the name of a model, or a path to its folder"),
    key("objective", "\"simcse\", \"pairs\", \"triplets\" or \"distil\""),
    key("teacher", "the name of a model, or a path to its folder; only with objective \"distil\""),
    key("symmetric", "true or false; true only with objective \"simcse\" or \"pairs\""),
    key("temperature", "0.001 to 10"),
    key("teacher_temperature", "0.001 to 10"),
    key("queue", "0 to 1048576 embeddings"),
    key(
        "pooling",
        "\"cls\", \"mean\", \"max\", \"first_last_mean\", \"embedding_last_mean\", \"second_to_last_mean\", \
         \"last4_mean\" or \"last4_concat_mean\"",
    ),
    key("head", "\"none\" or \"mlp_train\""),
    key("matryoshka", "a list of lengths, each 1 to 65536, ascending"),
    key("word_repetition", "0 to 1; above 0 only with objective \"simcse\""),
    key("batch", "2 to 65536 examples"),
    key("micro_batch", "0 (the whole batch) to batch examples"),
    key("accumulate", "1 to 1024 batches"),
    key("epochs", "above 0, to 1000"),
    key("steps", "1 to 1000000000"),
    key("max_tokens", "4 to 8192"),
    key("seeds", "a list of one or more different whole numbers, 0 to 9223372036854775807"),
    key("learning_rate", "above 0, to 1"),
    key("schedule", "\"constant\", \"linear\" or \"cosine\""),
    key("warmup_ratio", "0 to 1"),
    key("weight_decay", "0 to 1, and below 1 / learning_rate"),
    key("clip", "0 (off) to 1000000"),
    key("betas", "two numbers, each 0 to below 1"),
    key("eps", "above 0, to 1"),
    key("dev", "a file or folder of judged pairs"),
    key("evaluate_every", "0 (only at the end) to 1000000000 steps"),
    key("patience", "0 (never stop early) to 1000000 evaluations; above 0 only with dev"),
    key("checkpoint_every", "1 to 1000000000 steps"),
    key("log_every", "1 to 1000000000 steps"),
    key("dropout.hidden", "0 to 0.9"),
    key("dropout.attention", "0 to 0.9"),
    key("lora.rank", "1 to 1024"),
    key("lora.alpha", "above 0, to 10000"),
    key("guards.near_duplicates", "\"drop\", \"refuse\" or \"keep\""),
    key("guards.test_overlap", "\"drop\", \"refuse\" or \"keep\""),
    key("guards.jaccard", "0.5 to 1"),
    key("guards.shingle_words", "1 to 8 words"),
    key("guards.overlap_words", "words in a row that may not be shared; at least contained_words"),
    key("guards.contained_words", "1 or more words"),
    key("guards.long_words", "words above which a text counts as too long"),
    key("data", "one or more [[data]] tables, or sources on the command line"),
    key("data.from", "a file, a folder or the name of a collection"),
    key(
        "data.kind",
        "\"auto\", \"text\", \"pairs\", \"triplets\", \"beir\", \"collection\" or \"documents\"",
    ),
    key("data.name", "a text that is not empty"),
    key(
        "data.make",
        "a list of \"title\", \"neighbours\", \"inverse_cloze\", \"sentences\" and \"passages\"",
    ),
    key("data.weight", "above 0, to 1000000"),
    key("data.limit", "2 or more examples"),
    key("data.limit_seed", "a whole number"),
    key("data.passage_words", "words of a passage when examples are made of documents"),
    key("data.header", "true or false, of a TSV file"),
    key("data.columns", "a list of \"anchor\", \"positive\", \"negative\" and \"skip\", of a TSV file"),
    key("data.licence", "a text that goes into the model's lineage"),
];

/// What a key allows; empty for a key that does not exist.
fn allowed(key: &str) -> &'static str {
    KEYS.iter().find(|k| k.name == key).map_or("", |k| k.allowed)
}

/// Everything that is wrong.
pub(super) fn faults(recipe: &Recipe) -> Vec<Fault> {
    let mut check = Check::default();
    objective(&mut check, recipe);
    course(&mut check, recipe);
    optimizer(&mut check, recipe);
    data(&mut check, recipe);
    check.faults
}

fn objective(check: &mut Check, recipe: &Recipe) {
    let kind = recipe.objective;
    check.that("base", !recipe.base.trim().is_empty(), "is empty");
    match (&recipe.teacher, kind) {
        (None, Objective::Distil) => check.that("teacher", false, "is missing: distil learns from one"),
        (Some(teacher), Objective::Distil) => {
            check.that("teacher", !teacher.trim().is_empty(), "is empty");
        }
        (Some(_), _) => check.that("teacher", false, "is set, but the objective has none"),
        (None, _) => {}
    }
    let both_ways = matches!(kind, Objective::Simcse | Objective::Pairs);
    check.that("symmetric", both_ways || !recipe.symmetric, "is true, but the objective has one direction");
    check.within("temperature", recipe.temperature, 0.001..=10.0);
    check.within("teacher_temperature", recipe.teacher_temperature, 0.001..=10.0);
    check.within("queue", recipe.queue, 0..=1 << 20);
    let lengths = &recipe.matryoshka;
    check.that(
        "matryoshka",
        lengths.iter().all(|length| (1..=65_536).contains(length)) && lengths.is_sorted_by(|a, b| a < b),
        format_args!("{lengths:?} is out of bounds or not ascending"),
    );
    check.within("word_repetition", recipe.word_repetition, 0.0..=1.0);
    let repeats = recipe.word_repetition > 0.0;
    check.that(
        "word_repetition",
        kind == Objective::Simcse || !repeats,
        "is above 0, but the objective has no second view of a text",
    );
    check.within("dropout.hidden", recipe.dropout.hidden, 0.0..=0.9);
    check.within("dropout.attention", recipe.dropout.attention, 0.0..=0.9);
    let same_views = recipe.dropout.hidden == 0.0 && recipe.dropout.attention == 0.0 && !repeats;
    check.that(
        "dropout.hidden",
        kind != Objective::Simcse || !same_views,
        "is 0 like dropout.attention and word_repetition: the two views of a text are the same and nothing is learnt; \
         raise one of the three",
    );
    if let Some(lora) = recipe.lora {
        check.within("lora.rank", lora.rank, 1..=1024);
        check.within("lora.alpha", lora.alpha, above(0.0, 10_000.0));
    }
}

fn course(check: &mut Check, recipe: &Recipe) {
    check.within("batch", recipe.batch, 2..=65_536);
    check.that(
        "micro_batch",
        recipe.micro_batch <= recipe.batch,
        format_args!("{} is more than the batch, {}", recipe.micro_batch, recipe.batch),
    );
    check.within("accumulate", recipe.accumulate, 1..=1024);
    check.within("epochs", recipe.epochs, above(0.0, 1000.0));
    if let Some(steps) = recipe.steps {
        check.within("steps", steps, 1..=STEPS_MAX);
    }
    check.within("max_tokens", recipe.max_tokens, 4..=8192);
    check.that("seeds", !recipe.seeds.is_empty(), "is empty");
    let mut seeds = recipe.seeds.clone();
    seeds.sort_unstable();
    let twice = seeds.windows(2).find(|pair| pair[0] == pair[1]);
    check.that("seeds", twice.is_none(), format_args!("has {} twice", twice.map_or(0, |pair| pair[0])));
    // TOML's whole numbers end there.
    let largest = seeds.last().copied().unwrap_or(0);
    check.that("seeds", i64::try_from(largest).is_ok(), format_args!("{largest} is out of bounds"));
    if let Some(dev) = &recipe.dev {
        check.that("dev", !dev.as_os_str().is_empty(), "is empty");
    }
    check.within("evaluate_every", recipe.evaluate_every, 0..=STEPS_MAX);
    check.within("patience", recipe.patience, 0..=1_000_000);
    check.that(
        "patience",
        recipe.patience == 0 || recipe.dev.is_some(),
        format_args!("is {}, but without dev nothing is evaluated", recipe.patience),
    );
    check.within("checkpoint_every", recipe.checkpoint_every, 1..=STEPS_MAX);
    check.within("log_every", recipe.log_every, 1..=STEPS_MAX);
}

fn optimizer(check: &mut Check, recipe: &Recipe) {
    check.within("learning_rate", recipe.learning_rate, above(0.0, 1.0));
    check.within("warmup_ratio", recipe.warmup_ratio, 0.0..=1.0);
    check.within("weight_decay", recipe.weight_decay, 0.0..=1.0);
    check.that(
        "weight_decay",
        recipe.weight_decay * recipe.learning_rate != 1.0,
        "with this learning_rate leaves nothing of a weight",
    );
    check.within("clip", recipe.clip, 0.0..=1e6);
    for beta in recipe.betas {
        check.within("betas", beta, 0.0..1.0);
    }
    check.within("eps", recipe.eps, above(0.0, 1.0));
}

fn data(check: &mut Check, recipe: &Recipe) {
    check.within("guards.jaccard", recipe.guards.jaccard, 0.5..=1.0);
    check.that("data", !recipe.data.is_empty(), "there is none");
    for (at, source) in recipe.data.iter().enumerate() {
        // The number tells tables apart in a message; what is allowed is the same for all.
        check.table = Some(at + 1);
        check.that("data.from", !source.from.trim().is_empty(), "is empty");
        check.that("data.name", source.name.as_ref().is_none_or(|name| !name.trim().is_empty()), "is empty");
        check.within("data.weight", source.weight, above(0.0, 1e6));
        if let Some(limit) = source.limit {
            check.within("data.limit", limit, 2..);
        }
        check.table = None;
    }
}

/// A range without its lower end.
fn above(low: f64, high: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(low), Bound::Included(high))
}

/// Gathers faults.
#[derive(Default)]
struct Check {
    faults: Vec<Fault>,
    /// Number of the `[[data]]` table that is looked at, from 1.
    table: Option<usize>,
}

impl Check {
    fn that(&mut self, key: &'static str, good: bool, problem: impl Display) {
        if !good {
            let message = format!("{problem}; allowed: {}", allowed(key));
            let key = match self.table {
                Some(table) => key.replacen('.', &format!("[{table}]."), 1),
                None => key.to_owned(),
            };
            self.faults.push(Fault { key, message });
        }
    }

    fn within<T: PartialOrd + Display>(&mut self, key: &'static str, value: T, range: impl RangeBounds<T>) {
        self.that(key, range.contains(&value), format_args!("{value} is out of bounds"));
    }
}
