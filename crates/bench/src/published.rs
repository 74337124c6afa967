//! Figures that others have published, as data, and how our rows compare.
//!
//! Absolute values belong to the machines that they were measured on; what can
//! be compared are ratios, so that is all that [`comparisons`] sets side by side.

use crate::report::figure;
use crate::row::Row;

/// One backend of the fio comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FioBackend {
    /// The name used there.
    pub name: &'static str,
    /// O_DIRECT reads per second.
    pub direct_iops: u64,
    /// Context switches during the O_DIRECT run.
    pub direct_context_switches: u64,
    /// O_DIRECT, difference from basic io_uring in per cent.
    pub direct_vs_uring_percent: f64,
    /// Page cache reads: per second, context switches, difference in per cent.
    pub hot: Option<(u64, u64, f64)>,
    /// The engine of Omniring that works in the same way, if there is one.
    pub engine: Option<&'static str>,
    /// The row of fio that is the same.
    pub fio: &'static str,
}

/// What the fio comparison measured.
pub const FIO_SOURCE: &str =
    "Random reads through fio, 8 CPUs, 72 jobs, 4 files each, depth 8, 1 KiB (2020)";

/// The fio comparison.
pub const FIO: &[FioBackend] = &[
    FioBackend {
        name: "sync",
        direct_iops: 814_000,
        direct_context_switches: 27_625_004,
        direct_vs_uring_percent: -42.6,
        hot: Some((4_906_000, 105_797, -2.3)),
        engine: Some("blocking"),
        fio: "fio psync",
    },
    FioBackend {
        name: "posix-aio (thread pool)",
        direct_iops: 433_000,
        direct_context_switches: 64_112_335,
        direct_vs_uring_percent: -69.4,
        hot: Some((1_070_000, 114_791_187, -78.7)),
        engine: Some("threads"),
        fio: "fio posixaio",
    },
    FioBackend {
        name: "linux-aio",
        direct_iops: 1_322_000,
        direct_context_switches: 10_114_149,
        direct_vs_uring_percent: -6.7,
        hot: Some((4_127_000, 105_052, -17.9)),
        engine: Some("aio"),
        fio: "fio libaio",
    },
    FioBackend {
        name: "io_uring (basic)",
        direct_iops: 1_417_000,
        direct_context_switches: 11_309_574,
        direct_vs_uring_percent: 0.0,
        hot: Some((5_024_000, 106_683, 0.0)),
        engine: Some("uring"),
        fio: "fio io_uring",
    },
    FioBackend {
        name: "io_uring (enhanced: registered, polled)",
        direct_iops: 1_486_000,
        direct_context_switches: 11_483_468,
        direct_vs_uring_percent: 4.9,
        hot: None,
        engine: None,
        fio: "fio io_uring fixed",
    },
];

/// What the block sizes were measured in.
pub const BLOCK_SOURCE: &str =
    "Gain of io_uring by block size in Ceph's BlueStore (pull request 27392)";

/// Block size in KiB and gain in per cent.
pub const BLOCK_GAINS: &[(usize, f64)] =
    &[(4, 14.0), (8, 42.0), (16, 59.0), (32, 89.0), (64, 85.0), (128, 102.0)];

/// What the event loop was measured in.
pub const REDIS_SOURCE: &str = "Redis event loop on io_uring against epoll, high load";

/// Gains in per cent, plain and with a kernel submission thread.
pub const REDIS_GAINS: [&str; 2] =
    ["+8 % to +11 %", "+24 % to +32 % (with a kernel submission thread)"];

/// What the small files were measured in.
pub const SMALL_FILES_SOURCE: &str = "A small-file comparison (1 MB files, one disk)";

/// Mechanism and MB/s.
pub const SMALL_FILES: &[(&str, u32)] = &[("blocking", 50), ("non-blocking", 80), ("epoll", 120)];

/// What the buffer manager was measured in.
pub const DATABASE_SOURCE: &str =
    "A database buffer manager (PVLDB 2026, \"io_uring for high-performance DBMSs\")";

/// Speed-ups over blocking calls, and how they were had.
pub const DATABASE_GAINS: &[(&str, &str)] = &[
    ("naive port", "1.06x to 1.10x"),
    ("with batching, registered buffers and the right set-up flags", "2.05x to 2.31x"),
];

/// A published table with ours beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was measured there, in the source's words.
    pub source: &'static str,
    /// What of ours stands beside it, and what is different.
    pub ours: &'static str,
    /// Headings of the columns.
    pub columns: Vec<&'static str>,
    /// Cells, row by row; a dash where we have no figure.
    pub rows: Vec<Vec<String>>,
}

