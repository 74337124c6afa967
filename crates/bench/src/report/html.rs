//! The report: one page that needs nothing from anywhere else.

use std::io;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use nix::unistd::{AccessFlags, access};

use super::table::remarks;
use super::{COLUMNS, by_workload, chart, figure};
use crate::Outcome;
use crate::error::Error;
use crate::published::{Comparison, comparisons};
use crate::row::Row;
use crate::workload::Workload;

const STYLE: &str = include_str!("style.css");

/// Finds out before a run that the page has nowhere to go.
pub fn check_destination(path: &Path) -> Result<(), Error> {
    let error = |source: io::Error| Error::Report { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(error(io::ErrorKind::IsADirectory.into()));
    }
    let to_write = match path.parent() {
        _ if path.exists() => path,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    access(to_write, AccessFlags::W_OK).map_err(|errno| error(errno.into()))
}

/// The whole page.
pub fn render(outcome: &Outcome) -> String {
    let groups = by_workload(&outcome.rows);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "omniring bench" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "omniring bench" }
                    p.lead {
                        "What each I/O engine does on this machine, beside a bare io_uring loop "
                        "(the floor) and fio."
                    }
                    p.quiet { (outcome.settings) "; " (took(outcome)) "." }
                }
                (contents(&groups))
                main {
                    (warnings(&outcome.warnings))
                    (machine(outcome))
                    (glance(&groups))
                    (reading())
                    @for (name, rows) in &groups {
                        (workload(name, rows))
                    }
                    (published(&outcome.rows))
                }
            }
        }
    };
    page.into_string()
}

fn took(outcome: &Outcome) -> String {
    format!("measured in {} s", outcome.elapsed.as_secs())
}

fn contents(groups: &[(&str, &[Row])]) -> Markup {
    html! {
        nav aria-label="contents" {
            h2 { "Contents" }
            ol {
                li { a href="#machine" { "The machine" } }
                li { a href="#glance" { "At a glance" } }
                li { a href="#reading" { "How to read the figures" } }
                @for (name, _) in groups {
                    li { a href={ "#" (name) } { code { (name) } } }
                }
                li { a href="#published" { "Beside published figures" } }
            }
        }
    }
}

fn warnings(warnings: &[String]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            section.warnings id="warnings" {
                h2 { "What may mislead here" }
                ul { @for warning in warnings { li { (warning) } } }
            }
        }
    }
}

fn machine(outcome: &Outcome) -> Markup {
    html! {
        section id="machine" {
            h2 { "The machine" }
            div.scroll { table.facts {
                @for fact in &outcome.machine.facts {
                    tr { th scope="row" { (fact.name) } td { (fact.value) } }
                }
            } }
        }
    }
}

/// Every workload and engine on one screen.
fn glance(groups: &[(&str, &[Row])]) -> Markup {
    let mut engines: Vec<&str> = Vec::new();
    for row in groups.iter().flat_map(|(_, rows)| rows.iter()) {
        if row.is_measured() && !engines.contains(&row.engine.as_str()) {
            engines.push(&row.engine);
        }
    }
    html! {
        section id="glance" {
            h2 { "At a glance" }
            p { "Operations per second, and under them the processor time per operation in microseconds." }
            div.scroll { table.rows {
                thead { tr {
                    th scope="col" { "workload" }
                    @for engine in &engines { th scope="col" { (engine) } }
                } }
                tbody {
                    @for (name, rows) in groups {
                        tr {
                            th scope="row" { a href={ "#" (name) } { (name) } }
                            @for engine in &engines { (glance_cell(rows, engine)) }
                        }
                    }
                }
            } }
        }
    }
}

fn glance_cell(rows: &[Row], engine: &str) -> Markup {
    let row = rows.iter().find(|row| row.engine == engine);
    let figures = row.and_then(|row| Some((row.ops_per_s?, row.cpu_us_per_op?)));
    html! {
        @match figures {
            Some((rate, cpu)) => td { (figure(rate)) br; span.quiet { (figure(cpu)) } },
            None => td.quiet { "–" },
        }
    }
}

fn reading() -> Markup {
    html! {
        section id="reading" {
            h2 { "How to read the figures" }
            p {
                "Every row ran in a process of its own that did nothing else, so that its processor "
                "time counts its helper threads and the kernel's workers, and not the load generator "
                "or this program. The processes of one workload took turns in short slices; figures "
                "are medians over the slices, and percentages and multiples are medians over rounds "
                "of what was measured within the same round. fio cannot take turns: each of its "
                "rows is a single run."
            }
            dl {
                dt { "floor" }
                dd {
                    "the cheapest bare io_uring loop that we could write for the row: no driver, no "
                    "runtime, no tasks. What an engine costs beyond it is the price of the framework. "
                    "In the rows with registered buffers or leased buffers it uses what the row is "
                    "about: registered buffers and a registered file; or multishot accept and "
                    "receive, a ring of provided buffers and direct descriptors."
                }
                dt { "floor-plain" }
                dd { "beside those, the loop with plain buffers and descriptors." }
                dt { "mmap" }
                dd {
                    "copies out of a mapping of the file into a buffer, one after the other on one "
                    "thread: what is left of a read when there is no system call."
                }
                @for column in COLUMNS {
                    dt { (column.name) }
                    dd { (column.about) }
                }
            }
        }
    }
}

