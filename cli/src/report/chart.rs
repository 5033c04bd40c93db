//! Charts as inline SVG: lines, areas, bars and marks over a common frame.
//!
//! Colours are CSS classes, so a chart follows the page's light or dark scheme. What a pointer finds is in `<title>`
//! elements: no script is needed.

use std::fmt::Write;

use super::scale::{self, Scale};
use super::text::{escape, pixel};

/// Points of a line that are drawn: more cannot be seen.
const POINTS_MAX: usize = 1500;
/// Places where a pointer finds values.
const HOVERS_MAX: usize = 240;

/// What the x axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X {
    /// UTC nanoseconds.
    Time,
    /// Numbers, labelled by the chart's format of x.
    Number,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A line through its points.
    Line,
    /// A line in steps: a value holds until the next.
    Step,
    /// The space between its points and zero.
    Area,
    /// A bar a point, from zero, as wide as the distance of points allows.
    Bars,
    /// A ring at each point.
    Marks,
}

/// One series of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend; empty: none.
    pub name: String,
    /// Its CSS class, which gives the colour.
    pub class: &'static str,
    /// How it is drawn.
    pub shape: Shape,
    /// Points in order of x; values that are not finite break a line.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart {
    /// What it shows, for those who cannot see it.
    pub label: String,
    /// What x is.
    pub x: X,
    /// Labels of y values.
    pub y_format: fn(f64, usize) -> String,
    /// Whether zero must be in sight.
    pub zero: bool,
    /// Height in pixels of a chart 1000 (or 560) wide.
    pub height: f64,
    /// Half as wide as the page.
    pub half: bool,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// Vertical lines: x, name, class.
    pub lines: Vec<(f64, String, &'static str)>,
}

struct Frame {
    width: f64,
    height: f64,
    x: Scale,
    y: Scale,
}

