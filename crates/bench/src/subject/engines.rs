//! The engines as subjects. This is the only module that names the runtime.
//!
//! A slice is one `block_on`: file rows spawn as many tasks as the row is deep,
//! each a loop of one op at a time, and wait for all of them; echo rows sleep
//! while the server's tasks run. Between slices nothing runs.

mod cores;

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::DerefMut;
use std::rc::Rc;
use std::time::Duration;

use omniring::buf::{AlignedBuf, FixedBuf, FixedPool, IoBuf, IoBufMut};
use omniring::fs::{File, OpenOptions};
use omniring::net::{TcpListener, TcpStream};
use omniring::{ENGINE_VARIABLE, Engine, Runtime, time};

use self::cores::CoresSubject;
use super::{SetupError, Spec, Subject, refusal_of_open};
use crate::clock::{self, Instant};
use crate::measure::Latency;
use crate::workload::{ALIGNMENT, ECHO_BUFFER_BYTES, Shape, Tier};

/// Direct descriptors of a runtime that is to have some: one for each connection and more.
const DIRECT_DESCRIPTORS: u32 = 1024;

/// Names of the engines, in the order of the rows.
pub fn names() -> Vec<String> {
    Engine::ALL.iter().map(Engine::to_string).collect()
}

/// Whether the engine runs here; the error is its own reason.
pub fn available(name: &str) -> Result<(), String> {
    if std::env::var_os(ENGINE_VARIABLE).is_some() {
        return Ok(()); // it overrides names here, but not in the subjects
    }
    runtime(name, Tier::Owned, 1).map(drop)
}

/// With direct descriptors for the tiers that are about them, where the engine has such.
fn runtime(name: &str, tier: Tier, cores: usize) -> Result<Runtime, String> {
    let engine: Engine = name.parse().map_err(|error| format!("{error}"))?;
    // As a program gets it: fewer threads than ops in flight cost less per op, at
    // the same rate, because a thread that finds the next op waiting does not sleep.
    let descriptors = if tier == Tier::Owned { 0 } else { DIRECT_DESCRIPTORS };
    let builder = Runtime::builder().engine(engine).direct_descriptors(descriptors).cores(cores);
    builder.build().map_err(|error| error.to_string())
}

/// Sets a row up.
pub fn set_up(spec: &Spec) -> Result<Box<dyn Subject>, SetupError> {
    let cores = if let Shape::Cores(_) = spec.workload.shape { 2 } else { 1 };
    let runtime = runtime(&spec.engine, spec.workload.tier, cores).map_err(SetupError::Refused)?;
    match (spec.workload.shape, spec.workload.tier) {
        (Shape::Cores(talk), _) => Ok(Box::new(CoresSubject::new(runtime, talk))),
        (Shape::Echo { .. }, tier) => Ok(Box::new(EchoSubject::new(runtime, tier)?)),
        (_, Tier::Fixed) => {
            let buffers = fixed_buffers(&runtime, spec)?;
            Ok(Box::new(FileSubject::new(runtime, spec, buffers)?))
        }
        _ => Ok(Box::new(FileSubject::new(runtime, spec, owned_buffers(spec))?)),
    }
}

/// Bytes of a block and blocks in flight.
fn block_and_depth(spec: &Spec) -> (usize, usize) {
    match spec.workload.shape {
        Shape::Read { block, depth, .. } | Shape::WriteSync { block, depth } => (block, depth),
        Shape::Echo { .. } | Shape::Cores(_) => unreachable!("this row has no file"),
    }
}

fn owned_buffers(spec: &Spec) -> Vec<AlignedBuf> {
    let (block, depth) = block_and_depth(spec);
    (0..depth).map(|_| AlignedBuf::new(block, ALIGNMENT)).collect()
}

