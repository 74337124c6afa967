//! What the attributes `main` and `test` expand to: nothing that a program calls itself.

use std::future::Future;
use std::process::{ExitCode, Termination};

use crate::{Builder, ENGINE_VARIABLE, Engine, Runtime, StartError};

/// The runtime of a program; without one it ends, and says why in one line.
pub fn start(builder: Builder) -> Runtime {
    builder.build().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(1)
    })
}

/// How the runtime of a test is made.
pub fn builder(engine: Engine) -> Builder {
    let builder = Runtime::builder().engine(engine);
    // A test is about a program's logic, which does not depend on the machine's devices.
    if engine == Engine::UringIopoll { builder.allow_unpolled(true) } else { builder }
}

/// Runs a test on `engine`, or says why not. A test that is to panic says with which message; `""`
/// for any.
pub fn test<F>(builder: Builder, engine: Engine, panic: Option<&str>, test: impl FnOnce() -> F)
where
    F: Future<Output: Termination>,
{
    let runtime = match started(builder, engine) {
        Ok(runtime) => runtime,
        Err(reason) => return skip(&reason, panic),
    };
    let code = runtime.block_on(test()).report();
    assert!(code == ExitCode::SUCCESS, "the test ended with an error, which is printed above");
}

/// The runtime, if it is on the engine that the test is for.
fn started(builder: Builder, engine: Engine) -> Result<Runtime, String> {
    let runtime = builder.build().map_err(|error: StartError| error.to_string())?;
    let runs = runtime.engine();
    if engine != Engine::Auto && runs != engine {
        return Err(format!(
            "engine '{engine}' is not the one that {ENGINE_VARIABLE} chose, '{runs}'"
        ));
    }
    Ok(runtime)
}

/// A test that cannot run here: it fails where everything is required.
fn skip(reason: &str, panic: Option<&str>) {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    match panic {
        None => assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}"),
        // Only a panic is a success, and this is none.
        Some(_) if required => {
            eprintln!("skipped, and OMNIRING_REQUIRE=all: {reason}");
            return;
        }
        Some(_) => {}
    }
    eprintln!("skipped: {reason}");
    if let Some(message) = panic {
        panic!("{message}");
    }
}
