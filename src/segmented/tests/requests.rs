//! Calls that were done are remembered with what they did, whatever is cut, sealed, carried or lost.

use super::{
    losses::{forgetful, world_on},
    *,
};

fn request(id: &str, step: u32) -> Request {
    let outcome = id.as_bytes().to_vec();
    Request { id: id.to_owned(), step, hash: [step.to_le_bytes()[0]; 16], at: 0, outcome }
}

/// Puts one document as the call of its number.
fn write_as(store: &Store, id: &str, durability: Durability) -> Result<u64, StoreError> {
    let number = store.next_number();
    let mut batch = StoreBatch::default();
    put(&mut batch, number);
    batch.note(request(id, 0));
    let (told, answer) = mpsc::sync_channel(1);
    store.hand_in(|_| batch, durability, move |result| _ = told.send(result))?;
    answer.recv().unwrap_or(Err(StoreError::io(Path::new("log"), ended())))?;
    Ok(number)
}

fn is_done(store: &Store, id: &str) -> bool {
    let done = store.done(id, 0);
    assert!(done.as_ref().is_none_or(|done| **done == request(id, 0)), "{done:?}");
    done.is_some()
}

#[test]
fn a_call_is_remembered_if_and_only_if_it_was_done_whatever_is_cut_or_lost() {
    let (mut unanswered, mut lost) = (0, 0);
    for seed in 0..40 {
        println!("seed {seed}");
        let mut random = SplitMix(seed);
        let (mut disk, mut world) = forgetful(seed);
        let mut done: BTreeMap<String, u64> = BTreeMap::new();
        let mut store = Some(world.create());
        let mut count = 0;
        for _ in 0..5 {
            disk.crash_at_call(1 + random.below(150));
            let mut asked = None;
            if let Ok(store) = store.take().map_or_else(|| world.open(), Ok) {
                loop {
                    let step = match random.below(10) {
                        0 => store.seal().map(drop),
                        1 => store.merge_all(&Stop::default()).map(drop),
                        2 => store.carry_forward().map(drop),
                        3 => maintain(&store).and_then(|_| store.log().cut()).map(drop),
                        _ => {
                            count += 1;
                            let id = format!("call {count}");
                            let written = write_as(&store, &id, Durability::Power);
                            match &written {
                                Ok(number) => drop(done.insert(id, *number)),
                                Err(_) => asked = Some(id),
                            }
                            written.map(drop)
                        }
                    };
                    if step.is_err() {
                        break;
                    }
                }
            }
            assert!(disk.is_off());
            world.stop();
            disk = disk.crash(random.next());
            world = world_on(&disk);
            let opened = world.open().unwrap();
            let found = load(&opened).unwrap();
            if let Some(id) = asked {
                unanswered += 1;
                let known: BTreeSet<u64> = done.values().copied().collect();
                let new = found.difference(&known).next().copied();
                assert_eq!(
                    is_done(&opened, &id),
                    new.is_some(),
                    "what it did and that it did it go together"
                );
                lost += u64::from(new.is_none());
                done.extend(new.map(|number| (id, number)));
            }
            for id in done.keys() {
                assert!(is_done(&opened, id), "{id} is forgotten");
            }
            assert_eq!(found, done.values().copied().collect());
            store = Some(opened);
        }
    }
    // Else this would test little.
    assert!(unanswered > 20 && lost > 0, "{unanswered} unanswered, {lost} of them lost");
}

#[test]
fn a_store_that_is_closed_and_opened_again_in_one_process_remembers_too() {
    let (_, world) = forgetful(1);
    let store = world.create();
    write_as(&store, "a", Durability::Power).unwrap();
    let mut batch = StoreBatch::default();
    batch.note(request("nothing changed", 0));
    assert!(!batch.is_empty());
    store.commit(batch).unwrap();
    store.close().unwrap();
    drop(store);
    let store = world.open().unwrap();
    assert!(is_done(&store, "a") && is_done(&store, "nothing changed") && !is_done(&store, "b"));
    store.seal().unwrap();
    write_as(&store, "b", Durability::Power).unwrap();
    store.close().unwrap();
    drop(store);
    let store = world.open().unwrap();
    assert!(["a", "nothing changed", "b"].iter().all(|id| is_done(&store, id)));
}

#[test]
fn a_version_that_was_told_is_never_given_out_again_though_the_power_took_it() {
    let mut taken = 0;
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = SplitMix(seed);
        let (mut disk, mut world) = forgetful(seed);
        let mut told: BTreeSet<u64> = BTreeSet::new();
        let mut store = Some(world.create());
        for _ in 0..5 {
            disk.crash_at_call(1 + random.below(120));
            if let Ok(store) = store.take().map_or_else(|| world.open(), Ok) {
                loop {
                    let step = match random.below(12) {
                        0 => store.seal().map(drop),
                        1 => store.carry_forward().map(drop),
                        2 => maintain(&store).and_then(|_| store.log().cut()).map(drop),
                        n => {
                            let durability = if n < 10 { Durability::Process } else { Durability::Power };
                            write_as(&store, "x", durability).map(|number| {
                                assert!(told.insert(number), "number {number} was given out again");
                            })
                        }
                    };
                    if step.is_err() {
                        break;
                    }
                }
            }
            world.stop();
            disk = disk.crash(random.next());
            world = world_on(&disk);
            let opened = world.open().unwrap();
            let found = load(&opened).unwrap();
            taken += told.difference(&found).count();
            store = Some(opened);
        }
    }
    assert!(taken > 0, "the power took nothing, and this tested nothing");
}

#[test]
fn a_damaged_file_of_calls_refuses_the_collection_and_a_repair_goes_on_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let world = World::new(Arc::clone(&disk), dir.path());
    let store = world.create();
    write_as(&store, "a", Durability::Power).unwrap();
    store.seal().unwrap();
    write_as(&store, "b", Durability::Power).unwrap();
    drop(store);
    world.stop();
    let file = world.dir().join(crate::segmented::requests::REQUESTS_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let world = World::new(Arc::clone(&disk), dir.path());
    let error = world.open().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("requests") && error.to_string().contains("repair"), "{error}");
    world.stop();
    let known = verify::Known { dir: world.dir(), identity: Some(IDENTITY), space: space(DIMENSION) };
    let kept = dir.path().join("damaged/now");
    let repaired = repair::repair(&disk, dir.path(), &[known], &[0], Some(&kept), &Stop::default()).unwrap();
    let repair::Outcome::Repaired { losses, documents, .. } = &repaired.collections[0] else {
        panic!("{repaired:?}")
    };
    assert_eq!(*documents, 2);
    assert!(losses.iter().any(|loss| loss.what.contains("request id")), "{losses:?}");
    let world = World::new(disk, dir.path());
    let store = world.open().unwrap();
    // The log has both still; only what it had let go of is forgotten.
    assert!(is_done(&store, "a") && is_done(&store, "b"));
}
