//! Groups of tasks and scopes: joined as they finish, aborted together, failing together; and tokens
//! that tell tasks to end.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use omniring::net::UnixStream;
use omniring::sync::CancellationToken;
use omniring::time::{sleep, timeout};
use omniring::{Runtime, TaskGroup, scope, spawn, yield_now};

use crate::harness::conformance;
use crate::loopback::{poll_once, start};

conformance!(
    tasks_are_joined_as_they_finish,
    a_group_without_tasks_has_none_to_join,
    a_task_that_panics_is_joined_as_any,
    tasks_that_are_aborted_are_joined_as_such,
    shutting_down_waits_until_the_futures_are_gone,
    a_group_that_is_dropped_aborts_its_tasks,
    a_dropped_join_loses_no_output,
    places_are_used_again,
    a_task_that_could_not_be_added_is_not_joined,
    all_outputs_or_the_first_error,
    a_scope_waits_for_its_tasks,
    a_scope_whose_body_fails_drops_its_tasks,
    a_task_that_fails_drops_the_body,
    a_task_that_panics_takes_the_scope_along,
    a_scope_that_is_dropped_drops_everything,
    tasks_of_a_scope_do_io_until_it_fails,
    a_token_tells_all_who_wait,
    a_child_is_told_by_its_parent_only,
    a_token_works_between_threads,
    what_runs_until_cancelled_is_dropped_then,
);

const SOON: Duration = Duration::from_secs(20);

/// Counts those that are dropped.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// A task that never ends, and counts when it is dropped.
fn forever(count: &Rc<Cell<u32>>) -> impl Future<Output = ()> + use<> {
    let guard = Dropped(count.clone());
    async move {
        let _guard = guard;
        pending::<()>().await;
    }
}

fn tasks_are_joined_as_they_finish(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        let gates: Vec<_> = (0..3)
            .map(|number| {
                let (sender, receiver) = omniring::sync::oneshot::channel::<()>();
                group.spawn(async move {
                    receiver.await.unwrap();
                    number
                });
                sender
            })
            .collect();
        assert_eq!((group.len(), group.is_empty()), (3, false));
        for (number, gate) in gates.into_iter().enumerate().rev() {
            assert!(poll_once(&mut Box::pin(group.join_next())).await.is_pending());
            gate.send(()).unwrap();
            assert_eq!(timeout(SOON, group.join_next()).await.unwrap().unwrap().unwrap(), number);
        }
        assert!(group.is_empty());
    });
}

fn a_group_without_tasks_has_none_to_join(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::<()>::new();
        assert!(group.join_next().await.is_none());
        group.shut_down().await;
        group.abort_all();
    });
}

fn a_task_that_panics_is_joined_as_any(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::<u32>::new();
        group.spawn(async { panic!("in the group") });
        group.spawn(async { 5 });
        let mut outputs = Vec::new();
        while let Some(result) = group.join_next().await {
            outputs.push(result.map_err(|error| error.to_string()));
        }
        outputs.sort();
        assert_eq!(outputs[0], Ok(5));
        assert!(outputs[1].as_ref().unwrap_err().contains("in the group"));
    });
}

fn tasks_that_are_aborted_are_joined_as_such(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        group.spawn(async {});
        yield_now().await;
        group.spawn(pending());
        group.spawn(pending());
        group.abort_all();
        let mut aborted_count = 0;
        while let Some(result) = timeout(SOON, group.join_next()).await.unwrap() {
            aborted_count += u32::from(result.is_err_and(|error| error.is_aborted()));
        }
        assert_eq!(aborted_count, 2, "the first had finished");
    });
}

fn shutting_down_waits_until_the_futures_are_gone(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        let mut group = TaskGroup::new();
        for _ in 0..5 {
            group.spawn(forever(&count));
        }
        yield_now().await;
        group.shut_down().await;
        assert_eq!((count.get(), group.len()), (5, 0));
    });
    assert_eq!(runtime.stats().task_count, 0);
}

