//! A disk in memory that fails as disks do, by a seed.
//!
//! What was not synced is lost by sectors, in any order, when the power goes; a failed sync leaves some of it
//! lost for good while reads still show it; errors come at any operation; names are lost unless the directory was
//! synced. When the power has gone, operations never end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use super::disk::{BUF_LEN, Disk};

const SECTOR: usize = 512;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A file: what is on the medium, what reads show, and writes that are not on the medium yet.
#[derive(Clone, Debug, Default)]
struct Data {
    durable: Vec<u8>,
    shown: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Syncs that have failed.
    errors: u64,
}

/// An open file. Each is told once of what has gone wrong since it was opened.
#[derive(Debug)]
pub struct Open {
    file: usize,
    errors: Cell<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
}

#[derive(Debug, Default)]
pub struct State {
    bufs: Vec<Vec<u8>>,
    files: Vec<Data>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    random: fastrand::Rng,
    /// One operation of so many fails; 0: none.
    faults: u32,
    /// Operations until the power goes.
    left: u64,
    /// Counts lives: operations of an earlier one never end.
    life: u64,
}

/// The disk in one life: until the power goes.
#[derive(Clone, Debug)]
pub struct Simulated {
    state: Rc<RefCell<State>>,
    life: u64,
}

/// A buffer, which is used again.
pub struct Buf(Vec<u8>, Rc<RefCell<State>>);

impl Drop for Buf {
    fn drop(&mut self) {
        self.1.borrow_mut().bufs.push(std::mem::take(&mut self.0));
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Simulated {
    pub fn new(seed: u64) -> Simulated {
        let random = fastrand::Rng::with_seed(seed);
        let state = State { random, left: u64::MAX, ..State::default() };
        Simulated { state: Rc::new(RefCell::new(state)), life: 0 }
    }

    /// From now on one operation of `faults` fails, none if 0, and the power goes after `left` operations.
    pub fn set_faults(&self, faults: u32, left: u64) {
        let mut state = self.state.borrow_mut();
        state.faults = faults;
        state.left = left;
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        let state = self.state.borrow();
        state.left == 0 || state.life != self.life
    }

    /// The disk in its next life, after the power went, or after only the process was ended.
    pub fn restart(&self, power: bool) -> Simulated {
        let mut state = self.state.borrow_mut();
        state.life += 1;
        (state.left, state.faults) = (u64::MAX, 0);
        if power {
            state.lose();
        }
        Simulated { state: self.state.clone(), life: state.life }
    }

    /// The names and contents of all files, as reads show them.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.state.borrow();
        let shown = state.names.iter();
        shown.map(|(name, &at)| (name.clone(), state.files[at].shown.clone())).collect()
    }

    /// Makes or replaces a file, durably.
    pub fn put(&self, name: &str, contents: &[u8]) {
        let mut state = self.state.borrow_mut();
        let at = state.files.len();
        let contents = contents.to_vec();
        let data = Data { durable: contents.clone(), shown: contents, ..Data::default() };
        state.files.push(data);
        state.names.insert(name.to_owned(), at);
        state.durable_names.insert(name.to_owned(), at);
    }

    /// Some of a write is there, though not on the medium.
    fn put_part(&self, file: &Open, at: usize, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        if state.left > 0 && state.life == self.life {
            let data = &mut state.files[file.file];
            put(&mut data.shown, at, bytes);
            data.pending.push((at, bytes.to_vec()));
        }
    }

    /// Begins an operation: it may take its time, fail, or never end.
    async fn begin(&self, error: i32) -> io::Result<()> {
        let turns = {
            let mut state = self.state.borrow_mut();
            if state.life != self.life || state.left == 0 {
                None
            } else {
                state.left -= 1;
                let slow = state.random.u32(..4) == 0;
                Some(if slow { state.random.u32(..20) } else { 0 })
            }
        };
        let Some(turns) = turns else {
            return std::future::pending().await;
        };
        for _ in 0..turns {
            omniring::yield_now().await;
        }
        if self.is_off() {
            return std::future::pending().await;
        }
        match self.state.borrow_mut().fails() {
            true => Err(io::Error::from_raw_os_error(error)),
            false => Ok(()),
        }
    }
}

impl State {
    fn fails(&mut self) -> bool {
        self.faults != 0 && self.random.u32(..self.faults) == 0
    }

    fn open(&self, file: usize) -> Open {
        Open { file, errors: Cell::new(self.files[file].errors) }
    }

