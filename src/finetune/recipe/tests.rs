use std::collections::BTreeSet;

use super::{bounds::KEYS, *};
use crate::{
    error::Fault as _,
    finetune::data::{
        documents::Way,
        source::{Column, SourceKind},
    },
};

fn source(from: &str) -> Source {
    Source::new(from)
}

/// A recipe that can be run.
fn good() -> Recipe {
    Recipe { data: vec![source("texts.txt")], ..Recipe::default() }
}

/// What is wrong after `change`.
fn faults(change: impl FnOnce(&mut Recipe)) -> Vec<Fault> {
    let mut recipe = good();
    change(&mut recipe);
    match recipe.validate() {
        Ok(()) => Vec::new(),
        Err(RecipeError::Faults { faults }) => faults,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_recipe_that_comes_with_the_program_lacks_only_data() {
    for (name, _) in BUILT_IN {
        let mut recipe = Recipe::find(name).unwrap();
        let RecipeError::Faults { faults } = recipe.validate().unwrap_err() else { panic!("{name}") };
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), ["data"], "{name}");
        recipe.data.push(source("texts.txt"));
        recipe.validate().unwrap();
    }
}

#[test]
fn a_micro_batch_that_was_not_asked_for_is_no_more_than_the_batch() {
    let mut recipe = Recipe { data: vec![source("texts.txt")], ..Recipe::find("domain").unwrap() };
    assert!(recipe.micro_batch > 8, "or this tests nothing");
    recipe.set("batch", "8").unwrap();
    assert_eq!((recipe.batch, recipe.micro_batch), (8, 8));
    recipe.validate().unwrap();
    recipe.set("micro_batch", "9").unwrap();
    assert!(recipe.validate().unwrap_err().to_string().contains("9 is more than the batch, 8"));
}

#[test]
fn the_papers_recipe_is_the_papers() {
    let recipe = Recipe::find("distilface").unwrap();
    assert_eq!(recipe.base, "distilbert-base-uncased");
    assert_eq!(recipe.objective, Objective::Simcse);
    assert_eq!(recipe.pooling, Some(Pooling::Mean));
    assert_eq!((recipe.batch, recipe.max_tokens, recipe.epochs), (128, 32, 1.0));
    assert_eq!((recipe.temperature, recipe.learning_rate), (0.05, 3e-5));
    assert_eq!(recipe.dropout, DropoutRates { hidden: 0.1, attention: 0.1 });
    assert_eq!(Recipe::find("distil").unwrap().objective, Objective::Distil);
    assert_eq!(Recipe::find("domain").unwrap().objective, Objective::Pairs);
    assert!(Recipe::find("domain").unwrap().symmetric);
}

#[test]
fn the_examples_in_the_domain_recipe_can_be_uncommented() {
    let text = BUILT_IN.iter().find(|(name, _)| *name == "domain").unwrap().1;
    let (head, tail) = text.split_at(text.find("# [[data]]").unwrap());
    let tail: String = tail.lines().map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
    let recipe = Recipe::parse("domain", &format!("{head}{tail}")).unwrap();
    recipe.validate().unwrap();
    assert_eq!(recipe.data.len(), 2);
    assert_eq!(recipe.data[0].make, [Way::Title, Way::Neighbours, Way::InverseCloze]);
    assert_eq!((recipe.data[1].kind, recipe.data[1].limit), (SourceKind::Pairs, Some(100_000)));
}

/// Every key that a recipe with all of its options serialises to.
fn keys(value: &toml::Value, prefix: &str, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                keys_of(value, &name, keys);
            }
        }
        _ => unreachable!("only tables are walked"),
    }
}

fn keys_of(value: &toml::Value, name: &str, all: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(_) => keys(value, name, all),
        toml::Value::Array(list) if list.first().is_some_and(toml::Value::is_table) => {
            all.insert(name.to_owned());
            keys(&list[0], name, all);
        }
        _ => {
            all.insert(name.to_owned());
        }
    }
}

