//! Messages from one thread to another: a queue with one sender and one receiver.
//!
//! # Protocol
//! The slots between `head` and `tail` hold messages. Only the sender moves `tail`, after it has
//! written the slots before it (release; the receiver's acquire sees them); only the receiver moves
//! `head`, after it has taken what was there (release; the sender's acquire knows the slots free).
//! Each keeps what it knows of the other's end and looks again only when that is used up, and moves
//! its own end once for a batch, so that the two share a cache line per batch, not per message.
//!
//! The queue is bounded; what finds no room stays with the sender, in order. Waking a receiver that
//! sleeps is not done here ([`Unparker`](crate::Unparker), once a batch).
//!
//! A receiver that goes says so (`closed`) and drops what is there; a sender looks after each batch
//! whether it has gone, and drops what came too late. One of the two sees the other (the fences), so
//! that no message lies there for ever; a lock keeps them from doing it at once.

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, UnsafeCell, fence};

/// On a cache line of its own, and its neighbour, which processors fetch along.
#[repr(align(128))]
struct Apart<T>(T);

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: Apart<AtomicUsize>,
    tail: Apart<AtomicUsize>,
    /// The receiver is gone.
    closed: AtomicBool,
    /// Held by whoever drops what nobody will take.
    dropping: Mutex<()>,
}

// SAFETY: each slot is used by one side at a time (the protocol above), and messages move between
// threads.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// The slot of a position, which counts on and on.
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Ring<T> {
    /// Drops the messages that are there, once the receiver is gone.
    fn drop_all(&self) {
        let _dropping = self.dropping.lock();
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != self.tail.0.load(Ordering::Acquire) {
            // SAFETY: before the tail, so that it was written, and after the head; the receiver is
            // gone, and the lock keeps the others away.
            let message = self.slot(head).with(|slot| unsafe { (*slot).assume_init_read() });
            head = head.wrapping_add(1);
            self.head.0.store(head, Ordering::Release);
            drop(message);
        }
    }
}

/// The end that messages go in at.
pub struct MailSender<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    /// As far as is known.
    head: usize,
    /// Not in the queue yet.
    staged: VecDeque<T>,
}

/// The end that messages come out of.
pub struct MailReceiver<T> {
    ring: Arc<Ring<T>>,
    head: usize,
}

/// A queue for so many messages, rounded up to a power of two.
pub fn mailbox<T: Send>(capacity: usize) -> (MailSender<T>, MailReceiver<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit()));
    let ring = Arc::new(Ring {
        slots: slots.collect(),
        head: Apart(AtomicUsize::new(0)),
        tail: Apart(AtomicUsize::new(0)),
        closed: AtomicBool::new(false),
        dropping: Mutex::new(()),
    });
    let sender = MailSender { ring: ring.clone(), tail: 0, head: 0, staged: VecDeque::new() };
    (sender, MailReceiver { ring, head: 0 })
}

impl<T: Send> MailSender<T> {
    /// Keeps a message for the next [`MailSender::flush`].
    #[inline]
    pub fn stage(&mut self, message: T) {
        self.staged.push_back(message);
    }

    /// Messages that the receiver cannot see yet.
    #[inline]
    pub fn staged_count(&self) -> usize {
        self.staged.len()
    }

    /// Hands over what was staged, as far as there is room: how many messages that were. The receiver
    /// is to be woken if there were some. With the receiver gone everything is dropped.
    pub fn flush(&mut self) -> usize {
        let room = |tail: usize, head: usize| self.ring.slots.len() - tail.wrapping_sub(head);
        if room(self.tail, self.head) < self.staged.len() {
            self.head = self.ring.head.0.load(Ordering::Acquire);
        }
        let count = self.staged.len().min(room(self.tail, self.head));
        for message in self.staged.drain(..count) {
            // SAFETY: the slot is free: the receiver's head is past what was in it.
            self.ring.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(message) });
            self.tail = self.tail.wrapping_add(1);
        }
        if count > 0 {
            self.ring.tail.0.store(self.tail, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        // With acquire: what the receiver has taken is out of the queue for us, too.
        if self.ring.closed.load(Ordering::Acquire) {
            self.ring.drop_all();
            self.staged.clear();
            return 0;
        }
        count
    }
}

impl<T: Send> MailReceiver<T> {
    /// Whether there are messages.
    #[inline]
    pub fn has_mail(&self) -> bool {
        self.ring.tail.0.load(Ordering::Acquire) != self.head
    }

    /// Moves up to `count_max` messages to `into`, in order: how many that were.
    pub fn take(&mut self, count_max: usize, into: &mut Vec<T>) -> usize {
        let there = self.ring.tail.0.load(Ordering::Acquire).wrapping_sub(self.head);
        let count = there.min(count_max);
        for _ in 0..count {
            // SAFETY: before the tail, so that it was written, and after the head.
            let message =
                self.ring.slot(self.head).with(|slot| unsafe { (*slot).assume_init_read() });
            into.push(message);
            self.head = self.head.wrapping_add(1);
        }
        if count > 0 {
            self.ring.head.0.store(self.head, Ordering::Release);
        }
        count
    }
}

impl<T> Drop for MailReceiver<T> {
    fn drop(&mut self) {
        self.ring.head.0.store(self.head, Ordering::Release);
        self.ring.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.ring.drop_all();
    }
}

impl<T> std::fmt::Debug for MailSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MailSender({} staged)", self.staged.len())
    }
}

impl<T> std::fmt::Debug for MailReceiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailReceiver")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_what_finds_no_room_waits() {
        let (mut sender, mut receiver) = mailbox(4);
        (0..10).for_each(|message| sender.stage(message));
        assert_eq!((sender.flush(), sender.flush()), (4, 0));
        let mut taken = Vec::new();
        assert_eq!(receiver.take(3, &mut taken), 3);
        assert_eq!(sender.flush(), 3);
        while receiver.has_mail() || sender.staged_count() > 0 {
            receiver.take(usize::MAX, &mut taken);
            sender.flush();
        }
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_nobody_takes_is_dropped_once() {
        let message = std::rc::Rc::new(());
        struct Counted(std::rc::Rc<()>);
        // SAFETY: the test has one thread.
        unsafe impl Send for Counted {}
        let (mut sender, mut receiver) = mailbox(4);
        (0..6).for_each(|_| sender.stage(Counted(message.clone())));
        sender.flush();
        let mut taken = Vec::new();
        receiver.take(1, &mut taken);
        assert_eq!(std::rc::Rc::strong_count(&message), 7);
        drop((sender, receiver));
        assert_eq!(std::rc::Rc::strong_count(&message), 2);
        assert!(std::rc::Rc::ptr_eq(&taken[0].0, &message));
    }

    #[test]
    fn two_threads_lose_nothing() {
        const COUNT: usize = 200_000;
        let (mut sender, mut receiver) = mailbox(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for message in 0..COUNT {
                    sender.stage(Box::new(message));
                    if message % 7 == 0 {
                        sender.flush();
                    }
                }
                while sender.staged_count() > 0 {
                    sender.flush();
                    std::thread::yield_now();
                }
            });
            let (mut next, mut taken) = (0, Vec::new());
            while next < COUNT {
                if receiver.take(50, &mut taken) == 0 {
                    std::thread::yield_now();
                }
                for message in taken.drain(..) {
                    assert_eq!(*message, next);
                    next += 1;
                }
            }
        });
    }
}
