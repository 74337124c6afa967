//! redis-cli: as one types, in a script, in its modes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::kv_support::Server;

fn command(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port.to_string()]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it prints.
fn run(server: &Server, words: &[&str]) -> String {
    finish(command(server, words).spawn().expect("redis-cli runs"), words)
}

/// What it prints, being given this to read.
fn run_with(server: &Server, words: &[&str], input: &[u8]) -> String {
    let mut child = command(server, words).stdin(Stdio::piped()).spawn().expect("redis-cli runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    std::thread::scope(|scope| {
        // Whoever writes everything before he reads may wait forever.
        scope.spawn(move || stdin.write_all(input).expect("it is read"));
        finish(child, words)
    })
}

fn finish(child: Child, words: &[&str]) -> String {
    let output = child.wait_with_output().expect("redis-cli ends");
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "{words:?}: {err}");
    String::from_utf8(out).expect("what it says is text")
}

#[test]
fn redis_cli_runs_as_one_types_and_in_scripts() {
    if !crate::has("redis-cli", "redis-tools") {
        return;
    }
    crate::on_servers(|server| {
        let run = |words: &[&str]| run(server, words);
        assert_eq!(run(&["ping"]), "PONG\n");
        assert_eq!(run(&["--no-raw", "zadd", "z", "1.5", "a", "2", "b"]), "(integer) 2\n");
        assert_eq!(
            run(&["--csv", "zrange", "z", "0", "-1", "withscores"]),
            "\"a\",\"1.5\",\"b\",\"2\"\n"
        );
        assert_eq!(run(&["-n", "3", "set", "k", "in another database"]), "OK\n");
        assert_eq!(run(&["get", "k"]), "\n");
        // RESP3 has maps, doubles and truths.
        assert_eq!(run(&["-3", "--no-raw", "zscore", "z", "a"]), "(double) 1.5\n");
        run(&["hset", "h", "f", "v"]);
        assert_eq!(run(&["-3", "--no-raw", "hgetall", "h"]), "1# \"f\" => \"v\"\n");
        assert_eq!(run(&["-3", "--json", "hgetall", "h"]), "{\"f\":\"v\"}\n");

        let script = b"multi\nincr n\nincrby n 41\nlpush n x\nexec\nget n\nwatch n\nset n 7\nmulti\nget n\nexec\n";
        let said = run_with(server, &[], script);
        let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
        let expected =
            format!("OK\nQUEUED\nQUEUED\nQUEUED\n1\n42\n{wrong}\n\n42\nOK\nOK\nOK\nQUEUED\n\n");
        assert_eq!(said, expected);
        let value = vec![b'v'; 1 << 20];
        assert_eq!(run_with(server, &["-x", "set", "long"], &value), "OK\n");
        assert_eq!(run(&["get", "long"]).len(), value.len() + 1);
    });
}

#[test]
fn the_modes_of_redis_cli_run() {
    if !crate::has("redis-cli", "redis-tools") {
        return;
    }
    crate::on_servers(|server| {
        // Requests by the thousand, as they go over the wire.
        let mut requests = Vec::new();
        for n in 0..5000 {
            crate::kv_support::encode(&mut requests, &["SET", &format!("key:{n}"), "value"]);
        }
        let said = run_with(server, &["--pipe"], &requests);
        assert!(said.ends_with("errors: 0, replies: 5000\n"), "{said}");
        let mut keys: Vec<String> =
            run(server, &["--scan", "--pattern", "key:4*"]).lines().map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 1111);
        run(server, &["rpush", "list", "a", "b", "c"]);
        let said = run(server, &["--bigkeys"]);
        assert!(said.contains("Sampled 5001 keys in the keyspace!"), "{said}");
        assert!(said.contains("Biggest   list found '\"list\"' has 3 items"), "{said}");
        let said = run(server, &["--memkeys"]);
        assert!(said.contains("Sampled 5001 keys in the keyspace!"), "{said}");
        let said = run(server, &["-r", "3", "incr", "n"]);
        assert_eq!(said, "1\n2\n3\n");
    });
}

#[test]
fn redis_cli_hears_what_is_published_and_waits_for_elements() {
    if !crate::has("redis-cli", "redis-tools") {
        return;
    }
    crate::on_servers(|server| {
        let mut waiting =
            command(server, &["blpop", "jobs", "30"]).spawn().expect("redis-cli runs");
        let mut listening =
            command(server, &["psubscribe", "news.*"]).spawn().expect("redis-cli runs");
        let mut lines = BufReader::new(listening.stdout.take().expect("it is piped")).lines();
        let mut next = || lines.next().expect("it goes on").expect("it is text");
        assert_eq!([next(), next(), next()], ["psubscribe", "news.*", "1"]);
        assert_eq!(run(server, &["publish", "news.local", "a fair"]), "1\n");
        assert_eq!(
            [next(), next(), next(), next()],
            ["pmessage", "news.*", "news.local", "a fair"]
        );
        listening.kill().expect("it runs");
        listening.wait().expect("it ends");

        // Whether he waits already makes no difference to him.
        run(server, &["rpush", "jobs", "sweep"]);
        let mut said = String::new();
        let mut out = waiting.stdout.take().expect("it is piped");
        std::io::Read::read_to_string(&mut out, &mut said).expect("it is text");
        assert!(waiting.wait().expect("it ends").success());
        assert_eq!(said, "jobs\nsweep\n");
    });
}
