//! Metrics for Prometheus: `GET /metrics`, answered over HTTP/1 on a port of its own, in its text format 0.0.4.
//!
//! Nothing else of HTTP is here: a request has no body, and its connection is closed after the answer. Requests are
//! bounded in bytes, in time, and in how many are answered at the same time.

use std::fmt::{Display, Write};
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniring::net::{TcpListener, TcpStream};

use super::Core;
use crate::clock;
use crate::command::memory;
use crate::store::{self, DBS};

/// Bytes of a request, at most.
const REQUEST_MAX: usize = 8 * 1024;

/// How long a request and its answer may take together.
const TIME: Duration = Duration::from_secs(5);

/// Requests at the same time, at most: what comes beside them is closed.
const AT_ONCE: usize = 8;

/// Answers requests for as long as the core runs.
pub async fn serve(core: Rc<Core>, listener: TcpListener) {
    let running = Rc::new(());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            omniring::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if Rc::strong_count(&running) > AT_ONCE {
            continue;
        }
        let (core, slot) = (core.clone(), running.clone());
        drop(omniring::spawn(async move {
            // A client that is too slow, or has gone, gets no answer.
            let _ = omniring::time::timeout(TIME, answer(&core, &stream)).await;
            drop(slot);
        }));
    }
}

async fn answer(core: &Rc<Core>, stream: &TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let bytes = stream.recv().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        request.extend_from_slice(&bytes);
        if request.len() > REQUEST_MAX {
            break;
        }
    }
    let refused = |status: &str, more: &str, text: &str| head(status, "text/plain", more, text);
    let response = match look(&request) {
        Ok(()) => {
            let text = text(core).await;
            head("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", &text)
        }
        Err(Refusal::Malformed) => refused("400 Bad Request", "", "not a request of HTTP/1\n"),
        Err(Refusal::TooLong) => refused("431 Request Header Fields Too Large", "", "too long\n"),
        Err(Refusal::Method) => refused("405 Method Not Allowed", "Allow: GET\r\n", "only GET\n"),
        Err(Refusal::Path) => refused("404 Not Found", "", "only /metrics\n"),
    };
    stream.send_all(response.into_bytes()).await.0?;
    stream.shutdown(std::net::Shutdown::Write).await?;
    // What is still unread would turn the end into a reset, which takes the answer with it.
    while !stream.recv().await?.is_empty() {}
    Ok(())
}

fn head(status: &str, kind: &str, more: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{more}Connection: close\r\n\r\n{body}"
    )
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    TooLong,
    Method,
    Path,
}

/// Whether a request is `GET /metrics`.
fn look(request: &[u8]) -> Result<(), Refusal> {
    if request.len() > REQUEST_MAX {
        return Err(Refusal::TooLong);
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, path, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else {
        return Err(Refusal::Malformed);
    };
    if method != b"GET" {
        return Err(Refusal::Method);
    }
    if path != b"/metrics" {
        return Err(Refusal::Path);
    }
    Ok(())
}

/// The text being made.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a metric.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let written =
            write!(self.0, "# HELP omniring_kv_{name} {help}\n# TYPE omniring_kv_{name} {kind}\n");
        written.expect("a string takes what is written");
    }

    /// A sample of it, with labels as they are written.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let written = writeln!(self.0, "omniring_kv_{name}{labels} {value}");
        written.expect("a string takes what is written");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, "counter", help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "gauge", help);
        self.sample(name, "", value);
    }
}

