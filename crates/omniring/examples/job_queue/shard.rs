//! The tubes and jobs of one core. Others send closures here, each of which is carried out between two tasks, so
//! that no lock is needed.
//!
//! A job's number says its core: number modulo cores. A client that waits for jobs leaves a [`Waiter`] in each
//! of its tubes, and asks again when told; who comes first gets the job.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use omniring::sync::{Notify, mpsc};
use omniring::time::{Instant, now, sleep_until};

use crate::racing::race;

/// Tells a client that there may be a job for it. One mark is enough.
pub type Waiter = mpsc::Sender<()>;

/// A job as a client gets it.
pub struct Reserved {
    pub id: u64,
    pub body: Vec<u8>,
}

/// What there is of a tube, or of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub ready: usize,
    pub delayed: usize,
    pub reserved: usize,
    /// Since the start.
    pub total: u64,
    pub deleted: u64,
    pub timed_out: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.ready += other.ready;
        self.delayed += other.delayed;
        self.reserved += other.reserved;
        self.total += other.total;
        self.deleted += other.deleted;
        self.timed_out += other.timed_out;
    }
}

struct Job {
    tube: String,
    priority: u32,
    ttr: Duration,
    body: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Ready,
    /// Until then.
    Delayed(Instant),
    /// By this client, until then.
    Reserved(u64, Instant),
}

#[derive(Default)]
struct Tube {
    /// By priority, the smallest first, and then by age.
    ready: BTreeSet<(u32, u64)>,
    waiters: Vec<Waiter>,
    counts: Counts,
}

struct State {
    tubes: BTreeMap<String, Tube>,
    jobs: HashMap<u64, Job>,
    /// When delayed jobs get ready and reservations end.
    timed: BTreeSet<(Instant, u64)>,
    next_id: u64,
}

/// See the head of the module.
pub struct Shard {
    state: RefCell<State>,
    /// The first of the times has changed.
    rescheduled: Rc<Notify>,
    core_count: u64,
}

impl Shard {
    pub fn new(core: usize, core_count: usize) -> Shard {
        // From 1 on, as in beanstalkd.
        let next_id = if core == 0 { core_count } else { core } as u64;
        let state =
            State { tubes: BTreeMap::new(), jobs: HashMap::new(), timed: BTreeSet::new(), next_id };
        let rescheduled = Rc::default();
        Shard { state: RefCell::new(state), rescheduled, core_count: core_count as u64 }
    }

    /// Adds a job: its number.
    pub fn put(
        &self,
        tube: String,
        priority: u32,
        delay: Duration,
        ttr: Duration,
        body: Vec<u8>,
    ) -> u64 {
        let state = &mut *self.state.borrow_mut();
        let id = state.next_id;
        state.next_id += self.core_count;
        state.tubes.entry(tube.clone()).or_default().counts.total += 1;
        state.jobs.insert(id, Job { tube, priority, ttr, body, place: Place::Ready });
        self.lay(state, id, delay);
        id
    }

    /// Reserves the most urgent job of these tubes; without one, the waiter is told of the next.
    pub fn reserve(&self, tubes: &[String], client: u64, waiter: &Waiter) -> Option<Reserved> {
        let state = &mut *self.state.borrow_mut();
        let ready = |name: &String| state.tubes.get(name)?.ready.first().copied();
        let Some((priority, id)) = tubes.iter().filter_map(ready).min() else {
            for name in tubes {
                let waiters = &mut state.tubes.entry(name.clone()).or_default().waiters;
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(waiter.clone());
            }
            return None;
        };
        let job = state.jobs.get_mut(&id).expect("what is ready is there");
        let tube = state.tubes.get_mut(&job.tube).expect("a job has a tube");
        tube.ready.remove(&(priority, id));
        tube.counts.ready -= 1;
        tube.counts.reserved += 1;
        let until = now() + job.ttr;
        job.place = Place::Reserved(client, until);
        state.timed.insert((until, id));
        self.rescheduled.notify_one();
        Some(Reserved { id, body: job.body.clone() })
    }

    /// Removes a job, which nobody else has reserved. False if there is none.
    pub fn delete(&self, id: u64, client: u64) -> bool {
        let state = &mut *self.state.borrow_mut();
        match state.jobs.get(&id) {
            Some(job) if !matches!(job.place, Place::Reserved(other, _) if other != client) => {}
            _ => return false,
        }
        take_up(state, id);
        let job = state.jobs.remove(&id).expect("seen above");
        tube_of(state, &job.tube).counts.deleted += 1;
        true
    }

