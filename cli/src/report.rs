//! The report of a backtest: one HTML file that needs nothing else, with charts as inline SVG.

use std::fmt::Write;

use crate::backtest::account::Account;
use crate::backtest::summary::Summary;
use crate::backtest::sweep::Trial;
use crate::backtest::tap::Prices;
use crate::backtest::walk_forward::Walk;

pub mod chart;
mod charts;
pub mod scale;
mod sections;
pub mod table;
pub mod text;
mod variants;

use text::escape;

/// What is reported.
pub struct Report<'a> {
    /// The graph's name.
    pub job: &'a str,
    /// What it is for.
    pub description: Option<&'a str>,
    /// The graph as it was written.
    pub yaml: &'a str,
    /// How it was run: names and values.
    pub settings: &'a [(String, String)],
    /// What a reader should know.
    pub notes: &'a [String],
    /// The account's currency.
    pub currency: &'a str,
    /// Its figures.
    pub summary: &'a Summary,
    /// Its history.
    pub account: &'a Account,
    /// The benchmark's symbol and prices.
    pub benchmark: Option<(&'a str, &'a Prices)>,
    /// The sweep that this run was chosen from.
    pub sweep: Option<SweepPart<'a>>,
    /// The walk-forward, and by which figure it chose.
    pub walk: Option<(&'a Walk, &'a str)>,
}

/// A sweep.
#[derive(Clone, Copy)]
pub struct SweepPart<'a> {
    /// Its runs.
    pub trials: &'a [Trial],
    /// The figure it chose by.
    pub metric: &'a str,
}

/// The figures at the top.
const TILES: [&str; 12] = [
    "total_return",
    "cagr",
    "sharpe",
    "sortino",
    "max_drawdown",
    "max_drawdown_length",
    "calmar",
    "win_rate",
    "profit_factor",
    "trades",
    "exposure",
    "costs",
];

/// The whole document.
pub fn html(report: &Report) -> String {
    let mut out = String::with_capacity(256 * 1024);
    let title = escape(report.job);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}: backtest</title><style>{}</style></head><body><main>",
        include_str!("report/style.css")
    );
    let (from, to) = report.summary.range;
    let _ = write!(out, "<header><h1>{title}</h1>");
    if let Some(about) = report.description {
        let _ = write!(out, "<p class=\"about\">{}</p>", escape(about));
    }
    let _ = write!(
        out,
        "<p>{} to {} UTC, in {}</p></header>",
        text::time(from),
        text::time(to),
        escape(report.currency)
    );
    tiles(&mut out, report.summary);
    for note in report.notes {
        let _ = write!(out, "<section><p>{}</p></section>", escape(note));
    }
    charts::write(&mut out, report);
    variants::write(&mut out, report);
    sections::write(&mut out, report);
    let _ = writeln!(out, "<footer>tidemill {}</footer></main></body></html>", env!("CARGO_PKG_VERSION"));
    out
}

fn tiles(out: &mut String, summary: &Summary) {
    out.push_str("<div class=\"tiles\">");
    for figure in TILES.iter().filter_map(|name| summary.figures.iter().find(|f| f.name == *name)) {
        let coloured = matches!(figure.name, "total_return" | "cagr" | "sharpe" | "sortino" | "calmar");
        let class = match figure.value {
            Some(v) if coloured && v > 0.0 => "pos",
            Some(v) if coloured && v < 0.0 => "neg",
            _ => "",
        };
        let _ = write!(
            out,
            "<div class=\"tile\"><b class=\"{class}\">{}</b><span>{}</span></div>",
            escape(&figure.text()),
            escape(figure.label)
        );
    }
    out.push_str("</div>");
}

/// A section with a heading, a legend and what is in it.
fn section(out: &mut String, title: &str, about: &str, inner: &str) {
    let _ = write!(out, "<section><h2>{}</h2>", escape(title));
    if !about.is_empty() {
        // A legend is markup of our own.
        let _ = write!(out, "<p>{about}</p>");
    }
    let _ = write!(out, "{inner}</section>");
}
