-- What the day's average share cost, and how much was traded.
SELECT symbol, time_bucket('1d', ts) AS day, vwap(price, size) AS vwap, sum(size) AS volume,
       sum(price * size) AS notional, count(*) AS trades
FROM trades
GROUP BY symbol, day
ORDER BY symbol, day;