/// Rates of the rows, looked up by workload and engine.
struct Rates<'a>(&'a [Row]);

impl Rates<'_> {
    /// Rate of `engine` as a multiple of that of `base`. Rows that alternated
    /// are compared through their paired differences.
    fn ratio(&self, workload: &str, engine: &str, base: &str) -> Option<f64> {
        let row = |engine: &str| {
            let mut rows = self.0.iter();
            rows.find(|row| row.workload == workload && row.engine == engine && row.is_measured())
        };
        let (of, to) = (row(engine)?, row(base)?);
        if base == "uring" {
            return Some(1.0 + of.vs_uring_percent? / 100.0);
        }
        if engine == "uring" && !base.starts_with("fio") {
            return Some(1.0 / (1.0 + to.vs_uring_percent? / 100.0));
        }
        Some(of.ops_per_s? / to.ops_per_s?)
    }

    fn percent(&self, workload: &str, engine: &str, base: &str) -> String {
        percent(self.ratio(workload, engine, base).map(|ratio| (ratio - 1.0) * 100.0))
    }

    fn switches(&self, workload: &str, engine: &str) -> String {
        let mut rows = self.0.iter();
        let row = rows.find(|row| row.workload == workload && row.engine == engine);
        let switches = row.and_then(|row| row.context_switches_per_op);
        switches.map_or_else(|| ABSENT.to_owned(), figure)
    }

    fn times(&self, workload: &str, engine: &str, base: &str) -> String {
        match self.ratio(workload, engine, base) {
            Some(ratio) => format!("{ratio:.2}x"),
            None => ABSENT.to_owned(),
        }
    }
}

const ABSENT: &str = "–";

fn percent(value: Option<f64>) -> String {
    match value {
        Some(value) if value.abs() < 0.05 => "0 %".to_owned(),
        Some(value) => format!("{value:+.1} %"),
        None => ABSENT.to_owned(),
    }
}

/// Every published table, beside what `rows` measured.
pub fn comparisons(rows: &[Row]) -> Vec<Comparison> {
    let rates = Rates(rows);
    vec![backends(&rates), blocks(&rates), event_loop(&rates), database(&rates), small_files()]
}

fn backends(rates: &Rates<'_>) -> Comparison {
    let (direct, hot) = ("read-direct-4k-d32", "read-hot-1k-d32");
    let row = |backend: &FioBackend| {
        let engine = |workload| match backend.engine {
            Some(engine) => rates.percent(workload, engine, "uring"),
            None => ABSENT.to_owned(),
        };
        vec![
            backend.name.to_owned(),
            percent(Some(backend.direct_vs_uring_percent)),
            rates.percent(direct, backend.fio, "fio io_uring"),
            engine(direct),
            figure(backend.direct_context_switches as f64),
            rates.switches(direct, backend.fio),
            percent(backend.hot.map(|(_, _, percent)| percent)),
            rates.percent(hot, backend.fio, "fio io_uring"),
            engine(hot),
        ]
    };
    Comparison {
        source: FIO_SOURCE,
        ours: "Difference of the rate from io_uring. Ours: read-direct-4k-d32 and \
               read-hot-1k-d32, 32 reads in flight on one file. The published run kept 72 jobs \
               on 8 processors busy, so that sync had 72 reads in flight. Of ours, fio psync is \
               the like of it, with 32 threads on every core, while each of the others is one \
               process that submits from one core: that favours psync where the page cache \
               answers. Our blocking engine has one read in flight and shows what a single \
               thread gets. Context switches are published as totals of a run, ours are for \
               each read.",
        columns: vec![
            "backend",
            "O_DIRECT, published",
            "fio here",
            "engine here",
            "switches, published",
            "fio here, per read",
            "page cache, published",
            "fio here",
            "engine here",
        ],
        rows: FIO.iter().map(row).collect(),
    }
}

fn blocks(rates: &Rates<'_>) -> Comparison {
    let row = |&(kib, gain): &(usize, f64)| {
        let workload = format!("read-direct-{kib}k-d32");
        vec![
            format!("{kib} KiB"),
            percent(Some(gain)),
            rates.percent(&workload, "uring", "blocking"),
            rates.percent(&workload, "uring", "threads"),
            rates.percent(&workload, "fio io_uring", "fio psync"),
            rates.percent(&workload, "fio io_uring", "fio libaio"),
        ]
    };
    Comparison {
        source: BLOCK_SOURCE,
        ours: "Gain of io_uring in operations per second. Published: a storage \
               daemon. Ours: bare random reads with O_DIRECT, 32 in flight, \
               against blocking calls, a pool of threads and native AIO. Where the device is \
               the limit, large blocks leave no gain to be had.",
        columns: vec![
            "block",
            "published",
            "uring / blocking",
            "uring / threads",
            "fio io_uring / psync",
            "fio io_uring / libaio",
        ],
        rows: BLOCK_GAINS.iter().map(row).collect(),
    }
}

