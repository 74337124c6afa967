//! Signals of the process. What a signal does is the process's, so that cases that send one run in a
//! process of their own.

use std::io;
use std::pin::pin;
use std::time::Duration;

use omniring::process::Command;
use omniring::signal::{Signal, SignalKind, ctrl_c};
use omniring::time::{now, timeout};
use omniring::{Runtime, spawn, yield_now};

use crate::harness::{conformance, errno, fd_count};
use crate::loopback::start;
use crate::pipes::let_others_run;
use crate::time::assert_idle;

const SOON: Duration = Duration::from_secs(20);

conformance!(
    what_cannot_be_listened_to_is_refused,
    kinds_have_names;
    isolated: a_signal_is_told_once_for_each_time,
    several_listeners_are_all_told,
    listeners_of_other_runtimes_are_told,
    signals_that_nobody_has_asked_for_yet_are_one,
    a_dropped_wait_loses_no_signal,
    many_signals_leave_no_listener_behind,
    kinds_are_kept_apart,
    ctrl_c_is_waited_for,
    without_listeners_a_signal_does_nothing,
    the_default_action_is_taken_by_hand,
    an_ignored_signal_is_heard,
    real_time_signals_are_heard,
    no_descriptor_is_left_behind,
);

/// Sends this thread a signal, which it has taken when this returns.
fn raise(kind: SignalKind) {
    signal_hook::low_level::raise(kind.as_raw()).unwrap();
}

async fn is_told(signal: &mut Signal) {
    timeout(SOON, signal.recv()).await.expect("a signal was sent").unwrap();
}

async fn is_not_told(signal: &mut Signal) {
    let mut recv = pin!(signal.recv());
    assert!(start(&mut recv).await.is_none());
    let_others_run().await;
    assert!(start(&mut recv).await.is_none());
}

fn what_cannot_be_listened_to_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        for number in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGILL, 0, -1, 1000] {
            let kind = SignalKind::from_raw(number);
            let error = Signal::new(kind).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}: {error}");
            assert!(error.to_string().contains(&format!("{kind:?}")), "{error}");
        }
    });
}

fn kinds_have_names(_: &Runtime) {
    assert_eq!(format!("{:?}", SignalKind::USER_1), "SIGUSR1");
    assert_eq!(format!("{:?}", SignalKind::from_raw(40)), "signal 40");
}

fn a_signal_is_told_once_for_each_time(runtime: &Runtime) {
    runtime.block_on(async {
        let mut signal = Signal::new(SignalKind::USER_1).unwrap();
        assert_eq!(signal.kind(), SignalKind::USER_1);
        is_not_told(&mut signal).await;
        for _ in 0..5 {
            raise(SignalKind::USER_1);
            is_told(&mut signal).await;
            is_not_told(&mut signal).await;
        }
        // While it is waited for.
        for _ in 0..5 {
            {
                let mut recv = pin!(signal.recv());
                assert!(start(&mut recv).await.is_none());
                raise(SignalKind::USER_1);
                timeout(SOON, recv).await.unwrap().unwrap();
            }
            is_not_told(&mut signal).await;
        }
        assert_idle(now() + Duration::from_millis(100)).await;
    });
}

fn several_listeners_are_all_told(runtime: &Runtime) {
    runtime.block_on(async {
        let mut first = Signal::new(SignalKind::USER_1).unwrap();
        let mut second = Signal::new(SignalKind::USER_1).unwrap();
        let third = Signal::new(SignalKind::USER_1).unwrap();
        let waiting = spawn(async move {
            let mut third = third;
            third.recv().await.unwrap();
        });
        let_others_run().await;
        raise(SignalKind::USER_1);
        is_told(&mut first).await;
        is_told(&mut second).await;
        timeout(SOON, waiting).await.unwrap().unwrap();
        drop(first);
        raise(SignalKind::USER_1);
        is_told(&mut second).await;
        let mut late = Signal::new(SignalKind::USER_1).unwrap();
        is_not_told(&mut late).await;
    });
}

