//! What a run found, for people and for programs.

pub mod chart;
pub mod html;
pub mod rows;
pub mod table;

/// A figure with about four digits: 12,345 or 87.3 or 0.042.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        small if small >= 0.0995 || small == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A difference in per cent: +4.2%, -42.6%, 0%.
fn signed_percent(percent: f64) -> String {
    match format!("{percent:+.1}%").as_str() {
        "+0.0%" | "-0.0%" => "0%".to_owned(),
        text => text.to_owned(),
    }
}

/// A column of a row, for the table and the page.
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// What it means and in what unit, for the legend.
    pub about: &'static str,
    /// Whether it is on the page only, because a terminal has not the width.
    pub page_only: bool,
    value: fn(&crate::row::Row) -> Option<String>,
}

impl Column {
    /// The cell of a row; a dash where there is no figure.
    pub fn cell(&self, row: &crate::row::Row) -> String {
        (self.value)(row).unwrap_or_else(|| "–".to_owned())
    }
}

/// The columns after the engine's name.
pub const COLUMNS: &[Column] = &[
    Column {
        name: "ops/s",
        about: "operations completed per second, median over slices",
        page_only: false,
        value: |row| row.ops_per_s.map(figure),
    },
    Column {
        name: "MB/s",
        about: "millions of bytes moved per second",
        page_only: false,
        value: |row| row.mb_per_s.map(figure),
    },
    Column {
        name: "vs uring",
        about: "difference of ops/s from uring, median of the differences within rounds",
        page_only: false,
        value: |row| row.vs_uring_percent.map(signed_percent),
    },
    Column {
        name: "cpu us",
        about: "processor time per operation in microseconds, all threads and kernel workers \
                of the process; median over slices",
        page_only: false,
        value: |row| row.cpu_us_per_op.map(figure),
    },
    Column {
        name: "user",
        about: "its part in user mode",
        page_only: false,
        value: |row| row.cpu_user_us_per_op.map(figure),
    },
    Column {
        name: "sys",
        about: "its part in the kernel",
        page_only: false,
        value: |row| row.cpu_system_us_per_op.map(figure),
    },
    Column {
        name: "cpu/floor",
        about: "processor time per operation as a multiple of the bare ring loop's, paired \
                within rounds",
        page_only: false,
        value: |row| row.cpu_vs_floor.map(|ratio| format!("{ratio:.2}x")),
    },
    Column {
        name: "ctx/op",
        about: "context switches per operation",
        page_only: false,
        value: |row| row.context_switches_per_op.map(figure),
    },
    Column {
        name: "calls/op",
        about: "system calls per operation, all threads of the process, counted by the kernel \
                in a slice of its own that is not timed",
        page_only: false,
        value: |row| row.syscalls_per_op.map(figure),
    },
    Column {
        name: "p50 us",
        about: "latency in microseconds that half of the operations stayed within",
        page_only: false,
        value: |row| row.p50_us.map(figure),
    },
    Column {
        name: "p99 us",
        about: "the same for 99 of 100 operations",
        page_only: false,
        value: |row| row.p99_us.map(figure),
    },
    Column {
        name: "p99.9",
        about: "the same for 999 of 1000 operations",
        page_only: false,
        value: |row| row.p999_us.map(figure),
    },
    Column {
        name: "max us",
        about: "longest latency",
        page_only: true,
        value: |row| row.max_us.map(figure),
    },
];

/// The workloads of some rows, in order, each with its rows.
pub fn by_workload(rows: &[crate::row::Row]) -> Vec<(&str, &[crate::row::Row])> {
    rows.chunk_by(|a, b| a.workload == b.workload)
        .map(|chunk| (chunk[0].workload.as_str(), chunk))
        .collect()
}

/// Rows made by hand, for the tests of what shows them.
#[cfg(test)]
pub(crate) mod sample {
    use crate::row::Row;

    pub(crate) fn rows() -> Vec<Row> {
        let measured = |engine: &str, workload: &str, rate: f64| Row {
            engine: engine.to_owned(),
            workload: workload.to_owned(),
            ops_per_s: Some(rate),
            mb_per_s: Some(rate * 0.004096),
            cpu_us_per_op: Some(3.5),
            cpu_user_us_per_op: Some(0.5),
            cpu_system_us_per_op: Some(3.0),
            context_switches_per_op: Some(0.031),
            syscalls_per_op: Some(0.094),
            p50_us: Some(410.0),
            p99_us: Some(900.0),
            p999_us: Some(1500.0),
            max_us: Some(12345.0),
            vs_uring_percent: Some(rate / 750.0 - 100.0),
            cpu_vs_floor: Some(1.02),
            ops: Some(1000),
            rounds: Some(8),
            curve: vec![(1.0, 90.0), (50.0, 410.0), (99.0, 900.0), (99.9, 1500.0)],
            ..Row::default()
        };
        vec![
            measured("floor", "read-direct-4k-d32", 76_000.0),
            measured("uring", "read-direct-4k-d32", 75_000.0),
            Row {
                engine: "epoll".to_owned(),
                workload: "read-direct-4k-d32".to_owned(),
                skipped: Some("the file system does not support O_DIRECT".to_owned()),
                ..Row::default()
            },
            Row {
                engine: "threads".to_owned(),
                workload: "echo-64".to_owned(),
                error: Some("it <broke>, badly".to_owned()),
                ..Row::default()
            },
            Row {
                warning: Some("its rate is the load generator's".to_owned()),
                ..measured("uring", "echo-64", 140_000.0)
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_about_four_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0312, "0.031"),
            (3.456, "3.46"),
            (87.34, "87.3"),
            (99.97, "100"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-42.6, "-42.6"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn rows_are_grouped_in_order() {
        let rows = sample::rows();
        let groups: Vec<_> = by_workload(&rows).iter().map(|(name, r)| (*name, r.len())).collect();
        assert_eq!(groups, [("read-direct-4k-d32", 3), ("echo-64", 2)]);
    }
}
