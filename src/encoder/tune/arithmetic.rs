//! Counts how much an encoder computes, measures how much the machine could compute at most, and finds where the rest
//! of the time goes, for benchmarks.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use prost::Message;
use serde::Serialize;

use crate::{
    config::EncoderConfig,
    encoder::{Encoder, EncoderError, OpenError},
    onnx::{
        Layout, Shape,
        graph::{Axis, Graph},
        proto::tensor_proto::DataType,
    },
    runtime::{Plan, Session, TensorView, layer8},
};

/// Part of a layer's work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// The stage's name for people.
    pub name: &'static str,
    /// Share of the layer's time.
    pub share: f64,
    /// Products that it adds up on one core, 10^9 a second, where that is what it does.
    pub gmacs: Option<f64>,
}

/// Products of two numbers that encoding texts of these lengths adds up, in tokens; padding, norms and other work that
/// multiplies no matrices are not counted.
pub fn macs(shape: &Shape, lengths: &[usize]) -> f64 {
    let (hidden, intermediate) = (shape.hidden as f64, shape.intermediate as f64);
    let linear = 4.0 * hidden * hidden + 2.0 * hidden * intermediate;
    let of = |&n: &usize| n as f64 * linear + 2.0 * (n * n) as f64 * hidden;
    shape.layers as f64 * lengths.iter().map(of).sum::<f64>()
}

/// Products a second of one large product of matrices where and how the encoder of these settings computes: the best of
/// several runs.
///
/// # Errors
/// Those of the runtime.
pub fn peak(encoder: &Encoder, home: &Path, config: &EncoderConfig) -> Result<f64, OpenError> {
    match encoder.layout {
        Layout::Packed => Ok(layer8::product_rate(config.threads)),
        Layout::Padded | Layout::PaddedHalf => product_rate(home, config),
    }
}

/// The time of one layer by stage on one core, for texts of these lengths; `None` for an encoder whose layers are the
/// runtime's.
pub fn profile(encoder: &Encoder, lengths: &[usize]) -> Option<Vec<Part>> {
    if encoder.layout.pads() {
        return None;
    }
    let Shape { hidden, heads, intermediate, .. } = encoder.model().manifest.shape;
    let times = layer8::profile(hidden, heads, intermediate, lengths);
    let all: f64 = times.iter().map(|t| t.seconds).sum();
    let part = |t: &layer8::StageTime| Part {
        name: t.stage.name(),
        share: t.seconds / all.max(f64::MIN_POSITIVE),
        gmacs: (t.macs > 0).then(|| t.macs as f64 / t.seconds.max(f64::MIN_POSITIVE) / 1e9),
    };
    Some(times.iter().map(part).collect())
}

/// By the runtime's own operators: 1024 x 1024 by 1024 x 1024.
fn product_rate(home: &Path, config: &EncoderConfig) -> Result<f64, OpenError> {
    const SIDE: usize = 1024;
    let axes = [Axis::Fixed(SIDE), Axis::Fixed(SIDE)];
    let values: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
    let mut graph = Graph::new("product");
    let x = graph.input("x", DataType::Float, &axes);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let w = graph.weight("w", &[SIDE, SIDE], Bytes::from(bytes));
    let product = graph.matmul("product", &x, &w);
    // One number of each row comes back, so that copying the answer is not what is measured.
    let sums = graph.reduce_sum("sums", &product, &[1], false);
    graph.output(&sums, DataType::Float, &axes[..1]);
    let model = graph.into_model().encode_to_vec();
    // This product is in float32: a model whose file is in 8 bits computes some of it so, and float16 has no such graph.
    let precision = match config.precision.as_str() {
        "int8" | "fp16" => "auto",
        other => other,
    };
    let plan = Plan::new(home, config.device.parse()?, precision.parse()?, false)?;
    let mut session = Session::of_plan(&plan, "product", &model, config.threads)?;
    let mut best = 0.0f64;
    for _ in 0..12 {
        let started = Instant::now();
        let inputs = [("x", TensorView::F32 { shape: &[SIDE, SIDE], values: &values })];
        let outputs = session.run(&inputs).map_err(|e| EncoderError::Failed { reason: e.to_string() })?;
        std::hint::black_box(outputs);
        best = best.max((SIDE * SIDE * SIDE) as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::default_home, model::tests::tiny_copy};

    #[test]
    fn products_are_counted_by_hand_and_the_peak_is_positive_in_both_precisions() {
        let (_home, model) = tiny_copy();
        let shape = &model.manifest.shape;
        // Two layers of width 32 with 64 inside.
        let token = 4.0 * 32.0 * 32.0 + 2.0 * 32.0 * 64.0;
        assert_eq!(macs(shape, &[3, 5]), 2.0 * (8.0 * token + 2.0 * 34.0 * 32.0));
        for precision in ["fp32", "int8"] {
            let config = EncoderConfig {
                device: "cpu".into(),
                precision: precision.into(),
                threads: 1,
                ..EncoderConfig::default()
            };
            let encoder = Encoder::open(&model, &default_home(), &config).unwrap();
            assert!(peak(&encoder, &default_home(), &config).unwrap() > 0.0);
            let parts = profile(&encoder, &[3, 5]);
            assert_eq!(parts.is_some(), precision == "int8");
            if let Some(parts) = parts {
                let shares: f64 = parts.iter().map(|p| p.share).sum();
                assert!((shares - 1.0).abs() < 1e-9, "{parts:?}");
                assert!(parts.iter().any(|p| p.gmacs.is_some_and(|r| r > 0.0)));
            }
        }
    }
}
