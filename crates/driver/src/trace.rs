//! Spans and events of `tracing` for what a driver does: a span for each op, events for the start and for
//! what is not done as it was asked for.
//!
//! Without the feature `tracing` everything here is empty: its types have no size and its functions no
//! instructions. With it, a subscriber is the user's code, which may come back in: spans are made and
//! ended only while nothing of the driver is borrowed.

#[cfg(not(feature = "tracing"))]
pub(crate) use self::off::{EndedSpans, OpSpan, fell_back, passed_over, started};
#[cfg(feature = "tracing")]
pub(crate) use self::on::{EndedSpans, OpSpan, fell_back, passed_over, started};

#[cfg(not(feature = "tracing"))]
mod off {
    use crate::choice::{EngineName, StartError};
    use crate::op::{Completion, Op};

    pub(crate) struct OpSpan;

    impl OpSpan {
        pub(crate) const NONE: OpSpan = OpSpan;

        #[inline(always)]
        pub(crate) fn of(_op: &Op, _engine: EngineName) -> OpSpan {
            OpSpan
        }

        #[inline(always)]
        pub(crate) fn take(&mut self) -> OpSpan {
            OpSpan
        }

        #[inline(always)]
        pub(crate) fn end(self, _completion: Completion) {}
    }

    #[derive(Default)]
    pub(crate) struct EndedSpans {}

    impl EndedSpans {
        #[inline(always)]
        pub(crate) fn push(&mut self, _span: OpSpan, _completion: Completion) {}

        #[inline(always)]
        pub(crate) fn take(&mut self) -> EndedSpans {
            EndedSpans {}
        }

        #[inline(always)]
        pub(crate) fn end(self) {}
    }

    #[inline(always)]
    pub(crate) fn started(_engine: EngineName, _choice: &str) {}

    #[inline(always)]
    pub(crate) fn passed_over(_error: &StartError) {}

    #[inline(always)]
    pub(crate) fn fell_back(_engine: EngineName, _reason: impl std::fmt::Display) {}
}

#[cfg(feature = "tracing")]
mod on {
    use std::fmt::Display;

    use tracing::{Span, field::Empty};

    use crate::choice::{EngineName, StartError};
    use crate::op::{Completion, Op};

    /// From an op's start to its end, which its future may not live to see.
    pub(crate) struct OpSpan(Span);

    impl OpSpan {
        pub(crate) const NONE: OpSpan = OpSpan(Span::none());

        pub(crate) fn of(op: &Op, engine: EngineName) -> OpSpan {
            OpSpan(tracing::trace_span!(
                target: "omniring::op",
                "op",
                opcode = op.opcode().name(),
                engine = engine.name(),
                result = Empty,
                errno = Empty,
            ))
        }

        pub(crate) fn take(&mut self) -> OpSpan {
            std::mem::replace(self, OpSpan::NONE)
        }

        pub(crate) fn end(self, completion: Completion) {
            match completion.result {
                errno @ ..0 => self.0.record("errno", -errno),
                result => self.0.record("result", result),
            };
        }
    }

    /// Those of ops that have ended, until nothing is borrowed.
    #[derive(Default)]
    pub(crate) struct EndedSpans(Vec<(OpSpan, Completion)>);

    impl EndedSpans {
        pub(crate) fn push(&mut self, span: OpSpan, completion: Completion) {
            // Nobody listens: nothing is allocated.
            if !span.0.is_none() {
                self.0.push((span, completion));
            }
        }

        pub(crate) fn take(&mut self) -> EndedSpans {
            std::mem::take(self)
        }

        pub(crate) fn end(self) {
            self.0.into_iter().for_each(|(span, completion)| span.end(completion));
        }
    }

    pub(crate) fn started(engine: EngineName, choice: &str) {
        let engine = engine.name();
        tracing::info!(target: "omniring::driver", engine, choice, "driver started");
    }

    /// An engine that `auto` tried does not work here.
    pub(crate) fn passed_over(error: &StartError) {
        let (engine, reason) = (error.engine().name(), error.reason());
        let remedy = error.remedy();
        tracing::warn!(target: "omniring::driver", engine, reason, remedy, "engine passed over");
    }

    /// The engine does something otherwise than it was asked to.
    pub(crate) fn fell_back(engine: EngineName, reason: impl Display) {
        let engine = engine.name();
        tracing::warn!(target: "omniring::driver", engine, %reason, "fell back");
    }
}
