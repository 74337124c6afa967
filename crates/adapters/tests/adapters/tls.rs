//! TLS, with curl, openssl and the other side of our own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use omniring::net::{TcpListener, TcpStream, UnixStream};
use omniring::{Runtime, spawn, spawn_blocking};
use omniring_adapters::StreamIo;
use omniring_adapters::http::{self, Server};
use omniring_adapters::tls::{
    self, ClientConfig, PrivateKeyDer, RootCertStore, ServerConfig, TlsListener,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::programs::{curl, is_there};
use crate::site::{Site, body, full, listener, pattern, settle};

on_some_engines!(
    curl_chooses_http1_or_http2,
    openssl_talks_to_our_server,
    our_client_talks_to_openssl,
    our_client_chooses_http2,
    large_data_goes_both_ways,
    a_half_closed_connection_can_still_be_answered,
    an_end_that_tls_was_not_told_of_is_an_error,
    a_certificate_for_another_name_is_named,
    an_unknown_issuer_is_named,
    a_certificate_that_has_expired_is_named,
    a_peer_without_tls_is_named,
    protocols_without_a_common_one_are_named,
    a_handshake_that_does_not_end_is_given_up,
    bad_files_are_named,
);

/// A certificate that signs itself, and its key.
struct Identity {
    cert: String,
    key: String,
    issued: rcgen::CertifiedKey<rcgen::KeyPair>,
}

fn identity(name: &str) -> Identity {
    issue(rcgen::CertificateParams::new([name.to_owned()]).unwrap())
}

fn issue(params: rcgen::CertificateParams) -> Identity {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    let (cert_pem, key) = (cert.pem(), signing_key.serialize_pem());
    Identity { cert: cert_pem, key, issued: rcgen::CertifiedKey { cert, signing_key } }
}

impl Identity {
    fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.issued.signing_key.serialize_der()).unwrap();
        tls::server_config(vec![self.issued.cert.der().clone()], key, protocols).unwrap()
    }

    /// A client that trusts it.
    fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issued.cert.der().clone()).unwrap();
        tls::client_config(roots, protocols).unwrap()
    }

    fn write_to(&self, dir: &Path) -> (String, String) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, &self.cert).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (cert.display().to_string(), key.display().to_string())
    }
}

const HTTP: &[&str] = &["h2", "http/1.1"];

fn curl_chooses_http1_or_http2(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let identity = identity("localhost");
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity.write_to(dir.path());
    let config = tls::server_config_from_pem(&cert, &key, HTTP).unwrap();
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let listener = TlsListener::new(listener, config);
        let site = Site::default();
        let serving = spawn(async move { Server::new().serve(&listener, site).await });
        let url = |path: &str| format!("https://localhost:{}{path}", addr.port());
        let to = format!("localhost:{}:127.0.0.1", addr.port());
        let format = "%{stderr}%{http_version} %{http_code}";
        for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
            let trusting = [option, "--cacert", &cert, "--resolve", &to, "-w", format];
            let said = curl(&[&trusting[..], &[&url("/")]].concat()).await;
            assert_eq!(said.err, format!("{version} 200"));
            assert_eq!(said.text(), "hello");
            let said = curl(&[&trusting[..], &[&url("/large/3000000")]].concat()).await;
            assert!(said.success && said.out == pattern(3_000_000), "{}", said.err);
        }
        // And one that does not trust it.
        assert!(!curl(&["--resolve", &to, &url("/")]).await.success);
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

