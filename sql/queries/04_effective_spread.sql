-- Effective spread: how far from the middle of the quote that stood at its time each trade was done, by symbol,
-- weighted by size. A quote changes one side only (the other is 0): each side is carried forward by exchange.
WITH standing AS (
  SELECT ts, seq AS _seq, symbol, locf(nullif(bid, 0)) OVER w AS bid, locf(nullif(ask, 0)) OVER w AS ask
  FROM quotes
  WINDOW w AS (PARTITION BY symbol, exchange ORDER BY ts, seq)
)
SELECT t.symbol, count(*) AS trades, count(q.bid) AS quoted,
       sum(2 * abs(t.price - (q.bid + q.ask) / 2) * t.size) / sum(t.size) FILTER (WHERE q.bid IS NOT NULL) AS effective_spread,
       avg(q.ask - q.bid) AS quoted_spread
FROM trades t
ASOF JOIN (SELECT * FROM standing WHERE ask > bid) q
  MATCH_CONDITION (t.ts >= q.ts)
  ON t.symbol = q.symbol
GROUP BY t.symbol
ORDER BY t.symbol;