/// Registered where the engine has that, and plain memory elsewhere.
fn fixed_buffers(runtime: &Runtime, spec: &Spec) -> Result<Vec<FixedBuf>, SetupError> {
    let (block, depth) = block_and_depth(spec);
    let builder = FixedPool::builder().class(block, depth).alignment(ALIGNMENT);
    let builder = builder.require_registered(spec.engine.starts_with("uring"));
    let refused = |error: &dyn std::fmt::Display| SetupError::Refused(error.to_string());
    runtime.block_on(async {
        let pool = builder.build().map_err(|error| refused(&error))?;
        (0..depth).map(|_| pool.try_take(block).map_err(|error| refused(&error))).collect()
    })
}

/// Random reads, or writes each followed by fdatasync, in buffers of one tier.
struct FileSubject<B> {
    job: Rc<Job>,
    lanes: Vec<Lane<B>>,
    // Last, so that nothing outlives the runtime that it belongs to by much.
    runtime: Runtime,
}

/// What all tasks of a file row share.
struct Job {
    file: File,
    block: u64,
    blocks: u64,
    writes: bool,
    latency: RefCell<Latency>,
}

/// What one task has to itself and hands on to the task of the next slice.
struct Lane<B> {
    buffer: B,
    random: fastrand::Rng,
}

impl<B: DerefMut<Target = [u8]>> FileSubject<B> {
    fn new(runtime: Runtime, spec: &Spec, buffers: Vec<B>) -> Result<Self, SetupError> {
        let direct = spec.workload.is_direct();
        let writes = matches!(spec.workload.shape, Shape::WriteSync { .. });
        let path = spec.file_path()?;
        let file = runtime
            .block_on(async {
                OpenOptions::new().read(true).write(writes).direct(direct).open(path).await
            })
            .map_err(|error| refusal_of_open(error, direct))?;
        let lane = |(index, mut buffer): (usize, B)| {
            buffer.fill(index as u8 + 1);
            Lane { buffer, random: fastrand::Rng::with_seed(index as u64 + 1) }
        };
        let lanes = buffers.into_iter().enumerate().map(lane).collect();
        let (block, _) = block_and_depth(spec);
        let (block, latency) = (block as u64, RefCell::new(Latency::new()));
        let blocks = spec.span / block;
        let job = Rc::new(Job { file, block, blocks, writes, latency });
        Ok(FileSubject { job, lanes, runtime })
    }
}

impl Job {
    /// One task: ops one after the other until the deadline.
    async fn work<B: IoBuf + IoBufMut>(
        self: Rc<Self>,
        mut lane: Lane<B>,
        mut start: Instant,
        deadline: Instant,
    ) -> (io::Result<u64>, Lane<B>) {
        let mut ops = 0;
        loop {
            let offset = lane.random.u64(0..self.blocks) * self.block;
            let (mut result, buffer) = if self.writes {
                self.file.write_at(lane.buffer, offset).await
            } else {
                self.file.read_at(lane.buffer, offset).await
            };
            lane.buffer = buffer;
            if self.writes && result.is_ok() {
                result = self.file.sync_data().await.and(result);
            }
            match result {
                Ok(bytes) if bytes as u64 == self.block => {}
                Ok(_) => return (Err(io::Error::other("an op was short")), lane),
                Err(error) => return (Err(error), lane),
            }
            let now = clock::now();
            self.latency.borrow_mut().record(now - start);
            start = now;
            ops += 1;
            if now >= deadline {
                return (Ok(ops), lane);
            }
        }
    }
}

impl<B: IoBuf + IoBufMut> Subject for FileSubject<B> {
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64> {
        std::mem::swap(latency, &mut self.job.latency.borrow_mut());
        let start = clock::now();
        let deadline = start + length;
        let (job, lanes) = (&self.job, &mut self.lanes);
        let outcome = self.runtime.block_on(async {
            let tasks: Vec<_> = lanes
                .drain(..)
                .map(|lane| omniring::spawn(job.clone().work(lane, start, deadline)))
                .collect();
            let mut ops = Ok(0);
            for task in tasks {
                let (done, lane) =
                    task.await.map_err(|error| io::Error::other(error.to_string()))?;
                lanes.push(lane);
                ops = ops.and_then(|ops: u64| Ok(ops + done?));
            }
            ops
        });
        std::mem::swap(latency, &mut self.job.latency.borrow_mut());
        outcome
    }
}

