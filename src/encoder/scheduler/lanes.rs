//! The lanes: threads that take batches, run them on their sessions and answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    super::{Class, Common, Embedding, EncoderError, pulse::Pulse},
    waiting::{Item, Waiting},
};
use crate::{
    onnx::Layout,
    panics::panic_text,
    runtime::{RuntimeError, Session, TensorView},
};

/// The texts that wait for both lanes.
pub(super) struct Queue {
    pub(super) query: Waiting,
    pub(super) bulk: Waiting,
    pub(super) arrivals: u64,
    pub(super) closed: bool,
    /// Whether queries have a lane of their own.
    pub(super) query_lane: bool,
}

/// What the lanes share with the threads that submit.
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake_query: Condvar,
    pub(super) wake_bulk: Condvar,
    pub(super) common: Arc<Common>,
    pub(super) query_pulse: Pulse,
    pub(super) bulk_pulse: Pulse,
    /// Whether it computes on the cores that all share, and so in turn.
    pub(super) in_turn: bool,
    pub(super) layout: Layout,
    pub(super) batch_tokens_max: usize,
    pub(super) queue_max: usize,
    pub(super) dim: usize,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The query lane's thread: loads its session when there is something to do. If that fails, by an error or a panic, or
    /// if the lane ends otherwise than by being closed, the bulk lane takes its work over.
    pub(super) fn query_lane(&self, open: &(dyn Fn() -> Result<Session, RuntimeError> + Send + Sync)) {
        {
            let mut queue = self.lock();
            while queue.query.len() == 0 && !queue.closed {
                queue = self.wake_query.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.query.len() == 0 {
                return;
            }
        }
        // A bug of a library must not end the thread that every query waits for.
        let worked =
            catch_unwind(AssertUnwindSafe(|| open().map(|session| self.work(session, Class::Query))));
        let reason = match worked {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
        };
        tracing::warn!(reason, "queries share a lane with bulk encoding");
        self.lock().query_lane = false;
        self.wake_bulk.notify_all();
    }

    pub(super) fn work(&self, mut session: Session, lane: Class) {
        let mut input = Input::default();
        while let Some((length, batch)) = self.next_batch(lane) {
            // A bug of ours or of a library must not end the thread that all requests wait for.
            let pulse = if lane == Class::Query { &self.query_pulse } else { &self.bulk_pulse };
            pulse.begins();
            let result = catch_unwind(AssertUnwindSafe(|| {
                self.run_batch(&mut session, lane, length, &batch, &mut input)
            }));
            pulse.ends(match &result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("a batch panicked".to_owned()),
            });
            if result.is_err() {
                tracing::error!("a batch panicked");
                for item in &batch {
                    item.request.fail(EncoderError::Failed { reason: "a batch panicked".into() });
                }
            }
        }
        let left: Vec<Item> = {
            let mut queue = self.lock();
            let mut left = queue.query.take_all();
            left.extend(queue.bulk.take_all());
            left
        };
        for item in left {
            item.request.fail(EncoderError::Closed);
        }
    }

    /// Waits for work; `None` when closed. Items that nobody wants any more are dropped on the way.
    fn next_batch(&self, lane: Class) -> Option<(usize, Vec<Item>)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let max = self.batch_tokens_max;
            let taken = match lane {
                Class::Query => queue.query.take_batch(max),
                Class::Bulk if queue.query_lane => queue.bulk.take_batch(max),
                Class::Bulk => queue.query.take_batch(max).or_else(|| queue.bulk.take_batch(max)),
            };
            let Some((length, mut batch)) = taken else {
                let wake = if lane == Class::Query { &self.wake_query } else { &self.wake_bulk };
                queue = wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            self.common.counters.waiting.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            drop(queue);
            let now = Instant::now();
            batch.retain(|item| item.request.is_wanted(now));
            if !batch.is_empty() {
                return Some((length, batch));
            }
            queue = self.lock();
        }
    }

    /// Answers every text of the batch. An error is the error of all of them, and is kept for the health probe.
    fn run_batch(
        &self,
        session: &mut Session,
        lane: Class,
        length: usize,
        batch: &[Item],
        input: &mut Input,
    ) -> Result<(), EncoderError> {
        let lock = if lane == Class::Query { &self.common.queries } else { &self.common.bulk };
        let turn = self.in_turn.then(|| lock.lock());
        let started = Instant::now();
        for item in batch {
            item.request.start(started);
        }
        let (tokens, computed) = match self.layout {
            Layout::Padded | Layout::PaddedHalf => input.pad(batch, length),
            Layout::Packed => input.pack(batch),
        };
        let (shape, ends) = ([batch.len(), length], [input.starts.len()]);
        let flat = [computed];
        let result = match self.layout {
            Layout::Padded | Layout::PaddedHalf => session.run(&[
                ("input_ids", TensorView::I64 { shape: &shape, values: &input.ids }),
                ("attention_mask", TensorView::I64 { shape: &shape, values: &input.mask }),
            ]),
            Layout::Packed => session.run(&[
                ("input_ids", TensorView::I64 { shape: &flat, values: &input.ids }),
                ("positions", TensorView::I64 { shape: &flat, values: &input.positions }),
                ("starts", TensorView::I64 { shape: &ends, values: &input.starts }),
            ]),
        };
        drop(turn);
        let count = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.common.counters.texts, batch.len());
        count(&self.common.counters.tokens, tokens);
        count(&self.common.counters.padded_tokens, computed);
        count(&self.common.counters.batches, 1);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.common.counters.busy_micros.fetch_add(micros, Ordering::Relaxed);

        let rows =
            result.map_err(|e| EncoderError::Failed { reason: e.to_string() }).and_then(|mut outputs| {
                let (shape, values) =
                    if outputs.is_empty() { Default::default() } else { outputs.swap_remove(0) };
                if shape == [batch.len(), self.dim] {
                    Ok(values)
                } else {
                    Err(EncoderError::Failed {
                        reason: format!(
                            "the graph gave shape {shape:?}, expected [{}, {}]",
                            batch.len(),
                            self.dim
                        ),
                    })
                }
            });
        match rows {
            Err(error) => {
                batch.iter().for_each(|item| item.request.fail(error.clone()));
                return Err(error);
            }
            Ok(values) => {
                for (item, row) in batch.iter().zip(values.chunks_exact(self.dim)) {
                    if row.iter().any(|v| !v.is_finite()) {
                        item.request.fail(EncoderError::NotFinite);
                        continue;
                    }
                    let count = item.tokens.count;
                    item.request.finish_one(
                        item.place,
                        Embedding {
                            values: row.to_vec(),
                            tokens: u32::try_from(count).unwrap_or(u32::MAX),
                            truncated: count > item.tokens.ids.len(),
                            unknown: u32::try_from(item.tokens.unknown).unwrap_or(u32::MAX),
                        },
                    );
                }
            }
        }
        Ok(())
    }
}

