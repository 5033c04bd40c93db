-- Quoted spread in basis points by symbol and hour. A quote of one exchange may change one side only (the
-- other is 0), so each side is carried forward by exchange.
SELECT symbol, time_bucket('1h', ts) AS hour, count(*) AS quotes,
       avg(10000 * (a - b) / ((a + b) / 2)) AS spread_bps,
       approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY a - b) AS median_spread
FROM (
  SELECT ts, symbol,
         locf(nullif(bid, 0)) OVER w AS b,
         locf(nullif(ask, 0)) OVER w AS a
  FROM quotes
  WINDOW w AS (PARTITION BY symbol, exchange ORDER BY ts, seq)
)
WHERE a > b
GROUP BY symbol, hour
ORDER BY symbol, hour;
