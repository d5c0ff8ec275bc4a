//! The generated file is found, checked, replaced and kept somewhere.

use super::*;
use crate::model::tests::tiny_copy;

#[test]
fn file_is_generated_once_and_found_again() {
    let (_home, model) = tiny_copy();
    let path = model.onnx_path().unwrap();
    assert!(path.starts_with(model.path.join("onnx")));
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(model.onnx_path().unwrap(), path);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
}

#[test]
fn damaged_truncated_or_unsummed_file_is_written_anew() {
    let (_home, model) = tiny_copy();
    let path = model.onnx_path().unwrap();
    let good = fs::read(&path).unwrap();

    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert_eq!(model.onnx_path().unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), good);

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(&path, &flipped).unwrap();
    model.onnx_path().unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);

    fs::remove_file(sum_path(&path)).unwrap();
    fs::write(&path, b"half").unwrap();
    model.onnx_path().unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);
}

#[test]
fn files_of_other_versions_go_and_nothing_else_does() {
    let (_home, model) = tiny_copy();
    let folder = model.path.join("onnx");
    fs::create_dir(&folder).unwrap();
    for name in ["encoder-0-abc.onnx", "encoder-0-abc.onnx.sum", "notes.txt"] {
        fs::write(folder.join(name), b"x").unwrap();
    }
    let path = model.onnx_path().unwrap();
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    let mut expected = vec![path.clone(), sum_path(&path), folder.join("notes.txt")];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn processes_may_generate_at_once() {
    let (_home, model) = tiny_copy();
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| model.onnx_path().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| path == &paths[0] && is_whole(path)));
}

/// A file where the folder should be stops even root, whom permissions do not.
#[test]
fn model_directory_that_cannot_be_written_falls_back() {
    let (_home, model) = tiny_copy();
    fs::write(model.path.join("onnx"), b"in the way").unwrap();
    let other = tempfile::tempdir().unwrap();
    let folders = [
        Folder { path: model.path.join("onnx"), kind: Kind::Model },
        Folder { path: other.path().join("cache"), kind: Kind::Cache },
    ];
    let path = onnx_path_in(&model, Layout::Padded, &folders).unwrap();
    assert!(path.starts_with(other.path()) && is_whole(&path));
    assert_eq!(onnx_path_in(&model, Layout::Padded, &folders).unwrap(), path);

    let nowhere = onnx_path_in(&model, Layout::Padded, &folders[..1]).unwrap_err();
    assert!(matches!(nowhere, ModelError::Io { path, .. } if path == model.path.join("onnx")));
}

#[cfg(unix)]
#[test]
fn temporary_folder_that_others_may_write_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let (_home, model) = tiny_copy();
    let shared = tempfile::tempdir().unwrap();
    let folder = Folder { path: shared.path().join("onnx"), kind: Kind::Temporary };
    let path = onnx_path_in(&model, Layout::Padded, std::slice::from_ref(&folder)).unwrap();
    assert!(is_whole(&path));
    fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(onnx_path_in(&model, Layout::Padded, std::slice::from_ref(&folder)).is_err());
}

#[test]
fn damaged_weights_are_never_turned_into_a_graph() {
    let (_home, model) = tiny_copy();
    let mut content = fs::read(model.weights_path()).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    fs::write(model.weights_path(), content).unwrap();
    assert!(matches!(model.onnx_path(), Err(ModelError::Checksum { .. })));
}

#[test]
fn the_packed_graph_lies_beside_the_padded_one() {
    let (_home, model) = tiny_copy();
    let padded = model.onnx_path().unwrap();
    let half = model.onnx_path_of(Layout::PaddedHalf).unwrap();
    assert!(half.to_string_lossy().ends_with("-half.onnx"));
    let packed = model.onnx_path_of(Layout::Packed).unwrap();
    assert!(half.is_file(), "graphs of one model leave each other alone");
    assert!(packed.to_string_lossy().contains("-packed-") && packed.parent() == padded.parent());
    // Writing one does not remove the other.
    assert!(is_whole(&padded) && is_whole(&packed));
    assert!(fs::metadata(&packed).unwrap().len() < fs::metadata(&padded).unwrap().len());
}
