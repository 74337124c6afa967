use super::sketch::{self, Registers, Sketch};
use crate::server::local::Local;

#[test]
fn elements_are_counted_and_the_count_is_kept() {
    let mut local = Local::new(2);
    assert_eq!(local.run("PFADD h a b c d e f g"), "1");
    assert_eq!(local.run("PFADD h a g"), "0");
    assert_eq!(local.event_names(), Vec::<&str>::new());
    assert_eq!(local.run("GETRANGE h 15 15"), "\"\\x80\"");
    assert_eq!(local.run("PFCOUNT h"), "7");
    assert_eq!(local.run("GETRANGE h 15 15"), "\"\\x00\"");
    assert_eq!(local.run("GETRANGE h 8 8"), "\"\\x07\"");
    assert_eq!(local.run("PFCOUNT h"), "7");
    assert_eq!(local.run("PFADD i x a"), "1");
    assert_eq!(local.run("PFCOUNT h i none"), "8");
    assert_eq!(local.run("PFMERGE d h i"), "OK");
    assert_eq!(local.run("PFCOUNT d"), "8");
    assert_eq!(local.run("PFCOUNT none"), "0");
    assert_eq!(local.logged(), ["PFADD h a b c d e f g", "PFADD i x a", "PFMERGE d h i"]);
}

#[test]
fn only_a_hyperloglog_will_do() {
    let mut local = Local::default();
    local.run("SET s HYLL");
    local.run("SET n 12");
    for words in ["PFADD s a", "PFCOUNT s", "PFCOUNT s n", "PFMERGE d s", "PFCOUNT n"] {
        assert_eq!(
            local.run(words),
            "(error) WRONGTYPE Key is not a valid HyperLogLog string value."
        );
    }
    assert_eq!(local.run("EXISTS d"), "0");
    local.run("PFADD h a b c");
    local.run("APPEND h hello");
    for words in ["PFCOUNT h", "PFMERGE d h", "PFCOUNT h d"] {
        assert_eq!(local.run(words), "(error) INVALIDOBJ Corrupted HLL object detected");
    }
    // A run that is cut off.
    local.run("PFADD i a b c");
    local.run("APPEND i \x7f");
    assert_eq!(local.run("PFCOUNT i"), "(error) INVALIDOBJ Corrupted HLL object detected");
}

#[test]
fn sparse_and_dense_agree() {
    let (mut grown, mut dense) = (sketch::empty(), sketch::empty());
    let mut grown = Sketch::new(&mut grown, 3000);
    let mut dense = Sketch::new(&mut dense, 3000);
    assert_eq!(dense.make_dense(), Ok(true));
    for number in 0..20_000u32 {
        let element = number.to_string();
        assert_eq!(grown.add(element.as_bytes()), dense.add(element.as_bytes()), "{number}");
        if number % 500 == 0 {
            assert_eq!(sketch::count(grown.bytes()), sketch::count(dense.bytes()));
        }
    }
    let count = sketch::count(dense.bytes()).unwrap();
    assert!(count.abs_diff(20_000) < 800, "{count}");
    let mut registers = Registers::default();
    registers.merge(dense.bytes()).unwrap();
    assert_eq!(registers.count(), count);
    assert!(sketch::is_dense(grown.bytes()));
    assert_eq!(&grown.bytes()[16..], &dense.bytes()[16..]);
}

#[test]
fn runs_are_split_and_joined() {
    let mut bytes = sketch::empty();
    let mut sketch = Sketch::new(&mut bytes, 3000);
    for index in [100, 102, 101, 0, 16383] {
        assert_eq!(sketch.raise(index, 5), Ok(true));
        assert_eq!(sketch.raise(index, 5), Ok(false));
    }
    assert_eq!(sketch::describe(sketch.bytes()).as_deref(), Some("v:5,1 Z:99 v:5,3 Z:16280 v:5,1"));
    assert_eq!(sketch.raise(101, 6), Ok(true));
    assert_eq!(
        sketch::describe(sketch.bytes()).as_deref(),
        Some("v:5,1 Z:99 v:5,1 v:6,1 v:5,1 Z:16280 v:5,1")
    );
    assert_eq!(sketch.raise(7, 33), Ok(true));
    assert!(sketch::is_dense(sketch.bytes()));
}

#[test]
fn debugging_shows_what_there_is() {
    let mut local = Local::default();
    local.run("PFADD h a");
    assert_eq!(local.run("PFDEBUG ENCODING h"), "sparse");
    assert!(local.run("PFDEBUG DECODE h").contains("v:"));
    assert_eq!(local.run("PFDEBUG TODENSE h"), "1");
    assert_eq!(local.run("PFDEBUG TODENSE h"), "0");
    assert_eq!(local.run("PFDEBUG DECODE h"), "(error) ERR HLL encoding is not sparse");
    assert_eq!(local.run("PFDEBUG GETREG h").split(", ").count(), 16384);
    assert_eq!(local.run("PFCOUNT h"), "1");
    assert_eq!(local.run("PFDEBUG x h"), "(error) ERR Unknown PFDEBUG subcommand 'x'");
    assert_eq!(local.run("PFDEBUG GETREG i"), "(error) ERR The specified key does not exist");
}
