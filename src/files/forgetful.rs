//! A file system in memory that forgets what was not synced: for tests of what is left after a loss of power.
//!
//! It promises what POSIX promises and nothing more. A file's bytes and length are durable after a sync of the file, a
//! name after a sync of its folder. Of the rest a crash keeps a part that a seed chooses: of every sector any state
//! that it had since the sync, each for itself; any length that the file had; of the changes of names any subset,
//! where a rename is one change. Sectors of [`SECTOR`] bytes are written whole or not at all.
//!
//! A call that changes something can be told to be the last one: it happens or does not, and every later call of the
//! same "machine" fails. A sync can be told to fail; then, as on Linux, what it was to write is no longer waiting to be
//! written, part of it is lost, and the next sync succeeds. Room and handles can be short.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    path::{Component, Path},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Mapped,
    disk::{DirEntry, Disk, DiskFile, EntryKind},
};
use crate::random::SplitMix;

/// Bytes that reach the device together.
pub(crate) const SECTOR: usize = 512;
/// Error of a call that wants a handle when there is none: EMFILE.
const NO_HANDLE: i32 = 24;

/// The file system. A clone is the same one, seen by the same machine.
#[derive(Debug, Clone)]
pub(crate) struct ForgetfulDisk(Arc<Machine>);

#[derive(Debug)]
struct Machine {
    state: Mutex<State>,
    /// Files that are open. Not below the lock: a file may be dropped by a call that holds it.
    handles: AtomicUsize,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Changes of names since the last sync of a folder that they touch, in order.
    changes: Vec<Change>,
    random: SplitMix,
    /// Changing calls so far.
    calls: u64,
    syncs: u64,
    /// The number of the call that is the last one.
    crash_at: Option<u64>,
    off: bool,
    fail_sync_at: Option<u64>,
    /// Bytes that may still be given to files.
    room: u64,
    /// Whether `allocate` gets room, or only a length.
    allocates: bool,
    handles_max: usize,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Dir(Names),
}

/// A file's bytes as the machine sees them, and as they are on the device.
#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that wait to be written, with every state they had since the last sync.
    waiting: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Lengths since the last sync.
    lengths: Vec<usize>,
    /// Sectors that have room on the device.
    placed: BTreeSet<usize>,
}

/// A folder's names now, and as they are on the device.
#[derive(Debug, Clone, Default)]
struct Names {
    now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

/// A name: the folder's node and the name in it.
type Name = (u64, OsString);

/// A change of names that happens as a whole: a node loses a name, gets one, or both.
#[derive(Debug, Clone)]
struct Change {
    node: u64,
    gone: Option<Name>,
    new: Option<Name>,
}

impl Change {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.gone.iter().chain(&self.new)
    }
}

const ROOT: u64 = 0;

