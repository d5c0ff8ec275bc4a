//! One file of the log, looked at from outside: which pages in it begin or end a block.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    LogError,
    format::{BlockHead, HEAD_BYTES, PAGE},
};
use crate::files::disk::DiskFile;

/// Bytes read at a time where pages are searched.
const STEP_BYTES: u64 = 1 << 20;

/// A file to be read.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    pub(super) salt: u64,
}

/// What stands in a part of a file.
#[derive(Debug, Default)]
pub(super) struct Landmarks {
    /// Headers by where their blocks begin, read there or at the block's end. Not all of their blocks need be whole.
    pub(super) heads: BTreeMap<u64, BlockHead>,
    /// The end of the last page that is not all zero.
    pub(super) filled: u64,
}

impl Scan {
    /// The header at `at`, if there is one and the file has all of its block.
    pub(super) fn head(&self, at: u64) -> Result<Option<BlockHead>, LogError> {
        let mut bytes = [0; HEAD_BYTES];
        let read = self.file.read_at(at, &mut bytes).map_err(LogError::at(&self.path))?;
        let head = BlockHead::read_head(&bytes[..read], self.salt);
        Ok(head.filter(|head| self.has(at, head)))
    }

    /// Whether the file is long enough for a block.
    pub(super) fn has(&self, at: u64, head: &BlockHead) -> bool {
        at + u64::from(head.len) <= self.len
    }

    /// Reads a block that the file has, into `into`.
    pub(super) fn read(&self, at: u64, head: &BlockHead, into: &mut Vec<u8>) -> Result<(), LogError> {
        into.resize(head.len as usize, 0);
        self.file.read_exact_at(at, into).map_err(LogError::at(&self.path))
    }

    /// Everything from `from` to the end of the file, `from` included.
    pub(super) fn landmarks(&self, from: u64) -> Result<Landmarks, LogError> {
        let mut found = Landmarks { heads: BTreeMap::new(), filled: from };
        let mut feet = BTreeMap::new();
        let mut step = Vec::new();
        let mut at = from;
        while at < self.len {
            step.resize((self.len - at).min(STEP_BYTES) as usize, 0);
            let read = self.file.read_at(at, &mut step).map_err(LogError::at(&self.path))?;
            if read == 0 {
                break;
            }
            for page in step[..read].chunks(PAGE as usize) {
                let end = at + page.len() as u64;
                if !is_zero(page) {
                    found.filled = end;
                    if page.len() as u64 == PAGE {
                        let (head, foot) = (&page[..HEAD_BYTES], &page[page.len() - HEAD_BYTES..]);
                        if let Some(head) = BlockHead::read_head(head, self.salt) {
                            found.heads.insert(at, head);
                        }
                        if let Some(foot) = BlockHead::read_foot(foot, self.salt)
                            && let Some(begin) = end.checked_sub(u64::from(foot.len))
                            && begin >= from
                        {
                            feet.insert(begin, foot);
                        }
                    }
                }
                at = end;
            }
        }
        for (begin, foot) in feet {
            found.heads.entry(begin).or_insert(foot);
        }
        Ok(found)
    }
}

/// A page of a file that was never written is zero, and most of a new file is.
fn is_zero(page: &[u8]) -> bool {
    const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    *page == ZEROS[..page.len()]
}
