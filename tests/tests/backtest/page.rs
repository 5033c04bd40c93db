//! What a report's charts show, read back from the page: the values under the pointer, and the lines that are drawn.

/// One section of a report.
pub struct Section<'a> {
    html: &'a str,
}

/// The section of that heading.
pub fn section<'a>(page: &'a str, title: &str) -> Section<'a> {
    let html = page.split(&format!("<h2>{title}</h2>")).nth(1).unwrap_or_else(|| panic!("no {title}"));
    Section { html: html.split("</section>").next().unwrap() }
}

/// A number as pages write it, and half of its last digit.
pub fn number(text: &str) -> (f64, f64) {
    let (text, by) = text.strip_suffix('%').map_or((text, 1.0), |text| (text, 0.01));
    let text = text.replace(',', "");
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let value: f64 = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    (value * by, 0.501 * 0.1f64.powi(decimals as i32) * by)
}

/// Whether a page's number is a value to its last digit.
pub fn shows(text: &str, value: f64) -> bool {
    let (shown, half) = number(text);
    (shown - value).abs() <= half + 1e-9 * value.abs()
}

impl<'a> Section<'a> {
    /// Its text.
    pub fn text(&self) -> &'a str {
        self.html
    }

    /// What the pointer finds: places on the x axis, each with the text of series `name`.
    pub fn hovers(&self, name: &str) -> Vec<(&'a str, &'a str)> {
        let titles = self.html.split("<title>").skip(1).map(|t| t.split("</title>").next().unwrap());
        titles
            .filter_map(|title| {
                let (x, rest) = title.split_once('\n')?;
                let line = rest.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))?;
                Some((x, line))
            })
            .collect()
    }

    /// The y values of the line of that class, by the labels of the axis, and how exact they are.
    pub fn line(&self, class: &str) -> (Vec<f64>, f64) {
        let path = self.html.split(&format!("<path class=\"line {class}\" d=\"")).nth(1);
        let path =
            path.unwrap_or_else(|| panic!("no line {class}: {}", self.html)).split('"').next().unwrap();
        let pixels: Vec<f64> = match path.contains('V') {
            // Of steps, where each one goes to.
            true => {
                let first = path.split(['M', 'H']).nth(1).unwrap().split(' ').nth(1).unwrap();
                std::iter::once(first)
                    .chain(path.split('V').skip(1).map(|p| p.split('H').next().unwrap()))
                    .map(|y| y.parse().unwrap())
                    .collect()
            }
            false => path[1..].split('L').map(|p| p.split(' ').nth(1).unwrap().parse().unwrap()).collect(),
        };
        let axis = self.axis();
        let (low, high) = (axis[0], axis[axis.len() - 1]);
        let by = (high.1 - low.1) / (high.0 - low.0);
        // A pixel has one decimal; so do those of the labels.
        (pixels.iter().map(|y| low.1 + (y - low.0) * by).collect(), by.abs() * 0.2)
    }

    /// Pixels and values of the labels of the y axis.
    fn axis(&self) -> Vec<(f64, f64)> {
        let labels =
            self.html.split("<text class=\"tick\" ").skip(1).filter(|t| t.contains("text-anchor=\"end\""));
        labels
            .map(|t| {
                let y = t.split(" y=\"").nth(1).unwrap().split('"').next().unwrap();
                let label = t.split('>').nth(1).unwrap().split('<').next().unwrap();
                (y.parse().unwrap(), number(label).0)
            })
            .collect()
    }

    /// How often something is in it.
    pub fn count(&self, what: &str) -> usize {
        self.html.matches(what).count()
    }

    /// Cells of its tables, row by row.
    pub fn cells(&self) -> Vec<Vec<&'a str>> {
        let rows = self.html.split("<tr>").skip(1).map(|r| r.split("</tr>").next().unwrap());
        rows.map(|row| {
            let cells = row.split("<td").skip(1);
            cells.map(|c| c.split_once('>').unwrap().1.split("</td>").next().unwrap()).collect()
        })
        .collect()
    }
}