fn openssl_talks_to_our_server(runtime: &Runtime) {
    if !is_there("openssl") {
        return;
    }
    let identity = identity("localhost");
    let dir = tempfile::tempdir().unwrap();
    let (cert, _) = identity.write_to(dir.path());
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        for version in ["-tls1_2", "-tls1_3"] {
            let cert = cert.clone();
            let client = spawn_blocking(move || {
                let mut client = Command::new("timeout")
                    .args([
                        "20",
                        "openssl",
                        "s_client",
                        "-quiet",
                        "-verify_return_error",
                        "-no_ign_eof",
                    ])
                    .args(["-verify_hostname", "localhost", "-CAfile", &cert, version])
                    .args(["-connect", &addr.to_string()])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut stdin = client.stdin.take().unwrap();
                stdin.write_all(b"ping\n").unwrap();
                let output = client.wait_with_output().unwrap();
                drop(stdin);
                output
            });
            let (stream, _) = listener.accept().await.unwrap();
            let config = identity.server(&[]);
            let mut stream = tls::accept(&config, StreamIo::new(stream)).await.unwrap();
            let mut ping = [0; 5];
            stream.read_exact(&mut ping).await.unwrap();
            assert_eq!(&ping, b"ping\n");
            stream.write_all(b"pong\n").await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream);
            let output = client.await.unwrap();
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "pong\n", "{version}: {err}");
        }
        settle(runtime).await;
    });
}

fn our_client_talks_to_openssl(runtime: &Runtime) {
    if !is_there("openssl") {
        return;
    }
    let identity = identity("localhost");
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity.write_to(dir.path());
    // `s_server` does not say which port it was given: it gets one that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", &cert, "-key", &key])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Running(server);
    runtime.block_on(async {
        let connecting = async {
            loop {
                match TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(stream) => return stream,
                    Err(_) => omniring::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let stream = omniring::time::timeout(Duration::from_secs(10), connecting).await.unwrap();
        let config = identity.client(&[]);
        let mut stream = tls::connect(&config, "localhost", StreamIo::new(stream)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut page = Vec::new();
        // It may end without saying so in TLS.
        let _ = stream.read_to_end(&mut page).await;
        let page = String::from_utf8_lossy(&page);
        assert!(page.starts_with("HTTP/1.0 200"), "{page}");
        assert!(stream.version().is_some());
    });
}

/// A program that ends with this.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of our own and a client of our own, over a Unix socket: what each of them gets.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (std::io::Result<tls::TlsStream<UnixStream>>, std::io::Result<tls::TlsStream<UnixStream>>) {
    let (one, other) = UnixStream::pair().unwrap();
    let accepting = spawn(async move { tls::accept(&server, StreamIo::new(one)).await });
    let connected = tls::connect(&client, name, StreamIo::new(other)).await;
    (accepting.await.unwrap(), connected)
}

fn our_client_chooses_http2(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let listener = TlsListener::<TcpListener>::new(listener, identity.server(HTTP));
        let site = Site::default();
        let serving = spawn(async move { Server::new().serve(&listener, site).await });
        let stream = StreamIo::new(TcpStream::connect(addr).await.unwrap());
        let stream = tls::connect(&identity.client(HTTP), "localhost", stream).await.unwrap();
        assert_eq!(stream.protocol(), Some(&b"h2"[..]));
        let mut client = http::client::http2(stream).await.unwrap();
        let post = hyper::Request::post("https://localhost/echo").body(full(pattern(1 << 20)));
        let answer = client.send_request(post.unwrap()).await.unwrap();
        assert!(body(answer).await == pattern(1 << 20));
        drop(client);
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

fn large_data_goes_both_ways(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (server, client) =
            handshake(identity.server(&[]), identity.client(&[]), "localhost").await;
        let (mut server, client) = (server.unwrap(), client.unwrap());
        let echo = spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(&all).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let (mut reader, mut writer) = tokio::io::split(client);
        writer.write_all(&pattern(2 << 20)).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert!(all == pattern(2 << 20));
        echo.await.unwrap();
    });
}

fn a_half_closed_connection_can_still_be_answered(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (server, client) =
            handshake(identity.server(&[]), identity.client(&[]), "localhost").await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

fn an_end_that_tls_was_not_told_of_is_an_error(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (server, client) =
            handshake(identity.server(&[]), identity.client(&[]), "localhost").await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        client.write_all(b"half of i").await.unwrap();
        client.flush().await.unwrap();
        client.socket().shutdown(std::net::Shutdown::Both).await.unwrap();
        let mut all = Vec::new();
        let error = server.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(all, b"half of i");
    });
}

