-- Who was in a hurry: by the tick rule a trade above the last different price was bought, one below it sold.
-- Imbalance is (bought - sold) / all, by symbol and five minutes.
SELECT symbol, time_bucket('5m', ts) AS bucket, sum(size) AS volume,
       sum(side * size) / sum(size) AS imbalance
FROM (
  SELECT ts, symbol, size, locf(nullif(signum(price - before), 0)) OVER (PARTITION BY symbol ORDER BY ts, seq) AS side
  FROM (
    SELECT ts, seq, symbol, price, CAST(size AS DOUBLE) AS size,
           lag(price) OVER (PARTITION BY symbol ORDER BY ts, seq) AS before
    FROM trades
  )
)
GROUP BY symbol, bucket
ORDER BY symbol, bucket;