impl ForgetfulDisk {
    /// An empty one: nothing but the folder `/`. `seed` decides what happens to calls that fail halfway.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(BTreeMap::from([(ROOT, Node::Dir(Names::default()))]), 1, seed)
    }

    fn with(nodes: BTreeMap<u64, Node>, next_node: u64, seed: u64) -> Self {
        let state = State {
            nodes,
            next_node,
            changes: Vec::new(),
            random: SplitMix(seed),
            calls: 0,
            syncs: 0,
            crash_at: None,
            off: false,
            fail_sync_at: None,
            room: u64::MAX,
            allocates: true,
            handles_max: usize::MAX,
        };
        ForgetfulDisk(Arc::new(Machine { state: Mutex::new(state), handles: AtomicUsize::new(0) }))
    }

    /// The power goes, and this is the disk that the machine finds when it comes back. Calls on the old one fail.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let mut state = self.lock();
        state.off = true;
        let mut random = SplitMix(seed);
        let mut nodes = state.nodes.clone();
        let kept = kept(&state.changes, &mut random);
        for node in nodes.values_mut() {
            if let Node::File(content) = node {
                content.forget(&mut random);
            }
        }
        for change in kept {
            apply(&mut nodes, change, true);
        }
        for node in nodes.values_mut() {
            if let Node::Dir(names) = node {
                names.now = names.durable.clone();
            }
        }
        let room = state.room;
        let disk = Self::with(nodes, state.next_node, random.next());
        disk.lock().room = room;
        disk.lock().collect();
        disk
    }

    /// Another disk with the same content, on which everything is durable and nothing is to fail.
    pub(crate) fn copy(&self) -> Self {
        let state = self.lock();
        let mut nodes = state.nodes.clone();
        for node in nodes.values_mut() {
            match node {
                Node::File(content) => content.sync(),
                Node::Dir(names) => names.durable = names.now.clone(),
            }
        }
        let copy = Self::with(nodes, state.next_node, state.random.clone().next());
        copy.lock().collect();
        copy
    }

    /// The power goes at the `n`-th changing call from now on, counted from 1: it fails, whether it happened or not.
    pub(crate) fn crash_at_call(&self, n: u64) {
        let mut state = self.lock();
        state.crash_at = Some(state.calls + n);
    }

    /// Whether the power went.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().off
    }

    /// The `n`-th sync of a file or folder from now on fails, counted from 1.
    pub(crate) fn fail_sync(&self, n: u64) {
        let mut state = self.lock();
        state.fail_sync_at = Some(state.syncs + n);
    }

    /// From now on there is room for so many bytes more; what is removed is free again.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.lock().room = bytes;
    }

    /// Whether `allocate` gets room (the beginning), or only lengthens the file, as on file systems that cannot.
    pub(crate) fn set_allocates(&self, allocates: bool) {
        self.lock().allocates = allocates;
    }

    /// Files that may be open at once.
    pub(crate) fn set_handles_max(&self, handles: usize) {
        self.lock().handles_max = handles;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that reads.
    fn reading(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.off { Err(off()) } else { Ok(state) }
    }

    /// A call that changes something: `change` is done, unless the power goes and it is not.
    fn changing<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.reading()?;
        state.calls += 1;
        if state.crash_at == Some(state.calls) {
            if state.random.below(2) == 0 {
                let _ = change(&mut state);
            }
            state.off = true;
            return Err(off());
        }
        change(&mut state)
    }

    fn handle(&self, state: &State, node: u64, writes: bool) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.handles.load(Ordering::SeqCst) >= state.handles_max {
            return Err(io::Error::from_raw_os_error(NO_HANDLE));
        }
        self.0.handles.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(ForgetfulFile { disk: self.clone(), node, writes }))
    }

    fn opened(&self, path: &Path, writes: bool) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.reading()?;
        let node = state.node(path)?;
        match &state.nodes[&node] {
            Node::File(_) => self.handle(&state, node, writes),
            Node::Dir(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn off() -> io::Error {
    io::Error::other("the power is gone")
}

/// What a crash keeps of the changes of names.
fn kept<'a>(changes: &'a [Change], random: &mut SplitMix) -> Vec<&'a Change> {
    let all = changes.len() as u64;
    match random.below(4) {
        // As a file system with a journal does.
        0 => changes.iter().take(random.below(all + 1) as usize).collect(),
        1 => changes.iter().collect(),
        _ => changes.iter().filter(|_| random.below(2) == 0).collect(),
    }
}

/// Does a change to what is durable, or to what the machine sees. A name that is not the node's any more stays.
fn apply(nodes: &mut BTreeMap<u64, Node>, change: &Change, durable: bool) {
    fn of(nodes: &mut BTreeMap<u64, Node>, dir: u64, durable: bool) -> Option<&mut BTreeMap<OsString, u64>> {
        match nodes.get_mut(&dir) {
            Some(Node::Dir(names)) => Some(if durable { &mut names.durable } else { &mut names.now }),
            _ => None,
        }
    }
    if let Some((dir, name)) = &change.gone
        && let Some(names) = of(nodes, *dir, durable)
    {
        // A rename of what has no durable name does not happen.
        if names.get(name) != Some(&change.node) {
            return;
        }
        names.remove(name);
    }
    if let Some((dir, name)) = &change.new
        && let Some(names) = of(nodes, *dir, durable)
    {
        names.insert(name.clone(), change.node);
    }
}

impl State {
    fn dir(&self, node: u64) -> io::Result<&Names> {
        match &self.nodes[&node] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn content(&mut self, node: u64) -> &mut Content {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => content,
            _ => unreachable!("a handle is of a file, which stays while the machine runs"),
        }
    }

