"""Ten questions of a trader, asked of Tidemill, DuckDB and Polars over the same Parquet files, in one run.

    cargo build --release --workspace && $(benches/peers/setup.sh) benches/peers/sql.py [QUERY_PREFIX...]

The questions are sql/queries/*.sql; what is here are the same in DuckDB's SQL and in Polars. All three read the
files anew in every run, on two threads. Answers are compared (rows, and the sum of every number) before
anything is timed: a fast wrong answer is no answer.
"""

import glob
import json
import math
import os
import subprocess
import sys
import time

THREADS = os.environ.get("THREADS", "2")
os.environ["POLARS_MAX_THREADS"] = THREADS
HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("TIDEMILL_DATA", os.path.join(HERE, "../../../shared/data"))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/tidemill/target"))
RUNS = int(os.environ.get("RUNS", "5"))
TRADES, QUOTES = f"{DATA}/equities/trades_*.parquet", f"{DATA}/equities/quotes_*.parquet"

import duckdb
import polars as pl

# A quote changes one side only (the other is 0), so each side is carried forward by exchange.
STANDING = f"""SELECT ts, seq, symbol, last_value(nullif(bid, 0) IGNORE NULLS) OVER w AS b, last_value(nullif(ask, 0) IGNORE NULLS) OVER w AS a
    FROM '{QUOTES}' WINDOW w AS (PARTITION BY symbol, exchange ORDER BY ts, seq)"""

# DuckDB's own time_bucket does not take nanoseconds; integer arithmetic is also what it does fastest.
BUCKET = "CREATE MACRO bucket(ts, seconds) AS epoch_ns(ts) // (seconds * 1000000000::BIGINT) * (seconds * 1000000000::BIGINT)"

DUCKDB = {
    "01_bars": f"""SELECT symbol, bucket(ts, 60) AS minute, arg_min(price, (ts, seq)) AS open, max(price) AS high,
        min(price) AS low, arg_max(price, (ts, seq)) AS close, sum(size) AS volume, sum(price * size) / sum(size) AS vwap, count(*) AS trades
        FROM '{TRADES}' GROUP BY ALL ORDER BY 1, 2""",
    "02_vwap_by_day": f"""SELECT symbol, bucket(ts, 86400) AS day, sum(price * size) / sum(size) AS vwap, sum(size) AS volume,
        sum(price * size) AS notional, count(*) AS trades FROM '{TRADES}' GROUP BY ALL ORDER BY 1, 2""",
    "03_spread_by_hour": f"""SELECT symbol, bucket(ts, 3600) AS hour, count(*) AS quotes, avg(10000 * (a - b) / ((a + b) / 2)) AS spread_bps,
        approx_quantile(a - b, 0.5) AS median_spread FROM ({STANDING}) WHERE a > b GROUP BY ALL ORDER BY 1, 2""",
    "04_effective_spread": f"""SELECT t.symbol, count(*) AS trades, count(q.b) AS quoted,
        sum(2 * abs(t.price - (q.b + q.a) / 2) * t.size) / sum(t.size) FILTER (q.b IS NOT NULL) AS effective_spread, avg(q.a - q.b) AS quoted_spread
        FROM '{TRADES}' t ASOF LEFT JOIN (SELECT * FROM ({STANDING}) WHERE a > b) q ON t.symbol = q.symbol AND t.ts >= q.ts GROUP BY ALL ORDER BY 1""",
    "05_top_movers": f"""SELECT day, symbol, open, close, 100 * (close / open - 1) AS move_pct, rank() OVER (PARTITION BY day ORDER BY abs(close / open - 1) DESC) AS place
        FROM (SELECT bucket(ts, 86400) AS day, symbol, arg_min(price, (ts, seq)) AS open, arg_max(price, (ts, seq)) AS close
        FROM '{TRADES}' GROUP BY ALL) ORDER BY day, place""",
    "06_rolling_volatility": f"""SELECT symbol, minute, close, stddev_samp(r) OVER (PARTITION BY symbol ORDER BY minute ROWS 29 PRECEDING) * sqrt(252 * 390) AS volatility
        FROM (SELECT symbol, minute, close, ln(close / lag(close) OVER (PARTITION BY symbol ORDER BY minute)) AS r
        FROM (SELECT symbol, bucket(ts, 60) AS minute, arg_max(price, (ts, seq)) AS close FROM '{TRADES}' GROUP BY ALL)) ORDER BY 1, 2""",
    "07_volume_profile": f"""SELECT symbol, level, volume, 100.0 * volume / sum(volume) OVER (PARTITION BY symbol) AS share_pct
        FROM (SELECT symbol, floor(price * 20) / 20 AS level, sum(size) AS volume FROM '{TRADES}' GROUP BY ALL) ORDER BY 1, 2""",
    "08_opening_range": f"""SELECT symbol, day, range_high, range_low, close, CASE WHEN close > range_high THEN 'above' WHEN close < range_low THEN 'below' ELSE 'inside' END AS ended
        FROM (SELECT symbol, bucket(ts, 86400) AS day, max(price) FILTER (epoch_ns(ts) < bucket(ts, 86400) + 14 * 3600 * 1000000000::BIGINT) AS range_high,
        min(price) FILTER (epoch_ns(ts) < bucket(ts, 86400) + 14 * 3600 * 1000000000::BIGINT) AS range_low, arg_max(price, (ts, seq)) AS close FROM '{TRADES}'
        WHERE epoch_ns(ts) >= bucket(ts, 86400) + 27 * 1800 * 1000000000::BIGINT AND epoch_ns(ts) < bucket(ts, 86400) + 20 * 3600 * 1000000000::BIGINT GROUP BY ALL) ORDER BY 1, 2""",
    "09_trade_imbalance": f"""SELECT symbol, bucket(ts, 300) AS bucket, sum(size) AS volume, sum(side * size) / sum(size) AS imbalance
        FROM (SELECT ts, symbol, size, last_value(nullif(sign(price - before), 0) IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY ts, seq) AS side
        FROM (SELECT ts, seq, symbol, price, size::DOUBLE AS size, lag(price) OVER (PARTITION BY symbol ORDER BY ts, seq) AS before FROM '{TRADES}')) GROUP BY ALL ORDER BY 1, 2""",
    # DuckDB has no exponential average; the holes are filled, the EMA is left out.
    "10_gap_filled_ema": f"""WITH bars AS (SELECT symbol, bucket(ts, 1) AS second, arg_max(price, (ts, seq)) AS close FROM '{TRADES}' GROUP BY ALL),
        grid AS (SELECT symbol, unnest(generate_series(min(second), max(second), 1000000000)) AS second FROM bars GROUP BY symbol)
        SELECT symbol, second, last_value(close IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY second) AS close FROM grid LEFT JOIN bars USING (symbol, second) ORDER BY 1, 2""",
}


