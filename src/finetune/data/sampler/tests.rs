use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn texts(n: usize, weight: f64) -> Dataset {
    let examples = (0..n).map(|i| Example::text(format!("text {i}"))).collect();
    Dataset { weight, ..Dataset::new(format!("of {n}"), Kind::Texts, examples) }
}

fn batches(sampler: &mut Sampler, steps: u64) -> Vec<Batch> {
    (0..steps).map(|step| sampler.batch(step)).collect()
}

#[test]
fn an_epoch_holds_every_example_once_but_for_what_fills_no_batch() {
    let mut sampler = Sampler::new(&[texts(23, 1.0)], 5, 9).unwrap();
    assert_eq!(sampler.batches_per_epoch(0), 4);
    let all = batches(&mut sampler, 8);
    let mut orders = Vec::new();
    for (epoch, of_epoch) in all.chunks(4).enumerate() {
        let examples: Vec<usize> = of_epoch.iter().flat_map(|b| b.examples.clone()).collect();
        assert_eq!(examples.iter().collect::<BTreeSet<_>>().len(), 20);
        assert!(of_epoch.iter().all(|b| b.epoch == epoch as u64 && b.repeated == 0));
        orders.push(examples);
    }
    assert_ne!(orders[0], orders[1], "each epoch has its own order");
}

#[test]
fn the_seed_decides() {
    let of = |seed| batches(&mut Sampler::new(&[texts(100, 1.0), texts(60, 0.5)], 4, seed).unwrap(), 30);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn an_epoch_in_another_order_is_another_permutation_of_all() {
    // Every place is taken by every example about equally often.
    let mut counts = [[0; 6]; 6];
    for seed in 0..1200 {
        let mut sampler = Sampler::new(&[texts(6, 1.0)], 6, seed).unwrap();
        for (place, example) in sampler.batch(0).examples.into_iter().enumerate() {
            counts[place][example] += 1;
        }
    }
    assert!(counts.as_flattened().iter().all(|n| (150..250).contains(n)), "{counts:?}");
}

#[test]
fn shares_follow_the_weights_at_every_step() {
    let weights = [6.0, 3.0, 1.0];
    let sets: Vec<Dataset> = weights.iter().map(|w| texts(40, *w)).collect();
    let mut sampler = Sampler::new(&sets, 4, 5).unwrap();
    let mut counts = [0.0f64; 3];
    for step in 0..2000u64 {
        counts[sampler.batch(step).dataset] += 1.0;
        for (count, weight) in counts.iter().zip(weights) {
            let due = (step + 1) as f64 * weight / 10.0;
            assert!((count - due).abs() < 4.0, "after step {step}: {counts:?}");
        }
    }
}

#[test]
fn steps_of_an_epoch_end_with_the_first_set() {
    let mut sampler = Sampler::new(&[texts(100, 3.0), texts(10, 1.0)], 5, 2).unwrap();
    let steps = sampler.steps(2);
    let drawn = batches(&mut sampler, steps);
    assert_eq!(drawn.iter().filter(|b| b.dataset == 0).count(), 40);
    let last = drawn.last().unwrap();
    assert_eq!((last.dataset, last.epoch), (0, 1));
    assert_eq!(sampler.steps(0), 0);
    let mut alone = Sampler::new(&[texts(23, 1.0)], 5, 2).unwrap();
    assert_eq!(alone.steps(3), 12);
}

#[test]
fn a_set_smaller_than_a_batch_says_how_many_there_are_and_are_needed() {
    let error = Sampler::new(&[texts(50, 1.0), texts(7, 1.0)], 8, 1).unwrap_err();
    assert!(matches!(error, DataError::SmallerThanBatch { examples: 7, batch_size: 8, .. }));
    assert!(error.to_string().contains("of 7 has 7 texts and a batch takes 8"), "{error}");
}

#[test]
fn no_data_a_batch_of_one_and_bad_weights_are_refused() {
    let said = |sets: &[Dataset], batch_size| Sampler::new(sets, batch_size, 1).unwrap_err().to_string();
    assert!(said(&[], 4).contains("[[data]]"));
    assert!(said(&[texts(9, 1.0)], 1).contains("2 or more"));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(said(&[texts(9, weight)], 4).contains("weight"));
    }
}

