//! `models/tiny`: a BERT of a few tens of KB, made here from a seed, for tests that need no download.
//!
//! Its vectors are somewhat sensible without any training. A word's embedding is part its own and part its
//! topic's, both random; the layers' weights are so small that those embeddings go through nearly unchanged; and
//! words that say little stand almost wholly in two dimensions that the last norm takes away, so that they weigh
//! little in the mean. Texts that share words are near each other, then texts of one topic, then the rest.
//!
//! Only sums and products of exactly representable numbers are used, so that every machine writes the same bytes.

use std::{collections::BTreeMap, fs, path::PathBuf};

use half::f16;
use safetensors::tensor::{Dtype, TensorView};

use crate::random::SplitMix;

use super::{
    Architecture, FileSum, MANIFEST_FILE, MANIFEST_FORMAT, Manifest, ModelDir, Pooling, Prompts, Shape,
    TOKENIZER_FILE, WEIGHTS_FILE,
};
use crate::hub::wordpiece::{Options, tokenizer_json};

const SEED: u64 = 20_240_607;
const LAYERS: usize = 2;
const HIDDEN: usize = 32;
const HEADS: usize = 2;
const INTERMEDIATE: usize = 64;
const POSITIONS: usize = 64;
/// The first dimensions, in which words stand that say little.
const SINKS: usize = 2;

const SPECIAL: &str = "[PAD] [UNK] [CLS] [SEP] [MASK]";
const PUNCTUATION: &str = "! \" # $ % & ' ( ) * + , - . / : ; < = > ? @ [ \\ ] ^ _ ` { | } ~";
const SUFFIXES: &str = "##s ##es ##ed ##ing ##er ##ers ##est ##ly ##y ##al ##ion ##ions ##tion ##ment ##ness ##able \
    ##ful ##less ##ive ##ous ##ity ##ist ##ism ##or ##en ##th";
const LITTLE: &str = "the a an and or but if of to in on at by for from with without into over under about as is are was \
    were be been being am do does did done have has had it its this that these those he she they we you i me my your \
    his her their our who what which when where why how not no yes so than then there here can could will would \
    shall should may might must very more most much many some any all each every other another one also only just \
    up down out off again after before between through during while because both such same own too";
/// One topic a line.
const TOPICS: &str = "\
cat cats kitten dog dogs puppy animal animals pet horse cow sheep bird birds fish mouse lion tiger wolf bear fox
car cars engine motor wheel road drive driver driving truck bus traffic vehicle fuel petrol brake battery
food eat eating cook cooking bread cheese meat soup rice pasta sauce salt sugar recipe bake oven kitchen dinner taste
fruit apple apples banana orange lemon garden plant plants flower tree trees leaf seed soil grow harvest farm farmer
sea ocean water river lake boat ship ships sail wave island beach coast harbour swim deep
rain snow wind storm weather cloud sun sunny cold hot warm temperature climate summer winter spring autumn
house home room door window wall roof floor build building city town village street bridge stone wood
doctor hospital nurse patient medicine disease illness virus cell cells blood heart brain health pain vaccine treatment
school teacher student students learn learning lesson book books read reading write writing university study exam
music song sing singer guitar piano drum violin band concert orchestra melody dance dancing
computer computers software program code data server network internet file files disk memory machine screen keyboard
search index vector vectors model database query text word words document documents language meaning
money bank price cost buy sell market trade pay tax budget company business work job office
football ball game games team player play playing win goal match race run runner tennis sport olympic
star stars planet planets moon earth space rocket galaxy telescope light orbit mars
king queen war army battle history empire ancient century castle soldier law court government election president vote
mountain mountains hill valley forest desert rock climb snowy peak trail walk travel journey map
family mother father child children son daughter brother sister baby friend love wedding marriage
energy power electric electricity solar nuclear heat gas oil metal iron steel gold chemistry atom physics
paint painting painter colour red green blue yellow black white picture museum art artist film camera photo
number numbers math sum count measure large small big long short high low fast slow new old good bad
day night morning evening week month year time hour minute today tomorrow yesterday first last early late";

/// Weights that follow from a seed.
struct Random(SplitMix);

impl Random {
    /// Nearly normal, variance 1: twelve uniform numbers summed, in units of 2^-16, so that nothing is rounded.
    fn normal(&mut self) -> f32 {
        let sum: i64 = (0..12).map(|_| (self.0.next() >> 48) as i64).sum();
        (sum - 6 * 65_536) as f32 / 65_536.0
    }

    fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }
}

/// A piece of the vocabulary with its embedding.
fn vocabulary(random: &mut Random) -> Vec<(String, Vec<f32>)> {
    // How much of a piece stands in the sinks: 0 nothing, 8 nearly all.
    let mut pieces: Vec<(String, Vec<f32>)> = Vec::new();
    let mut push = |piece: &str, topic: Option<&[f32]>, sink: f32, random: &mut Random| {
        if pieces.iter().any(|(known, _)| known == piece) {
            return;
        }
        let mut row = random.normals(HIDDEN, 1.0);
        if let Some(topic) = topic {
            row.iter_mut().zip(topic).for_each(|(own, topic)| *own = 0.875 * *own + 0.5 * topic);
        }
        row[0] = sink;
        row[1] = -sink;
        pieces.push((piece.to_owned(), row));
    };
    for piece in SPECIAL.split_whitespace() {
        // Text out of the vocabulary must still be something: two such texts are alike, not empty.
        push(piece, None, if piece == "[UNK]" { 0.0 } else { 32.0 }, random);
    }
    for piece in PUNCTUATION.split_whitespace().chain(SUFFIXES.split_whitespace()) {
        push(piece, None, 16.0, random);
    }
    for letter in ('0'..='9').chain('a'..='z') {
        push(&letter.to_string(), None, 4.0, random);
        push(&format!("##{letter}"), None, 4.0, random);
    }
    for word in LITTLE.split_whitespace() {
        push(word, None, 16.0, random);
    }
    for line in TOPICS.lines() {
        let topic = random.normals(HIDDEN, 1.0);
        for word in line.split_whitespace() {
            push(word, Some(&topic), 0.0, random);
        }
    }
    pieces
}

