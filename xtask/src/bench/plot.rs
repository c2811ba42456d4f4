//! The plot of a case: a bar for each row, as long as its median, with a whisker from the smallest to the largest run.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::Outcome;
use super::table::plotted;

const WIDTH: u32 = 860;
const ROW: u32 = 28;
const HEAD: u32 = 44;
const FOOT: u32 = 12;
/// Where bars begin, and the room behind the longest one for its value.
const LABELS: i32 = 330;
const VALUES: i32 = 110;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(36, 41, 47);
const OURS: RGBColor = RGBColor(9, 105, 218);
/// What can't be exceeded: the device without a stack, the bytes without a protocol.
const CEILING: RGBColor = RGBColor(191, 135, 0);
const OTHERS: RGBColor = RGBColor(140, 149, 159);

/// Draws a case as SVG. None if there is nothing to draw.
pub(super) fn draw(outcome: &Outcome) -> Result<Option<String>> {
    let bars: Vec<_> = plotted(outcome).collect();
    let longest = bars.iter().map(|(.., summary)| summary.max).fold(0.0, f64::max);
    if longest <= 0.0 {
        return Ok(None);
    }
    let mut svg = String::new();
    let height = HEAD + ROW * bars.len() as u32 + FOOT;
    let broken = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", outcome.case);
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        // Readers may have a dark page.
        area.fill(&WHITE).map_err(|error| broken(&error))?;
        let text = |size: u32, anchor: HPos| {
            (FONT, size).into_font().color(&INK).pos(Pos::new(anchor, VPos::Center))
        };
        let title = format!("{}: {}", outcome.case, outcome.plotted);
        let draw_text = |words: String, at: (i32, i32), size, anchor| {
            area.draw(&Text::new(words, at, text(size, anchor))).map_err(|error| broken(&error))
        };
        draw_text(title, (12, HEAD as i32 / 2), 17, HPos::Left)?;
        let room = f64::from(WIDTH as i32 - LABELS - VALUES);
        let x = |value: f64| LABELS + (value / longest * room).round() as i32;
        for (index, (row, series, summary)) in bars.iter().enumerate() {
            let middle = (HEAD + ROW * index as u32 + ROW / 2) as i32;
            let is_about = |words: &[&str]| words.iter().any(|word| row.name.contains(word));
            let color = if is_about(&["ours", "xstack"]) {
                OURS
            } else if is_about(&["raw pump", "copy and checksum", "no stack"]) {
                CEILING
            } else {
                OTHERS
            };
            draw_text(row.name.clone(), (LABELS - 8, middle), 14, HPos::Right)?;
            let bar = Rectangle::new([(LABELS, middle - 9), (x(summary.median), middle + 9)], color.filled());
            area.draw(&bar).map_err(|error| broken(&error))?;
            if summary.min != summary.max {
                let (from, to) = (x(summary.min), x(summary.max));
                let whisker = vec![vec![(from, middle), (to, middle)], tick(from, middle), tick(to, middle)];
                for line in whisker {
                    area.draw(&PathElement::new(line, INK.stroke_width(1)))
                        .map_err(|error| broken(&error))?;
                }
            }
            draw_text(series.unit.show(summary.median), (x(summary.max) + 8, middle), 14, HPos::Left)?;
        }
        area.present().map_err(|error| broken(&error))?;
    }
    // A description, for whom the picture is read to.
    let about = outcome.about.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let svg = svg.replacen('>', &format!(" role=\"img\">\n<title>{about}</title>"), 1);
    Ok(Some(svg))
}

fn tick(x: i32, middle: i32) -> Vec<(i32, i32)> {
    vec![(x, middle - 4), (x, middle + 4)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::outcome;

    /// Checks that every tag that is opened is closed, in order, and returns the names of all elements.
    fn elements(svg: &str) -> Vec<String> {
        let (mut open, mut seen, mut rest) = (Vec::new(), Vec::new(), svg);
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            assert!(!text.contains('>'), "a bare > in {text:?}");
            for (at, _) in text.match_indices('&') {
                assert!(text[at..].contains(';'), "a bare & in {text:?}");
            }
            let end = rest[at..].find('>').expect("a tag that ends") + at;
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name.trim()), "closed in another order");
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "an attribute without an end in {tag:?}");
            let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            assert!(!name.is_empty(), "a tag without a name in {tag:?}");
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            seen.push(name);
        }
        assert_eq!(open, Vec::<String>::new(), "left open");
        seen
    }

    #[test]
    fn the_plot_is_well_formed_and_has_a_bar_for_each_row() {
        let svg = draw(&outcome("bulk-1500")).unwrap().unwrap();
        let elements = elements(&svg);
        assert_eq!(elements[0], "svg");
        // The background is one, too.
        assert_eq!(elements.iter().filter(|name| *name == "rect").count(), 3, "{svg}");
        assert_eq!(elements.iter().filter(|name| *name == "title").count(), 1);
        for words in ["ours ↔ ours", "13.0 Gbit/s", "kernel ↔ kernel &lt;&amp;&gt;"] {
            assert!(svg.contains(words), "{words} is not in {svg}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut outcome = outcome("x");
        outcome.plotted = "rate".into();
        assert_eq!(draw(&outcome).unwrap(), None);
    }
}
