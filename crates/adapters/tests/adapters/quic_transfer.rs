//! The example `quic_transfer`, with its own client and with a client on tokio that was written after the
//! protocol's description.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use omniring::Runtime;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, rustls};
use sha2::{Digest, Sha256};

use crate::examples::{Program, command};
use crate::site::pattern;

on_two_engines!(
    files_are_sent_and_fetched,
    what_was_cut_off_goes_on,
    a_client_on_tokio_is_served,
    nothing_outside_of_the_directory_is_reached,
    who_the_server_is_not_is_said,
    what_is_wrong_is_named,
    a_server_that_ends_says_goodbye,
);

/// What a run of the client said, and its exit code.
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

fn client(runtime: &Runtime, arguments: &[&str]) -> Said {
    let output = command("quic_transfer", arguments, runtime).output().unwrap();
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// A server of a directory, and its fingerprint.
fn serve(runtime: &Runtime, dir: &Path, more: &[&str]) -> (Program, String) {
    let dir = dir.display().to_string();
    let arguments = [&["serve", &dir], more].concat();
    let mut server = Program::start("quic_transfer", &arguments, runtime);
    let line = server.line();
    let fingerprint = line.strip_prefix("fingerprint ").expect("the second line");
    (server, fingerprint.to_owned())
}

/// The files below a directory, by their paths, without links.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_file() {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        } else if kind.is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        }
    }
    found
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Directories to send from, to serve and to fetch into.
fn directories() -> (tempfile::TempDir, [std::path::PathBuf; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let made = ["from", "served", "into"].map(|name| dir.path().join(name));
    made.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    (dir, made)
}

fn files_are_sent_and_fetched(runtime: &Runtime) {
    let (_dir, [from, served, into]) = directories();
    let set = from.join("set");
    std::fs::create_dir_all(set.join("deep/er")).unwrap();
    std::fs::write(set.join("empty"), "").unwrap();
    std::fs::write(set.join("deep/er/large"), pattern(400_000)).unwrap();
    for at in 0..10 {
        std::fs::write(set.join(format!("deep/small {at}")), pattern(at * 100)).unwrap();
    }
    std::fs::write(from.join("single"), "one").unwrap();
    let (server, fingerprint) = serve(runtime, &served, &[]);
    let (single, set) = (path(&from.join("single")), path(&set));
    let trusting = ["--fingerprint", &fingerprint];
    let send = [&["send", &server.at, &set, &single], &trusting[..]].concat();
    let said = client(runtime, &send);
    assert_eq!((said.err.as_str(), said.code), ("", Some(0)));
    assert_eq!(said.out, "sent 13 files: 404503 bytes, 0 were there already\n");
    assert!(files(&served) == files(&from));
    // What is there already is not sent again, and what has changed is.
    std::fs::write(from.join("single"), "two").unwrap();
    let said = client(runtime, &send);
    assert_eq!(said.out, "sent 13 files: 3 bytes, 404500 were there already\n");
    assert!(files(&served) == files(&from));
    let into_text = path(&into);
    let get = ["get", &server.at, ".", "--into", &into_text, "--parallel", "1"];
    let said = client(runtime, &[&get, &trusting[..]].concat());
    assert_eq!(said.out, "got 13 files: 404503 bytes, 0 were there already\n", "{}", said.err);
    assert!(files(&into) == files(&from));
}

fn what_was_cut_off_goes_on(runtime: &Runtime) {
    let (_dir, [from, served, into]) = directories();
    std::fs::write(from.join("large"), pattern(60_000)).unwrap();
    let (server, fingerprint) = serve(runtime, &served, &[]);
    let (large, into_text) = (path(&from.join("large")), path(&into));
    let send = ["send", &server.at, &large, "--fingerprint", &fingerprint];
    let get = ["get", &server.at, "large", "--into", &into_text, "--fingerprint", &fingerprint];
    for (begun, arguments) in [(&served, &send[..]), (&into, &get[..])] {
        for (part, expected) in [
            (pattern(20_000), "40000 bytes, 20000 were there already"),
            // Another file's, and longer than this one.
            (vec![7; 20_000], "60000 bytes, 0 were there already"),
            (pattern(60_001), "60000 bytes, 0 were there already"),
        ] {
            let _ = std::fs::remove_file(begun.join("large"));
            std::fs::write(begun.join(".large.part"), part).unwrap();
            let said = client(runtime, arguments);
            assert!(said.out.contains(expected), "{expected}: {}{}", said.out, said.err);
            assert!(files(begun) == files(&from), "{expected}");
        }
        // An older one that this one begins with.
        std::fs::write(begun.join("large"), pattern(40_000)).unwrap();
        let said = client(runtime, arguments);
        assert!(said.out.contains("20000 bytes, 40000 were"), "{}{}", said.out, said.err);
        assert!(files(begun) == files(&from));
    }
}

/// A certificate for localhost and its key in a directory, and a foreign client that trusts it.
fn identity(dir: &Path) -> (String, String, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"omniring-transfer/1".into()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    (path(&cert), path(&key), config)
}

/// Runs a foreign client to its end, on tokio.
fn on_tokio(addr: &str, config: ClientConfig, talk: impl AsyncFnOnce(Connection)) {
    let addr = addr.parse().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talking = async {
        let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = client.connect_with(config, addr, "localhost").unwrap().await.unwrap();
        talk(connection.clone()).await;
        connection.close(0u32.into(), b"done");
        client.wait_idle().await;
    };
    tokio.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), talking).await.expect("it does not hang");
    });
}

