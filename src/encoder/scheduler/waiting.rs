//! The queue of one class decides which texts make up the next batch.
//!
//! A batch is made up of clients in turn. Where the graph pads, it takes texts of one length bucket (padding is at most
//! [`BUCKET_TOKENS`]` - 1` tokens a text), the bucket of the client's longest-waiting text; where it does not, whatever
//! comes next, up to a budget of tokens. This file knows no threads and no sessions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{super::tokenize::Tokens, request::Request};
use crate::onnx::Layout;

/// Lengths are rounded up to a multiple of this many tokens.
pub(crate) const BUCKET_TOKENS: usize = 8;

/// One text of a request.
pub(super) struct Item {
    pub(super) request: Arc<Request>,
    pub(super) place: usize,
    pub(super) tokens: Tokens,
    pub(super) arrival: u64,
}

/// Texts of one class, by client and then by length bucket, each bucket in order of arrival. Where the graph does not
/// pad, all are of one bucket.
pub(super) struct Waiting {
    layout: Layout,
    clients: BTreeMap<u64, BTreeMap<usize, VecDeque<Item>>>,
    /// The client that comes after this one is next.
    turn: u64,
    texts: usize,
}

fn bucket(tokens: usize) -> usize {
    tokens.max(1).div_ceil(BUCKET_TOKENS) * BUCKET_TOKENS
}

impl Waiting {
    pub(super) fn new(layout: Layout) -> Self {
        Waiting { layout, clients: BTreeMap::new(), turn: 0, texts: 0 }
    }

    /// The number of texts that wait.
    pub(super) fn len(&self) -> usize {
        self.texts
    }

    pub(super) fn push(&mut self, client: u64, item: Item) {
        let bucket = match self.layout {
            Layout::Padded | Layout::PaddedHalf => bucket(item.tokens.ids.len()),
            Layout::Packed => 0,
        };
        self.clients.entry(client).or_default().entry(bucket).or_default().push_back(item);
        self.texts += 1;
    }

    /// The next batch and the length it is padded to, if it is; the clients that are served move to the end of the
    /// line.
    pub(super) fn take_batch(&mut self, tokens_max: usize) -> Option<(usize, Vec<Item>)> {
        let next = |clients: &BTreeMap<u64, _>, turn: u64| {
            clients.range(turn.wrapping_add(1)..).chain(clients.range(..)).map(|(&client, _)| client).next()
        };
        let mut batch = Vec::new();
        let client = next(&self.clients, self.turn)?;
        let length = match self.layout {
            Layout::Padded | Layout::PaddedHalf => {
                let buckets = &self.clients[&client];
                let (&length, _) =
                    buckets.iter().min_by_key(|(_, items)| items.front().map_or(u64::MAX, |i| i.arrival))?;
                let rows = (tokens_max / length).max(1);
                self.turn = client;
                // The client whose turn it is first, then those that have texts of that length.
                let order: Vec<u64> = self
                    .clients
                    .range(client..)
                    .chain(self.clients.range(..client))
                    .map(|(&c, _)| c)
                    .collect();
                for client in order {
                    // The next shorter bucket fills what is left: it wastes no more than a bucket's worth each.
                    for length in [length, length.saturating_sub(BUCKET_TOKENS)] {
                        let n = rows - batch.len();
                        self.take(client, length, n, &mut batch);
                    }
                }
                length
            }
            Layout::Packed => {
                let mut tokens = 0;
                let mut client = Some(client);
                while let Some(turn) = client {
                    let first = self.clients[&turn].values().next().and_then(VecDeque::front);
                    let n = first.map_or(0, |item| item.tokens.ids.len());
                    if !batch.is_empty() && tokens + n > tokens_max {
                        break;
                    }
                    tokens += n;
                    self.take(turn, 0, 1, &mut batch);
                    self.turn = turn;
                    client = next(&self.clients, turn);
                }
                0
            }
        };
        Some((length, batch))
    }

    /// Moves up to `n` texts of one client and bucket.
    fn take(&mut self, client: u64, bucket: usize, n: usize, into: &mut Vec<Item>) {
        let Some(buckets) = self.clients.get_mut(&client) else { return };
        let Some(items) = buckets.get_mut(&bucket) else { return };
        let n = items.len().min(n);
        into.extend(items.drain(..n));
        self.texts -= n;
        if items.is_empty() {
            buckets.remove(&bucket);
        }
        if buckets.is_empty() {
            self.clients.remove(&client);
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<Item> {
        self.texts = 0;
        std::mem::take(&mut self.clients).into_values().flat_map(BTreeMap::into_values).flatten().collect()
    }
}
