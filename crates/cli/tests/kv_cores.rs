//! `omniring kv` with two cores: what a client may rely on where keys, and those who wait for them, are on both.

mod kv_support;

use kv_support::{Answer, Client, Server, encode};
use std::io::Write;
use tempfile::TempDir;

/// A server whose keys are on two cores.
fn start(dir: &TempDir) -> Server {
    Server::start(dir.path(), &["--cores", "2", "--appendfsync", "no"])
}

/// Sends a request whose answer comes later.
fn send(client: &mut Client, words: &[&str]) {
    let mut request = Vec::new();
    encode(&mut request, words);
    client.stream.write_all(&request).expect("it is sent");
}

/// Waits until that many clients wait for a key.
fn until_blocked(client: &mut Client, count: usize) {
    let line = format!("blocked_clients:{count}\r\n");
    loop {
        let Ok(Answer::Bulk(info)) = client.call(&["INFO", "clients"]) else {
            panic!("INFO is answered");
        };
        if String::from_utf8_lossy(&info).contains(&line) {
            return;
        }
    }
}

fn bulk(text: &str) -> Answer {
    Answer::Bulk(text.as_bytes().to_vec())
}

#[test]
fn who_waits_is_served_before_the_reply_of_the_command_that_was_waited_for() {
    let dir = TempDir::new().expect("a directory");
    let server = start(&dir);
    let mut client = server.connect();
    // Where the keys lie is decided by chance: of so many, some waits are over both cores.
    for round in 0..24 {
        let [a, b, c] = ["a", "b", "c"].map(|name| format!("{name}{round}"));
        let (mut first, mut second) = (server.connect(), server.connect());
        send(&mut first, &["BLMOVE", &a, &b, "RIGHT", "LEFT", "0"]);
        send(&mut second, &["BLMOVE", &b, &c, "LEFT", "RIGHT", "0"]);
        until_blocked(&mut client, 2);
        // In a transaction also. What follows in the same bytes is carried out as soon as it may.
        let push: &[&[&str]] = match round % 2 {
            0 => &[&["RPUSH", &a, "x"]],
            _ => &[&["MULTI"], &["RPUSH", &a, "x"], &["EXEC"]],
        };
        let looks = [&c, &a, &b].map(|key| ["LRANGE", key, "0", "-1"]);
        let mut requests = Vec::new();
        push.iter().for_each(|words| encode(&mut requests, words));
        looks.iter().for_each(|words| encode(&mut requests, words));
        client.stream.write_all(&requests).expect("it is sent");
        push.iter().for_each(|_| drop(client.answer().expect("it is answered")));
        let left = looks.map(|_| client.answer().expect("it is answered"));
        let none = Answer::Array(Vec::new());
        assert_eq!(left, [Answer::Array(vec![bulk("x")]), none.clone(), none], "round {round}");
        for client in [&mut first, &mut second] {
            assert_eq!(client.answer().expect("it is answered"), bulk("x"));
        }
    }
}