    /// Gives a job back that this client has reserved; without a priority it keeps its own. False if it has
    /// not.
    pub fn release(&self, id: u64, client: u64, priority: Option<u32>, delay: Duration) -> bool {
        let state = &mut *self.state.borrow_mut();
        if !is_reserved_by(state, id, client) {
            return false;
        }
        take_up(state, id);
        if let Some(priority) = priority {
            state.jobs.get_mut(&id).expect("it is reserved").priority = priority;
        }
        self.lay(state, id, delay);
        true
    }

    /// Gives this client its whole time again. False if it has not reserved the job.
    pub fn touch(&self, id: u64, client: u64) -> bool {
        let state = &mut *self.state.borrow_mut();
        if !is_reserved_by(state, id, client) {
            return false;
        }
        let job = state.jobs.get_mut(&id).expect("it is reserved");
        if let Place::Reserved(_, until) = job.place {
            state.timed.remove(&(until, id));
        }
        let until = now() + job.ttr;
        job.place = Place::Reserved(client, until);
        state.timed.insert((until, id));
        self.rescheduled.notify_one();
        true
    }

    pub fn job_count(&self) -> usize {
        self.state.borrow().jobs.len()
    }

    pub fn tube_names(&self) -> Vec<String> {
        self.state.borrow().tubes.keys().cloned().collect()
    }

    /// Of this tube; `None` if there is none of this name.
    pub fn counts_of(&self, tube: &str) -> Option<Counts> {
        self.state.borrow().tubes.get(tube).map(|tube| tube.counts)
    }

    /// Of all tubes.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.state.borrow().tubes.values().for_each(|tube| all.add(tube.counts));
        all
    }

    /// Makes delayed jobs ready, and those that were reserved for too long, for ever.
    pub async fn expire(&self) {
        loop {
            let next = self.state.borrow().timed.first().copied();
            match next {
                None => self.rescheduled.notified().await,
                Some((time, _)) if time > now() => {
                    race(sleep_until(time), self.rescheduled.notified()).await;
                }
                Some((_, id)) => {
                    let state = &mut *self.state.borrow_mut();
                    let job = &state.jobs[&id];
                    let is_late = matches!(job.place, Place::Reserved(..));
                    let tube = job.tube.clone();
                    tube_of(state, &tube).counts.timed_out += u64::from(is_late);
                    take_up(state, id);
                    self.lay(state, id, Duration::ZERO);
                }
            }
        }
    }

    /// Puts a job that is nowhere among those that are ready, or are to be.
    fn lay(&self, state: &mut State, id: u64, delay: Duration) {
        let job = state.jobs.get_mut(&id).expect("a job that exists");
        let tube = state.tubes.get_mut(&job.tube).expect("a job has a tube");
        if delay.is_zero() {
            job.place = Place::Ready;
            tube.ready.insert((job.priority, id));
            tube.counts.ready += 1;
            // All of them: one that is told may have got something elsewhere by now.
            tube.waiters.drain(..).for_each(|waiter| {
                // One that is told already needs no more.
                let _ = waiter.try_send(());
            });
        } else {
            let until = now() + delay;
            job.place = Place::Delayed(until);
            tube.counts.delayed += 1;
            state.timed.insert((until, id));
            self.rescheduled.notify_one();
        }
    }
}

/// Takes a job from where it is.
fn take_up(state: &mut State, id: u64) {
    let job = &state.jobs[&id];
    let tube = state.tubes.get_mut(&job.tube).expect("a job has a tube");
    match job.place {
        Place::Ready => {
            tube.ready.remove(&(job.priority, id));
            tube.counts.ready -= 1;
        }
        Place::Delayed(until) => {
            state.timed.remove(&(until, id));
            tube.counts.delayed -= 1;
        }
        Place::Reserved(_, until) => {
            state.timed.remove(&(until, id));
            tube.counts.reserved -= 1;
        }
    }
}

fn is_reserved_by(state: &State, id: u64, client: u64) -> bool {
    let place = state.jobs.get(&id).map(|job| job.place);
    matches!(place, Some(Place::Reserved(by, _)) if by == client)
}

fn tube_of<'a>(state: &'a mut State, name: &str) -> &'a mut Tube {
    state.tubes.get_mut(name).expect("a job has a tube")
}