/// The client's error.
async fn refused(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &str) -> String {
    let (_, connected) = handshake(server, client, name).await;
    let error = connected.expect_err("the handshake was to fail");
    let inner = error.get_ref().expect("it says more than an errno");
    assert!(inner.downcast_ref::<tls::HandshakeError>().is_some());
    error.to_string()
}

fn a_certificate_for_another_name_is_named(runtime: &Runtime) {
    let identity = identity("right.example");
    runtime.block_on(async {
        let error = refused(identity.server(&[]), identity.client(&[]), "wrong.example").await;
        assert!(error.starts_with("TLS handshake with wrong.example: "), "{error}");
        assert!(error.contains("right.example"), "{error}");
        let (one, _other) = UnixStream::pair().unwrap();
        let error = tls::connect(&identity.client(&[]), "not a name", StreamIo::new(one)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("'not a name'"), "{error}");
    });
}

fn an_unknown_issuer_is_named(runtime: &Runtime) {
    let issued_by = |name: &str| {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        issue(params)
    };
    runtime.block_on(async {
        let server = issued_by("one").server(&[]);
        let error = refused(server.clone(), issued_by("other").client(&[]), "localhost").await;
        assert!(error.contains("none of the trusted roots"), "{error}");
        // Of the same name, and not the same.
        let error = refused(server, issued_by("one").client(&[]), "localhost").await;
        assert!(error.contains("but not its key"), "{error}");
    });
}

fn a_certificate_that_has_expired_is_named(runtime: &Runtime) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let identity = issue(params);
    runtime.block_on(async {
        let error = refused(identity.server(&[]), identity.client(&[]), "localhost").await;
        assert!(error.contains("expired"), "{error}");
    });
}

fn a_peer_without_tls_is_named(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send_all("SSH-2.0-OpenSSH_9.2 and so on\r\n").await.0.unwrap();
        let config = identity.client(&[]);
        let connected = tls::connect(&config, "localhost", StreamIo::new(other));
        let error = connected.await.unwrap_err().to_string();
        assert!(error.contains("not TLS"), "{error}");
        drop(one);
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        let config = identity.server(&[]);
        let accepted = tls::accept(&config, StreamIo::new(other));
        let error = accepted.await.unwrap_err().to_string();
        assert!(error.contains("closed the connection"), "{error}");
    });
}

fn protocols_without_a_common_one_are_named(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (server, client) = (identity.server(&["h2"]), identity.client(&["gopher"]));
        let (accepted, connected) = handshake(server, client, "localhost").await;
        let error = accepted.unwrap_err().to_string();
        assert!(error.contains("ALPN"), "{error}");
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("ALPN"), "{error}");
    });
}

fn a_handshake_that_does_not_end_is_given_up(runtime: &Runtime) {
    let identity = identity("localhost");
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let listener = TlsListener::new(listener, identity.server(HTTP))
            .handshake_time_max(Duration::from_millis(20));
        let errors = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let kept = errors.clone();
        let server = Server::new().on_error(move |error| kept.borrow_mut().push(error.to_string()));
        let serving = spawn(async move { server.serve(&listener, Site::default()).await });
        let stream = TcpStream::connect(addr).await.unwrap();
        assert!(stream.recv().await.unwrap().is_empty(), "the server closed it");
        assert!(errors.borrow()[0].contains("did not finish the TLS handshake"), "{errors:?}");
        serving.abort();
        assert!(serving.await.is_err());
    });
}

fn bad_files_are_named(_runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity("localhost").write_to(dir.path());
    let error = |cert: &str, key: &str| {
        tls::server_config_from_pem(cert, key, &[]).unwrap_err().to_string()
    };
    let missing = dir.path().join("missing.pem").display().to_string();
    assert!(error(&missing, &key).contains("missing.pem: No such file"));
    assert!(error(&cert, &cert).contains("no private key in PEM form"));
    assert!(error(&key, &key).contains("no certificates in PEM form"));
    let other = tempfile::tempdir().unwrap();
    let (_, other_key) = identity("localhost").write_to(other.path());
    let mismatch = error(&cert, &other_key);
    assert!(mismatch.contains("is not that of the first certificate"), "{mismatch}");
}
