//! Who is in which room, and what they are told.
//!
//! Each member has a queue of bounded length, and nobody waits for it: whose queue is full reads too slowly
//! and is thrown out, so that the others are not held up and memory is bounded.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

use async_tungstenite::tungstenite::Utf8Bytes;
use omniring::sync::{CancellationToken, mpsc};

/// The longest name of a room or a member, in bytes.
const NAME_LEN_MAX: usize = 32;

pub struct Rooms {
    rooms: RefCell<HashMap<String, Room>>,
    /// Messages that may wait for a member.
    queue_len: usize,
}

type Room = BTreeMap<String, Member>;

struct Member {
    queue: mpsc::Sender<Utf8Bytes>,
    too_slow: CancellationToken,
}

/// A place in a room, until it is dropped.
pub struct Seat {
    rooms: Rc<Rooms>,
    room: String,
    name: String,
    /// What is said in the room, by its holder too.
    pub queue: mpsc::Receiver<Utf8Bytes>,
    /// Its holder did not take it fast enough.
    pub too_slow: CancellationToken,
}

/// Why there is no place.
#[derive(Debug)]
pub enum Refusal {
    BadName(String),
    Taken { name: String, room: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::BadName(name) => write!(
                f,
                "'{}' is no name: up to {NAME_LEN_MAX} letters, digits, '-' and '_' are",
                name.escape_default()
            ),
            Refusal::Taken { name, room } => {
                write!(f, "the name '{name}' is taken in room '{room}'")
            }
        }
    }
}

impl Rooms {
    pub fn new(queue_len: usize) -> Rc<Rooms> {
        Rc::new(Rooms { rooms: RefCell::default(), queue_len })
    }

    /// Enters a room, which is made if nobody is there yet. The others are told, and the new one who is
    /// there.
    pub fn join(self: &Rc<Self>, room: &str, name: &str) -> Result<Seat, Refusal> {
        for name in [room, name] {
            let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || b"-_".contains(&sign);
            if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_sign) {
                return Err(Refusal::BadName(name.to_owned()));
            }
        }
        let (sender, queue) = mpsc::channel(self.queue_len);
        let too_slow = CancellationToken::new();
        {
            let mut rooms = self.rooms.borrow_mut();
            let members = rooms.entry(room.to_owned()).or_default();
            if members.contains_key(name) {
                return Err(Refusal::Taken { name: name.to_owned(), room: room.to_owned() });
            }
            members.insert(name.to_owned(), Member { queue: sender, too_slow: too_slow.clone() });
        }
        let (room, name) = (room.to_owned(), name.to_owned());
        let seat = Seat { rooms: self.clone(), room, name, queue, too_slow };
        seat.tell(format!("* {} has come", seat.name));
        let members = self.rooms.borrow()[&seat.room].keys().cloned().collect::<Vec<_>>();
        self.tell_one(&seat, format!("* here are: {}", members.join(", ")));
        Ok(seat)
    }

    fn tell_one(&self, seat: &Seat, text: String) {
        if let Some(member) = self.rooms.borrow()[&seat.room].get(&seat.name) {
            member.tell(text.into());
        }
    }
}

impl Member {
    fn tell(&self, text: Utf8Bytes) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(text) {
            self.too_slow.cancel();
        }
    }
}

impl Seat {
    /// Tells the room what its holder says, in one line.
    pub fn say(&self, text: &str) {
        let line: String =
            text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
        self.tell(format!("{}: {line}", self.name));
    }

    /// Whether nothing waits in its holder's queue.
    pub fn has_caught_up(&self) -> bool {
        let rooms = self.rooms.rooms.borrow();
        let member = rooms.get(&self.room).and_then(|members| members.get(&self.name));
        member.is_none_or(|member| member.queue.capacity() == member.queue.max_capacity())
    }

    /// Tells everybody in the room.
    fn tell(&self, text: String) {
        let text = Utf8Bytes::from(text);
        if let Some(members) = self.rooms.rooms.borrow().get(&self.room) {
            members.values().for_each(|member| member.tell(text.clone()));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        {
            let mut rooms = self.rooms.rooms.borrow_mut();
            if let Some(members) = rooms.get_mut(&self.room) {
                members.remove(&self.name);
                if members.is_empty() {
                    rooms.remove(&self.room);
                }
            }
        }
        self.tell(format!("* {} has gone", self.name));
    }
}
