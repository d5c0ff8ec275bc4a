use std::io::Write;

use serde_json::json;

use super::*;
use crate::finetune::{
    optimizer::{AdamW, AdamWConfig, Gradient, ParameterSettings},
    recipe::{FREE_ON_RESUME, Recipe},
};

fn parameters() -> Parameters {
    let of = |name: &str, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|i| (i as f32 * 0.37).sin()).collect();
        Parameter { name: name.to_owned(), shape: shape.to_vec(), values }
    };
    // Not in the order of their names: the order is the encoder's.
    let words = crate::onnx::training::WORDS;
    Parameters {
        list: vec![of(words, &[7, 3]), of("b.weight", &[3, 2]), of("a.attention.self.key.bias", &[2])],
    }
}

/// A run of a small model, without a model: gradients follow from the step's number.
struct Run {
    parameters: Parameters,
    adam: AdamW,
    state: RunState,
}

impl Run {
    fn begin() -> Self {
        let parameters = parameters();
        let adam = AdamW::new(&parameters, AdamWConfig::default(), settings_of(&parameters)).unwrap();
        Run { parameters, adam, state: RunState { seed: u64::MAX, ..RunState::default() } }
    }

    fn resume(checkpoint: Checkpoint) -> Self {
        let Checkpoint { state, parameters, optimizer, .. } = checkpoint;
        let settings = settings_of(&parameters);
        let adam = AdamW::resume(&parameters, AdamWConfig::default(), settings, optimizer).unwrap();
        Run { parameters, adam, state }
    }

    fn step(&mut self) {
        let n = self.state.step as f32;
        let rows = [n.sin(), 0.3, -0.7, n.cos(), 0.1, 0.2];
        let ids = [self.state.step as i64 % 5, 2];
        let dense = [0.1, n.sin(), -0.3, n.cos(), 0.5, 0.6];
        let gradients =
            [Gradient::Rows { ids: &ids, rows: &rows }, Gradient::Dense(&dense), Gradient::Absent];
        let report = self.adam.step(&mut self.parameters, &gradients, 1e-2, Some(1.0)).unwrap();
        self.state.step += 1;
        *self.state.sums.entry("norm".to_owned()).or_default() += report.gradient_norm / 3.0;
        self.state.best = Some(Best { score: report.gradient_norm / 7.0, step: self.state.step });
    }

    fn save(&self, checkpoints: &Checkpoints) -> Result<PathBuf, CheckpointError> {
        let extra = Parameters::default();
        checkpoints.save(&Recipe::default(), &self.state, &self.parameters, self.adam.state(), &extra)
    }
}

fn settings_of(parameters: &Parameters) -> Vec<ParameterSettings> {
    parameters.list.iter().map(ParameterSettings::usual).collect()
}

fn load(checkpoints: &Checkpoints) -> Result<Option<Checkpoint>, CheckpointError> {
    checkpoints.load(&Recipe::default(), &FREE_ON_RESUME)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(&folder.path().join("run"));
    assert_eq!(load(&checkpoints).unwrap(), None);
    let mut run = Run::begin();
    (0..13).for_each(|_| run.step());
    run.save(&checkpoints).unwrap();
    let mut resumed = Run::resume(load(&checkpoints).unwrap().unwrap());
    assert_eq!(resumed.parameters, run.parameters);
    assert_eq!(resumed.adam.state(), run.adam.state());
    for _ in 0..10 {
        run.step();
        resumed.step();
    }
    assert_eq!(resumed.state, run.state);
    run.adam.flush(&mut run.parameters);
    resumed.adam.flush(&mut resumed.parameters);
    assert_eq!(resumed.parameters, run.parameters);
    assert_eq!(resumed.adam.state(), run.adam.state());
}

#[test]
fn further_tensors_and_numbers_that_json_does_not_have_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let run = Run::begin();
    let numbers = [0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, -0.0, f64::INFINITY, 5e-324];
    let state = RunState {
        sums: numbers.iter().enumerate().map(|(at, &value)| (at.to_string(), value)).collect(),
        best: Some(Best { score: f64::NEG_INFINITY, step: 3 }),
        without_gain: 2,
        ..run.state.clone()
    };
    let queue = Parameter { name: "queue".to_owned(), shape: vec![2, 1], values: vec![1.0, f32::NAN] };
    let extra = Parameters { list: vec![queue] };
    checkpoints.save(&json!({}), &state, &run.parameters, run.adam.state(), &extra).unwrap();
    let checkpoint = checkpoints.load(&json!({}), &[]).unwrap().unwrap();
    assert_eq!(checkpoint.state, state);
    for (at, value) in numbers.iter().enumerate() {
        assert_eq!(checkpoint.state.sums[&at.to_string()].to_bits(), value.to_bits());
    }
    let back = &checkpoint.extra.list[0];
    assert_eq!((back.name.as_str(), &back.shape[..], back.values[0]), ("queue", &[2, 1][..], 1.0));
    assert!(back.values[1].is_nan());
}