fn workload(name: &str, rows: &[Row]) -> Markup {
    let about = Workload::named(name).map_or("", |workload| workload.about);
    let values = |value: fn(&Row) -> Option<f64>| -> Vec<(&str, f64)> {
        rows.iter().filter_map(|row| Some((row.engine.as_str(), value(row)?))).collect()
    };
    let curves: Vec<(&str, &[(f64, f64)])> = rows
        .iter()
        .filter(|row| !row.curve.is_empty())
        .map(|row| (row.engine.as_str(), row.curve.as_slice()))
        .collect();
    html! {
        section id=(name) {
            h2 { code { (name) } }
            p { (about) }
            div.charts {
                figure {
                    (PreEscaped(chart::bars("operations per second", &values(|row| row.ops_per_s))))
                    (PreEscaped(chart::bars(
                        "processor time per operation, µs",
                        &values(|row| row.cpu_us_per_op),
                    )))
                }
                @if !curves.is_empty() {
                    figure {
                        (PreEscaped(chart::percentiles("latency by percentile", &curves)))
                        (legend(&curves))
                    }
                }
            }
            (rows_table(rows))
        }
    }
}

fn legend(curves: &[(&str, &[(f64, f64)])]) -> Markup {
    html! {
        figcaption.legend {
            @for (engine, _) in curves {
                @let (red, green, blue) = chart::colour(engine);
                span { i style={ "background:rgb(" (red) "," (green) "," (blue) ")" } {} (engine) }
            }
        }
    }
}

fn rows_table(rows: &[Row]) -> Markup {
    html! {
        div.scroll { table.rows {
            thead { tr {
                th scope="col" { "engine" }
                @for column in COLUMNS { th scope="col" title=(column.about) { (column.name) } }
            } }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (row.engine) }
                        @if row.is_measured() {
                            @for column in COLUMNS { td { (column.cell(row)) } }
                        } @else {
                            td.absent colspan=(COLUMNS.len()) {
                                @for (kind, reason) in remarks(row) { (kind) (reason) }
                            }
                        }
                    }
                }
            }
        } }
        @for row in rows.iter().filter(|row| row.is_measured()) {
            @for (kind, reason) in remarks(row) {
                p.remark { (row.engine) ": " (kind) (reason) }
            }
        }
    }
}

fn published(rows: &[Row]) -> Markup {
    html! {
        section id="published" {
            h2 { "Beside published figures" }
            p {
                "Others have measured the same questions on other machines. Absolute values differ "
                "with the hardware; the ratios are what to compare. A dash stands where this run "
                "measured no such row."
            }
            @for comparison in comparisons(rows) { (beside(&comparison)) }
        }
    }
}

fn beside(comparison: &Comparison) -> Markup {
    html! {
        h3 { (comparison.source) }
        p { (comparison.ours) }
        div.scroll { table.rows {
            thead { tr { @for column in &comparison.columns { th scope="col" { (column) } } } }
            tbody {
                @for row in &comparison.rows {
                    tr {
                        @for (index, cell) in row.iter().enumerate() {
                            @if index == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                        }
                    }
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Fact, Machine};
    use crate::report::sample;

    fn page() -> String {
        let machine = Machine {
            facts: vec![Fact { name: "kernel", value: "Linux <6.18>".into() }],
            ..Machine::default()
        };
        render(&Outcome {
            rows: sample::rows(),
            machine,
            warnings: vec!["one & only".into()],
            settings: "8 rounds".into(),
            ..Outcome::default()
        })
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page();
        for outside in ["<script", "<link", "<img", "@import", "url(", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        let links = page.matches("http").count();
        assert_eq!(links, page.matches("http://www.w3.org/2000/svg").count());
    }

    #[test]
    fn a_page_with_nowhere_to_go_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| check_destination(&directory.path().join(path));
        assert!(at("new.html").is_ok());
        assert!(at("no/such/new.html").is_err());
        assert!(check_destination(directory.path()).is_err());
    }

    #[test]
    fn everything_is_on_the_page_and_escaped() {
        let page = page();
        for part in [
            "Linux &lt;6.18&gt;",
            "one &amp; only",
            "failed: it &lt;broke&gt;, badly",
            "skipped: the file system does not support O_DIRECT",
            "uring: its rate is the load generator's",
            "id=\"read-direct-4k-d32\"",
            "href=\"#echo-64\"",
            "-42.6 %",
            "76,000",
            "BlueStore",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg ").count(), 6, "three charts for each workload");
    }
}