async fn request(connection: &Connection, kind: u8, path: &str) -> (SendStream, RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    let len = u16::try_from(path.len()).unwrap().to_be_bytes();
    send.write_all(&[&[kind], &len[..], path.as_bytes()].concat()).await.unwrap();
    (send, recv)
}

async fn take<const LEN: usize>(recv: &mut RecvStream) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    recv.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// The text of an answer that is a no.
async fn refusal(recv: &mut RecvStream) -> String {
    assert_eq!(take(recv).await, [1]);
    let len = u16::from_be_bytes(take(recv).await);
    String::from_utf8(recv.read_to_end(len.into()).await.unwrap()).unwrap()
}

fn sum(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// An offer, or the head of a body, and what follows.
fn numbers(numbers: &[u64], rest: &[&[u8]]) -> Vec<u8> {
    let mut all: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    rest.iter().for_each(|bytes| all.extend_from_slice(bytes));
    all
}

fn a_client_on_tokio_is_served(runtime: &Runtime) {
    let (dir, [_, served, _]) = directories();
    let (cert, key, config) = identity(dir.path());
    let (server, _) = serve(runtime, &served, &["--cert", &cert, "--key", &key]);
    std::fs::write(served.join(".new.part"), pattern(1000)).unwrap();
    std::fs::write(served.join("there"), pattern(70_000)).unwrap();
    on_tokio(&server.at, config, async |connection| {
        // Put, from where it was cut off.
        let all = pattern(200_000);
        let (mut send, mut recv) = request(&connection, b'P', "new").await;
        assert_eq!(take(&mut recv).await, [0]);
        assert_eq!(u64::from_be_bytes(take(&mut recv).await), 1000);
        assert_eq!(take(&mut recv).await, sum(&all[..1000]));
        let body = numbers(&[200_000, 1000], &[&all[1000..], &sum(&all)]);
        send.write_all(&body).await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(10).await.unwrap(), [0]);
        assert!(std::fs::read(served.join("new")).unwrap() == all);
        // Get it, all and the rest of it.
        for have in [0, 500] {
            let (mut send, mut recv) = request(&connection, b'G', "new").await;
            send.write_all(&numbers(&[have], &[&sum(&all[..have as usize])])).await.unwrap();
            let got = recv.read_to_end(1 << 20).await.unwrap();
            let whole = numbers(&[200_000, have], &[&all[have as usize..], &sum(&all)]);
            assert!(got[1..] == whole && got[0] == 0);
        }
        let (_send, mut recv) = request(&connection, b'L', "").await;
        let mut list = vec![0];
        list.extend(2u32.to_be_bytes());
        for (name, len) in [("new", 200_000u64), ("there", 70_000)] {
            list.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            list.extend(name.as_bytes());
            list.extend(len.to_be_bytes());
        }
        assert_eq!(recv.read_to_end(1000).await.unwrap(), list);
        // A checksum that is wrong: the old file stays, and nothing is left of the new one.
        let (mut send, mut recv) = request(&connection, b'P', "there").await;
        let _: [u8; 41] = take(&mut recv).await;
        let body = numbers(&[3, 0], &[b"abc", &sum(b"abd")]);
        send.write_all(&body).await.unwrap();
        let why = refusal(&mut recv).await;
        assert!(why.contains("SHA-256") && why.contains("ba7816bf"), "{why}");
        assert_eq!(files(&served).len(), 2);
        assert!(std::fs::read(served.join("there")).unwrap() == pattern(70_000));
        // A body that begins where nothing was offered.
        let (mut send, mut recv) = request(&connection, b'P', "other").await;
        let _: [u8; 41] = take(&mut recv).await;
        send.write_all(&numbers(&[10, 5], &[b"abcde"])).await.unwrap();
        assert!(refusal(&mut recv).await.contains("bytes from 5 on, of 10, after 0"));
        // One that ends early stays as a part, from which a second one goes on that waited meanwhile.
        let (mut send, mut recv) = request(&connection, b'P', "half").await;
        let _: [u8; 41] = take(&mut recv).await;
        let (_send, mut second) = request(&connection, b'P', "half").await;
        send.write_all(&numbers(&[200_000, 0], &[&all[..150_000]])).await.unwrap();
        send.finish().unwrap();
        assert!(refusal(&mut recv).await.contains("less than it has to"));
        assert!(files(&served).contains_key(".half.part"));
        assert_eq!(take(&mut second).await, [0]);
        let offered = u64::from_be_bytes(take(&mut second).await);
        assert!((1..=150_000).contains(&offered), "{offered}");
        assert_eq!(take(&mut second).await, sum(&all[..offered as usize]));
        let (_send, mut recv) = request(&connection, b'?', "x").await;
        assert!(refusal(&mut recv).await.contains("63"));
    });
}