#[test]
fn examples_that_share_a_text_are_kept_apart_where_possible() {
    // 40 anchors, each with three positives, in batches of 16.
    let pairs = (0..120).map(|i| Example::pair(format!("a {}", i / 3), format!("p {i}"))).collect();
    let set = Dataset::new("p", Kind::Pairs, pairs);
    let mut sampler = Sampler::new(std::slice::from_ref(&set), 16, 3).unwrap();
    for step in 0..70 {
        let batch = sampler.batch(step);
        let anchors: BTreeSet<_> = batch.examples.iter().map(|&i| &set.examples[i].anchor).collect();
        assert_eq!(16 - anchors.len(), batch.repeated, "step {step}");
        // The last batch of an epoch takes what is left.
        assert!(batch.repeated == 0 || step % 7 == 6, "step {step}: {}", batch.repeated);
    }
}

#[test]
fn what_cannot_be_kept_apart_is_said() {
    let same = Dataset::new("s", Kind::Texts, vec![Example::text("the same"); 50]);
    let mut sampler = Sampler::new(&[same], 8, 3).unwrap();
    for step in 0..12 {
        assert_eq!(sampler.batch(step).repeated, 7);
    }
}

#[test]
fn a_negative_that_is_anothers_positive_is_a_shared_text() {
    let mut triplets = vec![Example::triplet("a", "p", "n"), Example::triplet("b", "q", "p")];
    triplets.extend((0..2).map(|i| Example::triplet(format!("a{i}"), format!("p{i}"), format!("n{i}"))));
    let mut sampler = Sampler::new(&[Dataset::new("t", Kind::Triplets, triplets)], 4, 1).unwrap();
    assert_eq!(sampler.batch(0).repeated, 1);
}

#[test]
fn examples_of_one_document_are_kept_apart_if_there_are_documents_enough() {
    let grouped =
        |documents: u32| Dataset { groups: (0..200).map(|i| i % documents).collect(), ..texts(200, 1.0) };
    let (many, few) = (grouped(50), grouped(5));
    let mut sampler = Sampler::new(std::slice::from_ref(&many), 20, 4).unwrap();
    for step in 0..9 {
        let groups: BTreeSet<_> = sampler.batch(step).examples.iter().map(|&i| many.groups[i]).collect();
        assert_eq!(groups.len(), 20, "step {step}");
    }
    let batch = Sampler::new(&[few], 20, 4).unwrap().batch(0);
    assert_eq!((batch.examples.len(), batch.repeated), (20, 0));
}

proptest! {
    #[test]
    fn a_step_gives_the_same_batch_in_any_order_of_asking(
        sizes in prop::collection::vec((4usize..60, 1u32..10), 1..4),
        asked in prop::collection::vec(0u64..120, 1..12),
        distinct in 2usize..60, seed: u64,
    ) {
        let sets: Vec<Dataset> = sizes
            .iter()
            .map(|(n, weight)| {
                let examples = (0..*n).map(|i| Example::pair(format!("{}", i % distinct), format!("p{i}"))).collect();
                Dataset { weight: f64::from(*weight), ..Dataset::new("x", Kind::Pairs, examples) }
            })
            .collect();
        let in_order = batches(&mut Sampler::new(&sets, 4, seed).unwrap(), 120);
        let mut sampler = Sampler::new(&sets, 4, seed).unwrap();
        for step in asked {
            prop_assert_eq!(&sampler.batch(step), &in_order[step as usize]);
        }
        for batch in &in_order {
            let different: BTreeSet<_> = batch.examples.iter().collect();
            prop_assert_eq!(different.len(), 4, "an example is in a batch once");
            prop_assert!(batch.examples.iter().all(|&i| i < sets[batch.dataset].examples.len()));
        }
    }
}