def trades():
    return pl.scan_parquet(TRADES).with_columns(pl.col("symbol").cast(pl.String).cast(pl.Categorical))


def standing():
    side = lambda name: pl.when(pl.col(name) != 0).then(pl.col(name)).forward_fill().over("symbol", "exchange")
    quotes = pl.scan_parquet(QUOTES).sort("ts", "seq")
    return quotes.select("ts", pl.col("symbol").cast(pl.String).cast(pl.Categorical), b=side("bid"), a=side("ask")).filter(pl.col("a") > pl.col("b"))


def bucket(every):
    return pl.col("ts").dt.truncate(every)


def last_by(every, name):
    return trades().sort("ts", "seq").group_by("symbol", bucket(every).alias(name)).agg(open=pl.col("price").first(), close=pl.col("price").last())


def p01():
    value = (pl.col("price") * pl.col("size")).sum()
    out = trades().sort("ts", "seq").group_by("symbol", bucket("1m").alias("minute"))
    return out.agg(open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(), close=pl.col("price").last(), volume=pl.col("size").sum(), vwap=value / pl.col("size").sum(), trades=pl.len()).sort("symbol", "minute")


def p02():
    value = (pl.col("price") * pl.col("size")).sum()
    return trades().group_by("symbol", bucket("1d").alias("day")).agg(vwap=value / pl.col("size").sum(), volume=pl.col("size").sum(), notional=value, trades=pl.len()).sort("symbol", "day")


def p03():
    a, b = pl.col("a"), pl.col("b")
    return standing().group_by("symbol", bucket("1h").alias("hour")).agg(quotes=pl.len(), spread_bps=(10000 * (a - b) / ((a + b) / 2)).mean(), median_spread=(a - b).median()).sort("symbol", "hour")


def p04():
    joined = trades().sort("ts").join_asof(standing().sort("ts"), on="ts", by="symbol", strategy="backward")
    a, b, size = pl.col("a"), pl.col("b"), pl.col("size")
    cost = (2 * (pl.col("price") - (a + b) / 2).abs() * size).sum() / size.filter(b.is_not_null()).sum()
    return joined.group_by("symbol").agg(trades=pl.len(), quoted=b.count(), effective_spread=cost, quoted_spread=(a - b).mean()).sort("symbol")


def p05():
    move = pl.col("close") / pl.col("open") - 1
    place = move.abs().rank("min", descending=True).over("day")
    return last_by("1d", "day").with_columns(move_pct=100 * move, place=place).sort("day", "place")


def p06():
    r = (pl.col("close") / pl.col("close").shift()).log().over("symbol")
    bars = last_by("1m", "minute").sort("symbol", "minute").with_columns(r=r)
    return bars.select("symbol", "minute", "close", volatility=pl.col("r").rolling_std(30, min_samples=2).over("symbol") * math.sqrt(252 * 390))