    fn node(&self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                node = *self.dir(node)?.now.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    /// The folder of a path, and the name in it.
    fn name(&self, path: &Path) -> io::Result<Name> {
        let dir = self.node(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        self.dir(dir)?;
        Ok((dir, path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned()))
    }

    fn at(&self, (dir, name): &Name) -> Option<u64> {
        self.dir(*dir).ok()?.now.get(name).copied()
    }

    fn free_name(&self, path: &Path) -> io::Result<Name> {
        let name = self.name(path)?;
        if self.at(&name).is_some() { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(name) }
    }

    fn change(&mut self, node: u64, gone: Option<Name>, new: Option<Name>) {
        let change = Change { node, gone, new };
        apply(&mut self.nodes, &change, false);
        self.changes.push(change);
    }

    fn add(&mut self, name: Name, what: Node) -> u64 {
        let node = self.next_node;
        self.next_node += 1;
        self.nodes.insert(node, what);
        self.change(node, None, Some(name));
        node
    }

    fn is_empty_dir(&self, node: u64) -> io::Result<bool> {
        Ok(self.dir(node)?.now.is_empty())
    }

    /// Counts a sync; whether it is to fail.
    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        self.fail_sync_at == Some(self.syncs)
    }

    /// The changes that touch a folder are durable, and those without which they would not be what they were.
    fn sync_names(&mut self, dir: u64) {
        let mut touched: BTreeSet<Name> = BTreeSet::new();
        let mut wanted = vec![false; self.changes.len()];
        for (change, wanted) in self.changes.iter().zip(&mut wanted).rev() {
            *wanted = change.names().any(|name| name.0 == dir || touched.contains(name));
            if *wanted {
                touched.extend(change.names().cloned());
            }
        }
        let mut wanted = wanted.into_iter();
        for change in std::mem::take(&mut self.changes) {
            if wanted.next() == Some(true) {
                apply(&mut self.nodes, &change, true);
            } else {
                self.changes.push(change);
            }
        }
    }

    /// Room of a file that has no name any more is free again.
    fn release(&mut self, node: u64) {
        let named = self.nodes.values().any(|other| match other {
            Node::Dir(names) => names.now.values().any(|named| *named == node),
            Node::File(_) => false,
        });
        if !named && let Some(Node::File(content)) = self.nodes.get_mut(&node) {
            let sectors = std::mem::take(&mut content.placed).len();
            self.room = self.room.saturating_add((sectors * SECTOR) as u64);
        }
    }

    /// Room for the sectors of a range of a file, as far as there is any; returns where it ends if it does.
    fn place(&mut self, node: u64, from: usize, to: usize) -> Option<usize> {
        let mut room = self.room;
        let content = self.content(node);
        let mut short = None;
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            if content.placed.contains(&sector) {
                continue;
            }
            if room < SECTOR as u64 {
                short = Some((sector * SECTOR).max(from));
                break;
            }
            content.placed.insert(sector);
            if room != u64::MAX {
                room -= SECTOR as u64;
            }
        }
        self.room = room;
        short
    }

    /// Removes what nobody can reach.
    fn collect(&mut self) {
        let (mut reached, mut open) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(node) = open.pop() {
            if let Some(Node::Dir(names)) = self.nodes.get(&node) {
                for node in names.now.values() {
                    if reached.insert(*node) {
                        open.push(*node);
                    }
                }
            }
        }
        for node in Vec::from_iter(self.nodes.keys().copied()) {
            if !reached.contains(&node) {
                self.release(node);
                self.nodes.remove(&node);
            }
        }
    }
}

impl Content {
    /// Bytes of a sector, with zeros behind the end.
    fn sector(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
        let mut whole = [0; SECTOR];
        let from = (sector * SECTOR).min(bytes.len());
        let to = (from + SECTOR).min(bytes.len());
        whole[..to - from].copy_from_slice(&bytes[from..to]);
        whole
    }

    /// Puts a sector's bytes where the file has them; those behind its end are no part of it.
    fn put(bytes: &mut [u8], sector: usize, whole: &[u8; SECTOR]) {
        let from = (sector * SECTOR).min(bytes.len());
        let to = (from + SECTOR).min(bytes.len());
        bytes[from..to].copy_from_slice(&whole[..to - from]);
    }

    fn resize(&mut self, len: usize) {
        let before = self.now.len();
        self.now.resize(len, 0);
        self.lengths.push(len);
        // What is cut off and what comes new is zero from now on.
        let (from, to) = (len.min(before), len.max(before));
        self.placed.retain(|sector| sector * SECTOR < len);
        self.touch(from, to);
    }

    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            for sector in from / SECTOR..to.div_ceil(SECTOR) {
                let state = Self::sector(&self.now, sector);
                self.waiting.entry(sector).or_default().push(state);
            }
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.resize(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for (sector, _) in std::mem::take(&mut self.waiting) {
            Self::put(&mut self.durable, sector, &Self::sector(&self.now, sector));
        }
        self.lengths.clear();
    }

