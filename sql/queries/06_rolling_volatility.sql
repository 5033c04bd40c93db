-- Volatility of one-minute log returns over the last thirty minutes, as a yearly number (252 days of 390 minutes).
SELECT symbol, minute, close,
       stddev(r) OVER (PARTITION BY symbol ORDER BY minute ROWS BETWEEN 29 PRECEDING AND CURRENT ROW)
         * sqrt(252 * 390) AS volatility
FROM (
  SELECT symbol, minute, close, ln(close / lag(close) OVER (PARTITION BY symbol ORDER BY minute)) AS r
  FROM (SELECT symbol, time_bucket('1m', ts) AS minute, last(price, ts, seq) AS close FROM trades GROUP BY symbol, minute)
)
ORDER BY symbol, minute;
