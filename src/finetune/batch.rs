//! The examples of one batch become what a step takes: tokens, and the inputs of its objective.

use std::collections::HashMap;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{
    FinetuneError,
    data::{Dataset, Example, Kind, repetition::repeat_words},
    objective::{Objective, ObjectiveInputs},
    recipe::{self, Recipe},
    step::Tokens,
};
use crate::{encoder::Tokenizer, random::mixed};

/// The objective that a data set's batches are trained for.
///
/// Single texts go by the recipe's objective; what has partners is trained for these, whatever the recipe's objective:
/// that is supervised replay.
pub fn objective_of(recipe: &Recipe, kind: Kind) -> Objective {
    let contrastive = |groups, symmetric| Objective::Contrastive {
        groups,
        symmetric,
        temperature: recipe.temperature as f32,
        matryoshka: recipe.matryoshka.clone(),
    };
    match kind {
        Kind::Texts if recipe.objective == recipe::Objective::Distil => Objective::Distil {
            temperature: recipe.temperature as f32,
            teacher_temperature: recipe.teacher_temperature as f32,
        },
        // A text's two views have no direction.
        Kind::Texts => contrastive(2, recipe.symmetric),
        Kind::Pairs => contrastive(2, recipe.symmetric),
        Kind::Triplets => contrastive(3, recipe.symmetric),
    }
}

/// The texts of a batch, in the order in which an objective reads them.
pub fn texts<'a>(set: &'a Dataset, examples: &[usize], objective: &Objective) -> Vec<&'a str> {
    let part = |of: fn(&Example) -> &str| examples.iter().map(move |&n| of(&set.examples[n]));
    let anchor: fn(&Example) -> &str = |e| &e.anchor;
    let mut all: Vec<&str> = part(anchor).collect();
    if objective.groups() > 1 {
        // A text alone is its own partner.
        all.extend(part(|e| e.positive.as_deref().unwrap_or(&e.anchor)));
    }
    if objective.groups() > 2 {
        all.extend(part(|e| e.negative.as_deref().expect("triplets have negatives")));
    }
    all
}

/// Token numbers of `texts`, with words repeated in the second half if the recipe says so and the halves are two views
/// of the same texts.
///
/// # Errors
/// The errors of the tokenizer.
pub(crate) fn tokens(
    tokenizer: &Tokenizer,
    texts: &[&str],
    two_views: bool,
    recipe: &Recipe,
    seed: u64,
) -> Result<Tokens, FinetuneError> {
    let ids: Result<Vec<Vec<u32>>, _> =
        texts.par_iter().map(|text| tokenizer.encode(text).map(|tokens| tokens.ids)).collect();
    let mut ids = ids?;
    if two_views && recipe.word_repetition > 0.0 {
        let (before, behind) = tokenizer.special();
        let half = ids.len() / 2;
        for (n, view) in ids[half..].iter_mut().enumerate() {
            let text = before..view.len() - behind;
            *view =
                repeat_words(view, text, recipe.word_repetition, recipe.max_tokens, mixed(seed, n as u64));
        }
    }
    Ok(Tokens::padded(&ids))
}

/// The inputs of a contrastive objective: false negatives, candidates that say the same as the anchor or as its
/// partner word for word, are left out of its loss.
pub fn contrastive_inputs(texts: &[&str], objective: &Objective) -> ObjectiveInputs {
    let Objective::Contrastive { groups, symmetric, .. } = *objective else {
        return ObjectiveInputs::default();
    };
    let n = texts.len() / groups;
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let numbers: Vec<usize> = texts
        .iter()
        .map(|text| {
            let next = numbers.len();
            *numbers.entry(text).or_insert(next)
        })
        .collect();
    let (anchors, candidates) = numbers.split_at(n);
    let same = |i: usize, j: usize| candidates[j] == anchors[i] || candidates[j] == candidates[i];
    let same_back = |i: usize, j: usize| anchors[j] == candidates[i] || anchors[j] == anchors[i];
    ObjectiveInputs::contrastive(n, groups, symmetric, same, same_back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::objective::{EXCLUDED, EXCLUDED_ANCHORS, EXCLUDED_CANDIDATES};

    fn contrastive(groups: usize) -> Objective {
        Objective::Contrastive { groups, symmetric: true, temperature: 0.05, matryoshka: Vec::new() }
    }

    fn input(inputs: &ObjectiveInputs, name: &str) -> Vec<f32> {
        inputs.tensors.iter().find(|(n, _, _)| *n == name).unwrap().2.clone()
    }

    #[test]
    fn texts_stand_group_after_group() {
        let set = Dataset::new(
            "set",
            Kind::Triplets,
            vec![Example::triplet("a", "b", "c"), Example::triplet("d", "e", "f")],
        );
        assert_eq!(texts(&set, &[1, 0], &contrastive(3)), ["d", "a", "e", "b", "f", "c"]);
        assert_eq!(texts(&set, &[1, 0], &contrastive(2)), ["d", "a", "e", "b"]);
        let set = Dataset::new("set", Kind::Texts, vec![Example::text("a"), Example::text("b")]);
        assert_eq!(texts(&set, &[0, 1], &contrastive(2)), ["a", "b", "a", "b"]);
    }

    #[test]
    fn a_text_that_comes_twice_is_no_negative_of_itself() {
        // Anchors rain, snow, rain; partners wet, cold, wet: rows 0 and 2 are each other's false negatives.
        let inputs = contrastive_inputs(&["rain", "snow", "rain", "wet", "cold", "wet"], &contrastive(2));
        let no = EXCLUDED;
        let expected = [0.0, 0.0, no, 0.0, 0.0, 0.0, no, 0.0, 0.0];
        assert_eq!(input(&inputs, EXCLUDED_CANDIDATES), expected);
        assert_eq!(input(&inputs, EXCLUDED_ANCHORS), expected);
    }

    #[test]
    fn another_rows_hard_negative_that_is_this_rows_partner_does_not_count() {
        let inputs = contrastive_inputs(&["a", "b", "p", "q", "n", "p"], &contrastive(3));
        let row = &input(&inputs, EXCLUDED_CANDIDATES)[..4];
        assert_eq!(row, [0.0, 0.0, 0.0, EXCLUDED]);
    }
}