fn nothing_outside_of_the_directory_is_reached(runtime: &Runtime) {
    let (dir, [from, served, _]) = directories();
    let (cert, key, config) = identity(dir.path());
    std::fs::write(from.join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../from", served.join("out")).unwrap();
    std::os::unix::fs::symlink("../from/secret", served.join("link")).unwrap();
    std::fs::write(served.join("plain"), "plain").unwrap();
    let before = files(dir.path());
    let more = ["--cert", &cert, "--key", &key];
    for read_only in [false, true] {
        let more = if read_only { [&more[..], &["--read-only"]].concat() } else { more.to_vec() };
        let (server, _) = serve(runtime, &served, &more);
        on_tokio(&server.at, config.clone(), async |connection| {
            for path in ["", "/etc/passwd", "../from/secret", "a/../../x", "out/secret", "a\0b"] {
                for kind in [b'P', b'G'] {
                    let (mut send, mut recv) = request(&connection, kind, path).await;
                    send.write_all(&numbers(&[0], &[&sum(b"")])).await.unwrap();
                    let why = refusal(&mut recv).await;
                    assert!(!why.is_empty(), "{path}");
                }
            }
            let (mut send, mut recv) = request(&connection, b'G', "link").await;
            send.write_all(&numbers(&[0], &[&sum(b"")])).await.unwrap();
            assert!(refusal(&mut recv).await.contains("leads out"));
            let (_send, mut recv) = request(&connection, b'P', "out/new/er").await;
            let why = refusal(&mut recv).await;
            assert!(why.contains(if read_only { "only gives" } else { "leads out" }), "{why}");
        });
    }
    assert!(files(dir.path()) == before);
}

fn who_the_server_is_not_is_said(runtime: &Runtime) {
    let (dir, [from, served, _]) = directories();
    let (cert, key, _) = identity(dir.path());
    let (mut server, fingerprint) = serve(runtime, &served, &["--cert", &cert, "--key", &key]);
    std::fs::write(from.join("file"), "file").unwrap();
    let file = path(&from.join("file"));
    let port = server.at.rsplit_once(':').unwrap().1.to_owned();
    let localhost = format!("localhost:{port}");
    let send =
        |server: &str, more: &[&str]| client(runtime, &[&["send", server, &file], more].concat());
    let said = send(&server.at, &["--fingerprint", &fingerprint]);
    assert_eq!((said.err.as_str(), said.code), ("", Some(0)));
    let said = send(&localhost, &["--ca", &cert]);
    assert_eq!((said.err.as_str(), said.code), ("", Some(0)));
    // Another fingerprint: what was wanted of whom, and what was shown.
    let wanted = format!("sha256:{}", "0f".repeat(32));
    let said = send(&server.at, &["--fingerprint", &wanted]);
    assert_eq!(said.code, Some(2));
    let what = format!(
        "quic_transfer: {}: its certificate is {fingerprint}, and not {wanted} as --fingerprint says\n",
        server.at
    );
    assert_eq!(said.err, what);
    // Another name: which one, and which there are.
    let said = send(&server.at, &["--ca", &cert, "--name", "wrong.example"]);
    assert_eq!(said.code, Some(2));
    for part in [&server.at, "wrong.example", "localhost"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    // Another issuer.
    let other = tempfile::tempdir().unwrap();
    let (other_cert, ..) = identity(other.path());
    let said = send(&localhost, &["--ca", &other_cert]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains(&localhost) && said.err.contains("certificate"), "{}", said.err);
    let said = send(&localhost, &["--ca", &key]);
    assert!(said.err.contains(&key) && said.err.contains("no certificates"), "{}", said.err);
    assert_eq!(server.terminate(), Some(0));
}

fn what_is_wrong_is_named(runtime: &Runtime) {
    let (_dir, [from, served, into]) = directories();
    let fingerprint = format!("sha256:{}", "0f".repeat(32));
    let trusting = ["--fingerprint", &fingerprint, "--timeout", "1"];
    let fails = |arguments: &[&str], code: i32, parts: &[&str]| {
        let said = client(runtime, arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        for part in parts {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    };
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = path(&served);
    fails(&["serve", &dir, "--listen", &addr], 2, &[&addr, "in use", "choose another"]);
    fails(&["serve", "/nowhere/at/all"], 2, &["/nowhere/at/all: No such file"]);
    fails(&["send", "name.invalid:1", &dir, trusting[0], trusting[1]], 2, &["name.invalid"]);
    // It listens, and says nothing.
    fails(&[&["send", &addr, &dir], &trusting[..]].concat(), 2, &[&addr, "no answer", "1s"]);
    fails(&["send", &addr, &dir], 2, &["--fingerprint"]);
    fails(&["send", &addr, &dir, "--fingerprint", "sha256:12"], 2, &["64 hexadecimal digits"]);
    let (server, fingerprint) = serve(runtime, &served, &[]);
    let trusting = ["--fingerprint", &fingerprint];
    let missing = path(&from.join("missing"));
    fails(&[&["send", &server.at, &missing], &trusting[..]].concat(), 2, &[&missing]);
    let into = path(&into);
    let get = ["get", &server.at, "missing", "--into", &into];
    fails(&[&get, &trusting[..]].concat(), 2, &["missing: the server says: No such file"]);
    // One of two fails: a directory has its name.
    std::fs::create_dir(served.join("one")).unwrap();
    std::fs::write(from.join("one"), "1").unwrap();
    std::fs::write(from.join("two"), "2").unwrap();
    let (one, two) = (path(&from.join("one")), path(&from.join("two")));
    let send = ["send", &server.at, &one, &two];
    fails(&[&send, &trusting[..]].concat(), 1, &["one: the server says: ", "directory"]);
    assert_eq!(files(&served), [("two".to_owned(), b"2".to_vec())].into());
}

fn a_server_that_ends_says_goodbye(runtime: &Runtime) {
    let (dir, [_, served, _]) = directories();
    let (cert, key, config) = identity(dir.path());
    let (mut server, _) = serve(runtime, &served, &["--cert", &cert, "--key", &key]);
    let (connected, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let at = server.at.clone();
        let client = scope.spawn(move || {
            on_tokio(&at, config, async |connection| {
                connected.send(()).unwrap();
                let reason = connection.closed().await.to_string();
                assert!(reason.contains("the server shuts down"), "{reason}");
            });
        });
        wait.recv().unwrap();
        assert_eq!(server.terminate(), Some(0));
        client.join().unwrap();
    });
}
