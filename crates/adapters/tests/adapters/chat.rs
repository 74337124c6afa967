//! The example `chat`, with tokio-tungstenite as its client.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use omniring::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::examples::{Program, command};

on_two_engines!(
    members_of_a_room_hear_each_other,
    who_may_not_come_in_is_told_why,
    a_slow_reader_stops_nobody,
    who_answers_no_pings_is_gone,
    what_is_too_large_or_no_text_ends_it,
    a_shutdown_says_goodbye,
    the_page_is_served,
    a_port_in_use_is_named,
);

/// A foreign client.
struct Member(WebSocketStream<tokio::net::TcpStream>);

/// The address in `http://ADDRESS/`.
fn addr(server: &Program) -> &str {
    server.at.strip_prefix("http://").unwrap().trim_end_matches('/')
}

async fn try_join(
    addr: &str,
    path: &str,
    origin: Option<&str>,
    recv_buffer_len: Option<u32>,
) -> Result<Member, Error> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    if let Some(len) = recv_buffer_len {
        socket.set_recv_buffer_size(len).unwrap();
    }
    let stream = socket.connect(addr.parse().unwrap()).await.unwrap();
    let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("Origin", origin.parse().unwrap());
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(Member(socket))
}

impl Member {
    async fn join(addr: &str, path: &str) -> Member {
        try_join(addr, path, None, None).await.unwrap()
    }

    async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::Text(text.into().into())).await.unwrap();
    }

    /// The next text that it gets.
    async fn text(&mut self) -> String {
        loop {
            match self.0.next().await.expect("it goes on").unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn texts(&mut self, expected: &[&str]) {
        for text in expected {
            assert_eq!(self.text().await, *text);
        }
    }

    /// How the server closes it: the code and the reason. The handshake is finished with it.
    async fn closed(mut self) -> (CloseCode, String) {
        let mut closed = None;
        while let Some(next) = self.0.next().await {
            match next {
                Ok(Message::Close(frame)) => closed = frame,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let frame = closed.expect("it said why");
        (frame.code, frame.reason.to_string())
    }
}

/// Runs foreign clients to their end, on tokio.
fn on_tokio(task: impl Future<Output = ()>) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), task).await.expect("it does not hang");
    });
}

fn members_of_a_room_hear_each_other(runtime: &Runtime) {
    let server = Program::start("chat", &[], runtime);
    on_tokio(async {
        let mut ann = Member::join(addr(&server), "/one?name=ann").await;
        ann.texts(&["* ann has come", "* here are: ann"]).await;
        let mut bob = Member::join(addr(&server), "/one?name=bob").await;
        let mut eve = Member::join(addr(&server), "/other?name=ann").await;
        bob.texts(&["* bob has come", "* here are: ann, bob"]).await;
        eve.texts(&["* ann has come", "* here are: ann"]).await;
        for at in 0..100 {
            ann.say(format!("{at}")).await;
        }
        ann.texts(&["* bob has come"]).await;
        for at in 0..100 {
            let said = format!("ann: {at}");
            ann.texts(&[&said]).await;
            bob.texts(&[&said]).await;
        }
        bob.say("öne\n* line").await;
        ann.texts(&["bob: öne * line"]).await;
        ann.0.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
        let pong = ann.0.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
        // By the book: the server answers the close, and ends the connection.
        bob.0.close(None).await.unwrap();
        bob.texts(&["bob: öne * line"]).await;
        assert!(matches!(bob.0.next().await, Some(Ok(Message::Close(None)))));
        assert!(bob.0.next().await.is_none());
        ann.texts(&["* bob has gone"]).await;
        // The name is free again. Without a book.
        let mut bob = Member::join(addr(&server), "/one?name=bob").await;
        bob.texts(&["* bob has come"]).await;
        drop(bob);
        ann.texts(&["* bob has come", "* bob has gone"]).await;
        // Nothing of it went to the other room.
        eve.say("alone").await;
        eve.texts(&["ann: alone"]).await;
    });
}

fn who_may_not_come_in_is_told_why(runtime: &Runtime) {
    let server = Program::start("chat", &["--connections-max", "2"], runtime);
    let at = addr(&server);
    let refused = async |path: &str, origin: Option<&str>| {
        let Err(Error::Http(response)) = try_join(at, path, origin, None).await else {
            panic!("it was to be refused");
        };
        let text = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
        (response.status().as_u16(), text)
    };
    on_tokio(async {
        let _ann = Member::join(at, "/one?name=ann").await;
        let (status, why) = refused("/one?name=ann", None).await;
        assert!(status == 409 && why.contains("'ann' is taken in room 'one'"), "{why}");
        for path in ["/one", "/one?name=", "/?name=bob", "/a/b?name=bob", "/one?name=a%20b"] {
            let (status, why) = refused(path, None).await;
            assert!(status == 400 && why.contains("ask for /ROOM?name=NAME"), "{path}: {why}");
        }
        let (status, why) = refused("/one?name=bob", Some("http://evil.example")).await;
        assert!(status == 403 && why.contains("http://evil.example"), "{why}");
        let own = format!("http://{at}");
        let _bob = try_join(at, "/one?name=bob", Some(&own), None).await.unwrap();
        assert_eq!(refused("/one?name=eve", None).await.0, 503);
    });
}

