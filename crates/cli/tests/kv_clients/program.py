"""A program on redis-py, on the server at the port given: a shop, as small as one can be.

    program.py PORT

Ends with 0 if everything is as it has to be.
"""
import sys
import threading
import time

import redis

PORT = int(sys.argv[1])
PATIENCE = 30


def connect(**more):
    return redis.Redis(port=PORT, socket_timeout=PATIENCE, decode_responses=True, **more)


def together(*functions):
    """Runs functions in threads, and raises what one of them raised."""
    failures = []

    def run(function):
        try:
            function()
        except BaseException as failure:  # also a failed assertion, in a thread nobody would hear of it
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def sessions(r):
    """Strings, with an end and without."""
    assert r.set("session:1", "ada", px=60_000)
    assert 0 < r.pttl("session:1") <= 60_000
    assert r.set("session:1", "bob", nx=True) is None
    assert r.set("session:1", "bob", xx=True, get=True) == "ada"
    assert r.getex("session:1", persist=True) == "bob" and r.ttl("session:1") == -1
    assert r.getdel("session:1") == "bob" and r.get("session:1") is None
    assert r.mset({f"item:{n}": n for n in range(100)})
    assert r.mget("item:7", "item:none", "item:99") == ["7", None, "99"]
    assert r.incrbyfloat("price", 10.5) == 10.5
    blob = bytes(range(256)) * 4096
    raw = redis.Redis(port=PORT, socket_timeout=PATIENCE)
    assert raw.set("blob", blob) and raw.get("blob") == blob
    dump = raw.dump("blob")
    assert raw.restore("copy", 0, dump) and raw.get("copy") == blob
    assert r.delete("blob", "copy") == 2
    assert r.setbit("days", 5, 1) == 0 and r.bitcount("days") == 1
    assert r.pfadd("visitors", *range(500)) == 1 and abs(r.pfcount("visitors") - 500) < 25


def pipelines(r):
    """Many requests under way, of which one fails."""
    pipe = r.pipeline(transaction=False)
    for n in range(2_000):
        pipe.rpush("queue", n)
    pipe.llen("queue")
    pipe.incr("queue")
    pipe.lrange("queue", 0, 2)
    answers = pipe.execute(raise_on_error=False)
    assert answers[:2_000] == list(range(1, 2_001)) and answers[2_000] == 2_000
    assert isinstance(answers[2_001], redis.ResponseError) and "WRONGTYPE" in f"WRONGTYPE {answers[2_001]}"
    assert answers[2_002] == ["0", "1", "2"]
    with r.pipeline() as pipe:
        answers = pipe.hset("cart", mapping={"tea": 2, "milk": 1}).hincrby("cart", "tea", 3).hgetall("cart").execute()
    assert answers == [2, 5, {"tea": "5", "milk": "1"}]


def stock():
    """Two buyers who look before they take: WATCH, and again where somebody was quicker."""
    connect().set("stock", 60)
    retries = []

    def buyer():
        with connect() as r, r.pipeline() as pipe:
            for _ in range(30):
                while True:
                    try:
                        pipe.watch("stock")
                        left = int(pipe.get("stock"))
                        pipe.multi()
                        pipe.set("stock", left - 1)
                        pipe.incr("sold")
                        pipe.execute()
                        break
                    except redis.WatchError:
                        retries.append(1)

    together(buyer, buyer)
    assert connect().mget("stock", "sold") == ["0", "60"], retries


def news():
    """Channels, and patterns of channels."""
    r = connect()
    pubsub = r.pubsub()
    pubsub.subscribe("news")
    pubsub.psubscribe("weather.*")

    def message():
        found = pubsub.get_message(timeout=PATIENCE)
        assert found, "no message came"
        return found["type"], found["channel"], found["data"]

    assert message() == ("subscribe", "news", 1)
    assert message() == ("psubscribe", "weather.*", 2)
    assert connect().publish("news", "hello") == 1
    assert connect().publish("weather.north", "rain") == 1
    assert connect().publish("elsewhere", "nobody") == 0
    assert message() == ("message", "news", "hello")
    assert message() == ("pmessage", "weather.north", "rain")
    assert r.pubsub_numsub("news") == [("news", 1)]
    pubsub.close()


def workers():
    """One waits for work, and passes it on to one who waits for him."""

    def first():
        r = connect()
        for _ in range(50):
            assert r.blmove("todo", "doing", PATIENCE) is not None

    def second():
        r = connect()
        got = [r.blpop(["urgent", "doing"], PATIENCE)[1] for _ in range(50)]
        assert got == [str(n) for n in range(50)], got
        assert r.bzpopmin("ranks", PATIENCE) == ("ranks", "best", 1.0)

    def producer():
        r = connect()
        for n in range(50):
            r.rpush("todo", n)
        r.zadd("ranks", {"best": 1, "next": 2})

    together(first, second, producer)
    began = time.monotonic()
    assert connect().blpop(["todo"], 0.1) is None and time.monotonic() - began >= 0.09


def catalogue(r):
    """All keys there are, and all members of what is big."""
    assert {f"item:{n}" for n in range(100)} == set(r.scan_iter(match="item:*", count=17))
    r.sadd("big", *range(1_000))
    assert sorted(map(int, r.sscan_iter("big"))) == list(range(1_000))
    r.zadd("scores", {f"player{n}": n / 2 for n in range(300)})
    assert dict(r.zscan_iter("scores")) == {f"player{n}": n / 2 for n in range(300)}
    assert r.zrange("scores", 0, 2, desc=True, withscores=True) == [("player299", 149.5), ("player298", 149.0), ("player297", 148.5)]
    assert r.zrank("scores", "player250") == 250
    assert r.zinterstore("both", ["scores", "scores"]) == 300
    assert r.sort("big", start=0, num=3, desc=True) == ["999", "998", "997"]
    assert r.object("encoding", "price") is not None


def house(r):
    """What somebody who runs it asks."""
    r.client_setname("shop")
    assert any(client["name"] == "shop" for client in r.client_list())
    assert r.info("server")["redis_version"].startswith("7.0")
    assert r.config_set("slowlog-max-len", 64) and r.config_get("slowlog-max-len") == {"slowlog-max-len": "64"}
    assert r.dbsize() > 0 and r.ping()
    try:
        r.xadd("stream", {"a": 1})
        raise AssertionError("streams are not there")
    except redis.ResponseError as error:
        assert "not supported" in str(error), error


shared = connect()
shared.flushall()
for part in (sessions, pipelines, catalogue, house):
    part(shared)
for part in (stock, news, workers):
    part()
print("redis-py", redis.__version__, "is content")