    /// A sync that fails: of what waits, some is written, and nothing waits any more.
    fn fail_sync(&mut self, random: &mut SplitMix) {
        self.durable.resize(self.now.len(), 0);
        self.lengths.clear();
        for (sector, _) in std::mem::take(&mut self.waiting) {
            match random.below(3) {
                0 => Self::put(&mut self.durable, sector, &Self::sector(&self.now, sector)),
                // Lost, though the machine still sees it.
                1 => {}
                // Lost, and read anew from the device.
                _ => Self::put(&mut self.now, sector, &Self::sector(&self.durable, sector)),
            }
        }
    }

    /// What a crash leaves.
    fn forget(&mut self, random: &mut SplitMix) {
        let lengths = self.lengths.len() as u64;
        // The last state and the first are the likeliest, and so is one choice for the whole file.
        let all = random.below(4);
        let mut choose = |states: u64| match (all, random.below(4)) {
            (0, _) | (2.., 0) => states,
            (1, _) | (2.., 1) => 0,
            _ => random.below(states + 1),
        };
        match choose(lengths) {
            0 => {}
            n => self.durable.resize(self.lengths[n as usize - 1], 0),
        }
        for (sector, states) in std::mem::take(&mut self.waiting) {
            match choose(states.len() as u64) {
                0 => {}
                n => Self::put(&mut self.durable, sector, &states[n as usize - 1]),
            }
        }
        self.now = self.durable.clone();
        self.lengths.clear();
    }
}

