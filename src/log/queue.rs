//! What waits to be written: a lane for each collection, and whose turn it is.
//!
//! Small tickets go before large ones, and among either the collections take turns; within a collection the order
//! stays. Of every block large tickets have a part if any wait, so neither sort holds up the other for longer than a
//! block takes. No collection may fill more than half of the queue.

use std::collections::{HashMap, VecDeque};

use super::{LogError, LogOptions, Ticket};

/// Payloads of a block, unless it has one ticket that is larger.
pub(super) const BLOCK_BYTES: usize = 4 << 20;
/// Entries of a block.
pub(super) const BLOCK_ENTRIES: usize = 1 << 14;
/// Payload up to which a ticket is small.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// What a ticket counts in the queue besides its payload.
const TICKET_BYTES: usize = 256;

/// The queue. Its owner locks it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<u64, Lane>,
    /// Collections with tickets, in the order of their turns.
    turns: VecDeque<u64>,
    tickets: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Ticket>,
    bytes: usize,
}

fn bytes_of(ticket: &Ticket) -> usize {
    ticket.payload.len() + TICKET_BYTES
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets == 0
    }

    /// Takes a ticket in, or says why not.
    pub(super) fn push(&mut self, ticket: Ticket, options: &LogOptions) -> Result<(), LogError> {
        let bytes = bytes_of(&ticket);
        // A ticket as large as the queue allows finds room when nothing else waits.
        let (tickets_max, bytes_max) = (options.tickets_max, options.queue_bytes + TICKET_BYTES);
        let lane = self.lanes.get(&ticket.collection);
        let (own, own_bytes) = lane.map_or((0, 0), |lane| (lane.waiting.len(), lane.bytes));
        let is_full = self.tickets >= tickets_max || self.bytes + bytes > bytes_max;
        let is_greedy = own > 0 && (own >= tickets_max / 2 || own_bytes + bytes > bytes_max / 2);
        if is_full || is_greedy {
            return Err(LogError::Overloaded);
        }
        self.add(ticket, VecDeque::push_back);
        Ok(())
    }

    /// Puts tickets that were taken and must wait back to where they were.
    pub(super) fn put_back(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets.into_iter().rev() {
            self.add(ticket, VecDeque::push_front);
        }
    }

    fn add(&mut self, ticket: Ticket, add: fn(&mut VecDeque<Ticket>, Ticket)) {
        let (collection, bytes) = (ticket.collection, bytes_of(&ticket));
        let lane = self.lanes.entry(collection).or_default();
        if lane.waiting.is_empty() {
            self.turns.push_back(collection);
        }
        lane.bytes += bytes;
        add(&mut lane.waiting, ticket);
        self.tickets += 1;
        self.bytes += bytes;
    }

    /// Takes out what the next block is made of, in order.
    pub(super) fn take_block(&mut self) -> Vec<Ticket> {
        let mut taken = Vec::new();
        let is_large = |ticket: &Ticket| ticket.payload.len() > SMALL_BYTES;
        let mut heads = self.lanes.values().filter_map(|lane| lane.waiting.front());
        let small_max = if heads.any(is_large) { BLOCK_BYTES / 2 } else { BLOCK_BYTES };
        let mut bytes = 0;
        self.take_turns(&mut taken, |ticket| {
            let fits = !is_large(ticket) && bytes + ticket.payload.len() <= small_max;
            bytes += if fits { ticket.payload.len() } else { 0 };
            fits
        });
        let mut has_large = false;
        self.take_turns(&mut taken, |ticket| {
            let fits = is_large(ticket) && (!has_large || bytes + ticket.payload.len() <= BLOCK_BYTES);
            bytes += if fits { ticket.payload.len() } else { 0 };
            has_large |= fits;
            fits
        });
        taken
    }

    /// Goes round the collections and takes the first ticket of each that `fits`, until none does.
    fn take_turns(&mut self, taken: &mut Vec<Ticket>, mut fits: impl FnMut(&Ticket) -> bool) {
        loop {
            let before = taken.len();
            for _ in 0..self.turns.len() {
                let Some(collection) = self.turns.pop_front() else { return };
                let Some(lane) = self.lanes.get_mut(&collection) else { continue };
                let is_room = taken.len() < BLOCK_ENTRIES;
                if let Some(ticket) = lane.waiting.pop_front_if(|ticket| is_room && fits(ticket)) {
                    let bytes = bytes_of(&ticket);
                    lane.bytes -= bytes;
                    self.bytes -= bytes;
                    self.tickets -= 1;
                    taken.push(ticket);
                }
                if lane.waiting.is_empty() {
                    self.lanes.remove(&collection);
                } else {
                    self.turns.push_back(collection);
                }
            }
            if taken.len() == before {
                return;
            }
        }
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Ticket> {
        let lanes = std::mem::take(self).lanes;
        lanes.into_values().flat_map(|lane| lane.waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Durability, Sequence};

    fn ticket(collection: u64, kind: u8, bytes: usize) -> Ticket {
        let done = |_: Result<Sequence, LogError>| {};
        Ticket::new(collection, kind, vec![0; bytes], Durability::Power, done)
    }

    fn filled(tickets: &[(u64, u8, usize)]) -> Queue {
        let mut queue = Queue::default();
        for (collection, kind, bytes) in tickets {
            queue.push(ticket(*collection, *kind, *bytes), &LogOptions::default()).unwrap();
        }
        queue
    }

    fn block(queue: &mut Queue) -> Vec<(u64, u8)> {
        queue.take_block().iter().map(|ticket| (ticket.collection, ticket.kind)).collect()
    }

    #[test]
    fn collections_take_turns_and_keep_their_order() {
        let mut queue = filled(&[(1, 0, 9), (1, 1, 9), (1, 2, 9), (2, 0, 9), (3, 0, 9), (3, 1, 9)]);
        assert_eq!(block(&mut queue), [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1), (1, 2)]);
        assert!(queue.is_empty() && queue.lanes.is_empty() && queue.turns.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn small_tickets_go_before_large_ones_of_others_and_large_ones_are_not_forgotten() {
        let large = 3 << 20;
        let mut queue = filled(&[(1, 0, large), (1, 1, large), (1, 2, 9), (2, 0, 9), (2, 1, 9)]);
        assert_eq!(block(&mut queue), [(2, 0), (2, 1), (1, 0)]);
        queue.push(ticket(2, 2, 9), &LogOptions::default()).unwrap();
        assert_eq!(block(&mut queue), [(2, 2), (1, 1)]);
        assert_eq!(block(&mut queue), [(1, 2)]);
        // However many small ones there are, each block has a large one, and half of it is theirs.
        let mut queue = filled(&[(1, 0, large), (1, 1, large)]);
        for n in 0..200 {
            queue.push(ticket(2 + n % 7, 0, SMALL_BYTES), &LogOptions::default()).unwrap();
        }
        for _ in 0..2 {
            let block = block(&mut queue);
            assert_eq!(block.iter().filter(|(collection, _)| *collection == 1).count(), 1);
            assert_eq!(block.len(), 1 + BLOCK_BYTES / 2 / SMALL_BYTES);
        }
    }

    #[test]
    fn a_ticket_larger_than_a_block_is_taken() {
        let mut queue = filled(&[(1, 0, 9 << 20), (2, 0, 70_000)]);
        assert_eq!(block(&mut queue), [(1, 0)]);
        assert_eq!(block(&mut queue), [(2, 0)]);
    }

    #[test]
    fn what_must_wait_comes_first_in_the_next_block() {
        let mut queue = filled(&[(1, 0, 9), (1, 1, 9), (1, 2, 9), (2, 0, 9)]);
        let mut taken = queue.take_block();
        queue.push(ticket(1, 3, 9), &LogOptions::default()).unwrap();
        taken.retain(|ticket| ticket.collection == 1 && ticket.kind > 0);
        queue.put_back(taken);
        assert_eq!(block(&mut queue), [(1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn the_queue_is_bounded_and_no_collection_takes_all_of_it() {
        let options = LogOptions { tickets_max: 10, queue_bytes: 10_000, ..LogOptions::default() };
        let mut queue = Queue::default();
        let mut push = |collection, bytes| queue.push(ticket(collection, 0, bytes), &options).is_ok();
        assert_eq!((0..9).filter(|_| push(1, 9)).count(), 5, "half of the tickets");
        assert_eq!((0..9).filter(|_| push(2, 9)).count(), 5);
        assert!(!push(3, 9), "it is full");
        let mut queue = Queue::default();
        let mut push = |collection, bytes| queue.push(ticket(collection, 0, bytes), &options).is_ok();
        assert!(push(1, 3000) && !push(1, 3000), "half of the bytes");
        assert!(push(2, 6500) && !push(3, 900), "all of the bytes");
        assert!(Queue::default().push(ticket(1, 0, 10_000), &options).is_ok(), "alone there is room");
    }
}
