"""An EMA cross on every real trade of four days, in NautilusTrader and here by turns: events a second, their ratio.

    cargo build --release --workspace
    $(benches/peers/setup.sh nautilus) benches/peers/nautilus.py [FAST] [SLOW]

The same strategy as dataflows/strategies/ema_cross.yaml: exponential averages of every trade's price; a turn of the sign of their
difference sets the position to +100 or -100 shares by a market order, filled against trades. Only the engine's run is
timed there; reading the files and making the ticks is not. Here reading is within the time, and all four symbols are traded.
TIDEMILL names another binary than that of the release build.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from decimal import Decimal

import pyarrow.compute as pc
import pyarrow.parquet as pq
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.indicators import ExponentialMovingAverage
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import TradeTick
from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, TradeId, Venue
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("TIDEMILL_DATA", os.path.join(HERE, "../../../shared/data"))
RUNS = int(os.environ.get("RUNS", "3"))
FAST = int(sys.argv[1]) if len(sys.argv) > 1 else 500
SLOW = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
UNITS = 100

venue = Venue("XNAS")
spy = TestInstrumentProvider.equity(symbol="SPY", venue="XNAS")


def ticks():
    rows = []
    for day in ("07", "08", "09", "10"):
        table = pq.read_table(f"{DATA}/equities/trades_201310{day}.parquet", columns=["ts", "seq", "symbol", "price", "size"])
        table = table.filter(pc.equal(table["symbol"].cast("string"), "SPY"))
        ts = table["ts"].cast("int64").to_pylist()
        rows += zip(ts, table["price"].to_pylist(), table["size"].to_pylist())
    none = AggressorSide.NO_AGGRESSOR
    return [
        TradeTick(spy.id, Price(price, 2), Quantity(max(size, 1), 0), none, TradeId(str(i)), ts, ts)
        for i, (ts, price, size) in enumerate(rows)
    ]


class Config(StrategyConfig, frozen=True):
    instrument_id: InstrumentId


class Cross(Strategy):
    def __init__(self, config):
        super().__init__(config)
        self.fast = ExponentialMovingAverage(FAST)
        self.slow = ExponentialMovingAverage(SLOW)
        self.side = 0
        self.seen = 0

    def on_start(self):
        self.subscribe_trade_ticks(self.config.instrument_id)

    def on_trade_tick(self, tick):
        price = float(tick.price)
        self.fast.update_raw(price)
        self.slow.update_raw(price)
        self.seen += 1
        if not self.slow.initialized:
            return
        side = 1 if self.fast.value > self.slow.value else -1
        if side == self.side:
            return
        units = UNITS if self.side == 0 else 2 * UNITS
        self.side = side
        self.submit_order(
            self.order_factory.market(
                instrument_id=self.config.instrument_id,
                order_side=OrderSide.BUY if side > 0 else OrderSide.SELL,
                quantity=Quantity(units, 0),
            )
        )


def ours():
    """Events a second of a backtest of the same strategy, as it says."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/tidemill/target"))
    binary = os.environ.get("TIDEMILL", f"{target}/release/tidemill")
    with tempfile.TemporaryDirectory() as out:
        command = [binary, "backtest", f"{HERE}/../../dataflows/strategies/ema_cross.yaml", "--out", out]
        command += ["--source", f"trades={DATA}/equities/trades_*.parquet", "--set", f"fast={FAST}", "--set", f"slow={SLOW}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    events, took = re.search(r"([\d,]+) events in ([\d.]+)s", said).groups()
    return int(events.replace(",", "")) / float(took)


data = ticks()
best = None
own = []
for _ in range(RUNS):
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        venue=venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=USD,
        starting_balances=[Money(1_000_000, USD)],
        trade_execution=True,
        default_leverage=Decimal(4),
    )
    engine.add_instrument(spy)
    engine.add_data(data)
    strategy = Cross(Config(instrument_id=spy.id))
    engine.add_strategy(strategy)
    start = time.perf_counter()
    engine.run()
    took = time.perf_counter() - start
    fills = len(engine.trader.generate_order_fills_report())
    balance = engine.trader.generate_account_report(venue)["total"].iloc[-1]
    assert strategy.seen == len(data), (strategy.seen, len(data))
    engine.dispose()
    best = min(best or took, took)
    own.append(ours())
print(f"NautilusTrader {len(data)} trades, EMA {FAST}/{SLOW}: {fills} filled orders, balance {balance}; {best:.2f} s, {len(data) / best / 1e6:.3f} M events/s (best of {RUNS})")
print(f"Tidemill, four symbols, Parquet decoded within the time: {max(own) / 1e6:.3f} M events/s (best of {RUNS}); {max(own) * best / len(data):.1f} times as many")
