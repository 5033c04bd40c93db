-- At which prices was traded: volume by price, five cents a level, and its share of the symbol's volume.
SELECT symbol, level, volume, 100.0 * volume / sum(volume) OVER (PARTITION BY symbol) AS share_pct
FROM (
  SELECT symbol, floor(price * 20) / 20 AS level, sum(size) AS volume
  FROM trades
  GROUP BY symbol, level
)
ORDER BY symbol, level;