    fn at(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The power goes.
    fn lose(&mut self) {
        for data in &mut self.files {
            settle(data, &mut self.random);
            data.shown = data.durable.clone();
        }
        let kept = self.random.usize(..=self.changes.len());
        for change in self.changes.drain(..).take(kept) {
            apply(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }
}

/// Some sectors of what is pending reach the medium, the others never do.
fn settle(data: &mut Data, random: &mut fastrand::Rng) {
    let all = random.u32(..4);
    for (at, bytes) in data.pending.drain(..) {
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let arrives = match all {
                0 => true,
                1 => false,
                _ => random.bool(),
            };
            if arrives {
                put(&mut data.durable, at + index * SECTOR, sector);
            }
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, at) => {
            names.insert(name.clone(), *at);
        }
        Change::Rename(from, to) => {
            if let Some(at) = names.remove(from) {
                names.insert(to.clone(), at);
            }
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
    }
}

impl Disk for Simulated {
    type File = Open;
    type Buf = Buf;

    fn alignment(&self) -> usize {
        SECTOR
    }

    async fn buffer(&self, _len: usize) -> Buf {
        Buf(
            self.state.borrow_mut().bufs.pop().unwrap_or_else(|| vec![0; BUF_LEN]),
            self.state.clone(),
        )
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        self.begin(EIO).await?;
        Ok(self.state.borrow().names.keys().cloned().collect())
    }

    async fn create(&self, name: &str, _len: u64) -> io::Result<Open> {
        let begun = self.begin(ENOSPC).await;
        let mut state = self.state.borrow_mut();
        let at = state.files.len();
        state.files.push(Data::default());
        state.change(Change::Link(name.to_owned(), at));
        begun.map(|()| state.open(at))
    }

    async fn reopen(&self, name: &str) -> io::Result<Open> {
        self.open(name).await
    }

    async fn open(&self, name: &str) -> io::Result<Open> {
        self.begin(EIO).await?;
        let state = self.state.borrow();
        state.at(name).map(|at| state.open(at))
    }

    async fn len(&self, file: &Open) -> io::Result<u64> {
        self.begin(EIO).await?;
        Ok(self.state.borrow().files[file.file].shown.len() as u64)
    }

    async fn read(&self, file: &Open, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.begin(EIO).await?;
        let state = self.state.borrow();
        let shown = &state.files[file.file].shown;
        let from = (at as usize).min(shown.len());
        Ok(shown[from..(from + len).min(shown.len())].to_vec())
    }

    async fn write(
        &self,
        file: &Open,
        buf: Buf,
        len: usize,
        at: u64,
        sync: bool,
    ) -> (io::Result<()>, Buf) {
        let aligned = |value: usize| value.is_multiple_of(SECTOR);
        assert!(aligned(len) && aligned(at as usize), "writes are aligned");
        // A part of it is there at once, the rest in the end, unless the power goes first or something fails.
        let (early, late) = {
            let state = &mut *self.state.borrow_mut();
            let sectors = len / SECTOR;
            let early = state.random.usize(..=sectors);
            let late = if state.fails() { state.random.usize(early..=sectors) } else { sectors };
            (early * SECTOR, late * SECTOR)
        };
        let at = at as usize;
        self.put_part(file, at, &buf[..early]);
        if let Err(error) = self.begin(EIO).await {
            return (Err(error), buf);
        }
        self.put_part(file, at + early, &buf[early..late]);
        if late != len {
            return (Err(io::Error::from_raw_os_error(EIO)), buf);
        }
        if sync {
            return (self.sync(file).await, buf);
        }
        (Ok(()), buf)
    }

    async fn sync(&self, file: &Open) -> io::Result<()> {
        let begun = self.begin(EIO).await;
        let state = &mut *self.state.borrow_mut();
        let data = &mut state.files[file.file];
        data.errors += u64::from(begun.is_err());
        if file.errors.replace(data.errors) != data.errors && begun.is_ok() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        match &begun {
            Ok(()) => {
                for (at, bytes) in data.pending.drain(..) {
                    put(&mut data.durable, at, &bytes);
                }
            }
            // The kernel forgets that these are not on the medium.
            Err(_) => settle(data, &mut state.random),
        }
        begun
    }

    async fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        self.begin(EIO).await?;
        let mut state = self.state.borrow_mut();
        let at = state.at(name)?;
        let data = &mut state.files[at];
        data.shown.truncate(len as usize);
        data.durable = data.shown.clone();
        data.pending.clear();
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(EIO).await?;
        let mut state = self.state.borrow_mut();
        state.at(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.begin(EIO).await?;
        let mut state = self.state.borrow_mut();
        state.at(name)?;
        state.change(Change::Unlink(name.to_owned()));
        Ok(())
    }

    async fn sync_dir(&self) -> io::Result<()> {
        self.begin(EIO).await?;
        let mut state = self.state.borrow_mut();
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    async fn pause(&self, _time: Duration) {
        for _ in 0..20 {
            omniring::yield_now().await;
        }
        if self.is_off() {
            std::future::pending::<()>().await;
        }
    }
}
