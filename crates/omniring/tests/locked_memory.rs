//! What a pool of fixed buffers does where the process may lock little memory: in a process of its
//! own, without the capability that lifts the limit.

use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use omniring::buf::FixedPool;
use omniring::fs::File;
use omniring::{Engine, Runtime};

/// Set in the process with little memory to lock.
const LIMITED_VARIABLE: &str = "OMNIRING_TEST_LIMITED";
const LIMIT: u64 = 4 << 20;

#[test]
fn a_pool_beyond_the_limit_is_plain_memory_or_an_error() {
    if std::env::var_os(LIMITED_VARIABLE).is_some() {
        return limited();
    }
    let itself = std::env::current_exe().unwrap();
    let mut with_setpriv = Command::new("setpriv");
    with_setpriv.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock", "--"]);
    // Whoever may not give the capability up has not got it.
    for mut command in [with_setpriv, Command::new("env")] {
        let output = command
            .arg(&itself)
            .args(["--exact", "a_pool_beyond_the_limit_is_plain_memory_or_an_error"])
            .arg("--nocapture")
            .env(LIMITED_VARIABLE, "1")
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return skip(&format!("setpriv does not start: {error}")),
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        if !text.contains("setpriv: ") {
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
    }
}

fn skip(reason: &str) {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
    eprintln!("skipped: {reason}");
}

fn limited() {
    setrlimit(Resource::RLIMIT_MEMLOCK, LIMIT, LIMIT).unwrap();
    let runtime = match Runtime::builder().engine(Engine::Uring).build() {
        Ok(runtime) => runtime,
        Err(error) => return skip(&error.to_string()),
    };
    runtime.block_on(async {
        let builder = FixedPool::builder().class(1 << 20, 8);
        let error = builder.clone().require_registered(true).build().unwrap_err().to_string();
        for part in ["too little locked memory", "8192 KiB of the 4096 KiB", "ulimit -l"] {
            assert!(error.contains(part), "{error}");
        }
        let plain = builder.build().unwrap();
        assert!(!plain.is_registered());
        let zero = File::open("/dev/zero").await.unwrap();
        let mut buf = plain.take(4096).await.unwrap();
        buf.fill(1);
        let (result, buf) = zero.read_at(buf, 0).await;
        assert_eq!((result.unwrap(), buf[4095]), (4096, 0), "it works all the same");
        // What is within the limit is registered; the charge comes back with each pool.
        for _ in 0..5 {
            let small = FixedPool::builder().class(1 << 20, 2).require_registered(true);
            assert!(small.build().unwrap().is_registered());
        }
    });
}
