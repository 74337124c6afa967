//! The example programs, with curl as their client.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use omniring::Runtime;

use crate::programs::{curl, is_there};
use crate::site::pattern;

on_some_engines!(
    hello_http_says_hello,
    the_file_server_serves_files,
    the_file_server_serves_files_over_tls,
    the_file_server_names_what_is_wrong,
);

/// An example program that runs until this is dropped.
pub struct Program {
    pub child: Child,
    /// Where it says that it listens.
    pub at: String,
    /// What else it says.
    pub out: BufReader<ChildStdout>,
}

/// Where cargo has put the examples: beside the directory of the tests.
fn path(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples").join(name)
}

pub fn command(name: &str, arguments: &[&str], runtime: &Runtime) -> Command {
    let mut command = Command::new(path(name));
    command.args(arguments).args(["--engine", &runtime.engine().to_string()]);
    command.env_remove(omniring::ENGINE_VARIABLE).stdin(Stdio::null());
    command
}

impl Program {
    pub fn start(name: &str, arguments: &[&str], runtime: &Runtime) -> Program {
        let mut command = command(name, arguments, runtime);
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {error}; `cargo build --examples --features full` makes it")
        });
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut program = Program { child, at: String::new(), out };
        let line = program.line();
        program.at = line.strip_prefix("listening on ").expect("it says where").to_owned();
        program
    }

    /// The next line that it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Asks it to end, and waits until it has; yields its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hello_http_says_hello(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    for (option, arguments) in [("--http1.1", &[][..]), ("--http2-prior-knowledge", &["--http2"])] {
        let program = Program::start("hello_http", arguments, runtime);
        let (addr, engine) = program.at.split_once(' ').unwrap();
        assert_eq!(engine, format!("({})", runtime.engine()));
        let url = format!("http://{addr}/");
        // One at a time: this curl (7.88) fails to use a connection again that it began with prior
        // knowledge of HTTP/2.
        for _ in 0..2 {
            assert_eq!(runtime.block_on(curl(&[option, &url])).text(), "Hello, world!");
        }
    }
}

/// A directory with files, and one file beside it.
fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("site");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::write(root.join("index.html"), "<p>start").unwrap();
    std::fs::write(root.join("large.bin"), pattern(3_000_000)).unwrap();
    std::fs::write(root.join("a b.txt"), "spaced").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
    std::os::unix::fs::symlink("a b.txt", root.join("within")).unwrap();
    dir
}

fn the_file_server_serves_files(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let dir = site();
    let root = dir.path().join("site").display().to_string();
    let program = Program::start("file_server", &[&root], runtime);
    let base = program.at.clone();
    assert!(base.starts_with("http://127.0.0.1:"), "{base}");
    runtime.block_on(async {
        let get = async |options: &[&str], path: &str| {
            let url = format!("{base}{path}");
            let format = ["--path-as-is", "-w", "%{stderr}%{http_code} %{content_type}"];
            let said = curl(&[&format[..], options, &[&url]].concat()).await;
            (said.err, said.out)
        };
        let html = "200 text/html; charset=utf-8".to_owned();
        assert_eq!(get(&[], "/").await, (html, b"<p>start".into()));
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let (status, bytes) = get(&[version], "/large.bin").await;
            assert_eq!(status, "200 application/octet-stream");
            assert!(bytes == pattern(3_000_000));
        }
        let text = "200 text/plain; charset=utf-8".to_owned();
        assert_eq!(get(&[], "/a%20b.txt").await, (text.clone(), b"spaced".into()));
        assert_eq!(get(&[], "/within?query").await, (text, b"spaced".into()));
        assert_eq!(get(&[], "/empty").await.1, b"");
        for path in
            ["/nowhere", "/../secret", "/%2e%2e/secret", "/large.bin/x", "//etc/passwd", "/%+1"]
        {
            let (status, _) = get(&[], path).await;
            assert!(status.starts_with("404 "), "{path}: {status}");
        }
        assert!(get(&[], "/out").await.0.starts_with("403 "));
        assert!(get(&["-d", "x"], "/").await.0.starts_with("405 "));
        let part = get(&["-r", "1000-1999"], "/large.bin").await;
        assert!(part.0.starts_with("206 "));
        assert!(part.1 == pattern(3_000_000)[1000..2000]);
        let last = get(&["-r", "-10"], "/large.bin").await;
        assert!(last.1 == pattern(3_000_000)[2_999_990..]);
        assert!(get(&["-r", "3000000-"], "/large.bin").await.0.starts_with("416 "));
        let (status, head) = get(&["-I"], "/large.bin").await;
        let head = String::from_utf8(head).unwrap();
        assert!(status.starts_with("200 ") && head.contains("content-length: 3000000"), "{head}");
    });
}

fn the_file_server_serves_files_over_tls(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let dir = site();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let root = dir.path().join("site").display().to_string();
    let program = Program::start("file_server", &[&root, "--cert", &cert, "--key", &key], runtime);
    let port = program.at.strip_prefix("https://127.0.0.1:").expect("https").to_owned();
    runtime.block_on(async {
        let (to, url) =
            (format!("localhost:{port}:127.0.0.1"), format!("https://localhost:{port}/large.bin"));
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let format = "%{stderr}%{http_version}";
            let said =
                curl(&[option, "--cacert", &cert, "--resolve", &to, "-w", format, &url, &url])
                    .await;
            assert_eq!(said.err, version.repeat(2));
            assert!(said.out == pattern(3_000_000).repeat(2));
        }
    });
}

fn the_file_server_names_what_is_wrong(runtime: &Runtime) {
    let fails = |arguments: &[&str]| {
        let mut child =
            command("file_server", arguments, runtime).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    assert!(fails(&["/nowhere/at/all"]).contains("/nowhere/at/all: No such file"));
    assert!(fails(&["/dev/null"]).contains("/dev/null: not a directory"));
    let said = fails(&["/tmp", "--cert", "/no/cert.pem", "--key", "/no/key.pem"]);
    assert!(said.contains("/no/cert.pem: No such file"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let said = fails(&["/tmp", "--listen", &addr]);
    assert!(said.contains(&addr) && said.contains("choose another"), "{said}");
}
