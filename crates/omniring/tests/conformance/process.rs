//! Child processes.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use omniring::process::{Child, Command};
use omniring::signal::SignalKind;
use omniring::time::timeout;
use omniring::{AsyncRead, Runtime, pipe, spawn, yield_now};

use crate::denial::Denial;
use crate::harness::{conformance, errno, fd_count};
use crate::loopback::{recv_to_end, start};
use crate::pipes::let_others_run;

const SOON: Duration = Duration::from_secs(20);

conformance!(
    a_program_runs_and_its_end_is_known,
    output_and_errors_are_kept_apart,
    more_than_a_pipe_holds_comes_through,
    bytes_go_through_a_program,
    a_child_that_waits_for_input_ends_with_it,
    a_pipe_of_ours_goes_to_a_child,
    the_end_is_told_to_those_who_ask_again,
    a_dropped_wait_loses_nothing,
    many_children_end_at_once,
    a_child_is_killed,
    a_child_gets_a_signal,
    a_signal_to_what_has_ended_is_refused,
    a_child_runs_elsewhere_with_another_environment,
    what_does_not_start_is_named,
    a_command_starts_again;
    isolated: a_dropped_child_leaves_no_zombie,
    a_dropped_child_is_killed_if_asked,
    a_child_outlives_its_runtime_and_leaves_no_zombie,
    a_child_dropped_after_its_runtime_leaves_no_zombie,
    without_pidfds_children_are_waited_for_all_the_same,
    an_end_that_somebody_else_took_is_an_error,
    nothing_is_left_open,
);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Runs until a killer comes.
fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    command
}

fn a_program_runs_and_its_end_is_known(runtime: &Runtime) {
    runtime.block_on(async {
        assert!(timeout(SOON, Command::new("true").status()).await.unwrap().unwrap().success());
        let status = timeout(SOON, sh("exit 7").status()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
        let status = timeout(SOON, sh("kill -USR1 $$").status()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGUSR1));
    });
}

fn output_and_errors_are_kept_apart(runtime: &Runtime) {
    runtime.block_on(async {
        let mut command = sh("echo out; echo err >&2; cat; exit 3");
        let output = timeout(SOON, command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        let output = sh("echo out; echo err >&2").stderr(Stdio::null()).output().await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b""[..]));
    });
}

fn more_than_a_pipe_holds_comes_through(runtime: &Runtime) {
    runtime.block_on(async {
        // One after the other: whoever reads only one of them waits for ever.
        let mut command = sh("head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero");
        let output = timeout(SOON, command.output()).await.unwrap().unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), output.stderr.len()), (200_000, 300_000));
    });
}

fn bytes_go_through_a_program(runtime: &Runtime) {
    const LEN: usize = 1 << 20;
    runtime.block_on(async {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let data: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        let expected = data.clone();
        let sender = spawn(async move { stdin.send_all(data).await.0 });
        let received = timeout(SOON, recv_to_end(stdout)).await.unwrap();
        assert!(received == expected);
        sender.await.unwrap().unwrap();
        assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    });
}

fn a_child_that_waits_for_input_ends_with_it(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(child.stdin.is_some() && child.stdout.is_none() && child.stderr.is_none());
        assert!(child.try_wait().unwrap().is_none());
        assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.unwrap();
        child.stdin.as_ref().unwrap().send_all("last words").await.0.unwrap();
        let output = timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.stdout, b"last words");
        // What has ended takes no more.
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        timeout(SOON, child.wait()).await.unwrap().unwrap();
        // Another test's child may have the other end until it runs its program.
        timeout(SOON, stdin.poll(libc::POLLERR)).await.unwrap().unwrap();
        assert_eq!(errno(stdin.send("x").await.0), libc::EPIPE);
    });
}

fn a_pipe_of_ours_goes_to_a_child(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe::pipe().unwrap();
        // It has been of use, so that the engine has had to do with it.
        let mut recv = receiver.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        sender.send_all("first").await.0.unwrap();
        assert_eq!(timeout(SOON, recv).await.unwrap().1, b"first");
        let child = Command::new("cat")
            .stdin(receiver.into_std().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        sender.send_all("second").await.0.unwrap();
        drop(sender);
        let output = timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"second"[..]));
    });
}

fn the_end_is_told_to_those_who_ask_again(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = sh("exit 5").spawn().unwrap();
        let id = child.id().unwrap();
        assert!(id > 1);
        for _ in 0..2 {
            assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(5));
            assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(5));
            assert_eq!(child.id(), None);
        }
    });
}

