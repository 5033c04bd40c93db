-- One-second bars without holes: seconds without a trade carry the last close; an EMA of sixty over them.
SELECT symbol, second, close, ema(close, 60) OVER (PARTITION BY symbol ORDER BY second) AS ema_60
FROM (
  SELECT symbol, second, locf(close) OVER (PARTITION BY symbol ORDER BY second) AS close
  FROM gap_fill(
    (SELECT symbol, time_bucket('1s', ts) AS second, last(price, ts, seq) AS close FROM trades GROUP BY symbol, second),
    second, '1s', 'symbol')
)
ORDER BY symbol, second;
