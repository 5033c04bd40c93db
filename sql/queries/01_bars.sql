-- One-minute bars of every symbol: open, high, low, close, volume, VWAP, number of trades.
SELECT symbol, minute, bar['open'] AS open, bar['high'] AS high, bar['low'] AS low, bar['close'] AS close,
       volume, vwap, trades
FROM (
  SELECT symbol, time_bucket('1m', ts) AS minute, ohlc(price, ts, seq) AS bar, sum(size) AS volume,
         vwap(price, size) AS vwap, count(*) AS trades
  FROM trades
  GROUP BY symbol, minute
)
ORDER BY symbol, minute;