fn a_slow_reader_stops_nobody(runtime: &Runtime) {
    let options = ["--queue-len", "8", "--message-len-max", "65536"];
    let server = Program::start("chat", &options, runtime);
    on_tokio(async {
        let at = addr(&server);
        let mut ann = Member::join(at, "/one?name=ann").await;
        let mut bob = Member::join(at, "/one?name=bob").await;
        // It reads nothing.
        let slow = try_join(at, "/one?name=slow", None, Some(4096)).await.unwrap();
        ann.texts(&["* ann has come", "* here are: ann", "* bob has come", "* slow has come"])
            .await;
        bob.texts(&["* bob has come", "* here are: ann, bob", "* slow has come"]).await;
        let long = "x".repeat(65_000);
        let said = format!("ann: {long}");
        let mut count = 0;
        loop {
            ann.say(&long).await;
            let (one, other) = (ann.text().await, bob.text().await);
            assert_eq!(one, other);
            if one == "* slow has gone" {
                break;
            }
            assert!(one == said);
            count += 1;
            assert!(count < 1000, "so much is not kept for one who does not read");
        }
        assert!(count > 8, "{count}");
        ann.texts(&[&said]).await;
        bob.texts(&[&said]).await;
        drop(slow);
    });
}

fn who_answers_no_pings_is_gone(runtime: &Runtime) {
    let server = Program::start("chat", &["--ping-time", "250"], runtime);
    on_tokio(async {
        let at = addr(&server);
        let mut ann = Member::join(at, "/one?name=ann").await;
        // It says nothing and reads nothing: its pings stay without an answer.
        let silent = Member::join(at, "/one?name=silent").await;
        ann.texts(&["* ann has come", "* here are: ann", "* silent has come"]).await;
        // Ann says nothing either, but answers.
        ann.texts(&["* silent has gone"]).await;
        let (code, why) = silent.closed().await;
        assert_eq!(code, CloseCode::Policy);
        assert!(why.contains("nothing was heard for 500ms"), "{why}");
        ann.say("still here").await;
        ann.texts(&["ann: still here"]).await;
    });
}

fn what_is_too_large_or_no_text_ends_it(runtime: &Runtime) {
    let server = Program::start("chat", &["--message-len-max", "1000"], runtime);
    on_tokio(async {
        let at = addr(&server);
        let mut ann = Member::join(at, "/one?name=ann").await;
        ann.texts(&["* ann has come", "* here are: ann"]).await;
        ann.say("x".repeat(1000)).await;
        ann.texts(&[&format!("ann: {}", "x".repeat(1000))]).await;
        for (message, code, part) in [
            (
                Message::Text("x".repeat(1001).into()),
                CloseCode::Size,
                "1001 bytes; 1000 are allowed",
            ),
            (Message::Text("x".repeat(200_000).into()), CloseCode::Size, "1000 are allowed"),
            (Message::Binary(Bytes::from_static(b"x")), CloseCode::Unsupported, "only text"),
        ] {
            let mut bob = Member::join(at, "/one?name=bob").await;
            ann.texts(&["* bob has come"]).await;
            bob.0.send(message).await.unwrap();
            let (said, why) = bob.closed().await;
            assert!(said == code && why.contains(part), "{said}: {why}");
            ann.texts(&["* bob has gone"]).await;
        }
    });
}

fn a_shutdown_says_goodbye(runtime: &Runtime) {
    let mut server = Program::start("chat", &[], runtime);
    let at = addr(&server).to_owned();
    let (joined, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            on_tokio(async {
                let mut ann = Member::join(&at, "/one?name=ann").await;
                ann.texts(&["* ann has come", "* here are: ann"]).await;
                joined.send(()).unwrap();
                let (code, why) = ann.closed().await;
                assert_eq!((code, why.as_str()), (CloseCode::Away, "the server shuts down"));
            });
        });
        wait.recv().unwrap();
        assert_eq!(server.terminate(), Some(0));
        client.join().unwrap();
    });
}

fn the_page_is_served(runtime: &Runtime) {
    let server = Program::start("chat", &[], runtime);
    let ask = |request: &[u8]| {
        let mut stream = std::net::TcpStream::connect(addr(&server)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let page = ask(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<title>Chat"), "{page}");
    let nothing = ask(b"GET /x HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
    for wrong in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "POST / HTTP/1.1\r\n\r\n"] {
        assert!(ask(wrong.as_bytes()).starts_with("HTTP/1.1 400 "), "{wrong}");
    }
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(8 * 1024));
    assert!(ask(endless.as_bytes()).contains("more than 8192 bytes"));
}

fn a_port_in_use_is_named(runtime: &Runtime) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let mut chat = command("chat", &["--listen", &at], runtime);
    let output = chat.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [&*at, "in use", "choose another"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
