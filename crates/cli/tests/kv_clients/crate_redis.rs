//! The crate `redis`, with RESP2 and with RESP3.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Client, Commands, Connection, Pipeline, RedisResult, Value};

use crate::kv_support::{PATIENCE, Server};

fn connect(server: &Server, protocol: &str) -> Connection {
    let client = Client::open(format!("redis://127.0.0.1:{}/?protocol={protocol}", server.port));
    let connection = client.expect("an address").get_connection().expect("the server listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("it is set");
    connection
}

fn values(con: &mut Connection) -> RedisResult<()> {
    let () = con.set("text", "value")?;
    let () = con.set_ex("short", 1, 1000)?;
    assert!((990..=1000).contains(&con.ttl::<_, i64>("short")?));
    assert_eq!(con.get::<_, Option<String>>("none")?, None);
    assert_eq!(
        con.mget::<_, Vec<Option<String>>>(&["text", "none"])?,
        [Some("value".into()), None]
    );
    let () = con.hset_multiple("hash", &[("a", 1), ("b", 2)])?;
    let hash: BTreeMap<String, i64> = con.hgetall("hash")?;
    assert_eq!(hash, BTreeMap::from([("a".into(), 1), ("b".into(), 2)]));
    let () = con.zadd_multiple("ranks", &[(0.5, "low"), (7.25, "high")])?;
    let ranks: Vec<(String, f64)> = con.zrange_withscores("ranks", 0, -1)?;
    assert_eq!(ranks, [("low".into(), 0.5), ("high".into(), 7.25)]);
    assert_eq!(con.zscore::<_, _, f64>("ranks", "high")?, 7.25);
    let error = con.lpush::<_, _, i64>("text", 1).expect_err("it is no list");
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    Ok(())
}

fn pipelines_and_scans(con: &mut Connection) -> RedisResult<()> {
    let mut pipe = Pipeline::new();
    for n in 0..3000 {
        pipe.set(format!("many:{n}"), n).ignore();
    }
    let (sum, text): (i64, String) = pipe.incr("sum", 5).get("text").query(con)?;
    assert_eq!((sum, text.as_str()), (5, "value"));
    let found: BTreeSet<String> =
        con.scan_match::<_, String>("many:*")?.collect::<RedisResult<_>>()?;
    assert_eq!(found.len(), 3000);
    let (): () =
        redis::pipe().atomic().rpush("list", &[1, 2, 3]).ignore().del("sum").ignore().query(con)?;
    assert_eq!(con.lrange::<_, Vec<i64>>("list", 0, -1)?, [1, 2, 3]);
    Ok(())
}

/// Several who read a number, and write the next one in a transaction if it is still the same.
fn transactions(server: &Server, protocol: &str) -> RedisResult<()> {
    let count = || -> RedisResult<()> {
        let mut con = connect(server, protocol);
        for _ in 0..20 {
            let (next,): (i64,) = redis::transaction(&mut con, &["count"], |con, pipe| {
                let now: Option<i64> = con.get("count")?;
                pipe.set("count", now.unwrap_or(0) + 1).ignore().get("count").query(con)
            })?;
            assert!(next > 0);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(count)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    assert_eq!(connect(server, protocol).get::<_, i64>("count")?, 60);
    Ok(())
}

fn messages_and_waiting(server: &Server, protocol: &str) -> RedisResult<()> {
    let mut con = connect(server, protocol);
    let mut listener = connect(server, protocol);
    let mut listener = listener.as_pubsub();
    listener.subscribe("channel")?;
    listener.psubscribe("other.*")?;
    assert_eq!(con.publish::<_, _, i64>("channel", "one")?, 1);
    assert_eq!(con.publish::<_, _, i64>("other.side", "two")?, 1);
    for expected in [("channel", "one"), ("other.side", "two")] {
        let message = listener.get_message()?;
        assert_eq!(
            (message.get_channel_name(), message.get_payload::<String>()?.as_str()),
            expected
        );
    }
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| connect(server, protocol).blpop::<_, (String, i64)>("work", 30.0));
        for _ in 0..2 {
            let () = con.rpush("work", 7)?;
        }
        assert_eq!(waiting.join().expect("it does not panic")?, ("work".into(), 7));
        Ok(())
    })
}

#[test]
fn a_program_on_the_crate_redis_runs_with_resp2_and_resp3() {
    crate::on_servers(|server| {
        for protocol in ["resp2", "resp3"] {
            let mut con = connect(server, protocol);
            let mut program = || -> RedisResult<()> {
                let () = redis::cmd("FLUSHALL").query(&mut con)?;
                values(&mut con)?;
                pipelines_and_scans(&mut con)?;
                transactions(server, protocol)?;
                messages_and_waiting(server, protocol)
            };
            program().unwrap_or_else(|error| panic!("{protocol}: {error}"));
            // What tells that RESP3 was spoken.
            let hash: Value =
                redis::cmd("HGETALL").arg("hash").query(&mut con).expect("it is there");
            assert_eq!(matches!(hash, Value::Map(_)), protocol == "resp3", "{hash:?}");
        }
    });
}