/// An echo server: a task for each connection.
struct EchoSubject {
    runtime: Runtime,
    port: u16,
    ops: Rc<Cell<u64>>,
}

impl EchoSubject {
    fn new(runtime: Runtime, tier: Tier) -> io::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let ops = Rc::new(Cell::new(0));
        match tier {
            Tier::Leased => drop(runtime.spawn(accept_leased(listener, ops.clone()))),
            _ => drop(runtime.spawn(accept(listener, ops.clone()))),
        }
        Ok(EchoSubject { runtime, port, ops })
    }
}

async fn accept(listener: TcpListener, ops: Rc<Cell<u64>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_ok() {
            drop(omniring::spawn(echo(stream, ops.clone())));
        }
    }
}

/// Ends when the peer closes or anything goes wrong; the load generator tells.
async fn echo(stream: TcpStream, ops: Rc<Cell<u64>>) {
    let mut buffer = Vec::with_capacity(ECHO_BUFFER_BYTES);
    loop {
        let (received, filled) = stream.recv_into(buffer).await;
        if !matches!(received, Ok(1..)) {
            return;
        }
        let (sent, back) = stream.send_all(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = back;
        ops.set(ops.get() + 1);
    }
}

async fn accept_leased(listener: TcpListener, ops: Rc<Cell<u64>>) {
    let mut incoming = listener.incoming();
    while let Ok(stream) = incoming.next().await {
        if stream.set_nodelay(true).is_ok() {
            drop(omniring::spawn(echo_leased(stream, ops.clone())));
        }
    }
}

/// As [`echo`], from memory that the runtime lends.
async fn echo_leased(stream: TcpStream, ops: Rc<Cell<u64>>) {
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() {
            return;
        }
        if stream.send_all(lease).await.0.is_err() {
            return;
        }
        ops.set(ops.get() + 1);
    }
}

impl Subject for EchoSubject {
    fn port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn run(&mut self, length: Duration, _: &mut Latency) -> io::Result<u64> {
        let before = self.ops.get();
        self.runtime.block_on(time::sleep(length));
        Ok(self.ops.get() - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::answers_in_slices;
    use crate::workload::Workload;

    fn spec(engine: &str, workload: &str, file: Option<&std::path::Path>) -> Spec {
        Spec {
            engine: engine.to_owned(),
            workload: Workload::named(workload).unwrap(),
            file: file.map(ToOwned::to_owned),
            span: 1 << 20,
            core: None,
        }
    }

    /// Engines that a container forbids are left out.
    fn engines() -> impl Iterator<Item = String> {
        names().into_iter().filter(|name| available(name).is_ok())
    }

    #[test]
    fn every_engine_runs_file_rows_slice_by_slice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for engine in engines() {
            std::fs::write(&path, vec![0; 1 << 20]).unwrap();
            for workload in
                ["read-hot-1k-d32", "read-hot-4k-d32", "read-hot-4k-d32-fixed", "write-sync-4k-d8"]
            {
                let Ok(mut subject) = set_up(&spec(&engine, workload, Some(&path))) else {
                    panic!("{engine} {workload}");
                };
                for _ in 0..2 {
                    let mut latency = Latency::new();
                    let ops = subject.run(Duration::from_millis(20), &mut latency).unwrap();
                    assert!(ops > 0, "{engine} {workload}");
                    assert_eq!(latency.count(), ops, "{engine} {workload}");
                }
            }
            assert!(std::fs::read(&path).unwrap().iter().any(|&byte| byte != 0), "{engine}");
        }
    }

    #[test]
    fn every_engine_answers_the_load() {
        for engine in engines() {
            for workload in ["echo-64", "echo-64-leased"] {
                let spec = spec(&engine, workload, None);
                assert!(answers_in_slices(64, || set_up(&spec).ok()), "{engine} {workload}");
            }
        }
    }

    #[test]
    fn an_unknown_engine_is_refused() {
        assert!(available("bogus").is_err());
    }
}
