//! An axum Router behind the server.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use omniring::net::TcpStream;
use omniring::{Runtime, spawn};
use omniring_adapters::axum::service;
use omniring_adapters::http::Server;

use crate::programs::{curl, is_there};
use crate::site::{listener, pattern, settle};

on_some_engines!(
    a_router_answers_curl,
    a_handler_may_use_the_runtime,
    a_panic_ends_one_connection,
    a_handler_may_know_the_peer
);

#[derive(Clone)]
struct Greeting(&'static str);

fn router() -> Router {
    Router::new()
        .route("/greet/{name}", get(greet))
        .route("/len", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/teapot", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") }))
        .with_state(Greeting("hello"))
}

async fn greet(
    State(greeting): State<Greeting>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> String {
    let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or("?");
    format!("{} {name} with {agent}", greeting.0)
}

fn a_router_answers_curl(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("body");
    std::fs::write(&path, pattern(1_000_000)).unwrap();
    let upload = format!("@{}", path.display());
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let serving =
            spawn(async move { omniring_adapters::axum::serve(&listener, router()).await });
        let url = |path: &str| format!("http://{addr}{path}");
        for option in ["--http1.1", "--http2-prior-knowledge"] {
            let said = curl(&[option, "-A", "a test", &url("/greet/w%C3%B6rld")]).await;
            assert_eq!(said.text(), "hello wörld with a test");
            let said = curl(&[option, "--data-binary", &upload, &url("/len")]).await;
            assert_eq!(said.text(), "1000000");
            let said = curl(&[option, "-w", " %{http_code}", &url("/teapot")]).await;
            assert_eq!(said.text(), "short and stout 418");
        }
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

fn a_handler_may_use_the_runtime(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    runtime.block_on(async {
        // axum wants handlers that are `Send`; what is not, is asked for over a channel.
        let (ask, mut asked) =
            omniring::sync::mpsc::channel::<omniring::sync::oneshot::Sender<String>>(1);
        let answering = spawn(async move {
            while let Some(answer) = asked.recv().await {
                let not_send = std::rc::Rc::new("from a task");
                omniring::time::sleep(std::time::Duration::from_millis(1)).await;
                let _ = answer.send(not_send.to_string());
            }
        });
        let handler = move || async move {
            let (answer, answered) = omniring::sync::oneshot::channel();
            ask.send(answer).await.unwrap();
            answered.await.unwrap()
        };
        let (listener, addr) = listener().await;
        let router = Router::new().route("/", get(handler));
        let serving = spawn(async move { Server::new().serve(&listener, service(router)).await });
        assert_eq!(curl(&[&format!("http://{addr}/")]).await.text(), "from a task");
        serving.abort();
        assert!(serving.await.is_err());
        answering.await.unwrap();
        settle(runtime).await;
    });
}

fn a_panic_ends_one_connection(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let broken = move || async move {
            assert!(addr.port() == 0, "a handler fails");
        };
        let router = Router::new().route("/broken", get(broken)).merge(router());
        let serving = spawn(async move { Server::new().serve(&listener, service(router)).await });
        let said = curl(&[&format!("http://{addr}/broken")]).await;
        assert!(!said.success, "an empty reply");
        let said = curl(&["-A", "x", &format!("http://{addr}/greet/again")]).await;
        assert_eq!(said.text(), "hello again with x");
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

fn a_handler_may_know_the_peer(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let serving = spawn(async move {
            let make = |stream: &TcpStream| {
                assert!(stream.nodelay().unwrap(), "as its listener");
                let peer = stream.peer_addr().unwrap().to_string();
                let handler = |Extension(peer): Extension<String>| async move { peer };
                service(Router::new().route("/", get(handler)).layer(Extension(peer)))
            };
            Server::new().serve_each(&listener, make, std::future::pending()).await
        });
        let format = "\n%{local_ip}:%{local_port}";
        let said = curl(&["-w", format, &format!("http://{addr}/")]).await.text();
        let (seen, own) = said.split_once('\n').unwrap();
        assert_eq!(seen, own);
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}
