//! The tiny model rounded, from calibration to the encoder that serves.

use super::*;
use crate::{
    config::{EncoderConfig, default_home},
    encoder::{Encoder, TextKind},
    error::{ErrorKind, Fault as _},
    model::{NewQuantised, Precision, sample_texts},
    random::SplitMix,
    vector::cosine,
};

fn tiny() -> ModelDir {
    ModelDir::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap()
}

fn calibrated(texts: &[String]) -> Calibration {
    calibrate(&tiny(), &default_home(), 1, texts, |_| {})
        .expect("ONNX Runtime is needed: run `make setup` first")
}

fn rounded(home: &Path, name: &str, texts: &[String]) -> Result<ModelDir, ModelError> {
    let base = tiny();
    let calibration = &calibrated(texts);
    let texts_sha256 = "0".repeat(64);
    ModelDir::quantise(
        home,
        &NewQuantised { name, base: &base, calibration, texts: texts.len(), texts_sha256, force: false },
    )
}

fn open(model: &ModelDir) -> Encoder {
    let config = EncoderConfig { device: "cpu".into(), threads: 1, ..EncoderConfig::default() };
    Encoder::open(model, &default_home(), &config).unwrap()
}

#[test]
fn rounded_model_is_opened_like_any_other_and_gives_near_vectors_in_any_company() {
    let home = tempfile::tempdir().unwrap();
    let texts = sample_texts();
    let model = rounded(home.path(), "tiny-int8", &texts[..64]).unwrap();
    model.verify().unwrap();
    assert_eq!(model.manifest.precision(), Precision::Int8);
    assert_ne!(model.fingerprint, tiny().fingerprint);
    assert_eq!(model.manifest.quantised.as_ref().unwrap().from_fingerprint, tiny().fingerprint);

    let (full, small) = (open(&tiny()), open(&model));
    // Not among those of the calibration; of many lengths.
    let texts: Vec<String> = texts[64..160]
        .iter()
        .enumerate()
        .map(|(n, t)| t.split(' ').take(1 + n % 40).collect::<Vec<_>>().join(" "))
        .collect();
    let vectors = |encoder: &Encoder, texts: &[&String]| -> Vec<Vec<f32>> {
        encoder.encode(texts, TextKind::Raw).unwrap().into_iter().map(|e| e.values).collect()
    };
    let alone: Vec<Vec<f32>> = texts.iter().flat_map(|t| vectors(&small, &[t])).collect();
    let exact = vectors(&full, &texts.iter().collect::<Vec<_>>());
    let least = alone.iter().zip(&exact).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
    assert!(least > 0.99, "{least}");
    let mut random = SplitMix(7);
    for _ in 0..8 {
        let company: Vec<usize> =
            (0..24).map(|_| usize::try_from(random.below(texts.len() as u64)).unwrap()).collect();
        let together = vectors(&small, &company.iter().map(|&n| &texts[n]).collect::<Vec<_>>());
        for (&n, vector) in company.iter().zip(&together) {
            let off = 1.0 - cosine(&alone[n], vector);
            assert!(off < 1e-5, "{off} for {:?}", texts[n]);
        }
    }
}

#[test]
fn too_few_texts_are_refused_with_how_many_are_needed() {
    let texts = vec!["rain".to_owned(); CALIBRATION_TEXTS_MIN - 1];
    let error = calibrate(&tiny(), &default_home(), 1, &texts, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(said.contains("at least 32 texts") && said.contains("there are 31"), "{said}");
}

#[test]
fn rounded_model_is_neither_rounded_again_nor_trained() {
    let home = tempfile::tempdir().unwrap();
    let texts = vec!["the rain in the mountains".to_owned(); CALIBRATION_TEXTS_MIN];
    let model = rounded(home.path(), "small", &texts).unwrap();
    let error = calibrate(&model, &default_home(), 1, &texts, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.to_string().contains("int8 weights") && error.to_string().contains("\"tiny\""), "{error}");
    let error = crate::finetune::parameters::Parameters::of_model(&model).unwrap_err();
    assert!(error.to_string().contains("use \"tiny\""), "{error}");
    // Another of the name is only made when asked for.
    let error = rounded(home.path(), "small", &texts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
}
