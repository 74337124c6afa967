//! Terminals and their settings, on pseudo-terminals.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use omniring::process::Command;
use omniring::terminal::{DataBits, Discard, Parity, StopBits, Terminal};
use omniring::time::timeout;
use omniring::{AsyncRead, AsyncWrite, Runtime, yield_now};

use crate::harness::{conformance, errno};
use crate::loopback::start;
use crate::pipes::let_others_run;

const SOON: Duration = Duration::from_secs(20);

conformance!(
    lines_go_to_the_user_side_and_an_echo_back,
    a_raw_terminal_hands_on_every_byte_until_it_is_restored,
    both_sides_wait_at_the_same_time,
    a_dropped_receive_leaves_the_bytes,
    settings_hold_once_they_are_set,
    a_setting_that_the_device_does_not_take_is_named,
    windows_have_sizes,
    what_was_not_read_is_discarded,
    when_the_user_side_is_closed_the_controller_gets_eio,
    when_the_controller_is_closed_the_user_side_is_hung_up,
    a_terminal_is_opened_by_its_name,
    what_is_no_terminal_is_refused,
    a_program_runs_on_a_terminal,
);

async fn recv(terminal: &Terminal) -> Vec<u8> {
    let received = timeout(SOON, terminal.recv_into(Vec::with_capacity(1000))).await;
    let (result, buf) = received.expect("bytes come soon");
    result.unwrap();
    buf
}

fn lines_go_to_the_user_side_and_an_echo_back(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let mut line = user.recv_into(Vec::with_capacity(100));
        assert!(start(&mut line).await.is_none());
        controller.send_all("hel").await.0.unwrap();
        let_others_run().await;
        assert!(start(&mut line).await.is_none(), "half a line");
        (&controller).write_all("lo\n").await.0.unwrap();
        assert_eq!(timeout(SOON, line).await.unwrap().1, b"hello\n");
        let (result, echo) = (&controller).read_exact(vec![0; 7].into_boxed_slice()).await;
        result.unwrap();
        assert_eq!(&echo[..], b"hello\r\n");
        user.send_all("answer\n").await.0.unwrap();
        timeout(SOON, user.drain()).await.unwrap().unwrap();
        assert_eq!(recv(&controller).await, b"answer\r\n");
    });
}

fn a_raw_terminal_hands_on_every_byte_until_it_is_restored(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        for restored in [true, false] {
            let raw = user.raw_mode().unwrap();
            let settings = user.settings().unwrap();
            assert!(!settings.echo() && !settings.lines() && !settings.signals());
            controller.send_all(vec![3, 4, b'x', b'\r', 0xff]).await.0.unwrap();
            assert_eq!(recv(&user).await, [3, 4, b'x', b'\r', 0xff]);
            user.send_all("\n").await.0.unwrap();
            assert_eq!(recv(&controller).await, b"\n", "no echo, and no carriage return");
            if restored {
                raw.restore().unwrap();
            } else {
                drop(raw);
            }
            let settings = user.settings().unwrap();
            assert!(settings.echo() && settings.lines() && settings.signals());
        }
    });
}

fn both_sides_wait_at_the_same_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let _raw = user.raw_mode().unwrap();
        let mut down = controller.recv_into(Vec::with_capacity(10));
        let mut up = user.recv_into(Vec::with_capacity(10));
        assert!(start(&mut down).await.is_none() && start(&mut up).await.is_none());
        controller.send_all("up").await.0.unwrap();
        assert_eq!(timeout(SOON, up).await.unwrap().1, b"up");
        user.send_all("down").await.0.unwrap();
        assert_eq!(timeout(SOON, down).await.unwrap().1, b"down");
    });
}

fn a_dropped_receive_leaves_the_bytes(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let _raw = user.raw_mode().unwrap();
        for round in 0..20u8 {
            let mut receive = user.recv_into(Vec::with_capacity(10));
            assert!(start(&mut receive).await.is_none());
            drop(receive);
            let_others_run().await;
            controller.send_all(vec![round]).await.0.unwrap();
            assert_eq!(recv(&user).await, [round]);
        }
    });
}

fn settings_hold_once_they_are_set(runtime: &Runtime) {
    runtime.block_on(async {
        let (_controller, port) = Terminal::pair().unwrap();
        let before = port.settings().unwrap();
        let mut settings = before.clone();
        settings.make_raw();
        settings.set_stop_bits(StopBits::Two);
        settings.set_hardware_flow_control(true);
        settings.set_software_flow_control(true);
        settings.set_ignores_modem(true);
        // One with a name, and one without.
        for speed in [115_200, 31_250] {
            settings.set_speed(speed);
            port.set_settings(&settings).unwrap();
            let held = port.settings().unwrap();
            assert_eq!((held.speed(), held.stop_bits()), (speed, StopBits::Two));
            assert!(held.hardware_flow_control() && held.software_flow_control());
            assert!(held.ignores_modem() && !held.echo() && !held.lines());
            assert_eq!((held.data_bits(), held.parity()), (DataBits::Eight, Parity::None));
        }
        let mut settings = before.clone();
        settings.set_echo(false);
        settings.set_signals(false);
        settings.set_lines(true);
        port.set_settings(&settings).unwrap();
        let held = port.settings().unwrap();
        assert!(!held.echo() && !held.signals() && held.lines());
        assert_eq!((held.speed(), held.stop_bits()), (before.speed(), before.stop_bits()));
    });
}

