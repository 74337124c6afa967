//! Rows for programs: a JSON array and CSV with a heading line, with the same
//! fields in the same order.

use std::io::{self, Write};

use crate::row::Row;

/// Writes the rows as one JSON array.
pub fn json(rows: &[Row], mut output: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut output, rows).map_err(io::Error::from)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Writes the rows as CSV.
pub fn csv(rows: &[Row], output: impl Write) -> io::Result<()> {
    let told = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    };
    let mut writer = csv::Writer::from_writer(output);
    for row in rows {
        writer.serialize(row).map_err(told)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn json_is_an_array_of_rows_with_the_promised_fields() {
        let mut text = Vec::new();
        json(&sample::rows(), &mut text).unwrap();
        let rows: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&text).unwrap();
        assert_eq!(rows.len(), 5);
        for field in [
            "engine",
            "workload",
            "ops_per_s",
            "mb_per_s",
            "cpu_us_per_op",
            "cpu_user_us_per_op",
            "cpu_system_us_per_op",
            "context_switches_per_op",
            "syscalls_per_op",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "vs_uring_percent",
            "cpu_vs_floor",
            "skipped",
            "error",
        ] {
            assert!(rows.iter().all(|row| row.contains_key(field)), "{field}");
        }
        assert_eq!(rows[1]["ops_per_s"], 75_000.0);
        assert!(rows[2]["ops_per_s"].is_null() && rows[2]["skipped"].is_string());
    }

    #[test]
    fn csv_has_a_heading_and_quotes_what_needs_it() {
        let mut text = Vec::new();
        csv(&sample::rows(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[0].starts_with("engine,workload,ops_per_s,mb_per_s,cpu_us_per_op"));
        assert!(lines[4].contains("\"it <broke>, badly\""), "{}", lines[4]);
        let fields = lines[0].split(',').count();
        assert!(lines[1].split(',').count() == fields, "{}", lines[1]);
    }
}