impl Disk for ForgetfulDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.changing(|state| {
            let name = state.free_name(path)?;
            // Before the name: without a handle no file is made.
            let file = self.handle(state, state.next_node, true)?;
            state.add(name, Node::File(Content::default()));
            Ok(file)
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(path, true)
    }

    fn read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(path, false)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing(|state| {
            let (from, to) = (state.name(from)?, state.name(to)?);
            let node = state.at(&from).ok_or(io::ErrorKind::NotFound)?;
            let replaced = state.at(&to);
            if replaced == Some(node) {
                return Ok(());
            }
            if let Some(replaced) = replaced {
                match (&state.nodes[&node], &state.nodes[&replaced]) {
                    (Node::File(_), Node::File(_)) => {}
                    (Node::Dir(_), Node::Dir(_)) if state.is_empty_dir(replaced)? => {}
                    (Node::Dir(_), Node::Dir(_)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                    (Node::File(_), Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                    (Node::Dir(_), Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                }
            }
            state.change(node, Some(from), Some(to));
            replaced.inspect(|node| state.release(*node));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.changing(|state| {
            let name = state.name(path)?;
            let node = state.at(&name).ok_or(io::ErrorKind::NotFound)?;
            if matches!(state.nodes[&node], Node::Dir(_)) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            state.change(node, Some(name), None);
            state.release(node);
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing(|state| {
            let node = state.node(from)?;
            let to = state.free_name(to)?;
            if matches!(state.nodes[&node], Node::Dir(_)) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            state.change(node, None, Some(to));
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.changing(|state| {
            let name = state.free_name(path)?;
            state.add(name, Node::Dir(Names::default()));
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.changing(|state| {
            let name = state.name(path)?;
            let node = state.at(&name).ok_or(io::ErrorKind::NotFound)?;
            if !state.is_empty_dir(node)? {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state.change(node, Some(name), None);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.changing(|state| {
            let dir = state.node(path)?;
            state.dir(dir)?;
            if state.sync_fails() {
                return Err(io::Error::other("injected: the folder cannot be synced"));
            }
            state.sync_names(dir);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.reading()?;
        let dir = state.node(dir)?;
        let entry = |(name, node): (&OsString, &u64)| {
            let (kind, len) = match &state.nodes[node] {
                Node::File(content) => (EntryKind::File, content.now.len() as u64),
                Node::Dir(_) => (EntryKind::Dir, 0),
            };
            DirEntry { name: OsStr::to_owned(name), kind, len }
        };
        Ok(state.dir(dir)?.now.iter().map(entry).collect())
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        let state = self.reading()?;
        state.node(dir)?;
        Ok(state.room)
    }
}

#[derive(Debug)]
struct ForgetfulFile {
    disk: ForgetfulDisk,
    node: u64,
    writes: bool,
}

impl Drop for ForgetfulFile {
    fn drop(&mut self) {
        self.disk.0.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ForgetfulFile {
    fn writing<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        if !self.writes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.changing(change)
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.reading()?;
        let now = &state.content(self.node).now;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(now.len());
        let n = into.len().min(now.len() - from);
        into[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writing(|state| {
            let offset = offset as usize;
            let end = offset + bytes.len();
            let short = state.place(self.node, offset, end);
            let written = short.map_or(bytes.len(), |at| at - offset);
            if written > 0 {
                state.content(self.node).write(offset, &bytes[..written]);
            }
            short.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.reading()?.content(self.node).now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writing(|state| {
            let before = state.content(self.node).placed.len();
            state.content(self.node).resize(len as usize);
            let freed = before - state.content(self.node).placed.len();
            state.room = state.room.saturating_add((freed * SECTOR) as u64);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.writing(|state| {
            if state.allocates && state.place(self.node, 0, len as usize).is_some() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let content = state.content(self.node);
            if content.now.len() < len as usize {
                content.resize(len as usize);
            }
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.changing(|state| {
            if state.sync_fails() {
                let mut random = SplitMix(state.random.next());
                state.content(self.node).fail_sync(&mut random);
                return Err(io::Error::other("injected: the device is gone"));
            }
            state.content(self.node).sync();
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn map(&self) -> io::Result<Mapped> {
        let mut state = self.disk.reading()?;
        Mapped::copy_of(&state.content(self.node).now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::disk::conformance;

    fn read(disk: &ForgetfulDisk, path: &str) -> Option<Vec<u8>> {
        Some(disk.read_only(Path::new(path)).ok()?.map().unwrap().to_vec())
    }

    fn written(disk: &ForgetfulDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.create(Path::new(path)).unwrap();
        file.write_at(0, bytes).unwrap();
        file
    }

    #[test]
    fn it_does_as_every_disk_should() {
        let disk = ForgetfulDisk::new(1);
        disk.create_dir(Path::new("/a")).unwrap();
        conformance::files_do_as_they_should(&disk, Path::new("/a"));
    }

    #[test]
    fn what_was_synced_is_there_after_every_crash() {
        for seed in 0..200 {
            let disk = ForgetfulDisk::new(seed);
            written(&disk, "/a", &[1; 2000]).sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            disk.open(Path::new("/a")).unwrap().write_at(1024, &[2; 3000]).unwrap();
            let disk = disk.crash(seed);
            let bytes = read(&disk, "/a").unwrap();
            assert_eq!(bytes[..1024], [1; 1024]);
            assert!(bytes.len() == 2000 || bytes.len() == 4024, "seed {seed}: {}", bytes.len());
        }
    }

    #[test]
    fn of_the_rest_every_part_may_be_kept_or_lost() {
        let mut seen = BTreeSet::new();
        let mut names = BTreeSet::new();
        for seed in 0..400 {
            let disk = ForgetfulDisk::new(seed);
            let file = written(&disk, "/a", &[1; 2 * SECTOR]);
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_at(0, &[2; 2 * SECTOR]).unwrap();
            file.write_at(0, &[3; 2 * SECTOR]).unwrap();
            written(&disk, "/new", b"x").sync_data().unwrap();
            disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
            let disk = disk.crash(seed);
            let there: Vec<_> =
                ["/a", "/b", "/new"].into_iter().filter(|name| read(&disk, name).is_some()).collect();
            let bytes = read(&disk, "/a").or(read(&disk, "/b")).unwrap();
            for half in bytes.chunks(SECTOR) {
                assert!(half.iter().all(|byte| *byte == half[0]), "a sector is whole");
            }
            seen.insert((bytes[0], bytes[SECTOR]));
            names.insert(there);
        }
        assert_eq!(seen.len(), 9, "{seen:?}");
        assert_eq!(names.len(), 4, "a rename happens or does not: {names:?}");
    }

    #[test]
    fn a_removed_file_may_be_back_until_its_folder_is_synced() {
        let mut back = 0;
        for seed in 0..100 {
            let disk = ForgetfulDisk::new(seed);
            written(&disk, "/a", b"x").sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            disk.remove(Path::new("/a")).unwrap();
            if seed % 2 == 0 {
                disk.sync_dir(Path::new("/")).unwrap();
            }
            let is_back = read(&disk.crash(seed), "/a").is_some();
            assert!(seed % 2 == 1 || !is_back);
            back += usize::from(is_back);
        }
        assert!((5..45).contains(&back), "{back}");
    }

    #[test]
    fn a_new_length_may_be_there_or_not() {
        let lengths: BTreeSet<usize> = (0..100)
            .map(|seed| {
                let disk = ForgetfulDisk::new(seed);
                let file = written(&disk, "/a", &[1; 700]);
                file.sync_all().unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                file.set_len(10).unwrap();
                file.allocate(900).unwrap();
                read(&disk.crash(seed), "/a").unwrap().len()
            })
            .collect();
        assert_eq!(lengths, BTreeSet::from([10, 700, 900]));
    }

    #[test]
    fn the_call_it_crashes_at_is_the_last_one() {
        let mut happened = BTreeSet::new();
        for seed in 0..50 {
            let disk = ForgetfulDisk::new(seed);
            let file = written(&disk, "/a", b"1");
            disk.sync_dir(Path::new("/")).unwrap();
            disk.crash_at_call(2);
            file.write_at(0, b"2").unwrap();
            assert!(!disk.is_off() && file.sync_data().is_err() && disk.is_off());
            assert!(file.read_at(0, &mut [0]).is_err() && disk.list(Path::new("/")).is_err());
            happened.insert(read(&disk.crash(seed), "/a").unwrap());
        }
        assert!(happened.contains(b"2".as_slice()) && happened.len() > 1, "{happened:?}");
    }

    #[test]
    fn after_a_failed_sync_the_next_one_succeeds_and_saves_nothing() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = ForgetfulDisk::new(seed);
            let file = written(&disk, "/a", b"1");
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_at(0, b"2").unwrap();
            disk.fail_sync(1);
            file.sync_data().unwrap_err();
            file.sync_data().unwrap();
            lost += usize::from(read(&disk.crash(seed), "/a").unwrap() == b"1");
        }
        assert!((10..50).contains(&lost), "{lost}");
    }

    #[test]
    fn room_and_handles_can_be_short() {
        let disk = ForgetfulDisk::new(1);
        let file = written(&disk, "/a", &[1; 100]);
        disk.set_room(1024);
        assert_eq!(file.allocate(2048).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.available(Path::new("/")).unwrap(), 0, "what was got before the failure is kept");
        file.set_len(100).unwrap();
        assert_eq!(disk.available(Path::new("/")).unwrap(), 1024);
        file.write_at(100, &[2; 412]).unwrap();
        assert_eq!(file.write_at(512, &[2; 1500]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((file.len().unwrap(), disk.available(Path::new("/")).unwrap()), (1536, 0));
        file.set_len(512).unwrap();
        assert_eq!(disk.available(Path::new("/")).unwrap(), 1024);
        disk.remove(Path::new("/a")).unwrap();
        assert_eq!(disk.available(Path::new("/")).unwrap(), 1536);
        disk.set_allocates(false);
        disk.set_room(0);
        let other = disk.create(Path::new("/b")).unwrap();
        other.allocate(4096).unwrap();
        assert!(other.write_at(0, b"x").is_err());
        disk.set_handles_max(2);
        assert_eq!(disk.create(Path::new("/c")).unwrap_err().raw_os_error(), Some(NO_HANDLE));
        assert_eq!(disk.list(Path::new("/")).unwrap().len(), 1);
        drop(file);
        disk.create(Path::new("/c")).unwrap();
    }

    #[test]
    fn a_synced_folder_keeps_what_was_renamed_into_it_whole() {
        for seed in 0..50 {
            let disk = ForgetfulDisk::new(seed);
            disk.create_dir(Path::new("/d")).unwrap();
            disk.create_dir(Path::new("/d/tmp")).unwrap();
            written(&disk, "/d/tmp/f", b"x").sync_all().unwrap();
            disk.sync_dir(Path::new("/d/tmp")).unwrap();
            disk.rename(Path::new("/d/tmp"), Path::new("/d/s")).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let disk = disk.crash(seed);
            assert_eq!(read(&disk, "/d/s/f").unwrap(), b"x");
            assert_eq!(disk.list(Path::new("/d")).unwrap().len(), 1);
        }
    }
}
