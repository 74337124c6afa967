//! Counting what a driver does, for [`Driver::metrics`](crate::Driver::metrics).
//!
//! Without the feature `metrics` everything here is empty: its types have no size and its functions
//! no instructions, so that the places that count need not know.

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{Counter, Meter, Stamp};
#[cfg(feature = "metrics")]
pub(crate) use self::on::{Counter, Meter, Stamp};

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::op::Op;

    #[derive(Clone, Copy)]
    pub(crate) struct Stamp;

    impl Stamp {
        pub(crate) const NONE: Stamp = Stamp;
    }

    #[derive(Default)]
    pub(crate) struct Counter {}

    impl Counter {
        #[inline(always)]
        pub(crate) fn count(&mut self) {}
    }

    #[derive(Default)]
    pub(crate) struct Meter {}

    impl Meter {
        #[inline(always)]
        pub(crate) fn begin(&mut self, _op: &Op, _in_flight_count: usize) -> Stamp {
            Stamp
        }

        #[inline(always)]
        pub(crate) fn end(&mut self, _stamp: Stamp) {}

        #[inline(always)]
        pub(crate) fn count_turn(&mut self) {}
    }
}

#[cfg(feature = "metrics")]
mod on {
    use hdrhistogram::Histogram;

    use crate::clock::{Instant, now};
    use crate::metrics::{Latency, OpMetrics};
    use crate::op::{Op, Opcode};

    /// When an op of which kind was started.
    #[derive(Clone, Copy)]
    pub(crate) struct Stamp(Option<(Opcode, Instant)>);

    impl Stamp {
        pub(crate) const NONE: Stamp = Stamp(None);
    }

    #[derive(Default)]
    pub(crate) struct Counter(u64);

    impl Counter {
        pub(crate) fn count(&mut self) {
            self.0 += 1;
        }

        pub(crate) fn value(&self) -> u64 {
            self.0
        }
    }

    #[derive(Default)]
    pub(crate) struct Meter {
        pub(crate) turn_count: u64,
        pub(crate) in_flight_max: usize,
        /// By opcode, as many as were seen.
        ops: Vec<Option<Box<Ops>>>,
    }

    struct Ops {
        opcode: Opcode,
        started_count: u64,
        latency: Histogram<u64>,
    }

    impl Meter {
        pub(crate) fn begin(&mut self, op: &Op, in_flight_count: usize) -> Stamp {
            let opcode = op.opcode();
            self.in_flight_max = self.in_flight_max.max(in_flight_count);
            self.ops_of(opcode).started_count += 1;
            Stamp(Some((opcode, now())))
        }

        /// An op has ended.
        pub(crate) fn end(&mut self, stamp: Stamp) {
            if let Stamp(Some((opcode, started))) = stamp {
                let nanoseconds = now().saturating_duration_since(started).as_nanos();
                self.ops_of(opcode).latency.saturating_record(nanoseconds as u64);
            }
        }

        pub(crate) fn count_turn(&mut self) {
            self.turn_count += 1;
        }

        pub(crate) fn ops(&self) -> Vec<OpMetrics> {
            let seen = self.ops.iter().flatten();
            seen.map(|ops| OpMetrics {
                opcode: ops.opcode,
                started_count: ops.started_count,
                ended_count: ops.latency.len(),
                latency: Latency(ops.latency.clone()),
            })
            .collect()
        }

        fn ops_of(&mut self, opcode: Opcode) -> &mut Ops {
            let at = opcode as usize;
            if self.ops.len() <= at {
                self.ops.resize_with(at + 1, || None);
            }
            self.ops[at].get_or_insert_with(|| {
                Box::new(Ops {
                    opcode,
                    started_count: 0,
                    latency: Histogram::new_with_bounds(1, LATENCY_MAX, LATENCY_DIGITS)
                        .expect("these are bounds that it takes"),
                })
            })
        }
    }

    /// In nanoseconds: an hour, which stands for everything longer.
    const LATENCY_MAX: u64 = 3_600_000_000_000;
    /// Significant digits of a latency: 1 in 100, for some 40 KiB an opcode.
    const LATENCY_DIGITS: u8 = 2;
}
