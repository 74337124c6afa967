use crate::server::local::Local;
use crate::store::{Limits, List, Set, Side, Value, Zset};

/// A list at `l`, a set at `s`, a sorted set at `z`, whatever commands of theirs there are.
fn with_values(elements: &[&str]) -> Local {
    let mut local = Local::new(3);
    let limits = Limits::default();
    let (mut list, mut set, mut zset) = (List::new(), Set::new(), Zset::new());
    for (index, element) in elements.iter().enumerate() {
        list.push(Side::Right, element.as_bytes(), &limits);
        set.insert(element.as_bytes(), &limits);
        zset.insert(element.as_bytes(), index as f64, &limits);
    }
    local.keys.begin(0, local.now_ms);
    local.keys.insert(b"l", Value::List(Box::new(list)), None);
    local.keys.insert(b"s", Value::Set(Box::new(set)), None);
    local.keys.insert(b"z", Value::Zset(Box::new(zset)), None);
    local
}

#[test]
fn numbers_and_texts_are_sorted_in_both_directions() {
    let mut local = with_values(&["10", "9", "2.5", "-1"]);
    for key in ["l", "s", "z"] {
        let sort = |local: &mut Local, rest| local.run(&format!("SORT {key} {rest}"));
        assert_eq!(sort(&mut local, ""), r#"["-1", "2.5", "9", "10"]"#);
        assert_eq!(sort(&mut local, "DESC LIMIT 1 2"), r#"["9", "2.5"]"#);
        assert_eq!(sort(&mut local, "ALPHA"), r#"["-1", "10", "2.5", "9"]"#);
        assert_eq!(sort(&mut local, "LIMIT 3 100"), r#"["10"]"#);
        assert_eq!(sort(&mut local, "LIMIT 9 -1"), "[]");
    }
    assert_eq!(local.run("SORT l BY nosort DESC LIMIT 0 2"), r#"["-1", "2.5"]"#);
    assert_eq!(local.run("SORT z BY nosort LIMIT 1 2"), r#"["9", "2.5"]"#);
    assert_eq!(local.run("SORT none"), "[]");
    assert_eq!(local.run("SORT l LIMIT 1"), "(error) ERR syntax error");
    assert_eq!(local.run("SORT_RO l STORE d"), "(error) ERR syntax error");
    local.run("SET a 1");
    assert!(local.run("SORT a").starts_with("(error) WRONGTYPE"));
}

#[test]
fn other_keys_weigh_and_are_given() {
    let mut local = with_values(&["a", "b", "c"]);
    assert_eq!(
        local.run("SORT l"),
        "(error) ERR One or more scores can't be converted into double"
    );
    local.run("MSET w:a 3 w:b 1 w:c 2 t:a x t:b y");
    assert_eq!(local.run("SORT l BY w:*"), r#"["b", "c", "a"]"#);
    assert_eq!(
        local.run("SORT l BY w:* GET # GET t:* GET w:*->field GET fixed"),
        r#"["b", "y", (nil), (nil), "c", (nil), (nil), (nil), "a", "x", (nil), (nil)]"#
    );
    assert_eq!(local.run("SORT s BY t:* ALPHA DESC LIMIT 0 2"), r#"["b", "a"]"#);
}

#[test]
fn a_result_is_stored_as_a_list() {
    let mut local = with_values(&["3", "1", "2"]);
    local.run("SET d 1 EX 10");
    assert_eq!(local.run("SORT s BY nosort DESC STORE d"), "3");
    assert_eq!(local.event_names(), ["sortstore"]);
    assert_eq!(local.run("TTL d"), "-1");
    assert_eq!(local.run("SORT d BY nosort"), r#"["3", "2", "1"]"#);
    assert_eq!(local.run("SORT none STORE d"), "0");
    assert_eq!(local.event_names(), ["keymiss", "del"]);
    assert_eq!(local.run("EXISTS d"), "0");
}