fn event_loop(rates: &Rates<'_>) -> Comparison {
    let row = |workload: &str| {
        vec![
            workload.to_owned(),
            REDIS_GAINS.join("; "),
            rates.percent(workload, "uring", "epoll"),
            rates.percent(workload, "floor", "epoll"),
        ]
    };
    Comparison {
        source: REDIS_SOURCE,
        ours: "Gain in operations per second. Published: a whole store under load. Ours: an \
               echo server on one core, which does nothing but the I/O; no kernel submission \
               thread.",
        columns: vec!["our workload", "published", "uring / epoll", "floor / epoll"],
        rows: ["echo-1", "echo-64", "echo-256"].map(row).to_vec(),
    }
}

fn database(rates: &Rates<'_>) -> Comparison {
    let workload = "read-direct-4k-d32";
    let ours = [("uring", "blocking"), ("fio io_uring fixed", "fio psync")];
    let row = |(&(how, gain), (engine, base)): (&(&str, &str), (&str, &str))| {
        vec![
            how.to_owned(),
            gain.to_owned(),
            format!("{engine} / {base}"),
            rates.times(workload, engine, base),
        ]
    };
    Comparison {
        source: DATABASE_SOURCE,
        ours: "Speed-up over blocking calls. Published: a database engine whose buffer manager \
               does the I/O. Ours: read-direct-4k-d32, the reads alone; blocking has one read in \
               flight, fio psync 32 threads.",
        columns: vec!["how", "published", "ours", "measured"],
        rows: DATABASE_GAINS.iter().zip(ours).map(row).collect(),
    }
}

fn small_files() -> Comparison {
    let row = |&(how, rate): &(&str, u32)| {
        let blocking = SMALL_FILES[0].1;
        let ratio = f64::from(rate) / f64::from(blocking);
        vec![how.to_owned(), format!("{rate} MB/s"), format!("{ratio:.1}x"), ABSENT.to_owned()]
    };
    Comparison {
        source: SMALL_FILES_SOURCE,
        ours: "Shown for completeness: no workload of this bench reads many small files whole.",
        columns: vec!["how", "published", "against blocking", "ours"],
        rows: SMALL_FILES.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, engine: &str, rate: f64, vs_uring: Option<f64>) -> Row {
        Row {
            engine: engine.to_owned(),
            workload: workload.to_owned(),
            ops_per_s: Some(rate),
            vs_uring_percent: vs_uring,
            ..Row::default()
        }
    }

    #[test]
    fn published_differences_agree_with_published_rates() {
        let base = FIO.iter().find(|backend| backend.direct_vs_uring_percent == 0.0).unwrap();
        let (hot_base, _, _) = base.hot.unwrap();
        for backend in FIO {
            let direct = backend.direct_iops as f64 / base.direct_iops as f64;
            assert!(((direct - 1.0) * 100.0 - backend.direct_vs_uring_percent).abs() < 0.1);
            if let Some((hot, _, percent)) = backend.hot {
                let ratio = hot as f64 / hot_base as f64;
                assert!(((ratio - 1.0) * 100.0 - percent).abs() < 0.1, "{}", backend.name);
            }
        }
    }

    #[test]
    fn measured_ratios_stand_beside_published_ones() {
        let direct = "read-direct-4k-d32";
        let rows = [
            row(direct, "uring", 100.0, Some(0.0)),
            row(direct, "blocking", 49.0, Some(-50.0)),
            row(direct, "fio io_uring", 200.0, Some(100.0)),
            row(direct, "fio psync", 150.0, Some(50.0)),
        ];
        let found = comparisons(&rows);
        // The paired difference counts, not the quotient of the medians.
        let expected =
            ["sync", "-42.6 %", "-25.0 %", "-50.0 %", "27,625,004", "–", "-2.3 %", "–", "–"];
        assert_eq!(found[0].rows[0], expected);
        assert_eq!(found[1].rows[0][1..5], ["+14.0 %", "+100.0 %", "–", "+33.3 %"]);
        assert_eq!(found[3].rows[0].last().unwrap(), "2.00x");
        for comparison in &found {
            assert!(comparison.rows.iter().all(|row| row.len() == comparison.columns.len()));
        }
    }

    #[test]
    fn without_rows_only_the_published_side_is_there() {
        assert_eq!(comparisons(&[])[2].rows[1][2], ABSENT);
    }
}