fn a_dropped_wait_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = sh("read line; exit 4").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        for _ in 0..10 {
            let mut wait = pin!(child.wait());
            assert!(start(&mut wait).await.is_none());
        }
        stdin.send_all("go\n").await.0.unwrap();
        assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(4));
    });
}

fn many_children_end_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe::pipe().unwrap();
        let receiver = receiver.into_std().unwrap();
        let children: Vec<_> = (0..20)
            .map(|number| {
                let mut command = sh(&format!("read line; exit {number}"));
                let mut child = command.stdin(receiver.try_clone().unwrap()).spawn().unwrap();
                spawn(async move { child.wait().await.unwrap().code() })
            })
            .collect();
        let_others_run().await;
        drop((sender, receiver));
        for (number, child) in children.into_iter().enumerate() {
            assert_eq!(timeout(SOON, child).await.unwrap().unwrap(), Some(number as i32));
        }
    });
}

fn a_child_is_killed(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = sleeper().spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        child.kill().expect("it is dead already");
    });
}

fn a_child_gets_a_signal(runtime: &Runtime) {
    runtime.block_on(async {
        let child = sleeper().spawn().unwrap();
        child.signal(SignalKind::TERMINATE).unwrap();
        let output = timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGTERM));
    });
}

fn a_signal_to_what_has_ended_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = Command::new("true").spawn().unwrap();
        let unnamed = child.signal(SignalKind::from_raw(40)).unwrap_err();
        assert_eq!(unnamed.kind(), io::ErrorKind::InvalidInput);
        let id = child.id().unwrap().to_string();
        timeout(SOON, child.wait()).await.unwrap().unwrap();
        let error = child.signal(SignalKind::TERMINATE).unwrap_err();
        for part in [&*id, "has ended (exit status: 0)", "SIGTERM"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(errno(Err::<(), _>(error)), libc::ESRCH);
    });
}

fn a_child_runs_elsewhere_with_another_environment(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    runtime.block_on(async {
        let output = sh("pwd; echo $COLOUR; echo $HOME")
            .current_dir(&path)
            .env("COLOUR", "blue")
            .env_remove("HOME")
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("{}\nblue\n\n", path.display()));
    });
}

