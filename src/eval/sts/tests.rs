use proptest::prelude::*;

use super::*;

fn set(rows: &[(f64, &str, &str)]) -> StsSet {
    let pair = |&(score, first, second): &(f64, &str, &str)| StsPair {
        score,
        first: first.to_owned(),
        second: second.to_owned(),
    };
    StsSet { name: "made".into(), pairs: rows.iter().map(pair).collect() }
}

/// A vector of two numbers from the first letter of a text: a is 0 degrees, b 10, c 20 ...
fn by_letter(texts: &[&str]) -> Result<Vec<Vec<f32>>, EvalError> {
    let vector = |text: &&str| {
        let angle = f32::from(text.as_bytes()[0] - b'a') * 10f32.to_radians();
        vec![angle.cos(), angle.sin()]
    };
    Ok(texts.iter().map(vector).collect())
}

fn read_from(content: &str) -> Result<StsSet, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.tsv");
    std::fs::write(&path, content).unwrap();
    load(&path).map_err(|e| e.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn spearman_worked_by_hand() {
    // Ranks 1 2 3 4 5 against 2 1 4 3 5: d^2 sums to 4, so 1 - 6*4/(5*24) = 0.8.
    assert!((spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[20.0, 10.0, 40.0, 30.0, 50.0]) - 0.8).abs() < 1e-12);
    // Ties: ranks 1 2.5 2.5 4 against 1 2 3 4: Pearson is 4.5 / sqrt(4.5 * 5).
    let tied = spearman(&[0.0, 1.0, 1.0, 2.0], &[1.0, 2.0, 3.0, 4.0]);
    assert!((tied - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12, "{tied}");
    // Ties on both sides: 1.5 1.5 3 against 1 2.5 2.5: Pearson is 0.75 / 1.5.
    assert!((spearman(&[5.0, 5.0, 9.0], &[0.0, 7.0, 7.0]) - 0.5).abs() < 1e-12);
    assert_eq!(spearman(&[1.0, 2.0, 3.0], &[9.0, 8.0, 7.0]), -1.0);
}

#[test]
fn a_side_without_order_correlates_with_nothing() {
    assert_eq!(spearman(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), 0.0);
    assert_eq!(spearman(&[1.0], &[2.0]), 0.0);
    assert_eq!(spearman(&[], &[]), 0.0);
}

#[test]
fn only_the_order_of_the_cosines_counts() {
    let made = set(&[(5.0, "a", "a2"), (3.0, "a", "c"), (1.0, "a", "e")]);
    assert_eq!(made.score(&mut by_letter).unwrap(), 1.0);
    let turned = set(&[(1.0, "a", "a2"), (3.0, "a", "c"), (5.0, "a", "e")]);
    assert_eq!(turned.score(&mut by_letter).unwrap(), -1.0);
}

#[test]
fn each_distinct_sentence_is_embedded_once_longest_first() {
    let sets = [set(&[(1.0, "b", "a long one"), (2.0, "c", "b")]), set(&[(1.0, "b", "d"), (0.0, "c", "c")])];
    let mut seen = Vec::new();
    let made = cosines(&sets, &mut |texts| {
        seen.extend(texts.iter().map(|&t| t.to_owned()));
        by_letter(texts)
    });
    assert_eq!(seen, ["a long one", "b", "c", "d"]);
    let made = made.unwrap();
    assert_eq!((made[0].len(), made[1].len()), (2, 2));
    assert!((made[0][1] - 10f64.to_radians().cos()).abs() < 1e-6);
    assert_eq!(made[1][1], 1.0);
}

#[test]
fn vectors_that_cannot_be_compared_are_refused() {
    let made = set(&[(1.0, "a", "b"), (2.0, "a", "c")]);
    let error = made.score::<EvalError>(&mut |_| Ok(vec![vec![1.0]])).unwrap_err().to_string();
    assert!(error.contains("1 vectors for 3 texts"), "{error}");
    let error = made.score::<EvalError>(&mut |t| Ok(vec![vec![f32::NAN]; t.len()])).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
    let error = made
        .score::<EvalError>(&mut |_| Err(EvalError::Vectors { reason: "the model went away".into() }))
        .unwrap_err()
        .to_string();
    assert!(error.contains("went away"), "{error}");
}

#[test]
fn a_file_is_read_without_quoting() {
    let made =
        read_from("subset\tscore\tsentence1\tsentence2\nx\t4.5\t\"a\" said he\tb\nx\t-0\t\tc\n").unwrap();
    assert_eq!(made.name, "made");
    assert_eq!(made.pairs, set(&[(4.5, "\"a\" said he", "b"), (0.0, "", "c")]).pairs);
}

#[test]
fn a_bad_file_says_what_is_wrong_with_it() {
    let head = "subset\tscore\tsentence1\tsentence2\n";
    for (content, says) in [
        (String::new(), "DIR/made.tsv, line 1: the header is \"\""),
        ("score\ta\tb\n1\ta\tb\n".into(), "must be subset, score, sentence1 and sentence2"),
        (format!("{head}x\t1\ta\tb\nx\t2\ta\n"), "line 3: 3 columns"),
        (format!("{head}x\t1\ta\tb\tc\n"), "line 2: 5 columns"),
        (format!("{head}x\tmuch\ta\tb\n"), "line 2: the score \"much\" is not a number"),
        (format!("{head}x\tNaN\ta\tb\n"), "line 2: the score \"NaN\" is not a number"),
        (head.into(), "needs at least two pairs, and it has 0"),
        (format!("{head}x\t1\ta\tb\n"), "needs at least two pairs, and it has 1"),
        (format!("{head}x\t3\ta\tb\nx\t3.0\tc\td\n"), "all scores are 3"),
    ] {
        let error = read_from(&content).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(load(Path::new("/nowhere/x.tsv")).is_err());
}

#[test]
fn a_folder_must_hold_the_sets_and_sick_r_dev_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let content = "subset\tscore\tsentence1\tsentence2\nx\t1\ta\tb\nx\t2\tc\td\n";
    let write = |name: &str| std::fs::write(dir.path().join(name), content).unwrap();
    let error = load_any(dir.path(), true).unwrap_err().to_string();
    assert!(error.contains("stsb-dev.tsv") && !error.contains("sickr"), "{error}");
    write("stsb-dev.tsv");
    assert_eq!(load_any(dir.path(), true).unwrap().len(), 1);
    write("sickr-dev.tsv");
    assert_eq!(load_any(dir.path(), true).unwrap()[1].name, "SICK-R dev");
    write("sts12.tsv");
    let error = load_any(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("sts13.tsv") && !error.contains("sts12.tsv"), "{error}");
    TEST_SETS.iter().for_each(|(_, file)| write(file));
    let names: Vec<String> = load_any(dir.path(), false).unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, TEST_SETS.map(|(name, _)| name));
    assert_eq!(load_any(&dir.path().join("sts12.tsv"), false).unwrap()[0].name, "sts12");
}