#[test]
fn the_last_two_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let mut run = Run::begin();
    for _ in 0..4 {
        run.step();
        run.save(&checkpoints).unwrap();
    }
    assert_eq!(names(folder.path()), ["checkpoint-00000003", "checkpoint-00000004"]);
    let files = [EXTRA_FILE, OPTIMIZER_FILE, PARAMETERS_FILE, STATE_FILE];
    assert_eq!(names(&folder.path().join("checkpoint-00000004")), files);
    assert_eq!(load(&checkpoints).unwrap().unwrap().state.step, 4);
}

#[test]
fn a_torn_checkpoint_is_never_taken() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let mut run = Run::begin();
    run.step();
    run.save(&checkpoints).unwrap();
    // A process died with its files written, but not the state.
    run.step();
    let torn = run.save(&checkpoints).unwrap();
    fs::remove_file(torn.join(STATE_FILE)).unwrap();
    fs::write(torn.join(".tmp-1-1-state.json"), "{\"format\": 1").unwrap();
    assert_eq!(load(&checkpoints).unwrap().unwrap().state.step, 1);
    // The next one is written beside the remains, and takes them away.
    run.step();
    run.save(&checkpoints).unwrap();
    assert_eq!(names(folder.path()), ["checkpoint-00000001", "checkpoint-00000003"]);
    assert_eq!(load(&checkpoints).unwrap().unwrap().state.step, 3);
}

/// A disk on which a file may have so many bytes.
struct Quota<'a> {
    to: &'a mut dyn Write,
    left: usize,
}

impl Write for Quota<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= bytes.len();
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

type Content<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

fn small_disk<const BYTES: usize>(path: &Path, write: Content) -> io::Result<()> {
    files::write_whole_with(path, |file| write(&mut Quota { to: file, left: BYTES }))
}

/// Room for all but the last file.
fn full_at_the_end(path: &Path, write: Content) -> io::Result<()> {
    if path.ends_with(STATE_FILE) {
        small_disk::<10>(path, write)
    } else {
        small_disk::<100_000>(path, write)
    }
}

#[test]
fn a_full_disk_is_told_and_the_checkpoint_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let good = Checkpoints::new(folder.path());
    let mut run = Run::begin();
    run.step();
    run.save(&good).unwrap();
    run.step();
    // Full at the first byte, behind it, and at the state.
    let puts: [(Put, &str); 3] = [
        (small_disk::<0>, PARAMETERS_FILE),
        (small_disk::<100>, PARAMETERS_FILE),
        (full_at_the_end, STATE_FILE),
    ];
    for (put, file) in puts {
        let full = Checkpoints { folder: folder.path().to_owned(), put };
        let error = run.save(&full).unwrap_err();
        assert!(
            error.to_string().contains("the disk is full") && error.to_string().contains(file),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(names(folder.path()), ["checkpoint-00000001"]);
        assert_eq!(load(&good).unwrap().unwrap().state.step, 1);
    }
    run.save(&good).unwrap();
    assert_eq!(load(&good).unwrap().unwrap().state.step, 2);
}

#[cfg(target_os = "linux")]
#[test]
fn the_systems_own_word_for_a_full_disk_is_understood() {
    let path = Path::new("/dev/full");
    let mut full = fs::OpenOptions::new().write(true).open(path).unwrap();
    let parameters = parameters();
    let error = tensors::write(&mut full, &tensors::of(&parameters)).unwrap_err();
    assert!(matches!(CheckpointError::from_io(path, error), CheckpointError::DiskFull { .. }));
}

