//! The bench's end of a subject: starts the process, speaks the protocol, and
//! never waits for it without a limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Spec;
use crate::cleanup::OwnChild;
use crate::clock;
use crate::error::plain;
use crate::measure::Slice;
use crate::protocol::{Reply, Request};

/// How long a subject may take to set up, and to answer after its slice is over.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a subject may take to end after its input is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// The row cannot run here.
    Skipped(String),
    /// The row failed.
    Failed(String),
}

/// A subject's process. Dropping it ends the process.
#[derive(Debug)]
pub struct SubjectProcess {
    child: OwnChild,
    input: Option<ChildStdin>,
    replies: Receiver<String>,
    complaint: Option<JoinHandle<String>>,
    port: Option<u16>,
}

/// The command that turns this very program into the subject of `spec`.
pub fn command(spec: &Spec) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("bench-subject")
        .args(["--engine", &spec.engine, "--workload", spec.workload.name])
        .args(["--span", &spec.span.to_string()]);
    if let Some(file) = &spec.file {
        command.arg("--file").arg(file);
    }
    if let Some(core) = spec.core {
        command.args(["--core", &core.to_string()]);
    }
    Ok(command)
}

impl SubjectProcess {
    /// Starts a subject and waits until it is ready.
    pub fn start(mut command: Command) -> Result<SubjectProcess, Absence> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("OMNIRING_ENGINE"); // the row names its engine
        let mut child = OwnChild::start(&mut command)
            .map_err(|error| Absence::Failed(format!("cannot start: {}", plain(&error))))?;
        let pipes = child.inner();
        let input = pipes.stdin.take();
        let output = pipes.stdout.take().expect("the child's output is piped");
        let stderr = pipes.stderr.take().expect("the child's complaints are piped");
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaint = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.take(16 << 10).read_to_end(&mut text);
            let text = String::from_utf8_lossy(&text);
            let told = |line: &&str| !line.trim().is_empty() && !line.starts_with("note:");
            text.lines().rfind(told).unwrap_or_default().trim().to_owned()
        });
        let mut subject =
            SubjectProcess { child, input, replies, complaint: Some(complaint), port: None };
        match subject.reply(PATIENCE)? {
            Reply::Ready { port } => subject.port = port,
            other => return Err(subject.unexpected(&other)),
        }
        Ok(subject)
    }

    /// Port of its echo server.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Has it run one slice, for its figures or for counting its system calls.
    pub fn run(&mut self, length: Duration, count_syscalls: bool) -> Result<Slice, Absence> {
        let request = Request { run_ms: length.as_millis() as u64, count_syscalls };
        let line = serde_json::to_string(&request).expect("a request is plain data") + "\n";
        let written = self.input.as_mut().map(|input| input.write_all(line.as_bytes()));
        if !matches!(written, Some(Ok(()))) {
            return Err(self.ended());
        }
        match self.reply(length + PATIENCE)? {
            Reply::Slice(line) => Slice::try_from(line).map_err(|error| {
                Absence::Failed(format!("the subject's figures are damaged: {error}"))
            }),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Lets it end by itself, so that its driver's own farewell is run too.
    pub fn finish(mut self) {
        self.wait_for_end();
    }

    /// Closes its input and waits a little; then it is ended the hard way.
    fn wait_for_end(&mut self) -> String {
        self.input = None;
        let limit = clock::now() + FAREWELL;
        while clock::now() < limit {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return plain(&error),
            }
        }
        let _ = self.child.inner().kill();
        "it did not end by itself".to_owned()
    }

    fn reply(&mut self, limit: Duration) -> Result<Reply, Absence> {
        match self.replies.recv_timeout(limit) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Reply::Refused { reason }) => Err(Absence::Skipped(reason)),
                Ok(Reply::Failed { reason }) => Err(Absence::Failed(reason)),
                Ok(reply) => Ok(reply),
                Err(error) => Err(Absence::Failed(format!("cannot read its answer: {error}"))),
            },
            Err(RecvTimeoutError::Timeout) => {
                Err(Absence::Failed(format!("no answer within {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Absence {
        Absence::Failed(format!("an answer out of turn: {reply:?}"))
    }

    /// Why a subject that has gone has gone.
    fn ended(&mut self) -> Absence {
        let status = self.wait_for_end();
        let complaint = self.complaint.take().and_then(|reader| reader.join().ok());
        match complaint.filter(|text| !text.is_empty()) {
            Some(text) => Absence::Failed(format!("the subject ended: {text}")),
            None => Absence::Failed(format!("the subject ended: {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_subject_that_dies_says_why() {
        let outcome = SubjectProcess::start(shell("echo first >&2; echo out of luck >&2; exit 1"));
        let reason = "the subject ended: out of luck".to_owned();
        assert_eq!(outcome.unwrap_err(), Absence::Failed(reason));
        let outcome = SubjectProcess::start(shell("kill -9 $$"));
        let Absence::Failed(reason) = outcome.unwrap_err() else { panic!() };
        assert!(reason.contains("signal: 9"), "{reason}");
    }

    #[test]
    fn a_refusal_is_a_skip() {
        let script = r#"echo '{"refused":{"reason":"no O_DIRECT"}}'"#;
        let outcome = SubjectProcess::start(shell(script));
        assert_eq!(outcome.unwrap_err(), Absence::Skipped("no O_DIRECT".to_owned()));
    }

    #[test]
    fn nonsense_is_a_failure() {
        let outcome = SubjectProcess::start(shell("echo hello"));
        assert!(matches!(outcome.unwrap_err(), Absence::Failed(_)));
    }

    #[test]
    fn a_ready_subject_that_leaves_fails_at_its_next_slice() {
        let script = r#"echo '{"ready":{"port":7}}'; exit 3"#;
        let mut subject = SubjectProcess::start(shell(script)).unwrap();
        assert_eq!(subject.port(), Some(7));
        assert!(subject.run(Duration::from_millis(10), false).is_err());
    }
}
