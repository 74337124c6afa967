//! `omniring kv` as a process: TLS, metrics, what it says, and what it refuses to start with.
#![cfg(feature = "tls")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use omniring_adapters::tls::{self, ClientConfig, RootCertStore, rustls};
use omniring_adapters::{StreamIo, tls::CertificateDer, tls::PrivateKeyDer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that is killed when this is dropped.
struct Server {
    child: Child,
    /// What it has said up to the moment at which it was ready.
    said: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omniring"));
    command.arg("kv").arg("--dir").arg(dir).args(options).current_dir(dir);
    command.stderr(Stdio::piped()).stdout(Stdio::null());
    command
}

impl Server {
    fn start(mut command: Command) -> Server {
        let mut child = command.spawn().expect("the command starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            said.push(line.expect("what it says is text"));
            if said.last().is_some_and(|line| line.contains("Ready to accept")) {
                // The rest is read, so that nothing it says is lost on it.
                std::thread::spawn(move || lines.for_each(drop));
                return Server { child, said };
            }
        }
        let _ = child.wait();
        panic!("it did not start: {said:?}");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    listener.local_addr().expect("it has an address").port()
}

/// Waits for a server that does not start, which is no longer than a moment.
fn refusal(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("the command runs");
    assert!(!status.success());
    String::from_utf8(stderr).expect("what it says is text")
}

/// Certificates of a server and of a client by the same issuer, in files; gives the issuer's.
fn certificates(dir: &Path) -> (CertificateDer<'static>, [Identity; 2]) {
    let mut params = CertificateParams::new([]).expect("no names are names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let issuer = issuer.expect("a certificate");
    let identities = ["server", "client"].map(|name| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name is a name");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        std::fs::write(dir.join(format!("{name}.pem")), cert.pem()).expect("it is written");
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())
            .expect("it is written");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key is a key");
        (cert.der().clone(), key)
    });
    std::fs::write(dir.join("ca.pem"), issuer.pem()).expect("it is written");
    (issuer.der().clone(), identities)
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// What a server answers over TLS to requests after which it closes the connection.
fn ask(
    port: u16,
    issuer: &CertificateDer<'static>,
    identity: Option<&Identity>,
    request: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(issuer.clone()).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are such versions")
        .with_root_certificates(roots);
    let config = match identity {
        Some((cert, key)) => builder.with_client_auth_cert(vec![cert.clone()], key.clone_key()),
        None => Ok(builder.with_no_client_auth()),
    };
    let config = Arc::new(config.expect("the key is the certificate's"));
    let runtime = omniring::Runtime::builder().engine(omniring::Engine::Epoll).build();
    let request = request.to_vec();
    runtime.expect("epoll is everywhere").block_on(async move {
        let stream = omniring::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let asked = async {
            let mut stream = tls::connect(&config, "localhost", StreamIo::new(stream)).await?;
            stream.write_all(&request).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        omniring::time::timeout(Duration::from_secs(20), asked).await?
    })
}

#[test]
fn clients_with_a_certificate_are_served_over_tls_and_others_are_not() {
    let dir = TempDir::new().expect("a directory");
    let (issuer, [_, client]) = certificates(dir.path());
    let port = free_port();
    let options = [
        ("--port", "0"),
        ("--tls-port", &port.to_string()),
        ("--tls-cert-file", "server.pem"),
        ("--tls-key-file", "server.key"),
        ("--tls-ca-cert-file", "ca.pem"),
    ];
    let words: Vec<&str> = options.iter().flat_map(|&(name, value)| [name, value]).collect();
    let server = Server::start(command(dir.path(), &words));
    assert!(server.said.iter().any(|line| line.contains("tls=true")), "{:?}", server.said);

    // Longer than what TLS and sockets buffer.
    let value = vec![b'x'; 3_000_000];
    let mut request = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n", value.len()).into_bytes();
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\nGET a\r\nPING\r\nQUIT\r\n");
    let answer = ask(port, &issuer, Some(&client), &request).expect("it is answered");
    let mut expected = format!("+OK\r\n${}\r\n", value.len()).into_bytes();
    expected.extend_from_slice(&value);
    expected.extend_from_slice(b"\r\n+PONG\r\n+OK\r\n");
    assert!(answer == expected, "{} bytes instead of {}", answer.len(), expected.len());

    let error = ask(port, &issuer, None, b"PING\r\nQUIT\r\n").expect_err("a certificate is needed");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[test]
fn a_server_whose_certificate_and_key_do_not_go_together_does_not_start() {
    let dir = TempDir::new().expect("a directory");
    certificates(dir.path());
    let with = |cert: &str, key: &str, more: [&str; 2]| {
        let options =
            ["--port", "0", "--tls-port", "1", "--tls-cert-file", cert, "--tls-key-file", key];
        refusal(command(dir.path(), &[&options[..], &more].concat()))
    };
    let none = ["--tls-auth-clients", "no"];
    for (said, names) in [
        (with("server.pem", "client.key", none), ["client.key", "server.pem"]),
        (with("missing.pem", "server.key", none), ["missing.pem", "No such file"]),
        (with("server.key", "server.key", none), ["server.key", "no certificate"]),
        (with("server.pem", "server.pem", none), ["server.pem", "no private key"]),
        (
            with("server.pem", "server.key", ["--tls-auth-clients", "yes"]),
            ["tls-ca-cert-file", "tls-auth-clients"],
        ),
    ] {
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
    }
}

#[test]
fn a_variable_that_is_no_number_or_none_that_can_be_stops_the_start() {
    for (name, text) in [
        ("OMNIRING_KV_SYNC_DELAY_US", "2ms"),
        ("OMNIRING_KV_SYNC_DELAY_US", "-1"),
        ("OMNIRING_KV_SYNCS_AT_ONCE", "0"),
        ("OMNIRING_KV_SYNCS_AT_ONCE", "9"),
    ] {
        let dir = TempDir::new().expect("a directory");
        let mut command = command(dir.path(), &["--port", "0"]);
        command.env(name, text);
        let said = refusal(command);
        assert!(said.contains(&format!("{name}={text}: it has to be a number from ")), "{said}");
    }
}

#[test]
fn an_address_that_another_server_has_is_in_use_whatever_their_cores() {
    for (first, second) in [("2", "2"), ("1", "2"), ("2", "1")] {
        let dirs = [TempDir::new().expect("a directory"), TempDir::new().expect("a directory")];
        let port = free_port().to_string();
        let _server = Server::start(command(dirs[0].path(), &["--port", &port, "--cores", first]));
        let said = refusal(command(dirs[1].path(), &["--port", &port, "--cores", second]));
        assert!(
            said.contains("cannot listen") && said.contains("in use"),
            "{first}, {second}: {said}"
        );
    }
}

#[test]
fn metrics_are_given_to_who_asks_for_them_as_prometheus_does() {
    let dir = TempDir::new().expect("a directory");
    let (port, metrics) = (free_port(), free_port());
    let options =
        ["--port", &port.to_string(), "--metrics-port", &metrics.to_string(), "--cores", "2"];
    let _server = Server::start(command(dir.path(), &options));
    let ask = |port: u16, request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is set");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is answered");
        answer
    };
    ask(port, "SET a 1\r\nGET a\r\nGET b\r\nSET c 1 EX 100\r\nQUIT\r\n");
    let answer = ask(metrics, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    for line in [
        "omniring_kv_cores 2",
        "omniring_kv_keys{db=\"0\"} 2",
        "omniring_kv_keys_expiring{db=\"0\"} 1",
        "omniring_kv_hits_total 1",
        "omniring_kv_misses_total 1",
        "omniring_kv_command_calls_total{command=\"set\"} 2",
        "omniring_kv_log_durable_lsn 2",
        "omniring_kv_connections_total 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in {body}");
    }
    let refused = ask(metrics, "POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
}

#[test]
fn events_go_to_the_log_file_and_maxclients_fits_the_limit_of_open_files() {
    let dir = TempDir::new().expect("a directory");
    let port = free_port().to_string();
    let log = dir.path().join("events");
    let binary = env!("CARGO_BIN_EXE_omniring");
    let mut command = Command::new("sh");
    let script = "ulimit -n 200; exec \"$0\" kv --logfile events --port \"$1\"";
    command.args(["-c", script, binary, &port]).current_dir(dir.path());
    let mut server =
        Server { child: command.spawn().expect("the command starts"), said: Vec::new() };
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    // The file is all there is to look at. It is there within a moment.
    for attempt in 0.. {
        if read().contains("Ready to accept") {
            break;
        }
        let has_ended = server.child.try_wait().expect("it is a child").is_some();
        assert!(!has_ended && attempt < 4000, "{}", read());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is set");
    stream.write_all(b"CONFIG GET maxclients\r\nSHUTDOWN\r\n").expect("it is sent");
    let mut answer = String::new();
    // The end may come as a reset.
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("\r\n152\r\n"), "{answer}");
    assert!(server.child.wait().expect("it ends").success());
    let said = read();
    for event in
        ["msg=starting", "engine=", "maxclients=152 wanted=10000", "msg=listening", "msg=stopped"]
    {
        assert!(said.contains(event), "{event} is not in {said}");
    }
    assert!(
        said.lines().all(|line| line.starts_with("time=2") && line.contains(" level=")),
        "{said}"
    );
}