fn listeners_of_other_runtimes_are_told(runtime: &Runtime) {
    let engine = runtime.engine();
    let listen = move |ready: std::sync::mpsc::Sender<()>| {
        let runtime = Runtime::builder().engine(engine).allow_unpolled(true).build().unwrap();
        runtime.block_on(async {
            let mut signal = Signal::new(SignalKind::HANGUP).unwrap();
            ready.send(()).unwrap();
            is_told(&mut signal).await;
        });
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let threads = [0, 1].map(|_| {
        let ready = ready.clone();
        std::thread::spawn(move || listen(ready))
    });
    runtime.block_on(async {
        let mut signal = Signal::new(SignalKind::HANGUP).unwrap();
        for _ in 0..2 {
            is_ready.recv_timeout(SOON).unwrap();
        }
        raise(SignalKind::HANGUP);
        is_told(&mut signal).await;
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

fn signals_that_nobody_has_asked_for_yet_are_one(runtime: &Runtime) {
    runtime.block_on(async {
        let mut signal = Signal::new(SignalKind::USER_2).unwrap();
        for _ in 0..10 {
            raise(SignalKind::USER_2);
        }
        is_told(&mut signal).await;
        is_not_told(&mut signal).await;
    });
}

fn a_dropped_wait_loses_no_signal(runtime: &Runtime) {
    runtime.block_on(async {
        let mut signal = Signal::new(SignalKind::USER_1).unwrap();
        for round in 0..20 {
            {
                let mut recv = pin!(signal.recv());
                assert!(start(&mut recv).await.is_none());
                raise(SignalKind::USER_1);
                if round % 2 == 0 {
                    let_others_run().await;
                }
            }
            is_told(&mut signal).await;
        }
    });
}

fn many_signals_leave_no_listener_behind(runtime: &Runtime) {
    runtime.block_on(async {
        let mut signal = Signal::new(SignalKind::USER_1).unwrap();
        // More than the marks have room for.
        for _ in 0..100_000 {
            raise(SignalKind::USER_1);
        }
        is_told(&mut signal).await;
        // It may tell of them more than once, and comes to an end.
        while timeout(Duration::from_millis(50), signal.recv()).await.is_ok() {}
        is_not_told(&mut signal).await;
        raise(SignalKind::USER_1);
        is_told(&mut signal).await;
    });
}

fn kinds_are_kept_apart(runtime: &Runtime) {
    runtime.block_on(async {
        let mut first = Signal::new(SignalKind::USER_1).unwrap();
        let mut second = Signal::new(SignalKind::USER_2).unwrap();
        raise(SignalKind::USER_2);
        is_told(&mut second).await;
        is_not_told(&mut first).await;
    });
}

fn ctrl_c_is_waited_for(runtime: &Runtime) {
    runtime.block_on(async {
        let mut waiting = pin!(ctrl_c());
        assert!(start(&mut waiting).await.is_none());
        raise(SignalKind::INTERRUPT);
        timeout(SOON, waiting).await.unwrap().unwrap();
    });
}

fn without_listeners_a_signal_does_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        drop(Signal::new(SignalKind::TERMINATE).unwrap());
        raise(SignalKind::TERMINATE);
        let mut signal = Signal::new(SignalKind::TERMINATE).unwrap();
        is_not_told(&mut signal).await;
    });
}

fn the_default_action_is_taken_by_hand(runtime: &Runtime) {
    const VARIABLE: &str = "OMNIRING_TEST_DEFAULT_ACTION";
    runtime.block_on(async {
        if std::env::var_os(VARIABLE).is_some() {
            let mut signal = Signal::new(SignalKind::TERMINATE).unwrap();
            raise(SignalKind::TERMINATE);
            is_told(&mut signal).await;
            SignalKind::TERMINATE.default_action().unwrap();
            unreachable!("this process has ended");
        }
        // The same case once more, in a child.
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(VARIABLE, "1");
        let output = timeout(SOON, command.output()).await.unwrap().unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{output:?}");
        // What does nothing by default.
        SignalKind::WINDOW_CHANGE.default_action().unwrap();
        let unknown = SignalKind::from_raw(1000).default_action();
        assert_eq!(errno(unknown), libc::EINVAL);
    });
}

fn an_ignored_signal_is_heard(runtime: &Runtime) {
    runtime.block_on(async {
        // Rust programs ignore it from the start.
        let mut signal = Signal::new(SignalKind::PIPE).unwrap();
        raise(SignalKind::PIPE);
        is_told(&mut signal).await;
    });
}

fn real_time_signals_are_heard(runtime: &Runtime) {
    runtime.block_on(async {
        let kind = SignalKind::from_raw(libc::SIGRTMIN() + 3);
        let mut signal = Signal::new(kind).unwrap();
        raise(kind);
        is_told(&mut signal).await;
    });
}

fn no_descriptor_is_left_behind(runtime: &Runtime) {
    runtime.block_on(async {
        let one_round = async || {
            let mut signal = Signal::new(SignalKind::USER_1).unwrap();
            assert!(start(&mut pin!(signal.recv())).await.is_none());
            raise(SignalKind::USER_1);
        };
        let settle = async || {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        };
        one_round().await;
        settle().await;
        let before = fd_count();
        for _ in 0..20 {
            one_round().await;
        }
        settle().await;
        assert_eq!(fd_count(), before);
    });
}