#[test]
fn the_list_of_keys_is_that_of_the_fields() {
    let data = Source {
        name: Some("a".to_owned()),
        make: vec![Way::Title],
        limit: Some(2),
        header: Some(true),
        columns: vec![Column::Anchor],
        licence: Some("MIT".to_owned()),
        ..source("texts.txt")
    };
    let full = Recipe {
        teacher: Some("t".to_owned()),
        pooling: Some(Pooling::Cls),
        steps: Some(1),
        dev: Some("dev".into()),
        lora: Some(Lora::default()),
        data: vec![data],
        ..Recipe::default()
    };
    let mut found = BTreeSet::new();
    keys(&toml::Value::try_from(&full).unwrap(), "", &mut found);
    let listed: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(found, listed);
    assert_eq!(Recipe::keys().count(), found.len());
    let read: Recipe = toml::from_str(&toml::to_string(&full).unwrap()).unwrap();
    assert_eq!(read, full);
    for key in FREE_ON_RESUME {
        assert!(listed.contains(key), "{key}");
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    let mut recipe = Recipe::parse("empty", "").unwrap();
    assert_eq!(recipe, Recipe::default());
    recipe.data.push(source("texts.txt"));
    recipe.validate().unwrap();
    assert_eq!(recipe.schedule().share(0, 10), 1.0);
    recipe.warmup_ratio = 0.5;
    assert_eq!(recipe.schedule().share(1, 4), 0.5);
}

#[test]
fn all_faults_are_told_at_once_with_what_is_allowed() {
    let found = faults(|recipe| {
        recipe.temperature = 0.0;
        recipe.batch = 1;
        recipe.betas = [0.9, 1.0];
        recipe.dropout.attention = 0.95;
        recipe.data.push(Source { weight: -1.0, limit: Some(1), ..source(" ") });
    });
    let keys: Vec<&str> = found.iter().map(|fault| fault.key.as_str()).collect();
    let expected = [
        "temperature",
        "dropout.attention",
        "batch",
        "betas",
        "data[2].from",
        "data[2].weight",
        "data[2].limit",
    ];
    assert_eq!(keys, expected);
    let error = RecipeError::Faults { faults: found };
    assert!(
        error.to_string().contains("  temperature: 0 is out of bounds; allowed: 0.001 to 10\n"),
        "{error}"
    );
    assert!(error.to_string().contains("data[2].from: is empty; allowed: a file"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn every_bound_is_checked_on_both_sides() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("temperature", &["0.001", "10"], &["0.0009", "10.1", "nan"]),
        ("teacher_temperature", &["0.001", "10"], &["0", "11", "-1"]),
        ("queue", &["0", "1048576"], &["1048577"]),
        ("matryoshka", &["[]", "[64, 128]", "[65536]"], &["[0]", "[128, 64]", "[64, 64]", "[65537]"]),
        ("word_repetition", &["0", "1"], &["-0.1", "1.1"]),
        ("batch", &["2", "65536"], &["0", "1", "65537"]),
        ("micro_batch", &["0", "1", "64"], &["65"]),
        ("accumulate", &["1", "1024"], &["0", "1025"]),
        ("epochs", &["0.1", "1000"], &["0", "-1", "1001", "inf", "nan"]),
        ("steps", &["1", "1000000000"], &["0", "1000000001"]),
        ("max_tokens", &["4", "8192"], &["3", "8193"]),
        ("seeds", &["[1]", "[0, 9223372036854775807]"], &["[]", "[1, 2, 1]"]),
        ("learning_rate", &["1e-9", "1"], &["0", "1.1", "-1e-5"]),
        ("warmup_ratio", &["0", "1"], &["-0.1", "1.1"]),
        ("weight_decay", &["0", "1"], &["-0.1", "1.1"]),
        ("clip", &["0", "1e6"], &["-1", "2e6", "inf"]),
        ("betas", &["[0, 0]", "[0.99, 0.9999]"], &["[1, 0]", "[0.9, 1.0]", "[-0.1, 0.9]"]),
        ("eps", &["1e-12", "1"], &["0", "2"]),
        ("evaluate_every", &["0", "1000000000"], &["1000000001"]),
        ("checkpoint_every", &["1", "1000000000"], &["0", "1000000001"]),
        ("log_every", &["1", "1000000000"], &["0", "1000000001"]),
        ("dropout.hidden", &["0", "0.9"], &["-0.1", "0.91", "1"]),
        ("dropout.attention", &["0", "0.9"], &["-0.1", "0.91"]),
        ("lora.rank", &["1", "1024"], &["0", "1025"]),
        ("lora.alpha", &["0.5", "10000"], &["0", "10001"]),
        ("guards.jaccard", &["0.5", "1"], &["0.4", "1.1"]),
        ("base", &["a"], &["' '"]),
        ("dev", &["a"], &["''"]),
    ];
    for (key, good, bad) in cases {
        for value in *good {
            assert_eq!(faults(|recipe| recipe.set(key, value).unwrap()), [], "{key} = {value}");
        }
        for value in *bad {
            let found = faults(|recipe| recipe.set(key, value).unwrap());
            assert_eq!(found.len(), 1, "{key} = {value}: {found:?}");
            assert_eq!(found[0].key, *key);
            assert!(found[0].message.contains("; allowed: "), "{}", found[0]);
        }
    }
    assert_eq!(faults(|recipe| recipe.seeds = vec![u64::MAX])[0].key, "seeds");
    let named = Source { name: Some(String::new()), ..source("a") };
    assert_eq!(faults(|recipe| recipe.data.push(named))[0].key, "data[2].name");
}

/// What is wrong after keys were set.
fn set(pairs: &[(&str, &str)]) -> Vec<String> {
    let found = faults(|recipe| pairs.iter().for_each(|(key, value)| recipe.set(key, value).unwrap()));
    found.iter().map(Fault::to_string).collect()
}

#[test]
fn settings_that_do_not_go_together_are_told() {
    let says = |pairs: &[(&str, &str)], text: &str| {
        let found = set(pairs);
        assert!(found.len() == 1 && found[0].starts_with(text), "{pairs:?}: {found:?}");
    };
    says(&[("objective", "distil")], "teacher: is missing");
    says(&[("objective", "distil"), ("teacher", "' '")], "teacher: is empty");
    says(&[("teacher", "a")], "teacher: is set, but the objective has none");
    says(&[("objective", "triplets"), ("symmetric", "true")], "symmetric: is true, but");
    says(&[("objective", "pairs"), ("word_repetition", "0.3")], "word_repetition: is above 0, but");
    says(&[("patience", "3")], "patience: is 3, but without dev");
    says(&[("learning_rate", "1"), ("weight_decay", "1")], "weight_decay: with this learning_rate");
    let no_dropout = [("dropout.hidden", "0"), ("dropout.attention", "0")];
    says(&no_dropout, "dropout.hidden: is 0 like dropout.attention");

    assert!(set(&[("objective", "distil"), ("teacher", "a")]).is_empty());
    assert!(set(&[("objective", "pairs"), ("symmetric", "true")]).is_empty());
    assert!(set(&[("patience", "3"), ("dev", "sts")]).is_empty());
    assert!(set(&[no_dropout[0], no_dropout[1], ("word_repetition", "0.3")]).is_empty());
    assert!(set(&[no_dropout[0], no_dropout[1], ("objective", "pairs")]).is_empty());
}

#[test]
fn a_key_is_set_as_on_a_command_line_and_taken_back() {
    let mut recipe = good();
    recipe.set("pooling", "first_last_mean").unwrap();
    recipe.set("lora.rank", "4").unwrap();
    recipe.set("epochs", "2").unwrap();
    recipe.set("base", "../models/my bert").unwrap();
    assert_eq!(recipe.pooling, Some(Pooling::FirstLastMean));
    assert_eq!(recipe.lora, Some(Lora { rank: 4, alpha: 16.0 }));
    assert_eq!((recipe.epochs, recipe.base.as_str()), (2.0, "../models/my bert"));
    recipe.set("pooling", "").unwrap();
    recipe.set("lora", "").unwrap();
    recipe.set("base", "").unwrap();
    assert_eq!((recipe.pooling, recipe.lora), (None, None));
    assert_eq!(recipe.base, Recipe::default().base);

    let before = recipe.clone();
    for (key, value, says) in [
        ("temprature", "1", "no setting temprature; did you mean temperature?"),
        ("dropout.output", "0.1", "no setting dropout.output; "),
        ("guards.jacard", "0.9", "did you mean guards.jaccard?"),
        ("batch.size", "1", "batch is no table"),
        ("batch", "many", "expected usize; allowed: 2 to 65536 examples"),
        ("batch", "-1", "invalid value"),
        ("objective", "mlm", "unknown variant `mlm`, expected one of `simcse`"),
        ("objective", "simsce", "; did you mean simcse?; allowed: "),
        ("", "1", "no setting ; "),
    ] {
        let error = recipe.set(key, value).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(recipe, before);
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_place() {
    for (text, says) in [
        ("batch = 64\ntemprature = 0.1", "line 2"),
        ("batch = ", "line 1"),
        ("batch = 64\ntemprature = 0.1", "did you mean temperature?"),
        ("objective = \"piars\"", "did you mean pairs?"),
        ("[dropout]\nhiden = 0.1", "did you mean hidden?"),
        ("[dropout]\noutput = 0.1", "unknown field `output`"),
        ("[[data]]\nkind = \"text\"", "missing field `from`"),
    ] {
        let error = Recipe::parse("mine.toml", text).unwrap_err();
        assert!(error.to_string().contains(says) && error.to_string().contains("mine.toml"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_recipe_is_found_by_name_or_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    fs::write(&path, "batch = 16").unwrap();
    assert_eq!(Recipe::find(path.to_str().unwrap()).unwrap().batch, 16);

    let error = Recipe::find("nowhere").unwrap_err();
    assert!(error.to_string().contains("there are distilface, simcse, domain, distil"), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = Recipe::find("simsce").unwrap_err().to_string();
    assert!(error.contains("no recipe \"simsce\"; did you mean simcse?; there are"), "{error}");
    let error = Recipe::find(folder.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, RecipeError::Read { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);
}
