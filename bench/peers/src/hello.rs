//! hello over HTTP: hyper on omniring beside hyper on tokio, with wrk as the load.
//!
//! All servers are up at once on one core and are loaded in turn from the other, a second at a time. CPU
//! per request is what the server's process used in a turn (user and system time, all threads) by the
//! requests that wrk saw answered in it; connections are made anew for each turn.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use crate::process::RunningChild;
use crate::rusage::Usage;
use crate::statistics::{median, paired_ratio};
use crate::{LOAD_CORE, SERVER_CORE};

/// Options of `hello`.
#[derive(Args)]
pub struct HelloOptions {
    /// Times that every server has its turn of a second
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections, each with one request on the way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Engines of omniring, comma separated
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "uring,epoll"
    )]
    engines: Vec<String>,
    /// Where omniring's built examples are. Default: the root's release build.
    #[arg(long, hide_default_value = true)]
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples"))]
    examples: PathBuf,
    /// Examples of an earlier build of omniring, to be measured beside this one's
    #[arg(long, value_name = "DIRECTORY")]
    before: Option<PathBuf>,
}

/// Time for a server to start, and for wrk to end beyond its second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and what was measured of it.
struct Contender {
    name: String,
    server: RunningChild,
    address: SocketAddr,
    cpu_us_per_op: Vec<f64>,
    rates: Vec<f64>,
    switches_per_op: Vec<f64>,
    errors: u64,
}

impl Contender {
    fn start(name: String, mut command: Command) -> Result<Contender> {
        command.args(["--listen", "127.0.0.1:0"]);
        let mut server = RunningChild::start(command, Some(SERVER_CORE))?;
        let line = server.line(PATIENCE).with_context(|| name.clone())?;
        let address = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("{name} printed {line:?} in place of its address"))?;
        Ok(Contender {
            name,
            server,
            address,
            cpu_us_per_op: Vec::new(),
            rates: Vec::new(),
            switches_per_op: Vec::new(),
            errors: 0,
        })
    }

    /// One turn under load.
    fn turn(&mut self, connections: u32) -> Result<()> {
        let before = Usage::of_process(self.server.id())?;
        let seen = wrk(self.address, connections)?;
        let used = Usage::of_process(self.server.id())?.since(before);
        ensure!(seen.requests > 0, "{}: no request was answered", self.name);
        let ops = seen.requests as f64;
        self.cpu_us_per_op.push(used.cpu.as_secs_f64() * 1e6 / ops);
        self.rates.push(seen.rate);
        self.switches_per_op
            .push(used.context_switches as f64 / ops);
        self.errors += seen.errors;
        Ok(())
    }
}

/// What wrk reports.
struct Seen {
    requests: u64,
    rate: f64,
    /// Requests that failed, in whatever way.
    errors: u64,
}

/// Loads a server for a second.
fn wrk(server: SocketAddr, connections: u32) -> Result<Seen> {
    let mut command = Command::new("wrk");
    command.args(["-t", "1", "-d", "1", "-c", &connections.to_string()]);
    command.arg(format!("http://{server}/"));
    let output = RunningChild::start(command, Some(LOAD_CORE))
        .context("the load is wrk")?
        .output(PATIENCE)?;
    parse(&output).with_context(|| format!("wrk printed {output:?}"))
}

fn parse(output: &str) -> Option<Seen> {
    let number = |text: &str| text.trim().trim_end_matches(',').parse::<u64>().ok();
    let requests = output
        .lines()
        .find_map(|line| number(line.split_once(" requests in ")?.0))?;
    let rate = output
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())?;
    // "Socket errors: connect 0, read 0, write 0, timeout 0", and "Non-2xx or 3xx responses: 0",
    // if there are any.
    let of_socket = output
        .lines()
        .filter_map(|line| line.split_once("Socket errors:"))
        .flat_map(|(_, counts)| counts.split_whitespace().filter_map(number));
    let of_status = output
        .lines()
        .filter_map(|line| number(line.split_once("Non-2xx or 3xx responses:")?.1));
    let errors = of_socket.chain(of_status).sum();
    Some(Seen {
        requests,
        rate,
        errors,
    })
}

/// Measures and prints.
pub fn run(options: &HelloOptions) -> Result<()> {
    let mut rival = Command::new(std::env::current_exe()?);
    rival.args(["hello-server"]);
    let mut contenders = vec![Contender::start("tokio".into(), rival)?];
    let builds = [
        (Some(&options.examples), ""),
        (options.before.as_ref(), " before"),
    ];
    for (directory, note) in builds {
        let Some(directory) = directory else { continue };
        for engine in &options.engines {
            let mut command = Command::new(directory.join("hello_http"));
            command.args(["--engine", engine]);
            contenders.push(Contender::start(
                format!("omniring {engine}{note}"),
                command,
            )?);
        }
    }
    for contender in &mut contenders {
        // Not counted.
        wrk(contender.address, options.connections)?;
    }
    for round in 0..options.rounds as usize {
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            contenders[index].turn(options.connections)?;
        }
    }
    print(options, &contenders);
    Ok(())
}

fn print(options: &HelloOptions, contenders: &[Contender]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "subject",
        "CPU us/request",
        "requests/s",
        "switches/request",
        "CPU to tokio",
        "errors",
    ]);
    let middle = |figures: &[f64]| median(figures.iter().copied()).unwrap_or(f64::NAN);
    for contender in contenders {
        let ratio = paired_ratio(&contender.cpu_us_per_op, &contenders[0].cpu_us_per_op);
        table.add_row([
            contender.name.clone(),
            format!("{:.2}", middle(&contender.cpu_us_per_op)),
            format!("{:.0}", middle(&contender.rates)),
            format!("{:.3}", middle(&contender.switches_per_op)),
            ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
            contender.errors.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (connections, rounds) = (options.connections, options.rounds);
    println!(
        "hello over HTTP/1, connections {connections}, medians of {rounds} turns of a second\n\n{table}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let seen = parse(
            "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 2 connections\n  \
             32029 requests in 1.10s, 4.34MB read\n  \
             Socket errors: connect 1, read 2, write 0, timeout 4\n  \
             Non-2xx or 3xx responses: 5\nRequests/sec:  29117.55\nTransfer/sec: 3.94MB\n",
        )
        .expect("it has all figures");
        assert_eq!(
            (seen.requests, seen.rate, seen.errors),
            (32029, 29117.55, 12)
        );
        assert!(parse("unable to connect").is_none());
    }
}
