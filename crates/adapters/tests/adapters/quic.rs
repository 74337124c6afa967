//! quinn on omniring, with itself and with quinn on tokio.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use omniring::time::{now, timeout};
use omniring::{Runtime, spawn, spawn_blocking};
use omniring_adapters::quic;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};

use crate::harness::fd_count;
use crate::site::{pattern, settle};

on_some_engines!(
    streams_go_both_ways,
    a_client_on_tokio_is_served,
    a_server_on_tokio_is_reached,
    many_connections_at_once,
    datagrams_arrive,
    handles_may_be_used_on_another_thread,
    a_silent_peer_is_given_up,
    a_certificate_for_another_name_is_named,
    an_address_in_use_is_named;
    isolated:
    nothing_is_left_of_endpoints,
);

fn configs() -> (ServerConfig, ClientConfig) {
    let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = quinn::rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der());
    let certs = vec![cert.cert.der().clone()];
    let mut roots = quinn::rustls::RootCertStore::empty();
    roots.add(certs[0].clone()).unwrap();
    let mut server = ServerConfig::with_single_cert(certs, key.unwrap()).unwrap();
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    server.transport_config(Arc::new(transport()));
    client.transport_config(Arc::new(transport()));
    (server, client)
}

/// What is near: connections that fail early wait for some round trips, of which none was measured yet.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.initial_rtt(Duration::from_millis(5));
    transport
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Sends every stream back, until the connection is closed.
async fn echo(connection: Connection) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let all = recv.read_to_end(8 << 20).await.unwrap();
        send.write_all(&all).await.unwrap();
        send.finish().unwrap();
    }
}

/// An echo server on omniring, until it is closed.
async fn serve(server: Endpoint) {
    while let Some(incoming) = server.accept().await {
        drop(spawn(async {
            if let Ok(connection) = incoming.await {
                echo(connection).await;
            }
        }));
    }
}

async fn ask(connection: &Connection, data: &[u8]) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let write = async {
        send.write_all(data).await.unwrap();
        send.finish().unwrap();
    };
    let ((), all) = futures_util::future::join(write, recv.read_to_end(8 << 20)).await;
    assert!(all.unwrap() == data);
}

/// Ends all of these, which takes a few round trips.
async fn end(endpoints: &[&Endpoint]) {
    for endpoint in endpoints {
        endpoint.close(0u32.into(), b"done");
    }
    for endpoint in endpoints {
        timeout(Duration::from_secs(10), endpoint.wait_idle()).await.expect("it becomes idle");
    }
}

fn streams_go_both_ways(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let serving = spawn(serve(server.clone()));
        let client = quic::client(loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let connection =
            client.connect_with(client_config, addr, "localhost").unwrap().await.unwrap();
        for _ in 0..100 {
            ask(&connection, b"ping").await;
        }
        ask(&connection, &pattern(2 << 20)).await;
        drop(connection);
        end(&[&client, &server]).await;
        serving.await.unwrap();
        drop((client, server));
        settle(runtime).await;
    });
}

/// Runs a foreign endpoint, on a thread and a runtime of its own.
fn on_tokio<T: Send + 'static>(
    task: impl AsyncFnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let running = spawn_blocking(move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(task())
    });
    async { running.await.unwrap() }
}

fn a_client_on_tokio_is_served(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let serving = spawn(serve(server.clone()));
        on_tokio(async move || {
            let client = Endpoint::client(loopback()).unwrap();
            let connection =
                client.connect_with(client_config, addr, "localhost").unwrap().await.unwrap();
            for len in [0, 1, 1000, 100_000, 1_000_000] {
                ask(&connection, &pattern(len)).await;
            }
            connection.close(0u32.into(), b"done");
            client.wait_idle().await;
        })
        .await;
        end(&[&server]).await;
        serving.await.unwrap();
        drop(server);
        settle(runtime).await;
    });
}

fn a_server_on_tokio_is_reached(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let (say, addr) = omniring::sync::oneshot::channel();
        let serving = on_tokio(async move || {
            let server = Endpoint::server(server_config, loopback()).unwrap();
            say.send(server.local_addr().unwrap()).unwrap();
            let connection = server.accept().await.unwrap().await.unwrap();
            echo(connection).await;
            server.wait_idle().await;
        });
        let serving = spawn(serving);
        let client = quic::client(loopback()).unwrap();
        let addr = addr.await.unwrap();
        let connection =
            client.connect_with(client_config, addr, "localhost").unwrap().await.unwrap();
        for len in [0, 1, 1000, 1_000_000] {
            ask(&connection, &pattern(len)).await;
        }
        connection.close(0u32.into(), b"done");
        serving.await.unwrap();
        end(&[&client]).await;
    });
}

