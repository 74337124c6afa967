//! `omniring kv` with two cores: what a client may rely on where keys, and those who wait for them, are on both.
// A test of a process from outside: its end is waited for in real time.
#![allow(clippy::disallowed_methods)]

mod kv_support;

use kv_support::{Answer, Client, Server, encode};
use std::io::Write;
use std::net::TcpListener;
use tempfile::TempDir;

/// A server whose keys are on two cores.
fn start(dir: &TempDir) -> Server {
    let options = ["--cores", "2", "--appendfsync", "no", "--enable-debug-command", "local"];
    Server::start(dir.path(), &options)
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

#[test]
fn requests_that_come_together_see_each_other_and_are_counted_one_by_one() {
    for cores in ["1", "2"] {
        let dir = TempDir::new().expect("a directory");
        let server = Server::start(dir.path(), &["--cores", cores, "--appendonly", "no"]);
        let mut client = server.connect();
        let mut requests = Vec::new();
        let names: Vec<String> = (0..50).map(|number| format!("name{number}")).collect();
        for name in &names {
            encode(&mut requests, &["SET", name, name]);
            encode(&mut requests, &["GET", name]);
        }
        (0..40).for_each(|_| encode(&mut requests, &["GET", "name7"]));
        encode(&mut requests, &["INFO", "commandstats"]);
        // Where the slow log asks for everything, each call is there.
        encode(&mut requests, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
        names[..20].iter().for_each(|name| encode(&mut requests, &["GET", name]));
        encode(&mut requests, &["SLOWLOG", "GET", "20"]);
        client.stream.write_all(&requests).expect("it is sent");
        let mut answer = || client.answer().expect("it is answered");
        for name in &names {
            assert_eq!([answer(), answer()], [Answer::Status("OK".into()), bulk(name)]);
        }
        (0..40).for_each(|_| assert_eq!(answer(), bulk("name7")));
        let Answer::Bulk(info) = answer() else { panic!("INFO is answered") };
        let info = String::from_utf8(info).expect("a text");
        for line in ["cmdstat_get:calls=90,", "cmdstat_set:calls=50,"] {
            assert!(info.contains(line), "{line} with {cores} cores: {info}");
        }
        (0..21).for_each(|_| drop(answer()));
        let Answer::Array(slow) = answer() else { panic!("SLOWLOG is answered") };
        let words = slow.iter().map(|entry| match entry {
            Answer::Array(fields) => fields[3].clone(),
            other => panic!("{other:?} is no entry"),
        });
        let expected =
            names[..20].iter().rev().map(|name| Answer::Array(vec![bulk("GET"), bulk(name)]));
        assert!(words.eq(expected), "with {cores} cores: {slow:?}");
    }
}

#[test]
fn who_has_waited_for_longer_comes_first_wherever_the_other_keys_are() {
    let dir = TempDir::new().expect("a directory");
    let server = start(&dir);
    let mut client = server.connect();
    for round in 0..12 {
        let [a, b] = ["a", "b"].map(|name| format!("{name}{round}"));
        let (mut first, mut second) = (server.connect(), server.connect());
        send(&mut first, &["BLMOVE", &a, &b, "RIGHT", "LEFT", "0"]);
        until_blocked(&mut client, 1);
        send(&mut second, &["BLPOP", &a, "0"]);
        until_blocked(&mut client, 2);
        client.call(&["RPUSH", &a, "x"]).expect("it is answered");
        assert_eq!(first.answer().expect("it is answered"), bulk("x"), "round {round}");
        client.call(&["RPUSH", &a, "y"]).expect("it is answered");
        let popped = Answer::Array(vec![bulk(&a), bulk("y")]);
        assert_eq!(second.answer().expect("it is answered"), popped, "round {round}");
    }
}

#[test]
fn where_it_listens_can_be_changed_and_stays_as_it_was_where_that_fails() {
    let dir = TempDir::new().expect("a directory");
    let mut server = start(&dir);
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let taken = (taken.local_addr().expect("it has an address").port().to_string(), taken);
    let mut client = server.connect();
    let mut config =
        |words: &[&str]| client.call(&[&["CONFIG"], words].concat()).expect("it is answered");
    let ok = Answer::Status("OK".to_owned());
    let shown = |name: &str, value: &str| Answer::Array(vec![bulk(name), bulk(value)]);

    let why =
        "possibly related to argument 'port') - Unable to listen on this port. Check server logs.";
    let refused = Answer::Error(format!("ERR CONFIG SET failed ({why}"));
    assert_eq!(config(&["SET", "maxmemory", "9mb", "port", &taken.0]), refused);
    assert_eq!(config(&["GET", "maxmemory"]), shown("maxmemory", "0"));
    assert_eq!(config(&["GET", "port"]), shown("port", &server.port.to_string()));
    server.connect();

    // All addresses of the machine, which stand in the way of the one that was.
    assert_eq!(config(&["SET", "bind", "0.0.0.0"]), ok);
    server.connect();
    // Of the new ones one is not there.
    let refused = config(&["SET", "bind", "127.0.0.1 192.0.2.1"]);
    assert!(matches!(refused, Answer::Error(why) if why.contains("Failed to bind")));
    server.connect();

    let old = server.port;
    drop(taken.1);
    assert_eq!(config(&["SET", "port", &taken.0, "maxmemory", "9mb"]), ok);
    assert_eq!(config(&["GET", "maxmemory"]), shown("maxmemory", "9437184"));
    server.port = taken.0.parse().expect("it is a port");
    // Whichever core accepts it, the connection is served.
    for _ in 0..8 {
        let pong = server.connect().call(&["PING"]).expect("it is answered");
        assert_eq!(pong, Answer::Status("PONG".to_owned()));
    }
    assert!(Client::try_connect(old).is_err(), "the old port is closed");
}

#[test]
fn who_has_read_a_key_hears_of_its_change_whichever_core_has_it() {
    let dir = TempDir::new().expect("a directory");
    let server = start(&dir);
    let invalid = |keys: Answer| Answer::Array(vec![bulk("invalidate"), keys]);
    let one = |key: &str| invalid(Answer::Array(vec![bulk(key)]));
    let ok = || Answer::Status("OK".to_owned());
    let mut writer = server.connect();
    let mut call = |words: &[&str]| writer.call(words).expect("it is answered");
    let mut reader = server.connect();
    reader.call(&["HELLO", "3"]).expect("it is answered");
    assert_eq!(reader.call(&["CLIENT", "TRACKING", "ON"]).expect("it is answered"), ok());
    // Of so many keys, some are on each core.
    for round in 0..16 {
        let key = format!("k{round}");
        assert_eq!(reader.call(&["GET", &key]).expect("it is answered"), Answer::Nil);
        call(&["SET", &key, "1"]);
        assert_eq!(reader.answer().expect("it hears"), one(&key));
        // It has not read it again.
        call(&["SET", &key, "2"]);
        assert_eq!(reader.call(&["GET", &key]).expect("it is answered"), bulk("2"));
        // Of what it changes itself it hears after the reply.
        assert_eq!(reader.call(&["APPEND", &key, "x"]).expect("it is answered"), Answer::Int(2));
        assert_eq!(reader.answer().expect("it hears"), one(&key));
        reader.call(&["EXISTS", &key]).expect("it is answered");
    }
    call(&["FLUSHALL"]);
    assert_eq!(reader.answer().expect("it hears"), invalid(Answer::Nil));
    for what in ["RELOAD", "LOADAOF"] {
        call(&["DEBUG", what]);
        assert_eq!(reader.answer().expect("it hears"), invalid(Answer::Nil), "{what}");
        assert_eq!(reader.call(&["DEBUG", what]).expect("it is answered"), ok());
        assert_eq!(reader.answer().expect("it hears"), invalid(Answer::Nil), "{what}");
    }

    // One message for the keys of a command with a prefix, to another client, which speaks RESP2.
    let mut other = server.connect();
    let Ok(Answer::Int(id)) = other.call(&["CLIENT", "ID"]) else {
        panic!("a client has a number");
    };
    other.call(&["SUBSCRIBE", "__redis__:invalidate"]).expect("it is answered");
    for words in [
        &["CLIENT", "TRACKING", "OFF"][..],
        &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a:", "REDIRECT", &id.to_string()],
    ] {
        assert_eq!(reader.call(words).expect("it is answered"), ok());
    }
    call(&["MSET", "a:1", "x", "b:1", "x", "a:2", "x"]);
    let told = |keys: &[&str]| {
        let keys = keys.iter().map(|key| bulk(key)).collect();
        Answer::Array(vec![bulk("message"), bulk("__redis__:invalidate"), Answer::Array(keys)])
    };
    assert_eq!(other.answer().expect("it hears"), told(&["a:1", "a:2"]));
    // A key whose time has come, at the latest when somebody looks.
    call(&["SET", "a:3", "x", "PX", "1"]);
    assert_eq!(other.answer().expect("it hears"), told(&["a:3"]));
    assert_eq!(other.answer().expect("it hears"), told(&["a:3"]));
    drop(other);
}
