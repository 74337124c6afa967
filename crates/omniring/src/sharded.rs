//! One value for each core, used where it lives.
//!
//! A value never leaves its core and need not be `Send`: whoever wants something of another core's value
//! sends a closure there. The values lie in a map of their core's; the last handle that goes has them
//! dropped, each on its core.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cores::{Handle, core, handle};
use crate::executor::{current, try_current};
use crate::task::JoinError;

/// The values of one core, by the number of their [`Sharded`].
pub(crate) type Shards = HashMap<u64, Rc<dyn Any>>;

/// One value of type `T` for each core of a runtime. Clones share them, and may move to any thread.
///
/// ```
/// use std::cell::Cell;
/// use omniring::Sharded;
///
/// let runtime = omniring::Runtime::builder().cores(2).build()?;
/// runtime.block_on(async {
///     // Not `Send`, and not shared between cores.
///     let counters = Sharded::new(|_core| Cell::new(0)).await.unwrap();
///     for key in 0..10 {
///         counters.with(key % 2, |count| count.set(count.get() + 1)).await.unwrap();
///     }
///     let counts = counters.with_all(|_core, count| count.get()).await;
///     assert_eq!(counts.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [5, 5]);
/// });
/// # Ok::<(), omniring::StartError>(())
/// ```
pub struct Sharded<T> {
    inner: Arc<Inner>,
    value: PhantomData<fn() -> T>,
}

struct Inner {
    number: u64,
    cores: Handle,
}

impl<T: 'static> Sharded<T> {
    /// Has each core make its value. If `make` panics on one of them, that is the error, and the values
    /// of the others are dropped.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn new(
        make: impl Fn(usize) -> T + Clone + Send + 'static,
    ) -> Result<Sharded<T>, JoinError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let sharded =
            Sharded { inner: Arc::new(Inner { number, cores: handle() }), value: PhantomData };
        let made = (0..sharded.inner.cores.core_count()).map(|core| {
            let make = make.clone();
            sharded.inner.cores.spawn_on(core, move || async move {
                let value: Rc<dyn Any> = Rc::new(make(core));
                let shards = current();
                shards.shards().borrow_mut().insert(number, value);
            })
        });
        for made in made.collect::<Vec<_>>() {
            made.await?;
        }
        Ok(sharded)
    }

    /// Calls `f` with the value of core `core`, there, between two tasks. Nothing else of that core runs
    /// meanwhile, so that `f` sees no other's half of a change. Dropping the future does not take the
    /// call back.
    ///
    /// # Panics
    /// If there is no such core.
    pub async fn with<R: Send + 'static>(
        &self,
        core: usize,
        f: impl FnOnce(&T) -> R + Send + 'static,
    ) -> Result<R, JoinError> {
        let number = self.inner.number;
        self.inner.cores.spawn_on(core, move || async move { f(&value(number)) }).await
    }

    /// Calls `f` with the value of core `core`, there, and runs the future that it makes.
    ///
    /// # Panics
    /// If there is no such core.
    pub async fn with_async<F, R>(
        &self,
        core: usize,
        f: impl FnOnce(Rc<T>) -> F + Send + 'static,
    ) -> Result<R, JoinError>
    where
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let number = self.inner.number;
        self.inner.cores.spawn_on(core, move || f(value(number))).await
    }

    /// Calls `f` with the value of each core, at the same time: what it returned, by core.
    pub async fn with_all<R: Send + 'static>(
        &self,
        f: impl Fn(usize, &T) -> R + Clone + Send + 'static,
    ) -> Vec<Result<R, JoinError>> {
        let calls = (0..self.inner.cores.core_count()).map(|core| {
            let (number, f) = (self.inner.number, f.clone());
            self.inner.cores.spawn_on(core, move || async move { f(core, &value(number)) })
        });
        let mut results = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            results.push(call.await);
        }
        results
    }

    /// The value of the core that the calling code runs on.
    ///
    /// # Panics
    /// On a thread that is no core of this runtime.
    pub fn here(&self) -> Rc<T> {
        assert!(core() < self.inner.cores.core_count(), "a core of another runtime");
        value(self.inner.number)
    }
}

/// This core's value.
fn value<T: 'static>(number: u64) -> Rc<T> {
    let core = current();
    let value = core.shards().borrow().get(&number).cloned();
    let value = value.expect("this core is one of those that made a value");
    value.downcast().expect("a number stands for one type")
}

impl Drop for Inner {
    fn drop(&mut self) {
        for core in 0..self.cores.core_count() {
            let number = self.number;
            self.cores.send_to(core, move || {
                let value =
                    try_current().and_then(|core| core.shards().borrow_mut().remove(&number));
                drop(value);
            });
        }
    }
}

impl<T> Clone for Sharded<T> {
    fn clone(&self) -> Sharded<T> {
        Sharded { inner: self.inner.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharded({} cores)", self.inner.cores.core_count())
    }
}