/// Name, shape and values of every tensor.
fn tensors(random: &mut Random, words: &[(String, Vec<f32>)]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut tensors = Vec::new();
    let mut push = |name: &str, shape: &[usize], values: Vec<f32>| {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        tensors.push((name.to_owned(), shape.to_vec(), values));
    };
    let rows = words.iter().flat_map(|(_, row)| row.iter().copied()).collect();
    push("embeddings.word_embeddings.weight", &[words.len(), HIDDEN], rows);
    let positions = random.normals(POSITIONS * HIDDEN, 1.0 / 64.0);
    push("embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN], positions);
    push("embeddings.token_type_embeddings.weight", &[1, HIDDEN], random.normals(HIDDEN, 1.0 / 64.0));
    push("embeddings.LayerNorm.weight", &[HIDDEN], vec![1.0; HIDDEN]);
    push("embeddings.LayerNorm.bias", &[HIDDEN], vec![0.0; HIDDEN]);
    for layer in 0..LAYERS {
        let mut linear = |name: &str, inputs: usize, outputs: usize| {
            let name = format!("encoder.layer.{layer}.{name}");
            push(&format!("{name}.weight"), &[outputs, inputs], random.normals(inputs * outputs, 1.0 / 32.0));
            push(&format!("{name}.bias"), &[outputs], random.normals(outputs, 1.0 / 64.0));
        };
        linear("attention.self.query", HIDDEN, HIDDEN);
        linear("attention.self.key", HIDDEN, HIDDEN);
        linear("attention.self.value", HIDDEN, HIDDEN);
        linear("attention.output.dense", HIDDEN, HIDDEN);
        linear("intermediate.dense", HIDDEN, INTERMEDIATE);
        linear("output.dense", INTERMEDIATE, HIDDEN);
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            let mut scale = vec![1.0; HIDDEN];
            if layer + 1 == LAYERS && norm == "output.LayerNorm" {
                scale[..SINKS].fill(0.0);
            }
            push(&format!("encoder.layer.{layer}.{norm}.weight"), &[HIDDEN], scale);
            push(&format!("encoder.layer.{layer}.{norm}.bias"), &[HIDDEN], vec![0.0; HIDDEN]);
        }
    }
    tensors
}

/// The three files, by name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(SplitMix(SEED));
    let words = vocabulary(&mut random);
    let lines: String = words.iter().map(|(word, _)| format!("{word}\n")).collect();
    let tokenizer = tokenizer_json(&lines, &Options::default()).unwrap().into_bytes();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&mut random, &words)
        .into_iter()
        .map(|(name, shape, values)| {
            let halves = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
            (name, shape, halves)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F16, shape.clone(), data).unwrap()));
    let weights = safetensors::serialize(views, None).unwrap();
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: "tiny".into(),
        architecture: Architecture::Bert,
        dimension: HIDDEN as u32,
        pooling: Pooling::Mean,
        normalise: true,
        max_tokens: POSITIONS,
        licence: "Apache-2.0".into(),
        source: "random weights from a seed, made by src/model/tiny.rs for tests".into(),
        lineage: Vec::new(),
        shape: Shape {
            layers: LAYERS,
            hidden: HIDDEN,
            heads: HEADS,
            intermediate: INTERMEDIATE,
            vocabulary: words.len(),
            positions: POSITIONS,
            type_vocabulary: 1,
            layer_norm_eps: 1e-12,
        },
        prompts: Prompts::default(),
        quantised: None,
        files: BTreeMap::from([
            (WEIGHTS_FILE.to_owned(), FileSum::of_bytes(&weights)),
            (TOKENIZER_FILE.to_owned(), FileSum::of_bytes(&tokenizer)),
        ]),
    };
    vec![
        (WEIGHTS_FILE, weights),
        (TOKENIZER_FILE, tokenizer),
        (MANIFEST_FILE, manifest.to_toml().into_bytes()),
    ]
}

/// `models/tiny` of this repository.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join("tiny")
}

/// After a change here: `DISTILFACE_WRITE_TINY=1 cargo test --lib model::tiny`, and commit what it wrote.
#[test]
fn committed_model_is_what_this_file_makes() {
    let write = std::env::var_os("DISTILFACE_WRITE_TINY").is_some();
    for (name, content) in files() {
        let path = folder().join(name);
        if write {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &content).unwrap();
        }
        assert!(
            fs::read(&path).unwrap() == content,
            "{} is not what src/model/tiny.rs makes",
            path.display()
        );
    }
    let model = ModelDir::open(&folder()).unwrap();
    model.verify().unwrap();
}

#[test]
fn every_ascii_word_has_pieces() {
    let words = vocabulary(&mut Random(SplitMix(SEED)));
    let has = |piece: &str| words.iter().any(|(known, _)| known == piece);
    for byte in b'!'..=b'~' {
        let letter = char::from(byte).to_ascii_lowercase();
        assert!(has(&letter.to_string()), "{letter}");
        assert!(!letter.is_ascii_alphanumeric() || has(&format!("##{letter}")), "{letter}");
    }
}
