//! Other people's programs: run in bounded time, without holding up the runtime.

use std::process::{Command, Stdio};

use crate::harness::skip;

/// What a program said.
pub struct Said {
    pub success: bool,
    pub out: Vec<u8>,
    pub err: String,
}

impl Said {
    /// Its output as text; a failure if it failed.
    pub fn text(self) -> String {
        assert!(self.success, "{}", self.err);
        String::from_utf8(self.out).expect("text")
    }
}

/// Whether there is such a program; said aloud if not.
pub fn is_there(program: &str) -> bool {
    let there = Command::new(program)
        .arg(if program == "openssl" { "version" } else { "--version" })
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        skip(&format!("no program '{program}' here"));
    }
    there
}

/// Runs a program to its end.
pub async fn run(program: &'static str, arguments: &[&str]) -> Said {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    omniring::spawn_blocking(move || {
        let output = Command::new("timeout")
            .arg("20")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("timeout(1) is there");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Said { success: output.status.success(), out: output.stdout, err }
    })
    .await
    .expect("it does not panic")
}

/// curl, quiet but for errors, and without the settings of whoever runs the test.
pub async fn curl(arguments: &[&str]) -> Said {
    let mut all = vec!["-q", "-sS", "--noproxy", "*", "--max-time", "15"];
    all.extend(arguments);
    run("curl", &all).await
}