#[test]
fn models_are_compared_on_the_same_resamples() {
    let rows: Vec<(f64, String)> = (0..40).map(|i| (f64::from(i), format!("{i}"))).collect();
    let rows: Vec<(f64, &str, &str)> = rows.iter().map(|(s, t)| (*s, t.as_str(), "x")).collect();
    let sets = [set(&rows), set(&rows[..20])];
    let right: Vec<Vec<f64>> = sets.iter().map(StsSet::gold).collect();
    // One set in order and one turned: 100 and -100, on average 0.
    let half = vec![right[0].clone(), right[1].iter().map(|v| -v).collect()];
    let plan = Resampling { resamples: 200, ..Resampling::default() };
    let made = evaluate(&sets, &[right.clone(), half, right], &plan);
    let average = |model: usize| made.scores[model].average;
    assert_eq!((average(0).value, average(0).low, average(0).high), (100.0, 100.0, 100.0));
    assert_eq!(made.scores[1].sets[1].spearman.value, -100.0);
    assert_eq!(average(1).value, 0.0);
    let [half, same] = &made.differences[..] else { panic!("two models against the first") };
    assert_eq!((half.sets[0].1.difference, half.sets[0].1.p), (0.0, 1.0));
    assert_eq!(half.average.difference, -100.0);
    assert!(half.average.p < 0.01);
    assert_eq!((same.average.difference, same.average.p), (0.0, 1.0));
}

/// Pearson's correlation of ranks found by counting.
fn naive(a: &[f64], b: &[f64]) -> f64 {
    let rank = |values: &[f64], v: f64| {
        let below = values.iter().filter(|w| **w < v).count() as f64;
        let equal = values.iter().filter(|w| **w == v).count() as f64;
        below + (equal + 1.0) / 2.0
    };
    let ranks = |values: &[f64]| values.iter().map(|v| rank(values, *v)).collect::<Vec<f64>>();
    let (x, y) = (ranks(a), ranks(b));
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sum = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).sum::<f64>();
    let covariance = sum(&|i| (x[i] - mx) * (y[i] - my));
    let variances = sum(&|i| (x[i] - mx).powi(2)) * sum(&|i| (y[i] - my).powi(2));
    if variances == 0.0 { 0.0 } else { covariance / variances.sqrt() }
}

proptest! {
    #[test]
    fn spearman_is_pearson_of_counted_ranks(pairs in prop::collection::vec((-3i8..4, -3i8..4), 0..40)) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
        prop_assert!((spearman(&a, &b) - naive(&a, &b)).abs() < 1e-9);
    }

    #[test]
    fn spearman_sees_order_alone(pairs in prop::collection::vec((-9.0f64..9.0, -9.0f64..9.0), 2..40)) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let rho = spearman(&a, &b);
        let cubed: Vec<f64> = a.iter().map(|v| v.powi(3)).collect();
        let turned: Vec<f64> = b.iter().map(|v| -v).collect();
        prop_assert!((-1.0..=1.0).contains(&rho));
        prop_assert!((rho - spearman(&b, &a)).abs() < 1e-12);
        prop_assert!((rho - spearman(&cubed, &b)).abs() < 1e-12);
        prop_assert!((rho + spearman(&a, &turned)).abs() < 1e-12);
    }
}
