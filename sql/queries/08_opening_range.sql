-- The range of the first half hour (13:30 to 14:00 UTC in October), and whether the day's close broke out of it.
SELECT symbol, day, range_high, range_low, close,
       CASE WHEN close > range_high THEN 'above' WHEN close < range_low THEN 'below' ELSE 'inside' END AS ended
FROM (
  SELECT symbol, time_bucket('1d', ts) AS day,
         max(price) FILTER (WHERE ts < time_bucket('1d', ts) + INTERVAL '14 hours') AS range_high,
         min(price) FILTER (WHERE ts < time_bucket('1d', ts) + INTERVAL '14 hours') AS range_low,
         last(price, ts, seq) AS close
  FROM trades
  WHERE ts >= time_bucket('1d', ts) + INTERVAL '13 hours 30 minutes'
    AND ts < time_bucket('1d', ts) + INTERVAL '20 hours'
  GROUP BY symbol, day
)
ORDER BY symbol, day;
