//! Values and files that go to Redis and come from it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::source::Source;
use super::*;
use crate::config::Config;
use crate::log::IntoKeys;
use crate::server::Server;
use crate::server::local::Local;
use crate::store::{DBS, Keys, Limits, Shard, ValueRef};

/// All keys, in order, with all that is told of them.
fn show(keys: &mut Keys) -> Vec<String> {
    let mut all = Vec::new();
    for db in 0..DBS {
        for shard in keys.shards() {
            shard.dbs[db].scan(0, usize::MAX, |table, slot| {
                let key = table.key(slot).escape_ascii().to_string();
                let value = show_value(table.value(slot));
                all.push(format!("{db} {key} {:?} {value}", table.expires_ms(slot)));
            });
        }
    }
    all.sort();
    all
}

fn show_value(value: ValueRef<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match value {
        ValueRef::Str(string) => format!("string {}", string.with(text)),
        ValueRef::List(list) => {
            format!("list {:?}", list.iter_from(0).map(text).collect::<Vec<_>>())
        }
        ValueRef::Set(set) => {
            let mut members: Vec<_> = set.iter().map(|member| text(&member)).collect();
            members.sort();
            format!("set {members:?}")
        }
        ValueRef::Hash(hash) => {
            let mut fields: Vec<_> = hash.iter().map(|(f, v)| (text(f), text(v))).collect();
            fields.sort();
            format!("hash {fields:?}")
        }
        ValueRef::Zset(zset) => {
            let members = zset.iter_from(0).map(|(member, score)| (text(member), score));
            format!("zset {:?}", members.collect::<Vec<_>>())
        }
    }
}

/// Commands that make values of all types and encodings that Redis 7 writes.
fn commands() -> Vec<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut add = |words: Vec<Vec<u8>>| all.push(words);
    let words = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    for text in [
        "SET int8 -7",
        "SET int16 -300",
        "SET int32 70000",
        "SET int64 123456789012",
        "SET text hello",
        "SET min -9223372036854775808",
        "SET expires x PXAT 4102444800123",
        "RPUSH list 1 -1 127 128 -4096 4095 4096 32767 -32768 8388607 -8388608 2147483647 9223372036854775807 text",
        "SADD ints 1 2 3 -5 300",
        "SADD ints32 1 70000 -70000",
        "SADD ints64 1 9007199254740993",
        "SADD members a b 3",
        "HSET hash f v g 12 h -1.5",
        "ZADD zset 1 a 2.5 b -inf c +inf d 0.1 e 1e300 f",
        "SELECT 5",
        "SET five 5",
        "SELECT 0",
    ] {
        add(words(text));
    }
    add(vec![b"SET".to_vec(), b"binary\0\xff".to_vec(), (0..=255).collect()]);
    add(vec![b"SET".to_vec(), b"compressed".to_vec(), b"abcabcabd".repeat(900)]);
    add(vec![
        b"SET".to_vec(),
        b"long".to_vec(),
        (0..70_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect(),
    ]);
    for n in 0..700u32 {
        let number = n.to_string().into_bytes();
        let long = [&number[..], &[b'x'; 90]].concat();
        for (command, key) in [("RPUSH", "long list"), ("SADD", "long set"), ("SADD", "many ints")]
        {
            let element = if key == "many ints" { &number } else { &long };
            add(vec![command.into(), key.into(), element.clone()]);
        }
        add(vec![b"HSET".to_vec(), b"long hash".to_vec(), number.clone(), long.clone()]);
        add(vec![b"ZADD".to_vec(), b"long zset".to_vec(), number, long]);
    }
    // An element that a list has in a part of its own.
    add(vec![b"RPUSH".to_vec(), b"plain".to_vec(), vec![b'p'; 20_000], b"q".to_vec()]);
    all
}

fn filled() -> Local {
    let mut local = Local::default();
    for words in commands() {
        if words[0] == b"SELECT" {
            local.client.db = String::from_utf8_lossy(&words[1]).parse().expect("a number");
            continue;
        }
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let reply = local.words(&words);
        assert!(!reply.starts_with("(error)"), "{reply}");
    }
    local
}

