"""The same work in Polars, DuckDB and Bytewax: one-minute bars, and five indicators per trade.

    $(benches/peers/setup.sh) benches/peers/compare.py [PARQUET_GLOB] [polars|duckdb|bytewax ...]

Times include reading the Parquet files. Polars and DuckDB see the whole data set at once, on as many
threads as THREADS says (default 2); Bytewax takes rows as they come, on one worker.
"""

import glob
import os
import sys
import time

THREADS = os.environ.get("THREADS", "2")
os.environ["POLARS_MAX_THREADS"] = THREADS
HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("TIDEMILL_DATA", os.path.join(HERE, "../../../shared/data"))
URL = next((a for a in sys.argv[1:] if "*" in a or a.endswith(".parquet")), f"{DATA}/equities/trades_*.parquet")
ASKED = [a for a in sys.argv[1:] if a in ("polars", "duckdb", "bytewax")] or ["polars", "duckdb", "bytewax"]
RUNS = int(os.environ.get("RUNS", "5"))


def rows():
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(f).metadata.num_rows for f in glob.glob(URL))


def timed(what, work, runs=RUNS):
    took, out = [], 0
    for _ in range(runs):
        begin = time.perf_counter()
        out = work()
        took.append(time.perf_counter() - begin)
    took.sort()
    load = open("/proc/loadavg").read().split()[0]
    best, median = (N / took[i] / 1e6 for i in (0, len(took) // 2))
    print(f"{what:<56} best {best:7.2f}  median {median:7.2f} M rows/s  ({N} rows, {out} out, load {load})", flush=True)


def polars_bars():
    import polars as pl

    return (
        pl.scan_parquet(URL)
        .select("ts", "symbol", "price", "size")
        .with_columns(pl.col("symbol").cast(pl.Categorical), start=pl.col("ts").dt.truncate("1m"))
        .group_by("symbol", "start", maintain_order=False)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("size").sum(),
            trades=pl.len(),
        )
        .collect()
        .height
    )


def polars_indicators():
    """MACD, RSI (Wilder), mean, deviation and VWAP for each trade of each symbol."""
    import polars as pl

    p, key = pl.col("price"), "symbol"
    up, down = p.diff().clip(lower_bound=0), (-p.diff()).clip(lower_bound=0)
    wilder = {"alpha": 1 / 14, "adjust": False}
    frame = pl.scan_parquet(URL).select("ts", "symbol", p.cast(pl.Float64), pl.col("size").cast(pl.Float64))
    frame = frame.with_columns(
        macd=(p.ewm_mean(span=12, adjust=False) - p.ewm_mean(span=26, adjust=False)).over(key),
        rsi=(100 - 100 / (1 + up.ewm_mean(**wilder) / down.ewm_mean(**wilder))).over(key),
        mean=p.rolling_mean(20).over(key),
        deviation=p.rolling_std(20, ddof=0).over(key),
        vwap=((p * pl.col("size")).cum_sum() / pl.col("size").cum_sum()).over(key),
    )
    frame = frame.with_columns(macd_signal=pl.col("macd").ewm_mean(span=9, adjust=False).over(key))
    return frame.collect().height


def duckdb_bars():
    import duckdb

    connection = duckdb.connect(config={"threads": int(THREADS)})
    sql = f"""SELECT symbol, epoch_ns(ts) // 60000000000 AS start, arg_min(price, seq) AS open, max(price) AS high,
        min(price) AS low, arg_max(price, seq) AS close, sum(size) AS volume, count(*) AS trades
        FROM read_parquet('{URL}') GROUP BY ALL"""
    return len(connection.sql(sql).to_arrow_table())


def duckdb_indicators():
    """The rolling ones: SQL has no exponential averages, so mean, deviation and VWAP only."""
    import duckdb

    connection = duckdb.connect(config={"threads": int(THREADS)})
    sql = f"""SELECT ts, symbol, price, avg(price) OVER last AS mean, stddev_pop(price) OVER last AS deviation,
        sum(price * size) OVER ever / sum(size) OVER ever AS vwap FROM read_parquet('{URL}')
        WINDOW last AS (PARTITION BY symbol ORDER BY ts, seq ROWS 19 PRECEDING),
               ever AS (PARTITION BY symbol ORDER BY ts, seq ROWS UNBOUNDED PRECEDING)"""
    return len(connection.sql(sql).to_arrow_table())


class Five:
    """The five indicators, one row at a time, in O(1): what a Bytewax user would write."""

    __slots__ = ("n", "fast", "slow", "signal", "last", "gain", "loss", "ring", "sum", "squares", "value", "volume")

    def __init__(self):
        self.n, self.last, self.fast, self.slow, self.signal = 0, 0.0, 0.0, 0.0, 0.0
        self.gain, self.loss, self.sum, self.squares, self.value, self.volume = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        self.ring = [0.0] * 20

    def step(self, price, size):
        if self.n == 0:
            self.last = self.fast = self.slow = price
        self.fast += (price - self.fast) * (2 / 13)
        self.slow += (price - self.slow) * (2 / 27)
        macd = self.fast - self.slow
        self.signal += (macd - self.signal) * 0.2
        move = price - self.last
        self.last = price
        self.gain += ((move if move > 0 else 0.0) - self.gain) / 14
        self.loss += ((-move if move < 0 else 0.0) - self.loss) / 14
        total = self.gain + self.loss
        rsi = 100 * self.gain / total if total else None
        at = self.n % 20
        old = self.ring[at]
        self.ring[at] = price
        self.sum += price - old
        self.squares += price * price - old * old
        self.n += 1
        mean = self.sum / 20
        deviation = max(self.squares / 20 - mean * mean, 0.0) ** 0.5
        self.value += price * size
        self.volume += size
        return macd, self.signal, rsi, mean, deviation, self.value / self.volume if self.volume else None


def bytewax_run(columns, rows_of, stateful):
    """Runs the files' rows through one stateful step of a Bytewax flow; how many items came out.

    `rows_of` makes (key, value) pairs of a batch's columns; `stateful` adds the step to the flow.
    """
    import bytewax.operators as op
    import pyarrow.parquet as pq
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import DynamicSource, StatelessSourcePartition
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import run_main

    made = [0]

    class Reader(StatelessSourcePartition):
        def __init__(self):
            files = (pq.ParquetFile(f) for f in sorted(glob.glob(URL)))
            self.batches = (b.select(columns) for f in files for b in f.iter_batches(4096, columns=columns))

        def next_batch(self):
            return list(rows_of(next(self.batches).columns))

    class Source(DynamicSource):
        def build(self, step_id, worker_index, worker_count):
            return Reader()

    class Nowhere(StatelessSinkPartition):
        def write_batch(self, items):
            made[0] += len(items)

    class Sink(DynamicSink):
        def build(self, step_id, worker_index, worker_count):
            return Nowhere()

    flow = Dataflow("peer")
    op.output("out", stateful(op, op.input("in", flow, Source())), Sink())
    run_main(flow)
    return made[0]


def bytewax_indicators():
    def rows_of(columns):
        symbol, price, size = (c.to_pylist() for c in columns)
        return zip(symbol, zip(price, size))

    def step(state, trade):
        state = state or Five()
        return state, state.step(*trade)

    return bytewax_run(["symbol", "price", "size"], rows_of, lambda op, stream: op.stateful_map("five", stream, step))


def bytewax_bars():
    def rows_of(columns):
        symbol, price, size = (c.to_pylist() for c in columns[1:])
        return zip(symbol, zip(columns[0].cast("int64").to_pylist(), price, size))

    def step(bar, trade):
        ts, price, size = trade
        start = ts // 60_000_000_000
        if bar is None or bar[0] != start:
            return [start, price, price, price, price, size], ([bar] if bar else [])
        bar[2], bar[3], bar[4], bar[5] = max(bar[2], price), min(bar[3], price), price, bar[5] + size
        return bar, []

    columns = ["ts", "symbol", "price", "size"]
    return bytewax_run(columns, rows_of, lambda op, stream: op.stateful_flat_map("bars", stream, step))


N = rows()
print(f"{URL}: {N} rows, {THREADS} threads for Polars and DuckDB")
if "polars" in ASKED:
    timed("Polars, Parquet -> 1-minute bars", polars_bars)
    timed("Polars, Parquet -> five indicators", polars_indicators)
if "duckdb" in ASKED:
    timed("DuckDB, Parquet -> 1-minute bars", duckdb_bars)
    timed("DuckDB, Parquet -> mean, deviation, VWAP (3 of 5)", duckdb_indicators)
if "bytewax" in ASKED:
    timed("Bytewax, Parquet -> 1-minute bars (1 worker)", bytewax_bars, runs=2)
    timed("Bytewax, Parquet -> five indicators (1 worker)", bytewax_indicators, runs=2)
