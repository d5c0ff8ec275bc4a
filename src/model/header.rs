//! The header of a safetensors file: taken off, rewritten for transformers, put on again. The tensors behind it are
//! never touched, so a file can be given back byte by byte.

use serde_json::{Map, Value, json};

use super::{Architecture, Shape};
use crate::onnx::{encoder::tensors, weights::PREFIXES};

/// Bytes in front of the header: its length.
const LENGTH_BYTES: usize = 8;
/// Tensors begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// Header and tensors of a whole file; `None` if it is not one.
pub(crate) fn split(file: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, tensors) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, tensors))
}

/// A whole file.
pub(crate) fn join(header: &str, tensors: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(LENGTH_BYTES + header.len() + tensors.len());
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(tensors);
    file
}

/// The header that transformers wants: its own names for the encoder's tensors, and that they are PyTorch's.
/// `None` if `header` is that already. Tensors that are not the encoder's keep their names.
///
/// # Errors
/// A sentence, if it is not JSON.
pub(crate) fn for_transformers(
    header: &str,
    architecture: Architecture,
    shape: &Shape,
) -> Result<Option<String>, serde_json::Error> {
    let own: Map<String, Value> = serde_json::from_str(header)?;
    let mut values = own.clone();
    for (name, _) in tensors(architecture, shape) {
        if values.contains_key(&name) {
            continue;
        }
        let stored = PREFIXES
            .iter()
            .flat_map(|prefix| [format!("{prefix}{name}"), format!("{prefix}{}", old_name(&name))])
            .find(|stored| values.contains_key(stored));
        if let Some(tensor) = stored.and_then(|stored| values.remove(&stored)) {
            values.insert(name, tensor);
        }
    }
    let metadata = values.entry("__metadata__").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("format".into(), json!("pt"));
    }
    if values == own {
        return Ok(None);
    }
    let mut text = serde_json::to_string(&values)?;
    while !text.len().is_multiple_of(ALIGNMENT) {
        text.push(' ');
    }
    Ok(Some(text))
}

/// What checkpoints of the first years call the parameters of a norm; nothing else has such names.
fn old_name(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((norm, "weight")) => format!("{norm}.gamma"),
        Some((norm, "bias")) => format!("{norm}.beta"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        layers: 1,
        hidden: 2,
        heads: 1,
        intermediate: 2,
        vocabulary: 3,
        positions: 4,
        type_vocabulary: 2,
        layer_norm_eps: 1e-12,
    };

    #[test]
    fn a_file_comes_apart_and_together_again() {
        let file = join("{} ", b"tensors");
        assert_eq!(split(&file), Some(("{} ", &b"tensors"[..])));
        assert_eq!(split(&file[..9]), None);
        assert_eq!(split(b"short"), None);
    }

    #[test]
    fn names_of_old_checkpoints_become_those_of_today_and_other_tensors_stay() {
        let header = r#"{"bert.embeddings.LayerNorm.gamma":1,"cls.predictions.bias":2}"#;
        let text = for_transformers(header, Architecture::Bert, &SHAPE).unwrap().unwrap();
        assert_eq!(text.len() % ALIGNMENT, 0);
        let values: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({"embeddings.LayerNorm.weight": 1, "cls.predictions.bias": 2, "__metadata__": {"format": "pt"}});
        assert_eq!(values, expected);
        assert_eq!(for_transformers(&text, Architecture::Bert, &SHAPE).unwrap(), None);
    }

    #[test]
    fn metadata_that_is_there_is_kept() {
        let header = r#"{"__metadata__":{"made":"here"},"distilbert.embeddings.word_embeddings.weight":1}"#;
        let text = for_transformers(header, Architecture::Distilbert, &SHAPE).unwrap().unwrap();
        let values: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(values["__metadata__"], json!({"made": "here", "format": "pt"}));
        assert_eq!(values["embeddings.word_embeddings.weight"], json!(1));
    }
}