/// All metrics, as they are now. The shards are borrowed for a moment.
async fn text(core: &Rc<Core>) -> String {
    let server = &core.server;
    let all: Vec<usize> = (0..server.shard_count()).collect();
    let mut keys = store::Stats::default();
    let mut dbs = [(0_usize, 0_usize); DBS];
    let mut held = core.hold(&all).await;
    for shard in held.keys.shards() {
        keys.hits += shard.stats.hits;
        keys.misses += shard.stats.misses;
        keys.expired += shard.stats.expired;
        keys.evicted += shard.stats.evicted;
        for (sum, db) in dbs.iter_mut().zip(&shard.dbs) {
            *sum = (sum.0 + db.len(), sum.1 + db.expiring());
        }
        server.memory.note(shard);
    }
    drop(held);
    let mut text = Text::default();
    let stats = &server.stats;
    text.begin("info", "gauge", "The version.");
    text.sample("info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    text.gauge("cores", "Cores, each with a shard of the keys.", server.shard_count());
    let uptime_ms = clock::now_ms().saturating_sub(server.started_ms);
    text.gauge("uptime_seconds", "Time since the start.", uptime_ms as f64 / 1000.0);

    text.begin("commands_total", "counter", "Commands carried out, by the core of their client.");
    for index in 0..server.shard_count() {
        let labels = format!("{{core=\"{index}\"}}");
        text.sample("commands_total", &labels, stats.core(index).processed.get());
    }
    for (name, help) in [
        ("command_calls_total", "Calls of a command."),
        ("command_seconds_total", "Time that the calls of a command took."),
        ("command_failures_total", "Calls of a command that ended with an error."),
    ] {
        text.begin(name, "counter", help);
        for command in
            crate::command::all().iter().flat_map(|it| std::iter::once(it).chain(&it.subcommands))
        {
            let calls = stats.sum(|core| &core.commands[command.id].calls);
            if calls == 0 {
                continue;
            }
            let labels = format!("{{command=\"{}\"}}", command.full_name);
            match name {
                "command_calls_total" => text.sample(name, &labels, calls),
                "command_seconds_total" => {
                    let micros = stats.sum(|core| &core.commands[command.id].micros);
                    text.sample(name, &labels, micros as f64 / 1e6);
                }
                _ => {
                    text.sample(name, &labels, stats.sum(|core| &core.commands[command.id].failed))
                }
            }
        }
    }
    text.counter("error_replies_total", "Error replies.", stats.sum(|core| &core.errors));

    text.gauge("connections", "Clients that are connected.", server.clients.count());
    text.counter("connections_total", "Connections accepted.", stats.sum(|core| &core.connections));
    text.counter(
        "connections_refused_total",
        "Connections refused.",
        stats.sum(|core| &core.refused),
    );
    let blocked = server.blocked.load(Ordering::Relaxed);
    text.gauge("blocked_clients", "Clients that wait for a key.", blocked);
    text.counter("received_bytes_total", "Bytes received.", stats.sum(|core| &core.input));
    text.counter("sent_bytes_total", "Bytes sent.", stats.sum(|core| &core.output));

    for (name, help) in
        [("keys", "Keys of a database."), ("keys_expiring", "Keys of a database that expire.")]
    {
        text.begin(name, "gauge", help);
        for (db, &(count, expiring)) in dbs.iter().enumerate().filter(|(_, of)| of.0 > 0) {
            let value = if name == "keys" { count } else { expiring };
            text.sample(name, &format!("{{db=\"{db}\"}}"), value);
        }
    }
    text.counter("hits_total", "Reads that found their key.", keys.hits);
    text.counter("misses_total", "Reads that found no key.", keys.misses);
    text.counter("expired_total", "Keys whose time has come.", keys.expired);
    text.counter("evicted_total", "Keys removed for want of memory.", keys.evicted);

    text.gauge("data_bytes", "Memory of keys and values, about.", server.memory.of_shards());
    text.gauge("clients_bytes", "Memory of connections, about.", server.clients.memory());
    text.gauge("resident_bytes", "Memory of the process.", memory::resident());
    text.gauge("maxmemory_bytes", "The setting maxmemory.", core.config().maxmemory);

    let persistence = &server.persistence;
    if let Some(log) = persistence.log() {
        let figures = log.figures();
        text.counter("log_appended_bytes_total", "Bytes of records appended.", figures.appended);
        text.counter("log_appended_lsn", "The last record appended.", figures.last);
        text.counter("log_durable_lsn", "The last record on the disk.", figures.durable);
        text.gauge("log_pending_bytes", "Bytes that are not on the disk yet.", figures.pending);
        text.counter("log_syncs_total", "Times that records became durable.", figures.syncs);
        text.counter("log_failures_total", "Times that the disk failed.", figures.failures);
        let is_failed = u8::from(log.is_failed());
        text.gauge("log_failed", "1 while writes are refused as the disk has failed.", is_failed);
        let (len, base) = log.len();
        text.gauge("log_bytes", "Bytes of snapshot and log together.", len);
        text.gauge("snapshot_bytes", "Bytes of the last snapshot.", base);
    }
    let is_saving = u8::from(persistence.is_saving.load(Ordering::Relaxed));
    text.gauge("snapshot_in_progress", "1 while a snapshot is written.", is_saving);
    let done = persistence.snapshots.load(Ordering::Relaxed);
    text.counter("snapshots_total", "Snapshots and dumps written.", done);
    let failed = persistence.snapshot_failures.load(Ordering::Relaxed);
    text.counter("snapshot_failures_total", "Snapshots and dumps that failed.", failed);
    let saved_s = persistence.saved_s.load(Ordering::Relaxed);
    text.gauge("snapshot_time_seconds", "When the last one was complete, or the start.", saved_s);
    text.0
}

#[cfg(test)]
mod tests {
    use super::{REQUEST_MAX, Refusal, look};

    #[test]
    fn only_the_one_request_is_answered() {
        for (request, answer) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
            ("GET /metrics HTTP/1.0\r\n\r\n", Ok(())),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Err(Refusal::Method)),
            ("GET / HTTP/1.1\r\n\r\n", Err(Refusal::Path)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Err(Refusal::Path)),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Err(Refusal::Malformed)),
            ("GET /metrics HTTP/2.0\r\n\r\n", Err(Refusal::Malformed)),
            ("PING\r\n\r\n", Err(Refusal::Malformed)),
        ] {
            assert_eq!(look(request.as_bytes()), answer, "{request:?}");
        }
        assert_eq!(look(&[b'x'; REQUEST_MAX + 1]), Err(Refusal::TooLong));
    }
}
