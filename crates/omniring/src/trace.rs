//! Spans and events of `tracing` for what the executor does: a span for each task, events for cores and for
//! tasks that keep a core too long.
//!
//! Without the feature `tracing` a task's future is what it is, and the functions here have no
//! instructions.

#[cfg(not(feature = "tracing"))]
pub(crate) use self::off::{
    Spawner, Traced, core_panicked, core_started, core_stopped, hog, in_task_span,
};
#[cfg(feature = "tracing")]
pub(crate) use self::on::{
    Spawner, Traced, core_panicked, core_started, core_stopped, hog, in_task_span,
};

#[cfg(not(feature = "tracing"))]
mod off {
    use std::time::Duration;

    use crate::Engine;

    /// A task's future.
    pub(crate) type Traced<F> = F;

    #[inline(always)]
    pub(crate) fn in_task_span<F>(
        future: F,
        _name: Option<&str>,
        _core: impl FnOnce() -> usize,
    ) -> Traced<F> {
        future
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Spawner;

    impl Spawner {
        #[inline(always)]
        pub(crate) fn current() -> Spawner {
            Spawner
        }

        #[inline(always)]
        pub(crate) fn enter<R>(&self, run: impl FnOnce() -> R) -> R {
            run()
        }
    }

    #[inline(always)]
    pub(crate) fn core_started(_core: usize, _engine: Engine) {}

    #[inline(always)]
    pub(crate) fn core_stopped(_core: usize) {}

    #[inline(always)]
    pub(crate) fn core_panicked(_core: usize, _message: &str) {}

    #[inline(always)]
    pub(crate) fn hog(_name: &str, _time: Duration) {}
}

#[cfg(feature = "tracing")]
mod on {
    use std::time::Duration;

    use tracing::instrument::{Instrument, Instrumented};
    use tracing::{Span, debug_span, error, info, warn};

    use crate::Engine;

    /// A task's future in the task's span, which is entered whenever the future is polled, and when it is
    /// dropped, and closed after that.
    pub(crate) type Traced<F> = Instrumented<F>;

    /// Puts a future in a new span. Without a name the task has that of its type.
    pub(crate) fn in_task_span<F>(
        future: F,
        name: Option<&str>,
        core: impl FnOnce() -> usize,
    ) -> Traced<F> {
        let span = debug_span!(
            target: "omniring::task",
            "task",
            name = name.unwrap_or_else(|| std::any::type_name::<F>()),
            core = core(),
        );
        future.instrument(span)
    }

    /// The span of who spawns a task on another core.
    #[derive(Clone)]
    pub(crate) struct Spawner(Span);

    impl Spawner {
        pub(crate) fn current() -> Spawner {
            Spawner(Span::current())
        }

        pub(crate) fn enter<R>(&self, run: impl FnOnce() -> R) -> R {
            self.0.in_scope(run)
        }
    }

    pub(crate) fn core_started(core: usize, engine: Engine) {
        info!(target: "omniring::core", core, engine = engine.name(), "core started");
    }

    pub(crate) fn core_stopped(core: usize) {
        info!(target: "omniring::core", core, "core stopped");
    }

    pub(crate) fn core_panicked(core: usize, message: &str) {
        error!(target: "omniring::core", core, panic = message, "core panicked");
    }

    pub(crate) fn hog(name: &str, time: Duration) {
        let time_us = time.as_micros() as u64;
        warn!(target: "omniring::task", task = name, time_us, "task kept the core");
    }
}
