//! The table of `docs/ops.md`, which says how each engine carries out each op, is what the code
//! says. With `OMNIRING_REGENERATE=1` this test writes it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use omniring::{Engine, Opcode, Runtime};

/// The first kernel that has every opcode that the ring is used with; an older one offloads more.
const KERNEL_MIN: (u32, u32) = (6, 11);

const HEAD: &str = "\
# How each engine carries out each op

- **native**: by the engine's own mechanism;
- **direct**: by the engine's own mechanism for files that are open past the page cache (`O_DIRECT`), at a
  position; offloaded for others;
- **inline**: by a call on the driver's thread that waits for nothing, or, on `blocking`, for the
  device;
- **offloaded**: by a call on a thread of the pool;
- **unsupported**: not at all; the op fails with `EOPNOTSUPP` as it starts.

This is on a current kernel; on an older one `uring` offloads, or carries out inline, what the kernel's
io_uring lacks. `Runtime::support` says what holds on the machine at hand, and `omniring doctor` what an
older kernel, a container or a limit takes away. The results are the same on all engines.

The table is made from the code by `OMNIRING_REGENERATE=1 cargo test -p omniring --test op_table`.

";

#[test]
fn the_table_in_the_documentation_is_what_the_engines_say() {
    let runtimes = Engine::ALL.iter().map(|&engine| {
        Runtime::builder().engine(engine).build().map_err(|error| error.to_string())
    });
    let runtimes = match runtimes.collect::<Result<Vec<Runtime>, String>>() {
        Ok(runtimes) => runtimes,
        Err(reason) => return skip(&reason),
    };
    if kernel() < KERNEL_MIN {
        return skip(&format!("the table is that of Linux {}.{}", KERNEL_MIN.0, KERNEL_MIN.1));
    }
    let found = HEAD.to_owned() + &table(&runtimes);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ops.md");
    if std::env::var("OMNIRING_REGENERATE").is_ok_and(|value| value == "1") {
        fs::write(&path, found).expect("the documentation can be written");
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let wrong = written.lines().zip(found.lines()).find(|(written, found)| written != found);
    assert!(
        written == found,
        "docs/ops.md is not what the engines say; write it anew with OMNIRING_REGENERATE=1 cargo \
         test -p omniring --test op_table. The first line that differs (there, here): {wrong:?}"
    );
}

fn table(runtimes: &[Runtime]) -> String {
    let mut text = String::from("| op |");
    for runtime in runtimes {
        let _ = write!(text, " `{}` |", runtime.engine());
    }
    text += "\n|---|";
    text += &"---|".repeat(runtimes.len());
    text.push('\n');
    for &opcode in Opcode::ALL {
        let _ = write!(text, "| `{}` |", opcode.name());
        for runtime in runtimes {
            let _ = write!(text, " {} |", runtime.support(opcode).name());
        }
        text.push('\n');
    }
    text
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("not a kernel's release: {release}"),
    }
}

fn skip(reason: &str) {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
    eprintln!("skipped: {reason}");
}
