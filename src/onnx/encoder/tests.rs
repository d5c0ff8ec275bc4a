//! The graph's form and bytes, and, where ONNX Runtime is installed, its values against the reference.

use std::path::{Path, PathBuf};

use safetensors::{SafeTensors, tensor::Dtype, tensor::TensorView as Stored};

use super::*;
use crate::runtime::{DeviceChoice, Plan, Precision, Session, TensorView};

const SHAPE: Shape = Shape {
    layers: 1,
    hidden: 4,
    heads: 2,
    intermediate: 6,
    vocabulary: 5,
    positions: 3,
    type_vocabulary: 2,
    layer_norm_eps: 1e-12,
};

/// Weights of a DistilBERT of [`SHAPE`], with a prefix, without one tensor, or with one of another type.
fn file(prefix: &str, without: &str, halved: &str) -> Vec<u8> {
    let Shape { hidden, intermediate, vocabulary, positions, .. } = SHAPE;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![vocabulary, hidden]),
        ("embeddings.position_embeddings.weight".into(), vec![positions, hidden]),
        ("embeddings.LayerNorm.weight".into(), vec![hidden]),
        ("embeddings.LayerNorm.bias".into(), vec![hidden]),
    ];
    for (name, outputs, inputs) in [
        ("attention.q_lin", hidden, hidden),
        ("attention.k_lin", hidden, hidden),
        ("attention.v_lin", hidden, hidden),
        ("attention.out_lin", hidden, hidden),
        ("ffn.lin1", intermediate, hidden),
        ("ffn.lin2", hidden, intermediate),
    ] {
        shapes.push((format!("transformer.layer.0.{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("transformer.layer.0.{name}.bias"), vec![outputs]));
    }
    for name in ["sa_layer_norm", "output_layer_norm"] {
        shapes.push((format!("transformer.layer.0.{name}.weight"), vec![hidden]));
        shapes.push((format!("transformer.layer.0.{name}.bias"), vec![hidden]));
    }
    let tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .filter(|(name, _)| name != without)
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| (i + name.len()) as f32 / 64.0);
            let dtype = if name == halved { Dtype::F64 } else { Dtype::F32 };
            let data = match dtype {
                Dtype::F64 => values.flat_map(|v| f64::from(v).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            };
            (format!("{prefix}{name}"), dtype, shape, data)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, Stored::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn spec(shape: &Shape) -> EncoderGraph<'_> {
    EncoderGraph {
        architecture: Architecture::Distilbert,
        shape,
        pooling: Pooling::Mean,
        normalise: true,
        hidden_outputs: false,
    }
}

fn bytes_of(file: Vec<u8>) -> Result<Vec<u8>, OnnxError> {
    spec(&SHAPE).to_bytes(&Weights::new(file)?)
}

#[test]
fn same_weights_give_the_same_bytes_with_or_without_prefix() {
    let plain = bytes_of(file("", "", "")).unwrap();
    assert_eq!(bytes_of(file("", "", "")).unwrap(), plain);
    assert_eq!(bytes_of(file("distilbert.", "", "")).unwrap(), plain);
}

#[test]
fn inputs_and_outputs_are_the_contract() {
    let weights = Weights::new(file("", "", "")).unwrap();
    let names = |hidden_outputs| {
        let graph = EncoderGraph { hidden_outputs, ..spec(&SHAPE) }.model(&weights).unwrap().graph.unwrap();
        let inputs: Vec<String> = graph.input.iter().map(|input| input.name().to_owned()).collect();
        assert_eq!(inputs, ["input_ids", "attention_mask"]);
        graph.output.iter().map(|output| output.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["embedding"]);
    assert_eq!(names(true), ["embedding", "hidden.0", "hidden.1"]);
}

#[test]
fn every_value_is_made_before_it_is_used_and_every_weight_is_used() {
    let weights = Weights::new(file("", "", "")).unwrap();
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::Max] {
        for normalise in [false, true] {
            let model = EncoderGraph { pooling, normalise, ..spec(&SHAPE) }.model(&weights).unwrap();
            let graph = model.graph.unwrap();
            let mut known: Vec<&str> = graph.input.iter().map(|input| input.name()).collect();
            known.extend(graph.initializer.iter().map(|tensor| tensor.name()));
            for node in &graph.node {
                for input in &node.input {
                    assert!(known.contains(&input.as_str()), "{} reads {input} too early", node.name());
                }
                assert!(node.domain().is_empty(), "{} is not plain ONNX", node.name());
                known.extend(node.output.iter().map(String::as_str));
            }
            for tensor in &graph.initializer {
                let used = graph.node.iter().any(|node| node.input.iter().any(|name| name == tensor.name()));
                assert!(used, "{} is written but not read", tensor.name());
                let count: i64 = tensor.dims.iter().product();
                let width = if tensor.data_type() == DataType::Int64 as i32 { 8 } else { 4 };
                assert_eq!(tensor.raw_data().len() as i64, count * width);
            }
        }
    }
}

#[test]
fn each_missing_or_wrong_tensor_is_named() {
    for name in ["embeddings.LayerNorm.bias", "transformer.layer.0.ffn.lin2.weight"] {
        let missing = bytes_of(file("", name, "")).unwrap_err();
        assert!(matches!(missing, OnnxError::MissingTensor { name: got } if got == name));
        let wrong = bytes_of(file("", "", name)).unwrap_err();
        assert_eq!(wrong.to_string(), format!("tensor {name} has type F64; supported: F32, F16, BF16"));
    }
    let shape = Shape { positions: 4, ..SHAPE };
    let wrong = spec(&shape).to_bytes(&Weights::new(file("", "", "")).unwrap()).unwrap_err();
    assert!(matches!(wrong, OnnxError::WrongShape { name, expected, got }
        if name == "embeddings.position_embeddings.weight" && expected == [4, 4] && got == [3, 4]));
}

#[test]
fn shape_that_no_encoder_has_is_refused() {
    for shape in [
        Shape { heads: 3, ..SHAPE },
        Shape { layers: 0, ..SHAPE },
        Shape { layer_norm_eps: f32::NAN, ..SHAPE },
    ] {
        assert!(matches!(shape.check(), Err(OnnxError::BadShape { .. })), "{shape:?}");
    }
}

#[test]
fn rows_of_types_are_added_to_every_position() {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let sum = add_row(&bytes(&[1.0, 2.0, 3.0, 4.0]), &bytes(&[10.0, 20.0]));
    assert_eq!(sum, bytes(&[11.0, 22.0, 13.0, 24.0]));
}

/// The reference of transformers and PyTorch, through ONNX Runtime's CPU provider.
mod reference {
    use super::*;

    struct Reference {
        file: Vec<u8>,
        folder: PathBuf,
        home: PathBuf,
    }

    /// `None`, saying so, where the fixtures or the runtime are not here.
    fn open(name: &str) -> Option<Reference> {
        let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let shared = std::env::var_os("DISTILFACE_SHARED").map_or_else(beside, PathBuf::from);
        let folder = shared.join("fixtures").join(name);
        let home = crate::config::default_home();
        let found = folder.is_dir() && home.join("runtime").is_dir();
        if !found {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{} or the runtime is missing",
                folder.display()
            );
            println!("skipped: {} or the runtime under {} is missing", folder.display(), home.display());
            return None;
        }
        Some(Reference { file: std::fs::read(folder.join("reference.safetensors")).unwrap(), folder, home })
    }

    fn plan(home: &Path, precision: Precision) -> Plan {
        Plan::new(home, DeviceChoice::Cpu, precision, true).unwrap()
    }

    /// What a padded graph takes.
    fn inputs_of<'a>(
        shape: &'a [usize],
        ids: &'a [i64],
        mask: &'a [i64],
    ) -> [(&'static str, TensorView<'a>); 2] {
        [
            ("input_ids", TensorView::I64 { shape, values: ids }),
            ("attention_mask", TensorView::I64 { shape, values: mask }),
        ]
    }

    impl Reference {
        fn weights(&self) -> Weights {
            Weights::new(std::fs::read(self.folder.join("model.safetensors")).unwrap()).unwrap()
        }

        /// `[texts, tokens]`, token ids and mask.
        fn texts(&self) -> (Vec<usize>, Vec<i64>, Vec<i64>) {
            let (dims, ids) = self.integers("input_ids");
            (dims, ids, self.integers("attention_mask").1)
        }

        fn floats(&self, name: &str) -> Vec<f32> {
            let tensors = SafeTensors::deserialize(&self.file).unwrap();
            let (values, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
            values.iter().map(|&value| f32::from_le_bytes(value)).collect()
        }

        fn integers(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
            let tensors = SafeTensors::deserialize(&self.file).unwrap();
            let tensor = tensors.tensor(name).unwrap();
            let (values, _) = tensor.data().as_chunks::<8>();
            (tensor.shape().to_vec(), values.iter().map(|&value| i64::from_le_bytes(value)).collect())
        }
    }

    fn assert_near(got: &[f32], expected: &[f32], what: &str) {
        assert_eq!(got.len(), expected.len(), "{what}");
        for (i, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 1e-5, "{what}: {a} is not {b} at {i}");
        }
    }

    /// Of the fixtures' encoders.
    fn tiny_shape(type_vocabulary: usize) -> Shape {
        Shape {
            layers: 5,
            hidden: 32,
            heads: 4,
            intermediate: 64,
            vocabulary: 500,
            positions: 64,
            type_vocabulary,
            layer_norm_eps: 1e-12,
        }
    }

    fn check(name: &str, architecture: Architecture, type_vocabulary: usize) {
        let Some(reference) = open(name) else { return };
        let shape = tiny_shape(type_vocabulary);
        let weights = reference.weights();
        let (dims, ids, mask) = reference.texts();
        let (rows, width) = (dims[0], dims[1]);
        let folder = tempfile::tempdir().unwrap();
        for (pooling, pooled) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean"), (Pooling::Max, "max")] {
            let graph =
                EncoderGraph { architecture, shape: &shape, pooling, normalise: false, hidden_outputs: true };
            let path = folder.path().join(format!("{pooled}.onnx"));
            std::fs::write(&path, graph.to_bytes(&weights).unwrap()).unwrap();
            let mut session = Session::open(&plan(&reference.home, Precision::Fp32), &path, 1).unwrap();
            let mut run = |shape: &[usize], ids: &[i64], mask: &[i64]| {
                let inputs = inputs_of(shape, ids, mask);
                session.run(&inputs).unwrap()
            };
            let outputs = run(&dims, &ids, &mask);
            let expected = reference.floats(&format!("pool.{pooled}"));
            assert_near(&outputs[0].1, &expected, pooled);
            for layer in 0..=shape.layers {
                let expected = reference.floats(&format!("hidden.{layer}"));
                for (token, _) in mask.iter().enumerate().filter(|(_, real)| **real == 1) {
                    let at = token * 32..(token + 1) * 32;
                    let got = &outputs[layer + 1].1[at.clone()];
                    assert_near(got, &expected[at], &format!("{pooled}: hidden.{layer} of token {token}"));
                }
            }
            // Alone and without padding: the same vectors.
            for row in 0..rows {
                let line = row * width..(row + 1) * width;
                let real = mask[line.clone()].iter().filter(|&&real| real == 1).count();
                let alone = run(&[1, real], &ids[line.start..line.start + real], &vec![1; real]);
                assert_near(&alone[0].1, &outputs[0].1[row * 32..(row + 1) * 32], "alone");
            }
            // A text without tokens gives zeros and does not disturb the others.
            let mut emptied = mask.clone();
            emptied[width..2 * width].fill(0);
            let outputs = run(&dims, &ids, &emptied);
            assert!(outputs[0].1[32..64].iter().all(|&value| value == 0.0));
            assert_near(&outputs[0].1[..32], &expected[..32], "beside an empty text");
        }
        let graph = EncoderGraph {
            architecture,
            shape: &shape,
            pooling: Pooling::Mean,
            normalise: true,
            hidden_outputs: false,
        };
        let path = folder.path().join("unit.onnx");
        std::fs::write(&path, graph.to_bytes(&weights).unwrap()).unwrap();
        let mut session = Session::open(&plan(&reference.home, Precision::Fp32), &path, 1).unwrap();
        let mut emptied = mask.clone();
        emptied[width..2 * width].fill(0);
        let inputs = inputs_of(&dims, &ids, &emptied);
        let (_, values) = session.run(&inputs).unwrap().remove(0);
        for (row, vector) in values.chunks_exact(32).enumerate() {
            let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
            let expected = if row == 1 { 0.0 } else { 1.0 };
            assert!((length - expected).abs() < 1e-5, "row {row} has length {length}");
        }
    }

    /// Every pooling of the packed graph, in 8 bits, against the padded one in full precision.
    fn check_packed(name: &str, architecture: Architecture, type_vocabulary: usize) {
        let Some(reference) = open(name) else { return };
        let shape = tiny_shape(type_vocabulary);
        let weights = reference.weights();
        let (dims, ids, mask) = reference.texts();
        let (mut flat, mut positions, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for (ids, mask) in ids.chunks_exact(dims[1]).zip(mask.chunks_exact(dims[1])) {
            let n = mask.iter().filter(|&&m| m == 1).count();
            flat.extend(&ids[..n]);
            positions.extend(0..n as i64);
            starts.push(flat.len() as i64);
        }
        let folder = tempfile::tempdir().unwrap();
        for pooling in Pooling::ALL {
            let graph =
                EncoderGraph { architecture, shape: &shape, pooling, normalise: true, hidden_outputs: false };
            let (padded, packed) = (folder.path().join("padded.onnx"), folder.path().join("packed.onnx"));
            std::fs::write(&padded, graph.to_bytes(&weights).unwrap()).unwrap();
            std::fs::write(&packed, graph.to_packed_bytes(&weights).unwrap()).unwrap();
            let full = Session::open(&plan(&reference.home, Precision::Fp32), &padded, 1)
                .unwrap()
                .run(&inputs_of(&dims, &ids, &mask))
                .unwrap()
                .remove(0);
            let mut session = Session::open(&plan(&reference.home, Precision::Int8), &packed, 2).unwrap();
            let mut run = |ids: &[i64], positions: &[i64], starts: &[i64]| {
                session.run(&[
                    ("input_ids", TensorView::I64 { shape: &[ids.len()], values: ids }),
                    ("positions", TensorView::I64 { shape: &[ids.len()], values: positions }),
                    ("starts", TensorView::I64 { shape: &[starts.len()], values: starts }),
                ])
            };
            let (dims, rounded) = run(&flat, &positions, &starts).unwrap().remove(0);
            assert_eq!(dims, full.0, "{}", pooling.name());
            let pairs = full.1.chunks_exact(dims[1]).zip(rounded.chunks_exact(dims[1]));
            for (row, (a, b)) in pairs.enumerate() {
                let cosine = crate::vector::cosine(a, b);
                assert!(cosine > 0.998, "{} row {row}: {cosine}", pooling.name());
            }
            // Starts that cannot be are an error of the run, not of the process.
            for starts in [[0, 2, 1].as_slice(), &[1, flat.len() as i64], &[0, 1 << 40], &[0], &[-1]] {
                let error = run(&flat, &positions, starts).unwrap_err().to_string();
                assert!(error.contains("starts must go from 0 up to"), "{error}");
            }
        }
    }

    /// The graph in float16 on the built-in provider, which widens the numbers again: what is tested is what narrowing
    /// them does, and that the graph is whole.
    fn check_half(name: &str, architecture: Architecture, type_vocabulary: usize) {
        let Some(reference) = open(name) else { return };
        let shape = tiny_shape(type_vocabulary);
        let weights = reference.weights();
        let (dims, ids, mask) = reference.texts();
        let pooling = Pooling::Mean;
        let graph =
            EncoderGraph { architecture, shape: &shape, pooling, normalise: true, hidden_outputs: false };
        let (full, half) = (graph.to_bytes(&weights).unwrap(), graph.to_half_bytes(&weights).unwrap());
        let run = |model: &[u8]| {
            let plan = plan(&reference.home, Precision::Fp32);
            let inputs = inputs_of(&dims, &ids, &mask);
            Session::of_plan(&plan, "half", model, 1).unwrap().run(&inputs).unwrap().remove(0)
        };
        let (expected, got) = (run(&full), run(&half));
        assert_eq!(expected.0, got.0);
        assert_ne!(expected.1, got.1, "nothing was narrowed");
        for (a, b) in expected.1.chunks_exact(32).zip(got.1.chunks_exact(32)) {
            assert!(crate::vector::cosine(a, b) > 0.99999);
        }
        // Two bytes less for every weight; the nodes that narrow and widen take a few of them.
        let linear = shape.layers * (4 * shape.hidden + 2 * shape.intermediate) * shape.hidden;
        let saved = full.len() - half.len();
        assert!(saved < 2 * linear && saved > 3 * linear / 2, "{saved} bytes for {linear} weights");
    }

    #[test]
    fn encoders_in_float16_are_near_full_precision_and_smaller() {
        check_half("bert-tiny", Architecture::Bert, 2);
        check_half("distilbert-tiny", Architecture::Distilbert, 0);
    }

    #[test]
    fn packed_bert_is_near_full_precision_in_every_pooling() {
        check_packed("bert-tiny", Architecture::Bert, 2);
    }

    #[test]
    fn packed_distilbert_is_near_full_precision_in_every_pooling() {
        check_packed("distilbert-tiny", Architecture::Distilbert, 0);
    }

    #[test]
    fn bert_gives_the_reference_alone_and_in_a_batch() {
        check("bert-tiny", Architecture::Bert, 2);
    }

    #[test]
    fn distilbert_gives_the_reference_alone_and_in_a_batch() {
        check("distilbert-tiny", Architecture::Distilbert, 0);
    }
}
