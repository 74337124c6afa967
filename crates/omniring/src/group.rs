//! Tasks that end together: groups that are joined or aborted as one, and scopes around them.
//!
//! Each task of a group holds a mark, which says so when the task's future is gone, however it
//! went: joining looks at tasks that have ended only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::spawn;
use crate::task::{JoinError, JoinHandle};

/// Tasks of one runtime that belong together. They are joined as they finish, and aborted when the
/// group is dropped.
///
/// ```
/// use omniring::TaskGroup;
/// # omniring::Runtime::new()?.block_on(async {
/// let mut group = TaskGroup::new();
/// for number in 1..=3 {
///     group.spawn(async move { number * number });
/// }
/// let mut sum = 0;
/// while let Some(result) = group.join_next().await {
///     sum += result.unwrap();
/// }
/// assert_eq!(sum, 14);
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
pub struct TaskGroup<T> {
    /// By place; `None` once it was joined.
    tasks: RefCell<Vec<Option<JoinHandle<T>>>>,
    free: RefCell<Vec<usize>>,
    ended: Rc<Ended>,
}

/// The places of tasks whose futures are gone.
#[derive(Default)]
struct Ended {
    places: RefCell<VecDeque<usize>>,
    joiner: Cell<Option<Waker>>,
}

/// Goes with a task's future.
struct Mark {
    place: usize,
    ended: Rc<Ended>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.ended.places.borrow_mut().push_back(self.place);
        if let Some(joiner) = self.ended.joiner.take() {
            joiner.wake();
        }
    }
}

impl<T> Default for TaskGroup<T> {
    fn default() -> TaskGroup<T> {
        TaskGroup::new()
    }
}

impl<T> TaskGroup<T> {
    /// A group without tasks.
    pub fn new() -> TaskGroup<T> {
        TaskGroup {
            tasks: RefCell::default(),
            free: RefCell::default(),
            ended: Rc::new(Ended::default()),
        }
    }

    /// Tasks that have not been joined.
    pub fn len(&self) -> usize {
        self.tasks.borrow().len() - self.free.borrow().len()
    }

    /// Whether all tasks have been joined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has all tasks dropped the next time it is their turn; those that have finished by then keep
    /// their output. They are still to be joined.
    pub fn abort_all(&self) {
        self.tasks.borrow().iter().flatten().for_each(JoinHandle::abort);
    }

    /// Aborts all tasks and waits until their futures are gone. Outputs are dropped, and panics.
    pub async fn shut_down(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// The next task that ends: its output, or how it ended without. `None` if there is no task
    /// left. Dropping the future loses nothing.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn wait(&self, cx: &mut Context<'_>) {
        drop(self.ended.joiner.replace(Some(cx.waker().clone())));
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        loop {
            if self.is_empty() {
                return Poll::Ready(None);
            }
            let place = self.ended.places.borrow().front().copied();
            let Some(place) = place else {
                self.wait(cx);
                return Poll::Pending;
            };
            // The future is gone; its task ends within the same turn. Nothing is borrowed while the
            // task's output or a waker may be dropped.
            let task = self.tasks.borrow_mut()[place].take();
            let polled = match task {
                Some(mut task) => {
                    let polled = Pin::new(&mut task).poll(cx);
                    if polled.is_pending() {
                        self.tasks.borrow_mut()[place] = Some(task);
                        return Poll::Pending;
                    }
                    Some(polled)
                }
                // It was never spawned, for there was no runtime.
                None => None,
            };
            self.ended.places.borrow_mut().pop_front();
            self.free.borrow_mut().push(place);
            if let Some(polled) = polled {
                return polled.map(Some);
            }
        }
    }
}

impl<T: 'static> TaskGroup<T> {
    /// Adds a task to the group and to the runtime that the calling code runs in.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn(&self, future: impl Future<Output = T> + 'static) {
        let free = self.free.borrow_mut().pop();
        let place = free.unwrap_or_else(|| {
            self.tasks.borrow_mut().push(None);
            self.tasks.borrow().len() - 1
        });
        let mark = Mark { place, ended: self.ended.clone() };
        let task = spawn(async move {
            let _mark = mark;
            future.await
        });
        self.tasks.borrow_mut()[place] = Some(task);
    }
}

impl<T, E> TaskGroup<Result<T, E>> {
    /// Waits for all tasks: their outputs, in the order they finished, or the first error. With an
    /// error the other tasks are aborted, and are gone when this returns; with a panic too, which
    /// goes on here, as it does with a task that was aborted.
    ///
    /// Dropping the future drops the outputs it has, and leaves the other tasks in the group.
    ///
    /// # Panics
    /// If a task did, or was aborted.
    pub async fn try_join_all(&mut self) -> Result<Vec<T>, E> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            match result {
                Ok(Ok(output)) => outputs.push(output),
                Ok(Err(error)) => {
                    self.shut_down().await;
                    return Err(error);
                }
                Err(error) => {
                    self.shut_down().await;
                    error.resume();
                }
            }
        }
        Ok(outputs)
    }
}

impl<T> Drop for TaskGroup<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for TaskGroup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("len", &self.len()).finish()
    }
}

/// Runs `body` beside the tasks that it adds to its group, and returns when all of them have ended:
/// what the body returned, or the first error of body or tasks. With the first error, and with a
/// panic, which goes on here, body and tasks that are left are dropped, and are gone when this
/// returns.
///
/// Dropping the future drops the body and aborts the tasks.
///
/// # Panics
/// If a task did.
///
/// ```
/// use std::io;
/// use omniring::net::UnixStream;
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, other) = UnixStream::pair()?;
/// let received = omniring::scope(async |group| {
///     group.spawn(async move { one.send_all("hello").await.0 });
///     let (result, buf) = other.recv_into(Vec::with_capacity(16)).await;
///     result.map(|_| buf)
/// });
/// assert_eq!(received.await?, b"hello");
/// # Ok::<(), io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn scope<R, E>(
    body: impl AsyncFnOnce(&TaskGroup<Result<(), E>>) -> Result<R, E>,
) -> Result<R, E> {
    let mut group = TaskGroup::new();
    let ended = {
        let mut body = pin!(body(&group));
        poll_fn(|cx| {
            // A task that fails ends the body too.
            while let Poll::Ready(Some(result)) = group.poll_next(cx) {
                match result {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Poll::Ready(Ok(Err(error))),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            let ended = body.as_mut().poll(cx).map(Ok);
            if ended.is_pending() {
                // Tasks that the body has just added may have nobody yet who waits for them.
                group.wait(cx);
            }
            ended
        })
        .await
    };
    let result = match ended {
        Ok(Ok(output)) => group.try_join_all().await.map(|_| output),
        Ok(Err(error)) => Err(error),
        Err(error) => {
            group.shut_down().await;
            error.resume();
        }
    };
    group.shut_down().await;
    result
}
