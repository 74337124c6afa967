//! `omniring doctor`: what works on this machine, and what to do about what does not.
//!
//! The checks run in a child process, one after the other, each finding a line of JSON: a check
//! that kills the process, as a seccomp filter may, or that never ends, costs itself only, and a
//! further child goes on with the next.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use omniring::doctor::{self, Check, Finding, Group, Status};
use serde::{Deserialize, Serialize};

/// Longer than any check takes by its own account.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Width of the table, in columns.
const WIDTH: u16 = 120;

/// Say which engines and features work on this machine, and why others do not.
///
/// Prints a table of the engines, the features of io_uring, and the limits and settings that
/// matter, each with its status (works, falls back, missing), the reason and the remedy. Needs no
/// privilege. Exit code 1 if not even the engine epoll works.
///
/// With --format json: an object with "engines", "features" and "machine", lists of objects with
/// "name", "status" ("works", "falls back" or "missing"), "value" (a string or null), "reason" and
/// "remedy" (strings, the remedy may be empty), and "version" (1). These keys stay.
#[derive(Args)]
pub struct Doctor {
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Doctor {
    /// Examines the machine, and prints what was found.
    pub fn run(self) -> io::Result<ExitCode> {
        let findings = examine();
        let mut output = BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Table => output.write_all(table(&findings).as_bytes())?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut output, &Report::of(&findings))?;
                output.write_all(b"\n")?;
            }
        }
        output.flush()?;
        let works = findings.iter().any(|one| one.name == "epoll" && one.status == Status::Works);
        Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    engines: Vec<Entry<'a>>,
    features: Vec<Entry<'a>>,
    machine: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    status: &'a str,
    value: Option<&'a str>,
    reason: &'a str,
    remedy: &'a str,
}

impl<'a> Report<'a> {
    fn of(findings: &'a [Finding]) -> Report<'a> {
        let entries = |group| of_group(findings, group).map(Entry::of).collect();
        Report {
            version: 1,
            engines: entries(Group::Engine),
            features: entries(Group::Feature),
            machine: entries(Group::Machine),
        }
    }
}

impl<'a> Entry<'a> {
    fn of(finding: &'a Finding) -> Entry<'a> {
        Entry {
            name: finding.name,
            status: finding.status.name(),
            value: finding.value.as_deref(),
            reason: &finding.reason,
            remedy: &finding.remedy,
        }
    }
}

fn of_group(findings: &[Finding], group: Group) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(move |finding| finding.group == group)
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    let mut remedies = Vec::new();
    for group in Group::ALL {
        table.add_row([group.name(), "status", "what it is, or why it is so; -> what to do"]);
        for finding in of_group(findings, group) {
            table.add_row([
                format!("  {}", finding.name),
                finding.status.to_string(),
                said(finding, &mut remedies),
            ]);
        }
        table.add_row([""]);
    }
    for (column, width) in table.column_iter_mut().zip([22, 12]) {
        column.set_padding((0, 1));
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// Value, reason and remedy; a long remedy is told once.
fn said<'a>(finding: &'a Finding, remedies: &mut Vec<&'a str>) -> String {
    let mut text = finding.reason.clone();
    if let Some(value) = finding.value.as_ref().filter(|_| finding.group == Group::Machine) {
        text = format!("{value}: {text}");
    }
    match finding.remedy.as_str() {
        "" => {}
        remedy if remedies.contains(&remedy) && remedy.len() > 40 => text += "\n-> as above",
        remedy => {
            remedies.push(remedy);
            text += &format!("\n-> {remedy}");
        }
    }
    text
}

/// Every finding, in order.
fn examine() -> Vec<Finding> {
    let checks: Vec<Check> = doctor::checks().collect();
    let mut findings = Vec::new();
    while findings.len() < checks.len() {
        let at = findings.len();
        let Ok(mut subject) = Subject::start(at) else {
            // No child to be had: then without its protection.
            findings.push(checks[at].run());
            continue;
        };
        let lost = loop {
            let Some(check) = checks.get(findings.len()) else {
                subject.end();
                return findings;
            };
            match subject.next(check) {
                Ok(finding) => findings.push(finding),
                Err(lost) => break check.lost(&subject.account_for(lost)),
            }
        };
        findings.push(lost);
    }
    findings
}

/// Why there is no finding.
enum Lost {
    /// The child has ended.
    Ended,
    /// It does not go on.
    Hangs,
}

/// A child that makes one check after the other.
struct Subject {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subject {
    /// Begins with the check of this index.
    fn start(from: usize) -> io::Result<Subject> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["doctor-subject", "--from", &from.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        let (sender, lines) = mpsc::channel();
        // It ends with the child's output.
        let reader = std::thread::Builder::new().name("omniring-doctor".to_owned());
        let started = reader.spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = started {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Subject { child, lines })
    }