#[test]
fn a_folder_that_cannot_be_one_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let checkpoints = Checkpoints::new(file.path());
    for error in [Run::begin().save(&checkpoints).unwrap_err(), load(&checkpoints).unwrap_err()] {
        assert!(matches!(&error, CheckpointError::Io { path, .. } if path == file.path()), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[test]
fn a_damaged_file_is_named() {
    for (name, bad, says) in [
        (PARAMETERS_FILE, None, "it is missing"),
        (OPTIMIZER_FILE, Some("short"), "it has 5 bytes, expected"),
        (STATE_FILE, Some("{\"format\": 1"), "EOF"),
        (STATE_FILE, Some("{\"format\": 1}"), "missing field"),
        (STATE_FILE, Some("no json"), "expected"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        let path = Run::begin().save(&checkpoints).unwrap().join(name);
        match bad {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = load(&checkpoints).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains(says), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_single_flipped_bit_is_found() {
    for name in [PARAMETERS_FILE, OPTIMIZER_FILE] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        let path = Run::begin().save(&checkpoints).unwrap().join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = load(&checkpoints).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains("its sha256 is"), "{error}");
    }
}

/// Changes `state.json` as a text.
fn edited(from: &str, to: &str) -> CheckpointError {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let path = Run::begin().save(&checkpoints).unwrap().join(STATE_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
    load(&checkpoints).unwrap_err()
}

#[test]
fn settings_that_were_edited_and_other_formats_are_told() {
    let error = edited("\"batch\": 64", "\"batch\": 65");
    assert!(error.to_string().contains("its settings are not those"), "{error}");
    let error = edited("\"format\": 1", "\"format\": 2");
    assert!(error.to_string().contains("has format 2, this program reads 1"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);
    let error = edited(EXTRA_FILE, "other.safetensors");
    assert!(error.to_string().contains("does not name extra.safetensors"), "{error}");
}

#[test]
fn other_settings_are_listed_with_old_and_new_value() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    Run::begin().save(&checkpoints).unwrap();
    let mut recipe = Recipe::default();
    recipe.set("temperature", "0.1").unwrap();
    recipe.set("dropout.hidden", "0.2").unwrap();
    recipe.set("steps", "7").unwrap();
    recipe.set("log_every", "1").unwrap();
    let error = checkpoints.load(&recipe, &FREE_ON_RESUME).unwrap_err();
    let CheckpointError::Settings { changes, .. } = &error else { panic!("{error}") };
    let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
    let expected =
        ["dropout.hidden: 0.1 then, 0.2 now", "steps: none then, 7 now", "temperature: 0.05 then, 0.1 now"];
    assert_eq!(lines, expected);
    assert!(error.to_string().contains("  steps: none then, 7 now\n"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);

    // Those that change no number may differ.
    let mut free = Recipe::default();
    free.set("log_every", "1").unwrap();
    free.set("checkpoint_every", "1").unwrap();
    assert!(checkpoints.load(&free, &FREE_ON_RESUME).unwrap().is_some());
}

#[test]
fn changes_of_lists_and_sections() {
    let changes = |old: Value, new: Value, free: &[&str]| -> Vec<String> {
        settings::changes(&old, &new, free).iter().map(Change::to_string).collect()
    };
    let old = json!({ "seeds": [1, 2], "data": [{ "from": "a" }], "lora": null, "rate": 3e-5 });
    let new = json!({ "seeds": [1], "data": [{ "from": "b" }, { "from": "c" }], "lora": { "rank": 4 }, "rate": 3e-5 });
    let expected = [
        "data[1].from: \"a\" then, \"b\" now",
        "data[2].from: none then, \"c\" now",
        "lora.rank: none then, 4 now",
        "seeds: [1,2] then, [1] now",
    ];
    assert_eq!(changes(old.clone(), new.clone(), &[]), expected);
    assert_eq!(changes(old.clone(), new.clone(), &["data", "seeds"]), [expected[2]]);
    // A name that only begins alike is another.
    assert_eq!(changes(old.clone(), new, &["dat", "lora.ran"]).len(), 4);
    assert_eq!(changes(old.clone(), old, &[]), Vec::<String>::new());
}

#[test]
fn the_files_are_safetensors_that_others_read() {
    let parameters = parameters();
    let mut bytes = Vec::new();
    tensors::write(&mut bytes, &tensors::of(&parameters)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 3);
    assert_eq!(file.tensor("b.weight").unwrap().shape(), [3, 2]);
    assert_eq!(tensors::parameters(tensors::read(&bytes).unwrap()), parameters);

    let mut empty = Vec::new();
    tensors::write(&mut empty, &[]).unwrap();
    assert!(tensors::read(&empty).unwrap().is_empty());
    assert!(tensors::read(&bytes[..bytes.len() - 1]).is_err());
    let halves = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![1], &[0, 0]).unwrap();
    let halves = safetensors::serialize([("h", halves)], None).unwrap();
    assert_eq!(tensors::read(&halves).unwrap_err(), "h is F16, expected F32 or F64");
}