fn what_does_not_start_is_named(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    runtime.block_on(async {
        let check = |mut command: Command, expected: i32, words: &[&str]| {
            let error = command.spawn().map(drop).unwrap_err();
            let text = error.to_string();
            assert_eq!(errno(Err::<(), _>(error)), expected, "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let name = "omniring-no-such-program";
        let mut command = Command::new(name);
        // Others may hold directories that not everybody may search.
        command.env("PATH", "/usr/bin:/bin");
        check(command, libc::ENOENT, &[name, "no directory of PATH has it"]);
        let nowhere = path("nowhere");
        check(Command::new(&nowhere), libc::ENOENT, &[&nowhere, "it is not there"]);
        let mut command = Command::new("true");
        command.current_dir(&nowhere);
        check(command, libc::ENOENT, &["true", &nowhere, "working directory"]);
        let script = script.to_str().unwrap();
        check(Command::new(script), libc::EACCES, &[script, "may not be executed"]);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(script, PermissionsExt::from_mode(0o700)).unwrap();
        check(Command::new(script), libc::ENOENT, &[script, "the interpreter"]);
        let error = Command::new("a\0b").output().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // The standard library has forgotten the name by then.
        let text = error.to_string();
        assert!(text.contains("cannot start") && text.contains("nul byte"), "{text}");
    });
    assert_eq!(runtime.stats().in_flight_count, 0);
}

fn a_command_starts_again(runtime: &Runtime) {
    runtime.block_on(async {
        let mut command = sh("echo again");
        for _ in 0..2 {
            assert_eq!(command.output().await.unwrap().stdout, b"again\n");
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let stdout = child.stdout.take().unwrap();
            assert_eq!(timeout(SOON, recv_to_end(stdout)).await.unwrap(), b"again\n");
            assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
        }
    });
}

/// Whether there is a process of this number, dead or alive.
fn is_in_table(id: u32) -> bool {
    PathBuf::from(format!("/proc/{id}")).exists()
}

/// Lets the runtime do its work until the process is gone for good.
async fn is_collected(id: u32) {
    let gone = async {
        while is_in_table(id) {
            omniring::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

fn kill(child: &mut Child) -> u32 {
    let id = child.id().unwrap();
    child.kill().unwrap();
    id
}

fn a_dropped_child_leaves_no_zombie(runtime: &Runtime) {
    runtime.block_on(async {
        // It ends after it is dropped.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, id) = (child.stdin.take(), child.id().unwrap());
        drop(child);
        let_others_run().await;
        assert!(is_in_table(id), "it runs on");
        assert_eq!(runtime.stats().task_count, 1);
        drop(stdin);
        is_collected(id).await;
        yield_now().await;
        // Before, or at about the same time.
        for pause in [true, false] {
            let mut child = sleeper().spawn().unwrap();
            let id = kill(&mut child);
            if pause {
                let_others_run().await;
            }
            drop(child);
            is_collected(id).await;
        }
        // In the midst of a wait.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, id) = (child.stdin.take(), child.id().unwrap());
        let waiting = spawn(async move { child.wait().await });
        let_others_run().await;
        waiting.abort();
        drop(waiting);
        let_others_run().await;
        drop(stdin);
        is_collected(id).await;
    });
}

fn a_dropped_child_is_killed_if_asked(runtime: &Runtime) {
    runtime.block_on(async {
        let child = sleeper().kill_on_drop(true).spawn().unwrap();
        let id = child.id().unwrap();
        drop(child);
        is_collected(id).await;
        let mut command = sh("echo $$; exec sleep 1000");
        command.kill_on_drop(true).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        {
            let mut output = pin!(child.wait_with_output());
            let (result, line) = timeout(SOON, stdout.read(Vec::with_capacity(100))).await.unwrap();
            assert!(result.unwrap() > 0 && !line.is_empty());
            assert!(start(&mut output).await.is_none());
        }
        assert_eq!(timeout(SOON, stdout.read(vec![0; 8])).await.unwrap().0.unwrap(), 0);
    });
}

/// Asks for what was left behind, by starting something.
fn collect_left_behind(builder: omniring::Builder, id: u32) {
    let runtime = builder.build().unwrap();
    runtime.block_on(async {
        let collected = async {
            while is_in_table(id) {
                assert!(Command::new("true").status().await.unwrap().success());
            }
        };
        timeout(SOON, collected).await.unwrap();
    });
}

fn a_child_outlives_its_runtime_and_leaves_no_zombie(runtime: &Runtime) {
    let builder = Runtime::builder().engine(runtime.engine()).allow_unpolled(true);
    let own = builder.clone().build().unwrap();
    let (stdin, id) = own.block_on(async {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        (child.stdin.take().unwrap().into_std().unwrap(), child.id().unwrap())
    });
    assert_eq!(own.stats().task_count, 1);
    drop(own);
    assert!(is_in_table(id));
    drop(stdin);
    collect_left_behind(builder, id);
}

fn a_child_dropped_after_its_runtime_leaves_no_zombie(runtime: &Runtime) {
    let builder = Runtime::builder().engine(runtime.engine()).allow_unpolled(true);
    let own = builder.clone().build().unwrap();
    let mut child = own.block_on(async {
        let mut child = sleeper().spawn().unwrap();
        assert!(start(&mut pin!(child.wait())).await.is_none());
        child
    });
    drop(own);
    let id = kill(&mut child);
    drop(child);
    collect_left_behind(builder, id);
}

fn without_pidfds_children_are_waited_for_all_the_same(runtime: &Runtime) {
    Denial::Pidfd.apply();
    a_dropped_wait_loses_nothing(runtime);
    many_children_end_at_once(runtime);
    a_child_is_killed(runtime);
    a_dropped_child_leaves_no_zombie(runtime);
}

fn an_end_that_somebody_else_took_is_an_error(runtime: &Runtime) {
    runtime.block_on(async {
        let mut child = sleeper().spawn().unwrap();
        kill(&mut child);
        rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap();
        let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("somebody else has asked"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::ECHILD);
    });
}

fn nothing_is_left_open(runtime: &Runtime) {
    runtime.block_on(async {
        let one_round = async || {
            sh("echo hello; echo err >&2").output().await.unwrap();
            let mut child = sleeper().stdout(Stdio::piped()).spawn().unwrap();
            assert!(start(&mut pin!(child.wait())).await.is_none());
            is_collected({
                let id = kill(&mut child);
                drop(child);
                id
            })
            .await;
            while runtime.stats().in_flight_count > 0 || runtime.stats().task_count > 0 {
                yield_now().await;
            }
        };
        one_round().await;
        let before = fd_count();
        for _ in 0..5 {
            one_round().await;
        }
        assert_eq!(fd_count(), before);
    });
}