impl Chart {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let width = if self.half { 560.0 } else { 1120.0 };
        let (left, right, top, bottom) = (66.0, 12.0, 10.0, 24.0);
        let points = || self.series.iter().flat_map(|s| s.points.iter());
        let mut xs = scale::extent(points().map(|p| p.0).chain(self.lines.iter().map(|l| l.0)));
        // The first and the last bar are as wide as the others.
        let bars = self.series.iter().filter(|s| s.shape == Shape::Bars).map(|s| s.points.len()).max();
        if let Some(n) = bars.filter(|n| *n > 1) {
            let half = (xs.1 - xs.0) / (n - 1) as f64 / 2.0;
            xs = (xs.0 - half, xs.1 + half);
        }
        let mut ys = scale::extent(points().map(|p| p.1));
        if self.zero || self.series.iter().any(|s| matches!(s.shape, Shape::Area | Shape::Bars)) {
            ys = (ys.0.min(0.0), ys.1.max(0.0));
        }
        let (marks, decimals) = scale::ticks(ys, if self.height < 200.0 { 4 } else { 6 });
        let domain = (marks[0], marks[marks.len() - 1]);
        let frame = Frame {
            width,
            height: self.height,
            x: Scale { domain: xs, pixels: (left, width - right) },
            y: Scale { domain, pixels: (self.height - bottom, top) },
        };
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {width} {}\" role=\"img\" aria-label=\"{}\">",
            self.height,
            escape(&self.label)
        );
        for value in &marks {
            let y = pixel(frame.y.at(*value));
            let class = if *value == 0.0 && domain.0 < 0.0 { "axis" } else { "grid" };
            let _ = write!(
                out,
                "<line class=\"{class}\" x1=\"{left}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
                width - right
            );
            let text = (self.y_format)(*value, decimals);
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{}\" y=\"{y}\" dy=\"4\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                escape(&text)
            );
        }
        self.x_axis(&mut out, &frame);
        for series in &self.series {
            draw(&mut out, series, &frame);
        }
        for (x, name, class) in &self.lines {
            let at = pixel(frame.x.at(*x));
            let _ = write!(
                out,
                "<line class=\"rule {class}\" x1=\"{at}\" x2=\"{at}\" y1=\"{top}\" y2=\"{}\"><title>{}</title></line>",
                self.height - bottom,
                escape(name)
            );
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{at}\" y=\"{}\" dx=\"4\">{}</text>",
                top + 10.0,
                escape(name)
            );
        }
        self.hovers(&mut out, &frame, decimals);
        out.push_str("</svg>");
        out
    }

    /// The legend of series that have names.
    pub fn legend(&self) -> String {
        let mut out = String::new();
        for series in self.series.iter().filter(|s| !s.name.is_empty()) {
            let _ = write!(out, "<span class=\"key {}\">{}</span>", series.class, escape(&series.name));
        }
        out
    }

    fn x_axis(&self, out: &mut String, frame: &Frame) {
        let count = if self.half { 5 } else { 9 };
        let marks: Vec<(f64, String)> = match self.x {
            X::Time => {
                let domain = (frame.x.domain.0 as i64, frame.x.domain.1 as i64);
                scale::time_ticks(domain, count).into_iter().map(|(t, label)| (t as f64, label)).collect()
            }
            X::Number => {
                let (values, decimals) = scale::ticks(frame.x.domain, count);
                let inside = |v: &f64| (frame.x.domain.0..=frame.x.domain.1).contains(v);
                values
                    .into_iter()
                    .filter(inside)
                    .map(|v| (v, super::text::percent(v, decimals.saturating_sub(2))))
                    .collect()
            }
        };
        let base = frame.y.pixels.0;
        let mut free = f64::NEG_INFINITY;
        for (value, label) in marks {
            let at = frame.x.at(value);
            let half = label.len() as f64 * 3.4;
            // Labels never touch, and none is cut off.
            if at - half < free || at + half > frame.width {
                continue;
            }
            free = at + half + 10.0;
            let x = pixel(at);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>",
                pixel(frame.y.pixels.1),
                pixel(base)
            );
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                frame.height - 7.0,
                escape(&label)
            );
        }
    }

    /// Invisible stripes over the chart, each with the values under it.
    fn hovers(&self, out: &mut String, frame: &Frame, decimals: usize) {
        let Some(longest) =
            self.series.iter().filter(|s| s.shape != Shape::Marks).max_by_key(|s| s.points.len())
        else {
            return;
        };
        let step = longest.points.len().div_ceil(HOVERS_MAX).max(1);
        let centres: Vec<f64> = longest.points.iter().skip(step / 2).step_by(step).map(|p| p.0).collect();
        let _ = write!(out, "<g class=\"hover\">");
        for (i, x) in centres.iter().enumerate() {
            let edge = |j: Option<usize>, end: f64| {
                j.and_then(|j| centres.get(j)).map_or(end, |other| frame.x.at((x + other) / 2.0))
            };
            let (from, to) = (edge(i.checked_sub(1), frame.x.pixels.0), edge(Some(i + 1), frame.x.pixels.1));
            let mut title = match self.x {
                X::Time => super::text::time(*x as i64),
                X::Number => super::text::percent(*x, 2),
            };
            for series in self.series.iter().filter(|s| s.shape != Shape::Marks) {
                let Some(value) = value_at(&series.points, *x) else { continue };
                let text = (self.y_format)(value, decimals.max(1) + 1);
                let name = if series.name.is_empty() { self.label.as_str() } else { series.name.as_str() };
                let _ = write!(title, "\n{name}: {text}");
            }
            let _ = write!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>",
                pixel(from),
                pixel(frame.y.pixels.1),
                pixel((to - from).max(0.5)),
                pixel(frame.y.pixels.0 - frame.y.pixels.1),
                escape(&title)
            );
        }
        out.push_str("</g>");
    }
}

/// The value at or before `x`.
fn value_at(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = points.partition_point(|p| p.0 <= x);
    points.get(after.checked_sub(1)?).map(|p| p.1).filter(|v| v.is_finite())
}

