//! The weights that a run kept become a model directory with its lineage; an adapter also gets its own small files.
//!
//! An adapter is saved as PEFT has it (`adapter_config.json`, `adapter_model.safetensors`), so that `peft` opens it, and
//! merged into the weights of the model: `W + scale B A` (Hu et al. 2021, section 4.1), so that serving costs nothing.
//! A head that only training has is left behind.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    FinetuneError,
    parameters::{Parameter, Parameters},
    recipe::{Lora, Recipe},
    run::{RunReport, best_path, graph},
};
use crate::{
    model::{ModelDir, NewModel},
    onnx::training::{Adapter, adapter_names, is_adapter, is_head},
};

/// What PEFT puts before every name of a model it wraps.
const PEFT_PREFIX: &str = "base_model.model.";

/// The run and model that a new model is made from.
#[derive(Debug)]
pub struct Finish<'a> {
    /// The home folder; the model appears under its `models`.
    pub home: &'a Path,
    /// The new model's name: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: &'a str,
    /// Replace a model of this name.
    pub force: bool,
    /// The recipe that was run.
    pub recipe: &'a Recipe,
    /// The model that training began from.
    pub base: &'a ModelDir,
    /// The run's folder.
    pub folder: &'a Path,
    /// The run's result.
    pub report: &'a RunReport,
    /// Lines about data and settings, for the manifest.
    pub lineage: Vec<String>,
}

/// Makes the model of the weights that the run kept.
///
/// # Errors
/// Model errors, such as a name that is taken; weights that cannot be read.
pub fn finish(finish: &Finish<'_>) -> Result<ModelDir, FinetuneError> {
    let Finish { recipe, base, folder, report, .. } = finish;
    let graph = graph(recipe, base, None);
    let kept = Parameters::read(&best_path(folder))?;
    if let Some(lora) = recipe.lora {
        save_adapter(folder, base, lora, &kept)?;
    }
    let merged = merged(kept, graph.adapter);
    let score = match (report.score_before, report.best) {
        (Some(before), Some(best)) => format!("; dev score {before:.2} before, {best:.2} after"),
        _ => String::new(),
    };
    let mut lineage = base.manifest.lineage.clone();
    lineage.push(format!("base {} {}", base.manifest.name, base.fingerprint.0));
    lineage.push(format!(
        "trained by distilface {}: {} of {} steps, seed {}, on {}{score}",
        env!("CARGO_PKG_VERSION"),
        report.best_step.unwrap_or(report.steps),
        report.steps_planned,
        report.seed,
        report.device,
    ));
    lineage.extend(finish.lineage.iter().cloned());
    let weights = merged.to_safetensors()?;
    Ok(ModelDir::create(
        finish.home,
        NewModel {
            name: finish.name,
            base,
            pooling: graph.pooling,
            weights,
            source: format!("{}, trained further", base.manifest.name),
            lineage,
            quantised: None,
            force: finish.force,
        },
    )?)
}

/// The encoder's weights, adapters added in, the head left behind.
pub fn merged(parameters: Parameters, adapter: Option<Adapter>) -> Parameters {
    let scale = adapter.map_or(0.0, |adapter| adapter.scale);
    let encoder = |p: &&Parameter| !is_adapter(&p.name) && !is_head(&p.name);
    let merge = |p: &Parameter| {
        let mut p = p.clone();
        let [a, b] = adapter_names(&p.name).map(|name| parameters.find(&name));
        if let (Some(a), Some(b)) = (a, b) {
            add_product(&mut p.values, &b.values, &a.values, a.shape[0], scale);
        }
        p
    };
    Parameters { list: parameters.list.iter().filter(encoder).map(merge).collect() }
}

/// `w += scale b a`: `w` `[out, in]`, `b` `[out, rank]`, `a` `[rank, in]`.
fn add_product(w: &mut [f32], b: &[f32], a: &[f32], rank: usize, scale: f32) {
    let inputs = a.len() / rank;
    for (row, b) in w.chunks_mut(inputs).zip(b.chunks(rank)) {
        for (&factor, a) in b.iter().zip(a.chunks(inputs)) {
            row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * factor * a);
        }
    }
}

/// `adapter/` in the run's folder.
fn save_adapter(
    folder: &Path,
    base: &ModelDir,
    lora: Lora,
    parameters: &Parameters,
) -> Result<(), FinetuneError> {
    let folder = folder.join("adapter");
    let failed = |source| FinetuneError::Io { path: folder.clone(), source };
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut modules: Vec<String> = Vec::new();
    let mut list = Vec::new();
    for p in parameters.list.iter().filter(|p| is_adapter(&p.name)) {
        let (matrix, tensor) = p.name.split_once('.').expect("an adapter's name has its matrix in front");
        let layer = tensor.strip_suffix(".weight").expect("adapters stand beside weights");
        list.push(Parameter { name: format!("{PEFT_PREFIX}{layer}.{matrix}.weight"), ..p.clone() });
        if !modules.iter().any(|known| known == layer) {
            modules.push(layer.to_owned());
        }
    }
    let config = json!({
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base.manifest.name,
        "base_model_fingerprint": base.fingerprint.0,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": modules,
    });
    fs::write(folder.join("adapter_config.json"), serde_json::to_vec_pretty(&config).expect("plain JSON"))
        .map_err(failed)?;
    Parameters { list }.save(&folder.join("adapter_model.safetensors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, shape: &[usize], values: &[f32]) -> Parameter {
        Parameter { name: name.into(), shape: shape.into(), values: values.into() }
    }

    #[test]
    fn an_adapter_is_added_to_its_weight_and_a_head_left_behind() {
        let name = "encoder.layer.0.output.dense.weight";
        let [a, b] = adapter_names(name);
        let parameters = Parameters {
            list: vec![
                parameter(name, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
                parameter("encoder.layer.0.output.dense.bias", &[2], &[7.0, 8.0]),
                parameter(&a, &[1, 3], &[1.0, 2.0, 3.0]),
                parameter(&b, &[2, 1], &[10.0, 100.0]),
                parameter("head.dense.bias", &[2], &[0.0, 0.0]),
            ],
        };
        let merged = merged(parameters, Some(Adapter { rank: 1, scale: 0.5 }));
        let expected = [
            parameter(name, &[2, 3], &[5.0, 11.0, 17.0, 53.0, 104.0, 155.0]),
            parameter("encoder.layer.0.output.dense.bias", &[2], &[7.0, 8.0]),
        ];
        assert_eq!(merged.list, expected);
    }
}