fn many_connections_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let serving = spawn(serve(server.clone()));
        let client = quic::client(loopback()).unwrap();
        let asks: Vec<_> = (0..10)
            .map(|at| {
                let connecting = client.connect_with(client_config.clone(), addr, "localhost");
                spawn(async move {
                    let connection = connecting.unwrap().await.unwrap();
                    ask(&connection, &pattern(at * 5000)).await;
                    connection.close(0u32.into(), b"done");
                })
            })
            .collect();
        for ask in asks {
            ask.await.unwrap();
        }
        end(&[&client, &server]).await;
        serving.await.unwrap();
    });
}

fn datagrams_arrive(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let accepting = spawn({
            let server = server.clone();
            async move { server.accept().await.unwrap().await.unwrap() }
        });
        let client = quic::client(loopback()).unwrap();
        let connection =
            client.connect_with(client_config, addr, "localhost").unwrap().await.unwrap();
        let accepted = accepting.await.unwrap();
        connection.send_datagram("there".into()).unwrap();
        assert_eq!(accepted.read_datagram().await.unwrap(), "there");
        accepted.send_datagram("back".into()).unwrap();
        assert_eq!(connection.read_datagram().await.unwrap(), "back");
        end(&[&client, &server]).await;
    });
}

fn handles_may_be_used_on_another_thread(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let serving = spawn(serve(server.clone()));
        let client = quic::client(loopback()).unwrap();
        // Connects, asks and drops everything on a thread that has no runtime of ours.
        let asking = on_tokio(async move || {
            let connection =
                client.connect_with(client_config, addr, "localhost").unwrap().await.unwrap();
            ask(&connection, &pattern(100_000)).await;
            connection.close(0u32.into(), b"done");
            drop(connection);
            client.wait_idle().await;
        });
        timeout(Duration::from_secs(20), asking).await.unwrap();
        end(&[&server]).await;
        serving.await.unwrap();
        drop(server);
        settle(runtime).await;
    });
}

fn a_silent_peer_is_given_up(runtime: &Runtime) {
    runtime.block_on(async {
        let (_, mut client_config) = configs();
        let mut transport = transport();
        let time = Duration::from_millis(50);
        transport.max_idle_timeout(Some(time.try_into().unwrap()));
        client_config.transport_config(Arc::new(transport));
        let silent = std::net::UdpSocket::bind(loopback()).unwrap();
        let client = quic::client(loopback()).unwrap();
        let start = now();
        let addr = silent.local_addr().unwrap();
        let connecting = client.connect_with(client_config, addr, "localhost").unwrap();
        let error = timeout(Duration::from_secs(10), connecting).await.unwrap().unwrap_err();
        assert!(matches!(error, quinn::ConnectionError::TimedOut), "{error}");
        assert!(now() - start >= time);
        end(&[&client]).await;
    });
}

fn a_certificate_for_another_name_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let (server_config, client_config) = configs();
        let server = quic::server(server_config, loopback()).unwrap();
        let addr = server.local_addr().unwrap();
        let serving = spawn(serve(server.clone()));
        let client = quic::client(loopback()).unwrap();
        let connecting = client.connect_with(client_config, addr, "wrong.example").unwrap();
        let error = connecting.await.unwrap_err().to_string();
        assert!(error.contains("localhost"), "{error}");
        end(&[&client, &server]).await;
        serving.await.unwrap();
    });
}

fn an_address_in_use_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let taken = std::net::UdpSocket::bind(loopback()).unwrap();
        let addr = taken.local_addr().unwrap();
        let error = quic::client(addr).unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert_eq!(omniring::raw_os_error(&error), Some(libc::EADDRINUSE));
    });
}

fn nothing_is_left_of_endpoints(runtime: &Runtime) {
    let (server_config, client_config) = configs();
    let before = fd_count();
    runtime.block_on(async {
        for _ in 0..5 {
            let server = quic::server(server_config.clone(), loopback()).unwrap();
            let addr = server.local_addr().unwrap();
            let serving = spawn(serve(server.clone()));
            let client = quic::client(loopback()).unwrap();
            let connecting = client.connect_with(client_config.clone(), addr, "localhost");
            let connection = connecting.unwrap().await.unwrap();
            ask(&connection, b"ping").await;
            drop(connection);
            end(&[&client, &server]).await;
            serving.await.unwrap();
        }
        settle(runtime).await;
    });
    assert_eq!(fd_count(), before);
}