def p07():
    level = ((pl.col("price") * 20).floor() / 20).alias("level")
    out = trades().group_by("symbol", level).agg(volume=pl.col("size").sum())
    return out.with_columns(share_pct=100.0 * pl.col("volume") / pl.col("volume").sum().over("symbol")).sort("symbol", "level")


def p08():
    since = pl.col("ts") - bucket("1d")
    session = trades().filter((since >= pl.duration(hours=13, minutes=30)) & (since < pl.duration(hours=20))).sort("ts", "seq")
    early = pl.col("price").filter(since < pl.duration(hours=14))
    out = session.group_by("symbol", bucket("1d").alias("day")).agg(range_high=early.max(), range_low=early.min(), close=pl.col("price").last())
    ended = pl.when(pl.col("close") > pl.col("range_high")).then(pl.lit("above")).when(pl.col("close") < pl.col("range_low")).then(pl.lit("below")).otherwise(pl.lit("inside"))
    return out.with_columns(ended=ended).sort("symbol", "day")


def p09():
    move = (pl.col("price") - pl.col("price").shift()).sign()
    side = pl.when(move != 0).then(move).forward_fill().over("symbol")
    size = pl.col("size").cast(pl.Float64)
    out = trades().sort("ts", "seq").with_columns(side=side).group_by("symbol", bucket("5m").alias("bucket"))
    return out.agg(volume=size.sum(), imbalance=(pl.col("side") * size).sum() / size.sum()).sort("symbol", "bucket")


def p10():
    bars = last_by("1s", "second").select("symbol", "second", "close").sort("symbol", "second")
    grid = bars.group_by("symbol").agg(second=pl.datetime_range(pl.col("second").min(), pl.col("second").max(), "1s", time_zone="UTC", time_unit="ns")).explode("second")
    out = grid.join(bars, on=["symbol", "second"], how="left").sort("symbol", "second").with_columns(pl.col("close").forward_fill().over("symbol"))
    return out.with_columns(ema_60=pl.col("close").ewm_mean(span=60, adjust=False).over("symbol"))


# An approximate quantile; and quotes of one instant, of which the peers' as-of joins take any.
LOOSE = {"median_spread", "effective_spread", "quoted_spread"}

POLARS = {name: globals()["p" + name[:2]] for name in DUCKDB}


def timed(work):
    took = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        out = work()
        took.append((time.perf_counter() - begin) * 1000)
    return sorted(took), out


def sums(frame):
    """Rows, and the sum of each numeric column, to compare answers by."""
    numbers = {c: frame[c].cast(pl.Float64).fill_nan(None).sum() for c in frame.columns if frame[c].dtype.is_numeric()}
    return frame.height, numbers


def differ(ours, theirs, loose):
    """Columns that both have and that differ; `loose` ones are approximate by their nature."""
    if ours[0] != theirs[0]:
        return [f"{ours[0]} rows, not {theirs[0]}"]
    return [c for c in ours[1].keys() & theirs[1].keys() - loose if not math.isclose(ours[1][c], theirs[1][c], rel_tol=1e-6, abs_tol=1e-6)]


def main():
    asked = [q for q in DUCKDB if not sys.argv[1:] or any(q.startswith(a) for a in sys.argv[1:])]
    bench = subprocess.run([f"{TARGET}/release/sql_queries", "--runs", str(RUNS), "--threads", THREADS, *asked], capture_output=True, text=True)
    if bench.returncode:
        sys.exit(bench.stderr)
    ours = {row["query"]: row for row in map(json.loads, bench.stdout.splitlines())}
    connection = duckdb.connect(config={"threads": int(THREADS)})
    connection.sql(BUCKET)
    print(f"load {open('/proc/loadavg').read().split()[0]}, {THREADS} threads, best (median) of {RUNS} runs in ms")
    print(f"{'query':<24}{'rows':>9}{'Tidemill':>18}{'DuckDB':>18}{'Polars':>18}{'faster peer / Tidemill':>25}")
    for name in asked:
        mine = ours[name]
        duck, duck_out = timed(lambda: connection.sql(DUCKDB[name]).to_arrow_table())
        polar, polar_out = timed(lambda: POLARS[name]().collect())
        answer = (mine["rows"], mine["sums"])
        for who, theirs in (("DuckDB", pl.from_arrow(duck_out)), ("Polars", polar_out)):
            if wrong := differ(answer, sums(theirs), LOOSE):
                print(f"  {name}: {who} answers differently: {wrong}")
        show = lambda took: f"{took[0]:.1f} ({took[len(took) // 2]:.1f})"
        peer = min(duck[len(duck) // 2], polar[len(polar) // 2])
        print(f"{name:<24}{mine['rows']:>9}{mine['best_ms']:>10.1f} ({mine['median_ms']:.1f}){show(duck):>18}{show(polar):>18}{peer / mine['median_ms']:>25.2f}", flush=True)


main()