fn a_group_that_is_dropped_aborts_its_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        let group = TaskGroup::new();
        for _ in 0..5 {
            group.spawn(forever(&count));
        }
        yield_now().await;
        drop(group);
        let gone = async {
            while count.get() != 5 {
                yield_now().await;
            }
        };
        timeout(SOON, gone).await.unwrap();
    });
}

fn a_dropped_join_loses_no_output(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        for number in 0..100u32 {
            group.spawn(async move {
                for _ in 0..number % 5 {
                    yield_now().await;
                }
                number
            });
        }
        let mut outputs = Vec::new();
        while !group.is_empty() {
            // Dropped after one look, whether or not it was the last.
            if let Some(Some(result)) = start(&mut Box::pin(group.join_next())).await {
                outputs.push(result.unwrap());
            }
        }
        outputs.sort();
        assert_eq!(outputs, (0..100).collect::<Vec<_>>());
    });
}

fn places_are_used_again(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        let mut sum = 0u64;
        for number in 0..1000 {
            group.spawn(async move { number });
            if group.len() > 10 {
                sum += group.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(output) = group.join_next().await {
            sum += output.unwrap();
        }
        assert_eq!(sum, 999 * 500);
    });
}

fn a_task_that_could_not_be_added_is_not_joined(runtime: &Runtime) {
    let mut group = TaskGroup::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| group.spawn(async { 1 })));
    assert!(panicked.is_err(), "outside of a runtime");
    runtime.block_on(async {
        group.spawn(async { 2 });
        assert_eq!(timeout(SOON, group.join_next()).await.unwrap().unwrap().unwrap(), 2);
        assert!(group.join_next().await.is_none());
    });
}

fn all_outputs_or_the_first_error(runtime: &Runtime) {
    runtime.block_on(async {
        let mut group = TaskGroup::<Result<u32, String>>::new();
        for number in 0..3 {
            group.spawn(async move { Ok(number) });
        }
        assert_eq!(group.try_join_all().await.unwrap(), [0, 1, 2]);
        let count = Rc::new(Cell::new(0));
        let waits = forever(&count);
        group.spawn(async move {
            waits.await;
            Ok(0)
        });
        group.spawn(async { Err("the first".to_owned()) });
        assert_eq!(group.try_join_all().await.unwrap_err(), "the first");
        assert_eq!((count.get(), group.len()), (1, 0));
    });
}

fn a_scope_waits_for_its_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let result = scope(async |group| {
            for number in 0..3u64 {
                let log = log.clone();
                group.spawn(async move {
                    sleep(Duration::from_millis(number)).await;
                    log.borrow_mut().push(number);
                    Ok(())
                });
            }
            Ok::<_, String>("body")
        });
        assert_eq!(result.await.unwrap(), "body");
        assert_eq!(*log.borrow(), [0, 1, 2]);
    });
    assert_eq!(runtime.stats().task_count, 0);
}

fn a_scope_whose_body_fails_drops_its_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        let waits = [forever(&count), forever(&count)];
        let result: Result<(), &str> = scope(async |group| {
            for waits in waits {
                group.spawn(async move {
                    waits.await;
                    Ok(())
                });
            }
            yield_now().await;
            Err("the body failed")
        })
        .await;
        assert_eq!((result, count.get()), (Err("the body failed"), 2));
    });
}

fn a_task_that_fails_drops_the_body(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        let (guard, waits) = (Dropped(count.clone()), forever(&count));
        let result: Result<(), &str> = scope(async |group| {
            let _guard = guard;
            group.spawn(async move {
                waits.await;
                Ok(())
            });
            group.spawn(async {
                yield_now().await;
                Err("a task failed")
            });
            pending().await
        })
        .await;
        assert_eq!((result, count.get()), (Err("a task failed"), 2));
    });
}