    /// What it found about the check that is its next.
    fn next(&mut self, check: &Check) -> Result<Finding, Lost> {
        let line = self.lines.recv_timeout(TIME_MAX).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => Lost::Hangs,
            mpsc::RecvTimeoutError::Disconnected => Lost::Ended,
        })?;
        let told = serde_json::from_str(&line).ok().and_then(|told: Told| told.finding(check));
        told.ok_or(Lost::Hangs)
    }

    /// It has told everything.
    fn end(mut self) {
        // Not waited for: a check that never ended may hold it.
        let _ = self.child.kill();
    }

    /// How it was lost.
    fn account_for(mut self, lost: Lost) -> String {
        match lost {
            Lost::Ended => self.child.wait().map_or_else(|error| error.to_string(), died),
            Lost::Hangs => {
                self.end();
                "the check did not end".to_owned()
            }
        }
    }
}

fn died(status: ExitStatus) -> String {
    /// What a seccomp filter kills with.
    const SIGSYS: i32 = 31;
    match status.signal() {
        Some(SIGSYS) => "the process that tried it was killed (SIGSYS), by a seccomp filter".into(),
        Some(signal) => format!("the process that tried it was killed by signal {signal}"),
        None => format!("the process that tried it ended early ({status})"),
    }
}

/// A finding, on its way from the child.
#[derive(Serialize, Deserialize)]
struct Told {
    name: String,
    status: String,
    value: Option<String>,
    reason: String,
    remedy: String,
}

impl Told {
    fn of(finding: Finding) -> Told {
        Told {
            name: finding.name.to_owned(),
            status: finding.status.name().to_owned(),
            value: finding.value,
            reason: finding.reason,
            remedy: finding.remedy,
        }
    }

    fn finding(self, check: &Check) -> Option<Finding> {
        let status = Status::ALL.into_iter().find(|status| status.name() == self.status)?;
        let mut finding = check.lost("");
        if self.name != finding.name {
            return None;
        }
        finding.status = status;
        finding.value = self.value;
        finding.reason = self.reason;
        finding.remedy = self.remedy;
        Some(finding)
    }
}

/// The process that makes the checks.
#[derive(Args)]
pub struct DoctorSubject {
    #[arg(long)]
    from: usize,
}

impl DoctorSubject {
    /// Makes them, until nobody reads what it finds.
    pub fn run(self) -> ExitCode {
        for check in doctor::checks().skip(self.from) {
            let line = serde_json::to_string(&Told::of(check.run())).expect("strings only");
            if writeln!(io::stdout().lock(), "{line}").is_err() {
                break;
            }
        }
        // A check that did not end left a thread behind.
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let mut findings: Vec<Finding> = doctor::checks().map(|one| one.lost("lost")).collect();
        findings[0].reason = "a long reason ".repeat(20);
        findings[0].remedy = "docker run --security-opt seccomp=unconfined ".repeat(5);
        findings
    }

    #[test]
    fn the_table_fits_and_has_every_finding() {
        let findings = findings();
        let text = table(&findings);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
        for finding in &findings {
            let start = format!("  {} ", finding.name);
            assert!(text.lines().any(|line| line.starts_with(&start)), "{start}: {text}");
        }
    }

    #[test]
    fn a_finding_comes_back_from_the_child_as_it_was() {
        for (check, finding) in doctor::checks().zip(findings()) {
            let line = serde_json::to_string(&Told::of(finding.clone())).unwrap();
            let told: Told = serde_json::from_str(&line).unwrap();
            assert_eq!(told.finding(&check), Some(finding));
        }
    }
}
