//! The table on the terminal: a block for each workload, within 120 columns.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, Table, Width, presets};

use super::{COLUMNS, Column, by_workload};
use crate::Outcome;
use crate::row::Row;
use crate::workload::Workload;

/// The rows of a run as text, with everything that has to be said about them.
pub fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (name, rows) in by_workload(&outcome.rows) {
        let about = Workload::named(name).map_or("", |workload| workload.about);
        let _ = writeln!(text, "{name}: {about}");
        if rows.iter().any(Row::is_measured) {
            text += &block(rows);
            text.push('\n');
        }
        for row in rows {
            for (kind, reason) in remarks(row) {
                let _ = writeln!(text, "  {}: {kind}{reason}", row.engine);
            }
        }
        text.push('\n');
    }
    text
}

/// What has to be said about a row, and what kind of remark it is.
pub fn remarks(row: &Row) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("", row.warning.as_deref()),
        ("skipped: ", row.skipped.as_deref()),
        ("failed: ", row.error.as_deref()),
    ]
    .into_iter()
    .filter_map(|(kind, reason)| Some((kind, reason?)))
}

/// Least width of the columns, so that the blocks of all workloads line up.
const WIDTHS: [u16; 13] = [18, 10, 6, 8, 6, 6, 6, 9, 6, 8, 7, 7, 7];

fn block(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| !column.page_only).collect();
    let headings = std::iter::once("engine").chain(columns.iter().map(|column| column.name));
    table.set_header(headings);
    for row in rows.iter().filter(|row| row.is_measured()) {
        let cells = columns.iter().map(|column| Cell::new(column.cell(row)));
        table.add_row(std::iter::once(Cell::new(&row.engine)).chain(cells));
    }
    for ((index, column), width) in table.column_iter_mut().enumerate().zip(WIDTHS) {
        let margin = if index == 0 { 2 } else { 1 };
        column.set_padding((margin, 0));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + margin)));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_table_fits_and_says_what_did_not_run() {
        let mut rows = sample::rows();
        rows[0].engine = "fio io_uring fixed".to_owned();
        rows[0].ops_per_s = Some(1_234_567.0);
        rows[0].p999_us = Some(123_456.0);
        rows[0].vs_uring_percent = Some(-100.0);
        let text = render(&Outcome { rows, ..Outcome::default() });
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("read-direct-4k-d32: random 4 KiB reads, O_DIRECT"), "{text}");
        assert!(text.contains("  threads: failed: it <broke>, badly"), "{text}");
        assert!(text.contains("  epoll: skipped: the file system"), "{text}");
        assert!(text.contains("  uring: its rate is the load"), "{text}");
    }

    #[test]
    fn cells_line_up_under_their_headings() {
        let text = block(&sample::rows()[..2]);
        let lines: Vec<&str> = text.lines().collect();
        let end = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        assert_eq!(end(lines[0], "ops/s"), end(lines[1], "76,000"));
        assert_eq!(end(lines[0], "ops/s"), end(lines[2], "75,000"));
    }
}