fn draw(out: &mut String, series: &Series, frame: &Frame) {
    let class = series.class;
    let zero = frame.y.at(frame.y.domain.0.max(0.0).min(frame.y.domain.1));
    match series.shape {
        Shape::Line | Shape::Step => {
            for part in parts(&series.points) {
                let path = path(&thin(part), frame, series.shape == Shape::Step);
                let _ = write!(out, "<path class=\"line {class}\" d=\"{path}\"/>");
            }
        }
        Shape::Area => {
            for part in parts(&series.points) {
                let thinned = thin(part);
                let (Some(first), Some(last)) = (thinned.first(), thinned.last()) else { continue };
                let line = path(&thinned, frame, false);
                let (x0, x1) = (pixel(frame.x.at(first.0)), pixel(frame.x.at(last.0)));
                let _ = write!(
                    out,
                    "<path class=\"area {class}\" d=\"{line}L{x1} {0}L{x0} {0}Z\"/>",
                    pixel(zero)
                );
                let _ = write!(out, "<path class=\"line {class}\" d=\"{line}\"/>");
            }
        }
        Shape::Bars => {
            let room = frame.x.pixels.1 - frame.x.pixels.0;
            let width = (room / series.points.len().max(1) as f64 * 0.8).clamp(0.6, 40.0);
            for (x, y) in series.points.iter().filter(|p| p.1.is_finite()) {
                let at = frame.y.at(*y);
                let sign = if *y < 0.0 { "loss" } else { "gain" };
                let class = if class.is_empty() { sign } else { class };
                let left = (frame.x.at(*x) - width / 2.0).max(frame.x.pixels.0).min(frame.x.pixels.1 - width);
                let _ = write!(
                    out,
                    "<rect class=\"bar {class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                    pixel(left),
                    pixel(at.min(zero)),
                    pixel(width),
                    pixel((at - zero).abs().max(0.5))
                );
            }
        }
        Shape::Marks => {
            for (x, y) in series.points.iter().filter(|p| p.1.is_finite()) {
                let _ = write!(
                    out,
                    "<circle class=\"mark {class}\" cx=\"{}\" cy=\"{}\" r=\"4\"/>",
                    pixel(frame.x.at(*x)),
                    pixel(frame.y.at(*y))
                );
            }
        }
    }
}

/// The runs of finite values.
fn parts(points: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    points.split(|p| !p.1.is_finite()).filter(|part| !part.is_empty())
}

/// No more points than can be seen: of each stripe its first, lowest, highest and last.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stripe = points.len().div_ceil(POINTS_MAX / 4);
    let mut out = Vec::with_capacity(POINTS_MAX);
    for part in points.chunks(stripe) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut kept: Vec<(f64, f64)> =
            [part.first(), part.iter().min_by(by), part.iter().max_by(by), part.last()]
                .into_iter()
                .flatten()
                .copied()
                .collect();
        kept.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.dedup();
        out.extend(kept);
    }
    out
}

fn path(points: &[(f64, f64)], frame: &Frame, step: bool) -> String {
    let mut out = String::with_capacity(points.len() * 12);
    for (i, (x, y)) in points.iter().enumerate() {
        let (x, y) = (pixel(frame.x.at(*x)), pixel(frame.y.at(*y)));
        let _ = match (i, step) {
            (0, _) => write!(out, "M{x} {y}"),
            (_, true) => write!(out, "H{x}V{y}"),
            (_, false) => write!(out, "L{x} {y}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_extremes_and_its_ends() {
        let points: Vec<(f64, f64)> =
            (0..100_000).map(|i| (i as f64, if i == 77_777 { 1e6 } else { (i % 7) as f64 })).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX + 4, "{}", thinned.len());
        assert!(thinned.contains(&(77_777.0, 1e6)));
        assert_eq!((thinned[0], thinned[thinned.len() - 1]), (points[0], points[99_999]));
        assert!(thinned.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn anything_can_be_drawn() {
        for points in [
            vec![],
            vec![(0.0, f64::NAN)],
            vec![(5.0, 5.0)],
            vec![(0.0, 1e300), (1.0, -1e300)],
            vec![(0.0, 0.0), (1.0, 0.0)],
        ] {
            for shape in [Shape::Line, Shape::Step, Shape::Area, Shape::Bars, Shape::Marks] {
                let series = vec![Series { name: "<n>".into(), class: "a", shape, points: points.clone() }];
                let chart = Chart {
                    label: "x & y".into(),
                    x: X::Time,
                    y_format: super::super::text::number,
                    zero: false,
                    height: 220.0,
                    half: false,
                    series,
                    lines: vec![(1.0, "VaR".into(), "loss")],
                };
                let svg = chart.svg();
                assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
                assert!(
                    !svg.contains("NaN") && !svg.contains("inf") && !svg.contains("<n>"),
                    "{points:?} {svg}"
                );
            }
        }
    }
}