fn a_task_that_panics_takes_the_scope_along(runtime: &Runtime) {
    let count = Rc::new(Cell::new(0));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let waits = forever(&count);
            let _: Result<(), ()> = scope(async |group| {
                group.spawn(async move {
                    waits.await;
                    Ok(())
                });
                group.spawn(async { panic!("in the scope") });
                pending().await
            })
            .await;
        });
    }));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "in the scope");
    assert_eq!(count.get(), 1);
}

fn a_scope_that_is_dropped_drops_everything(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        let (guard, waits) = (Dropped(count.clone()), forever(&count));
        let mut running = Box::pin(scope(async |group| {
            let _guard = guard;
            group.spawn(async move {
                waits.await;
                Ok::<(), ()>(())
            });
            pending::<Result<(), ()>>().await
        }));
        assert!(start(&mut running).await.is_none());
        drop(running);
        let gone = async {
            while count.get() != 2 {
                yield_now().await;
            }
        };
        timeout(SOON, gone).await.unwrap();
    });
}

fn tasks_of_a_scope_do_io_until_it_fails(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let sender = one.clone();
        let result: Result<(), std::io::Error> = scope(async |group| {
            // It waits for bytes that never come.
            group.spawn(async move { one.recv_into(vec![0; 16]).await.0.map(drop) });
            group.spawn(async move {
                sender.send_all("fail now").await.0?;
                pending().await
            });
            let (result, _) = other.recv_into(vec![0; 16]).await;
            result?;
            Err(std::io::ErrorKind::Interrupted.into())
        })
        .await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::Interrupted);
    });
    assert_eq!(runtime.stats().task_count, 0);
}

fn a_token_tells_all_who_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let token = CancellationToken::new();
        let mut group = TaskGroup::new();
        for _ in 0..5 {
            let token = token.clone();
            group.spawn(async move { token.cancelled().await });
        }
        yield_now().await;
        assert!(!token.is_cancelled());
        assert!(poll_once(&mut Box::pin(group.join_next())).await.is_pending());
        token.cancel();
        token.cancel();
        while let Some(result) = timeout(SOON, group.join_next()).await.unwrap() {
            result.unwrap();
        }
        // Whoever comes later does not wait.
        assert!(token.is_cancelled());
        timeout(SOON, token.cancelled()).await.unwrap();
    });
}

fn a_child_is_told_by_its_parent_only(runtime: &Runtime) {
    runtime.block_on(async {
        let parent = CancellationToken::new();
        let (one, other) = (parent.child(), parent.child());
        let grandchild = other.child();
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !other.is_cancelled());
        let waits = grandchild.clone();
        let task = spawn(async move { waits.cancelled().await });
        yield_now().await;
        assert!(!task.is_finished());
        parent.cancel();
        timeout(SOON, task).await.unwrap().unwrap();
        assert!(other.is_cancelled() && grandchild.is_cancelled());
        assert!(parent.child().is_cancelled());
    });
}

fn a_token_works_between_threads(runtime: &Runtime) {
    for _ in 0..50 {
        let token = CancellationToken::new();
        let child = token.child();
        let thread = std::thread::spawn(move || token.cancel());
        runtime.block_on(async {
            timeout(SOON, child.cancelled()).await.unwrap();
        });
        thread.join().unwrap();
    }
}

fn what_runs_until_cancelled_is_dropped_then(runtime: &Runtime) {
    runtime.block_on(async {
        let token = CancellationToken::new();
        assert_eq!(token.run_until_cancelled(async { 5 }).await, Some(5));
        let count = Rc::new(Cell::new(0));
        let (waits, waiting) = (forever(&count), token.clone());
        let task = spawn(async move { waiting.run_until_cancelled(waits).await });
        yield_now().await;
        token.cancel();
        assert_eq!(timeout(SOON, task).await.unwrap().unwrap(), None);
        assert_eq!(count.get(), 1);
        // What is ready at once is not lost to a token that was cancelled before.
        assert_eq!(token.run_until_cancelled(async { 6 }).await, Some(6));
    });
}