/// The tensors of a batch; reused from batch to batch.
#[derive(Default)]
struct Input {
    ids: Vec<i64>,
    mask: Vec<i64>,
    positions: Vec<i64>,
    starts: Vec<i64>,
}

impl Input {
    /// `[batch][length]`: tokens, and with padding.
    fn pad(&mut self, batch: &[Item], length: usize) -> (usize, usize) {
        self.ids.clear();
        self.mask.clear();
        let mut tokens = 0;
        for item in batch {
            let n = item.tokens.ids.len();
            tokens += n;
            self.ids.extend(item.tokens.ids.iter().map(|&id| i64::from(id)));
            self.ids.resize(self.ids.len() + length - n, 0);
            self.mask.resize(self.mask.len() + n, 1);
            self.mask.resize(self.mask.len() + length - n, 0);
        }
        (tokens, batch.len() * length)
    }

    /// One text behind the other: twice the number of tokens.
    fn pack(&mut self, batch: &[Item]) -> (usize, usize) {
        self.ids.clear();
        self.positions.clear();
        self.starts.clear();
        self.starts.push(0);
        for item in batch {
            self.ids.extend(item.tokens.ids.iter().map(|&id| i64::from(id)));
            self.positions.extend(0..item.tokens.ids.len() as i64);
            self.starts.push(self.ids.len() as i64);
        }
        (self.ids.len(), self.ids.len())
    }
}
