//! The choice of an engine where io_uring is denied: `auto` goes on with the next one and says
//! why, a name is strict.

mod denial;

use omniring::{Engine, Runtime};

use denial::{Denial, denied};

const REMEDY: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the filter: \
                      docker run --security-opt seccomp=";

/// Whether it is the rung below `uring`.
fn is_next_rung(engine: Engine) -> bool {
    engine == Engine::Aio
}

#[test]
fn auto_falls_back_and_says_why() {
    for denial in Denial::ALL {
        let (engine, choice, echoed) = denied(denial, || {
            let runtime = Runtime::new().expect("auto never leaves a program without an engine");
            (runtime.engine(), runtime.engine_choice().to_owned(), runtime.block_on(echo()))
        });
        assert!(is_next_rung(engine), "{denial:?}: {choice}");
        let start = format!("{engine}: works here; uring does not: {}; remedy: ", denial.reason());
        assert!(choice.starts_with(&start), "{denial:?}: {choice}");
        assert!(choice.contains(REMEDY) && !choice.contains('\n'), "{denial:?}: {choice}");
        assert_eq!(echoed, "there and back");
    }
}

#[test]
fn auto_finds_an_engine_even_without_epoll() {
    let (engine, choice, echoed) = denied(Denial::Epoll, || {
        let runtime = Runtime::new().expect("auto never leaves a program without an engine");
        (runtime.engine(), runtime.engine_choice().to_owned(), runtime.block_on(echo()))
    });
    assert_eq!(engine, Engine::Poll, "{choice}");
    assert!(choice.contains("; epoll does not: Operation not permitted"), "{choice}");
    assert_eq!(echoed, "there and back");
}

/// Through a file, a connection and a timer.
async fn echo() -> String {
    use omniring::net::{TcpListener, TcpStream};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    omniring::fs::write(&path, "there and back").await.unwrap();
    let text = omniring::fs::read(&path).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    client.send_all(text).await.0.unwrap();
    omniring::time::sleep(std::time::Duration::from_millis(1)).await;
    let (received, buf) = server.recv_into(Vec::with_capacity(14)).await;
    received.unwrap();
    String::from_utf8(buf).unwrap()
}

#[test]
fn a_name_is_strict() {
    for denial in Denial::ALL {
        let error = denied(denial, || Runtime::builder().engine(Engine::Uring).build().err())
            .expect("what is denied does not start");
        assert_eq!(error.reason(), denial.reason());
        let text = error.to_string();
        assert!(text.starts_with("engine 'uring' does not start: "), "{text}");
        assert!(text.contains(REMEDY) && !text.contains('\n'), "{text}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn every_other_engine_starts_where_io_uring_is_denied() {
    for denial in Denial::ALL {
        for &engine in Engine::ALL.iter().filter(|&&engine| !uses_ring(engine)) {
            let started = denied(denial, move || {
                let runtime = Runtime::builder().engine(engine).build();
                runtime.map(|runtime| (runtime.engine(), runtime.engine_choice().to_owned()))
            });
            let (name, choice) = started.unwrap_or_else(|error| panic!("{denial:?}: {error}"));
            assert_eq!((name, choice), (engine, format!("{engine}: chosen by the program")));
        }
    }
}

#[test]
fn auto_goes_past_native_aio_where_that_is_denied_too() {
    let (engine, choice) = denied(Denial::AioToo, || {
        let runtime = Runtime::new().expect("auto never leaves a program without an engine");
        (runtime.engine(), runtime.engine_choice().to_owned())
    });
    assert_eq!(engine, Engine::Epoll, "{choice}");
    assert!(choice.contains("; aio does not: io_setup is denied (EPERM)"), "{choice}");
    let error = denied(Denial::AioToo, || Runtime::builder().engine(Engine::Aio).build().err())
        .expect("what is denied does not start");
    let text = error.to_string();
    assert!(text.starts_with("engine 'aio' does not start: io_setup is denied"), "{text}");
    assert!(text.contains("allow io_setup") && !text.contains('\n'), "{text}");
}

/// `uring` and its modes.
fn uses_ring(engine: Engine) -> bool {
    engine.name().starts_with("uring")
}

#[test]
fn the_first_choice_has_nothing_to_explain() {
    let Err(error) = Runtime::builder().engine(Engine::Uring).build() else {
        let runtime = Runtime::new().unwrap();
        assert_eq!(
            (runtime.engine(), runtime.engine_choice()),
            (Engine::Uring, "uring: works here")
        );
        return;
    };
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {error}");
    eprintln!("skipped: {error}");
}
