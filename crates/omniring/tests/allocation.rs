//! The fast path allocates nothing per op, on any thread of the process.
//!
//! One test, in a process of its own: whatever is allocated while it measures is the runtime's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use omniring::fs::File;
use omniring::net::{TcpListener, TcpStream};
use omniring::{Engine, Runtime, spawn};

/// The system's allocator, which counts.
struct Counting;

static ALLOCATION_COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(start, layout, len) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Ops before the count begins: tables and queues have grown to what they need by then.
const WARM_UP: usize = 500;
const MEASURED: usize = 1_000;

/// Allocations while `op` is carried out [`MEASURED`] times.
async fn allocations(mut op: impl AsyncFnMut()) -> usize {
    for _ in 0..WARM_UP {
        op().await;
    }
    let before = ALLOCATION_COUNT.load(Relaxed);
    for _ in 0..MEASURED {
        op().await;
    }
    ALLOCATION_COUNT.load(Relaxed) - before
}

async fn reads() -> usize {
    let file = File::from_std(tempfile::tempfile().unwrap());
    file.write_at(vec![7; 1 << 16], 0).await.0.unwrap();
    let mut buf = Vec::with_capacity(4096);
    let mut offset = 0;
    allocations(async || {
        let (result, filled) = file.read_at(std::mem::take(&mut buf), offset).await;
        assert_eq!(result.unwrap(), 4096);
        buf = filled;
        offset = (offset + 4096) % (1 << 16);
    })
    .await
}

/// Several reads in flight at once, each of a task of its own.
async fn concurrent_reads() -> usize {
    const TASKS: usize = 8;
    let file = File::from_std(tempfile::tempfile().unwrap());
    file.write_at(vec![7; 1 << 16], 0).await.0.unwrap();
    let measured = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
    let tasks: [_; TASKS] = std::array::from_fn(|task| {
        let (file, measured) = (file.clone(), measured.clone());
        spawn(async move {
            let mut buf = Vec::with_capacity(4096);
            for round in 0..WARM_UP + MEASURED {
                let at = (task * 4096) as u64;
                let (result, filled) = file.read_at(std::mem::take(&mut buf), at).await;
                assert_eq!(result.unwrap(), 4096);
                buf = filled;
                let count = ALLOCATION_COUNT.load(Relaxed);
                match (task, round) {
                    (0, WARM_UP) => measured.set((count, count)),
                    (0, _) => measured.set((measured.get().0, count)),
                    _ => {}
                }
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    let (before, after) = measured.get();
    after - before
}

/// An echo: what one side sends and both receive, counted together.
async fn sends_and_receives() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut buf = Vec::with_capacity(1024);
        loop {
            let (result, received) = stream.recv_into(buf).await;
            let count = result.unwrap();
            if count == 0 {
                return;
            }
            let (result, sent) = stream.send(received).await;
            assert_eq!(result.unwrap(), count);
            buf = sent;
        }
    });
    let client = TcpStream::connect(addr).await.unwrap();
    let mut buf = vec![7; 512];
    let count = allocations(async || {
        let (result, sent) = client.send(std::mem::take(&mut buf)).await;
        assert_eq!(result.unwrap(), 512);
        let (result, received) = client.recv_into(sent).await;
        assert_eq!(result.unwrap(), 512);
        buf = received;
    })
    .await;
    drop(client);
    server.await.unwrap();
    count
}

/// The fewest of several rounds: an engine's queues may grow once more in one of them, when the
/// machine is busy and more piles up than before. What each op allocates shows in every round.
fn fewest<F: Future<Output = usize>>(runtime: &Runtime, round: impl Fn() -> F) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..10 {
        fewest = fewest.min(runtime.block_on(round()));
        if fewest == 0 {
            break;
        }
    }
    fewest
}

#[test]
fn ops_in_steady_state_allocate_nothing() {
    for engine in [Engine::Uring, Engine::Epoll] {
        let runtime = match Runtime::builder().engine(engine).threads_max(1).build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
                assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {error}");
                eprintln!("skipped: {error}");
                continue;
            }
        };
        let boxes = allocations(async || drop(std::hint::black_box(Box::new(7))));
        assert_eq!(runtime.block_on(boxes), MEASURED, "{engine}: the count works");
        assert_eq!(fewest(&runtime, reads), 0, "{engine}: reads");
        assert_eq!(fewest(&runtime, concurrent_reads), 0, "{engine}: concurrent reads");
        assert_eq!(fewest(&runtime, sends_and_receives), 0, "{engine}: sends and receives");
    }
}
