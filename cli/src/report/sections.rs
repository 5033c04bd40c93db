//! The tables of a report: figures, instruments, trades, refusals, and the graph itself.

use std::fmt::Write;

use tidemill_trading::money;

use super::table::{Cell, Table};
use super::{Report, section, text};
use crate::backtest::pairing::Trade;
use crate::backtest::summary::Figure;

/// Trades that are listed whole; of more, the first, last, best and worst.
const TRADES_WHOLE: usize = 60;
/// How many of each then.
const TRADES_EACH: usize = 12;

/// All of them.
pub fn write(out: &mut String, report: &Report) {
    symbols(out, report);
    trades(out, report);
    out.push_str("<div class=\"grid2\">");
    costs(out, report);
    refusals(out, report);
    out.push_str("</div>");
    figures(out, &report.summary.figures);
    graph(out, report);
}

fn money(value: f64) -> Cell {
    Cell::signed(value, text::number(value, 2))
}

fn plain(value: f64, decimals: usize) -> Cell {
    Cell::text(text::number(value, decimals))
}

fn symbols(out: &mut String, report: &Report) {
    let mut table = Table::new(&[
        "<symbol",
        "gain",
        "made real",
        "still open",
        "fees",
        "after fees",
        "traded",
        "fills",
        "round trips",
        "won",
        "held at the end",
    ]);
    for (name, symbol) in &report.account.symbols {
        let own: Vec<&Trade> = report.account.trades.iter().filter(|t| t.symbol == *name).collect();
        let won = own.iter().filter(|t| t.net() > tidemill_trading::Decimal::ZERO).count();
        let rate =
            if own.is_empty() { text::NONE.into() } else { text::percent(won as f64 / own.len() as f64, 0) };
        let gain = symbol.realized + symbol.unrealized;
        table.row(&[
            Cell::text(name),
            money(gain),
            money(symbol.realized),
            money(symbol.unrealized),
            plain(symbol.fees, 2),
            money(gain - symbol.fees),
            plain(symbol.traded, 0),
            plain(symbol.fills as f64, 0),
            plain(own.len() as f64, 0),
            Cell::text(rate),
            Cell::text(text::number(symbol.position, if symbol.position.fract() == 0.0 { 0 } else { 4 })),
        ]);
    }
    section(out, "By instrument", "", &table.html());
}

fn trades(out: &mut String, report: &Report) {
    let all = &report.account.trades;
    if all.is_empty() {
        return section(out, "Round trips", "None was closed.", "");
    }
    let refs: Vec<&Trade> = all.iter().collect();
    let mut inner = String::new();
    if all.len() <= TRADES_WHOLE {
        inner += &list(&refs);
    } else {
        let mut ranked = refs.clone();
        ranked.sort_by(|a, b| b.net().cmp(&a.net()).then(a.closed_at.cmp(&b.closed_at)));
        for (title, part) in [
            ("Best", &ranked[..TRADES_EACH]),
            ("Worst", &ranked[ranked.len() - TRADES_EACH..]),
            ("First", &refs[..TRADES_EACH]),
            ("Last", &refs[refs.len() - TRADES_EACH..]),
        ] {
            let _ = write!(inner, "<h3>{title}</h3>{}", list(part));
        }
    }
    let about = format!(
        "{} in all, paired first in, first out; all of them are in trades.parquet.",
        text::number(all.len() as f64, 0)
    );
    section(out, "Round trips", &text::escape(&about), &inner);
}

fn list(trades: &[&Trade]) -> String {
    let mut table = Table::new(&[
        "<opened",
        "<closed",
        "<symbol",
        "<side",
        "units",
        "entry",
        "exit",
        "gain",
        "fees",
        "after fees",
        "held",
    ]);
    for t in trades {
        let price = |v| text::number(money::to_f64(v), 4);
        let units = t.quantity.normalize();
        table.row(&[
            Cell::text(text::time(t.opened_at)),
            Cell::text(text::time(t.closed_at)),
            Cell::text(&t.symbol),
            Cell::text(if t.long { "long" } else { "short" }),
            plain(money::to_f64(units), units.scale().min(8) as usize),
            Cell::text(price(t.entry)),
            Cell::text(price(t.exit)),
            money(money::to_f64(t.gross)),
            plain(money::to_f64(t.fees), 2),
            money(money::to_f64(t.net())),
            Cell::text(text::span(t.closed_at - t.opened_at)),
        ]);
    }
    table.html()
}

fn costs(out: &mut String, report: &Report) {
    let mut table = Table::new(&["<what", "amount"]);
    for name in ["fees", "carry", "costs", "traded", "turnover"] {
        if let Some(figure) = report.summary.figures.iter().find(|f| f.name == name) {
            table.row(&[Cell::text(figure.label), Cell::text(figure.text())]);
        }
    }
    for (reason, amount) in &report.account.cash {
        table.row(&[Cell::text(format!("cash: {}", reason.replace('_', " "))), money(*amount)]);
    }
    section(out, "Costs", "", &table.html());
}

fn refusals(out: &mut String, report: &Report) {
    let account = report.account;
    let mut table = Table::new(&["<rule", "orders"]);
    for (rule, count) in &account.rejections {
        table.row(&[Cell::text(rule), plain(*count as f64, 0)]);
    }
    if account.refused_by_venue > 0 {
        table.row(&[Cell::text("the venue"), plain(account.refused_by_venue as f64, 0)]);
    }
    let quiet = account.rejections.is_empty() && account.refused_by_venue == 0;
    let mut inner = if quiet { String::new() } else { table.html() };
    if !account.alerts.is_empty() {
        let mut table = Table::new(&["<alert", "times"]);
        for (code, count) in &account.alerts {
            table.row(&[Cell::text(code), plain(*count as f64, 0)]);
        }
        inner += &table.html();
    }
    if !account.states.is_empty() {
        let mut table = Table::new(&["<when", "<state", "<why"]);
        for (ts, state, why) in account.states.iter().take(20) {
            table.row(&[Cell::text(text::time(*ts)), Cell::text(state), Cell::wrapped(why)]);
        }
        inner += &table.html();
    }
    section(out, "Refused orders", if quiet { "None." } else { "" }, &inner);
}

fn figures(out: &mut String, figures: &[Figure]) {
    let mut inner = String::from("<dl>");
    for figure in figures {
        let _ = write!(
            inner,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            text::escape(figure.label),
            text::escape(&figure.text())
        );
    }
    inner.push_str("</dl>");
    section(out, "All figures", "", &inner);
}

fn graph(out: &mut String, report: &Report) {
    let mut inner = String::from("<dl>");
    for (name, value) in report.settings {
        let _ = write!(inner, "<div><dt>{}</dt><dd>{}</dd></div>", text::escape(name), text::escape(value));
    }
    inner.push_str("</dl>");
    let _ = write!(
        inner,
        "<details><summary>The graph</summary><pre>{}</pre></details>",
        text::escape(report.yaml)
    );
    section(out, "Settings", "", &inner);
}