fn a_setting_that_the_device_does_not_take_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let (_controller, port) = Terminal::pair().unwrap();
        let mut settings = port.settings().unwrap();
        settings.set_speed(57_600);
        settings.set_data_bits(DataBits::Seven);
        settings.set_parity(Parity::Even);
        assert_eq!((settings.data_bits(), settings.parity()), (DataBits::Seven, Parity::Even));
        let error = port.set_settings(&settings).unwrap_err();
        let text = error.to_string();
        assert_eq!(errno(Err::<(), _>(error)), libc::EINVAL);
        assert!(text.contains("data bits Seven (it has Eight)"), "{text}");
        assert!(text.contains("parity Even (it has None)") && !text.contains("speed"), "{text}");
        assert_eq!(port.settings().unwrap().speed(), 57_600, "the others hold");
    });
}

fn windows_have_sizes(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        assert_eq!(user.window_size().unwrap(), (0, 0));
        controller.set_window_size(25, 80).unwrap();
        assert_eq!(user.window_size().unwrap(), (25, 80));
    });
}

fn what_was_not_read_is_discarded(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let _raw = user.raw_mode().unwrap();
        controller.send_all("old").await.0.unwrap();
        timeout(SOON, user.poll(libc::POLLIN)).await.unwrap().unwrap();
        user.discard(Discard::Input).unwrap();
        controller.send_all("new").await.0.unwrap();
        assert_eq!(recv(&user).await, b"new");
        user.send_break().await.unwrap();
    });
}

/// What programs call the terminal.
fn name_of(controller: &Terminal) -> String {
    rustix::pty::ptsname(controller, Vec::new()).unwrap().into_string().unwrap()
}

/// It fails because nobody is on the other side, and says of which terminal.
fn assert_closed<T>(result: io::Result<T>, name: &str) {
    let error = result.map(drop).unwrap_err();
    let text = error.to_string();
    let says_what = text.contains("is closed: no program") || text.contains("is hung up");
    assert!(text.contains(name) && says_what, "{name}: {text}");
    assert_eq!(errno(Err::<(), _>(error)), libc::EIO);
}

fn when_the_user_side_is_closed_the_controller_gets_eio(runtime: &Runtime) {
    runtime.block_on(async {
        // While it waits.
        let (controller, user) = Terminal::pair().unwrap();
        let mut receive = controller.recv_into(Vec::with_capacity(10));
        assert!(start(&mut receive).await.is_none());
        user.close().await.unwrap();
        let name = name_of(&controller);
        assert_closed(timeout(SOON, receive).await.unwrap().0, &name);
        assert_closed(controller.recv_into(Vec::with_capacity(10)).await.0, &name);
        let events = timeout(SOON, controller.poll(libc::POLLIN)).await.unwrap().unwrap();
        assert_eq!(events as i16 & libc::POLLHUP, libc::POLLHUP);
        // What was written before comes first.
        let (controller, user) = Terminal::pair().unwrap();
        user.send_all("last words").await.0.unwrap();
        drop(user);
        assert_eq!(recv(&controller).await, b"last words");
        let end = timeout(SOON, controller.recv_into(Vec::with_capacity(10))).await.unwrap();
        assert_eq!(errno(end.0), libc::EIO);
    });
}

fn when_the_controller_is_closed_the_user_side_is_hung_up(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let raw = user.raw_mode().unwrap();
        let mut receive = user.recv_into(Vec::with_capacity(10));
        assert!(start(&mut receive).await.is_none());
        let name = name_of(&controller);
        drop(controller);
        assert_eq!(timeout(SOON, receive).await.unwrap().0.unwrap(), 0);
        let (result, _) = timeout(SOON, user.recv_into(Vec::with_capacity(10))).await.unwrap();
        assert_eq!(result.unwrap(), 0);
        assert_closed(timeout(SOON, user.send("x")).await.unwrap().0, &name);
        // There are no settings any more, and dropping the guard minds nothing.
        assert_closed(user.settings(), &name);
        assert_closed(user.window_size(), &name);
        drop(raw);
    });
}

fn a_terminal_is_opened_by_its_name(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        let name = rustix::pty::ptsname(&controller, Vec::new()).unwrap();
        let port = Terminal::open(name.to_str().unwrap()).await.unwrap();
        drop(user);
        port.send_all("hello\n").await.0.unwrap();
        assert_eq!(recv(&controller).await, b"hello\r\n");
        port.close().await.unwrap();
    });
}

fn what_is_no_terminal_is_refused(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    runtime.block_on(async {
        let error = Terminal::open(&path).await.unwrap_err();
        assert!(error.to_string().contains("/file\" is no terminal"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::ENOTTY);
        let error = Terminal::open(dir.path().join("nothing")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nothing\" as a terminal"), "{error}");
    });
}

fn a_program_runs_on_a_terminal(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = Terminal::pair().unwrap();
        // The engine has had to do with it.
        let mut receive = user.recv_into(Vec::with_capacity(10));
        assert!(start(&mut receive).await.is_none());
        drop(receive);
        while runtime.stats().in_flight_count > 0 {
            yield_now().await;
        }
        let fd = user.into_fd().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "test -t 0 && read line && echo got $line"]);
        command.stdin(fd.try_clone().unwrap()).stdout(fd).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The command has its descriptors as long as it is there.
        drop(command);
        controller.send_all("this\n").await.0.unwrap();
        assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
        let mut all = Vec::new();
        let rest = async {
            loop {
                let (result, buf) = controller.recv_into(Vec::with_capacity(100)).await;
                if result.is_err() {
                    return errno(result);
                }
                all.extend_from_slice(&buf);
            }
        };
        assert_eq!(timeout(SOON, pin!(rest)).await.unwrap(), libc::EIO);
        assert!(all.ends_with(b"got this\r\n"), "{all:?}");
    });
}
