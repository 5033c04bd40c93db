-- Which symbols moved most each day, from the first trade to the last.
SELECT day, symbol, open, close, 100 * (close / open - 1) AS move_pct,
       rank() OVER (PARTITION BY day ORDER BY abs(close / open - 1) DESC) AS place
FROM (
  SELECT time_bucket('1d', ts) AS day, symbol, first(price, ts, seq) AS open, last(price, ts, seq) AS close
  FROM trades
  GROUP BY day, symbol
)
ORDER BY day, place;
