//! redis-benchmark: its workloads, pipelined and not, and what they leave behind.

use std::process::Command;

use crate::kv_support::Answer;

const REQUESTS: i64 = 400; // A multiple of what is pipelined: it sends no fewer.

#[test]
fn the_workloads_of_redis_benchmark_run() {
    if !crate::has("redis-benchmark", "redis-tools") {
        return;
    }
    crate::on_servers(|server| {
        let (port, requests) = (server.port.to_string(), REQUESTS.to_string());
        let tests =
            "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset";
        let mut ran = 0;
        for pipeline in ["1", "16"] {
            let output = Command::new("redis-benchmark")
                .args([
                    "-p", &port, "-n", &requests, "-c", "50", "-P", pipeline, "-t", tests, "--csv",
                ])
                .output()
                .expect("redis-benchmark runs");
            let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
            let out = String::from_utf8(out).expect("what it says is text");
            assert!(output.status.success() && err.is_empty(), "{out}{err}");
            let rows: Vec<&str> = out.lines().skip(1).collect();
            for row in &rows {
                let rate = row.split(',').nth(1).map(|rate| rate.trim_matches('"'));
                let rate = rate.and_then(|rate| rate.parse::<f64>().ok());
                assert!(rate.is_some_and(|rate| rate > 0.0), "{row}");
            }
            ran += rows.len();
        }
        // Two kinds of PING, and a list to be read, come to those that are named.
        assert_eq!(ran, 2 * 17);
        let mut client = server.connect();
        let mut call = |words: &[&str]| client.call(words).expect("it is answered");
        let counted = (2 * REQUESTS).to_string().into_bytes();
        assert_eq!(call(&["GET", "counter:__rand_int__"]), Answer::Bulk(counted));
        // Put in by LPUSH, RPUSH and for LRANGE, taken out by LPOP and RPOP.
        assert_eq!(call(&["LLEN", "mylist"]), Answer::Int(2 * REQUESTS));
    });
}