fn empty() -> (Keys, Server) {
    let mut keys = Keys::new(2);
    (0..2).for_each(|index| keys.put(Box::new(Shard::new(index))));
    (keys, Server::new(Config::default(), None, 2))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    omniring::Runtime::new().expect("an engine runs").block_on(future)
}

#[test]
fn a_value_that_was_dumped_is_restored() {
    let mut local = filled();
    let limits = Limits::default();
    let mut seen = 0;
    let shard = local.keys.shard(0);
    shard.dbs[0].scan(0, usize::MAX, |table, slot| {
        let payload = dump(table.value(slot));
        let value = restore(&payload, &limits).expect("it is sealed").expect("it is a value");
        assert_eq!(show_value(value.as_ref()), show_value(table.value(slot)));
        seen += 1;
        let mut flipped = payload.clone();
        flipped[payload.len() / 2] ^= 1;
        assert!(restore(&flipped, &limits).is_none(), "the checksum is looked at");
    });
    assert!(seen > 15);
}

/// A ziplist of these elements, already encoded.
fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        body.push(0);
        body.extend_from_slice(element);
    }
    let mut bytes = (body.len() as u32 + 11).to_le_bytes().to_vec();
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&(elements.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.push(255);
    bytes
}

fn sealed(kind: u8, strings: &[&[u8]], count: bool) -> Vec<u8> {
    let mut bytes = vec![kind];
    if count {
        value::write_len(&mut bytes, strings.len() as u64);
    }
    strings.iter().for_each(|string| value::write_string(&mut bytes, string));
    bytes.extend_from_slice(&7u16.to_le_bytes());
    let crc = value::CRC64.checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn encodings_of_older_versions_are_read() {
    let long = [&[0x80, 0, 0, 0, 70][..], &[b'y'; 70]].concat();
    let elements: [&[u8]; 9] = [
        b"\x03abc",
        b"\x40\x02de",
        &long,
        b"\xc0\xfe\xff",
        b"\xd0\x00\x00\x01\x00",
        b"\xe0\x00\x00\x00\x00\x01\x00\x00\x00",
        b"\xf0\x00\x00\x80",
        b"\xfe\x80",
        b"\xf4",
    ];
    let list = ziplist(&elements);
    let shown = format!(
        r#"list ["abc", "de", "{}", "-2", "65536", "4294967296", "-8388608", "-128", "3"]"#,
        "y".repeat(70)
    );
    let limits = Limits::default();
    let read = |payload: &[u8]| match restore(payload, &limits) {
        Some(Ok(value)) => show_value(value.as_ref()),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&sealed(10, &[&list], false)), shown);
    assert_eq!(read(&sealed(14, &[&list], true)), shown);
    let pairs = ziplist(&[b"\x01a", b"\xf3", b"\x01b", b"\x032.5"]);
    assert_eq!(read(&sealed(13, &[&pairs], false)), r#"hash [("a", "2"), ("b", "2.5")]"#);
    assert_eq!(read(&sealed(12, &[&pairs], false)), r#"zset [("a", 2.0), ("b", 2.5)]"#);
    let mut old = vec![3, 2, 1, b'a', 3, b'1', b'.', b'5', 1, b'b', 255, 9, 0];
    let crc = value::CRC64.checksum(&old);
    old.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(read(&old), r#"zset [("b", -inf), ("a", 1.5)]"#);
    for (kind, name) in
        [(6, "modules"), (7, "modules"), (9, "zipmaps"), (15, "streams"), (19, "streams")]
    {
        match restore(&sealed(kind, &[b"x"], false), &limits) {
            Some(Err(Wrong::Unsupported(what))) => assert!(what.contains(name)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_bytes_are_a_value_or_an_error() {
    let mut local = filled();
    let limits = Limits::default();
    let mut samples = vec![ziplist(&[b"\x03abc", b"\xfe\x80"])];
    local.keys.shard(0).dbs[0].scan(0, usize::MAX, |table, slot| {
        let mut bytes = Vec::new();
        value::write(&mut bytes, table.value(slot));
        bytes.truncate(600);
        samples.push(bytes);
    });
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..40_000 {
        let mut bytes = samples[round % samples.len()].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = if random.bool() { random.u8(..) } else { bytes[at] ^ 1 << random.u8(..8) };
        }
        let kind = random.u8(..22);
        let _ = value::read(kind, &mut Source::new(&bytes), &limits);
        let _ = packed::ziplist(&bytes, |_| ());
        let _ = packed::listpack(&bytes, |_| ());
        let _ = lzf::decompress(&bytes, random.u64(..5000));
        // A length that nothing can have asks for no memory.
        let huge = [&[0x81, 0x7f, 255, 255, 255, 255, 255, 255, 255][..], &bytes].concat();
        assert!(value::read(kind, &mut Source::new(&huge), &limits).is_err());
    }
}

/// A Redis of our own, on a port that was free a moment ago.
struct Redis {
    child: Child,
    client: BufReader<TcpStream>,
}

impl Redis {
    #[allow(clippy::zombie_processes)] // It is waited for where it is dropped.
    fn start(dir: &Path, more: &[&str]) -> Option<Redis> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            eprintln!("skipped: there is no redis-server");
            assert!(std::env::var_os("OMNIRING_REQUIRE").is_none(), "there is no redis-server");
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback works");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", dir.to_str().expect("the path is text")])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        for _ in 0..1000 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                let mut redis = Redis { child, client: BufReader::new(stream) };
                while redis.run(&[b"PING"]) != b"+PONG" {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("it runs");
        panic!("redis-server does not listen");
    }

    /// The reply: its line, or the string.
    fn run(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.client.get_mut().write_all(&request).expect("it reads");
        let mut line = Vec::new();
        self.client.read_until(b'\n', &mut line).expect("it answers");
        let line = line.trim_ascii_end().to_vec();
        match line
            .strip_prefix(b"$")
            .and_then(|len| std::str::from_utf8(len).ok()?.parse::<usize>().ok())
        {
            Some(len) => {
                let mut bytes = vec![0; len + 2];
                self.client.read_exact(&mut bytes).expect("it answers");
                bytes.truncate(len);
                bytes
            }
            None => line,
        }
    }

    fn fill(&mut self) {
        for words in commands() {
            let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
            let reply = self.run(&words);
            assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn values_and_files_of_redis_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mut redis) = Redis::start(dir.path(), &["--appendonly", "yes", "--appendfsync", "no"])
    else {
        return;
    };
    redis.fill();
    let expected = show(&mut filled().keys);
    // One value at a time.
    let mut local = Local::default();
    for line in &expected {
        let (db, key) = (line.split(' ').next(), line.split(' ').nth(1));
        if db == Some("0")
            && !line.contains("long ")
            && !line.contains('\\')
            && !line.contains("Some")
        {
            let key = key.expect("a line has a key").as_bytes();
            if key == b"many" {
                continue;
            }
            let payload = redis.run(&[b"DUMP", key]);
            assert_eq!(local.words(&[b"RESTORE", key, b"0", &payload]), "OK", "{line}");
            assert!(show(&mut local.keys).contains(line), "{line}");
            // And back.
            let ours = local.bytes(&[b"DUMP", key]);
            let start = ours.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
            let ours = &ours[start..ours.len() - 2];
            assert_eq!(redis.run(&[b"RESTORE", key, b"0", ours, b"REPLACE"]), b"+OK", "{line}");
        }
    }
    // Its files: a dump, and a log that begins with a dump.
    assert_eq!(redis.run(&[b"SAVE"]), b"+OK");
    redis.run(&[b"MULTI"]);
    redis.run(&[b"SET", b"later", b"1"]);
    redis.run(&[b"RPUSH", b"list", b"later"]);
    redis.run(&[b"EXEC"]);
    redis.run(&[b"SHUTDOWN", b"NOSAVE"]);
    drop(redis);
    block_on(async {
        let (mut keys, server) = empty();
        let path = dir.path().join("dump.rdb");
        let (count, notices) =
            import(&path, &mut IntoKeys::new(&mut keys, &server)).await.expect("it is read");
        assert_eq!((count, notices), (expected.len() as u64, vec![]));
        assert_eq!(show(&mut keys), expected);

        let log = find_append_only(dir.path(), "appendonlydir", "appendonly.aof").await;
        let log = log.expect("the manifest is read").expect("there is one");
        let (mut keys, server) = empty();
        let mut target = IntoKeys::new(&mut keys, &server);
        let (_, commands, notices) =
            import_append_only(&log, &mut target).await.expect("it is read");
        drop(target);
        assert!(commands > 3000 && notices.is_empty(), "{commands} {notices:?}");
        let now = show(&mut keys);
        assert!(now.contains(&"0 later None string 1".to_owned()));
        assert_eq!(now.len(), expected.len() + 1);

        // A log that was cut within its last transaction.
        let last = log.files.last().expect("there are files");
        let bytes = std::fs::read(last).expect("it is there");
        let cut = bytes.len() - 30;
        std::fs::write(last, &bytes[..cut]).expect("it is written");
        let (mut keys, server) = empty();
        let mut target = IntoKeys::new(&mut keys, &server);
        let (.., notices) = import_append_only(&log, &mut target).await.expect("it is read");
        drop(target);
        assert!(notices.len() == 1 && notices[0].contains("transaction"), "{notices:?}");
        assert_eq!(show(&mut keys), expected);
    });
}

#[test]
fn redis_loads_a_dump_of_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("dump.rdb");
    let mut local = filled();
    let expected = show(&mut local.keys);
    let count = block_on(export(&mut local.keys, &path)).expect("it is written");
    assert_eq!(count, expected.len() as u64);
    // It is read here too.
    let (mut keys, server) = empty();
    block_on(async {
        let mut target = IntoKeys::new(&mut keys, &server);
        import(&path, &mut target).await.expect("it is read");
    });
    assert_eq!(show(&mut keys), expected);
    let Some(mut redis) = Redis::start(dir.path(), &[]) else {
        return;
    };
    let check = Command::new("redis-check-rdb").arg(&path).output();
    assert!(check.is_ok_and(|check| check.status.success()), "redis-check-rdb finds it whole");
    assert_eq!(redis.run(&[b"DBSIZE"]), format!(":{}", count - 1).into_bytes());
    assert_eq!(redis.run(&[b"LLEN", b"long list"]), b":700");
    assert_eq!(redis.run(&[b"PEXPIRETIME", b"expires"]), b":4102444800123");
    let ours = redis.run(&[b"DEBUG", b"DIGEST"]);
    redis.run(&[b"FLUSHALL"]);
    redis.fill();
    let theirs = redis.run(&[b"DEBUG", b"DIGEST"]);
    // DEBUG may be off; everything else has been compared.
    assert!(ours == theirs || ours.starts_with(b"-"), "all values are the same");
}

#[test]
fn a_dump_that_is_damaged_anywhere_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("dump.rdb");
    let mut local = Local::default();
    for words in ["SET a 1", "RPUSH l a b", "HSET h f v", "SADD s 1 x", "ZADD z 1 m"] {
        local.run(words);
    }
    block_on(async {
        export(&mut local.keys, &path).await.expect("it is written");
        let bytes = std::fs::read(&path).expect("it is there");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).expect("it is written");
            let (mut keys, server) = empty();
            let mut target = IntoKeys::new(&mut keys, &server);
            assert!(import(&path, &mut target).await.is_err(), "byte {at}");
        }
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).expect("it is written");
            let (mut keys, server) = empty();
            let mut target = IntoKeys::new(&mut keys, &server);
            assert!(import(&path, &mut target).await.is_err(), "cut at {len}");
        }
    });
}
