//! A plain bar chart of CPU time per request: one group for each scenario, one bar for each proxy.

use std::fmt::Write as _;

use crate::measure::Outcome;
use crate::proxy::Kind;
use crate::statistics::{Spread, float};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 130.0;
const BAR_MAX: f64 = 560.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEAD: f64 = 30.0;
const TOP: f64 = 64.0;

/// The bars of a scenario.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) bars: Vec<Bar>,
}

/// A proxy's figure.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) kind: Kind,
    pub(crate) cpu: Spread,
}

/// What there is to draw.
pub(crate) fn groups(outcomes: &[Outcome]) -> Vec<Group> {
    let bars = |outcome: &Outcome| {
        let bar =
            |row: &crate::measure::Row| Some(Bar { label: row.label(), kind: row.proxy, cpu: row.cpu()? });
        outcome.rows.iter().filter_map(bar).collect::<Vec<_>>()
    };
    let groups =
        outcomes.iter().map(|outcome| Group { title: outcome.scenario.title(), bars: bars(outcome) });
    groups.filter(|group| !group.bars.is_empty()).collect()
}

/// Draws. Each group has a scale of its own, because a handshake costs twenty times a request.
pub(crate) fn svg(groups: &[Group]) -> String {
    let height = TOP + groups.iter().map(height_of).sum::<f64>();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"bold\">CPU time per request, in microseconds</text>\n\
         <text x=\"16\" y=\"48\" fill=\"#555\">median of the rounds, line: least to greatest; shorter is better; \
         each group has its own scale</text>\n"
    );
    let mut y = TOP;
    for group in groups {
        draw(&mut text, group, y);
        y += height_of(group);
    }
    text.push_str("</svg>\n");
    text
}

fn height_of(group: &Group) -> f64 {
    HEAD + STEP * float(u64::try_from(group.bars.len()).unwrap_or_default()) + 10.0
}

fn draw(text: &mut String, group: &Group, top: f64) {
    let _ = writeln!(
        text,
        "<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
        top + 18.0,
        escaped(group.title)
    );
    let most = group.bars.iter().map(|bar| bar.cpu.max).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = top + HEAD;
    for bar in &group.bars {
        let at = |us: f64| us / most * BAR_MAX;
        let Spread { median, min, max } = bar.cpu;
        let (base, middle) = (y + 12.5, y + BAR / 2.0);
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222\"/>\
             <text x=\"{:.1}\" y=\"{base:.1}\">{median:.1}</text>",
            LEFT - 8.0,
            escaped(&bar.label),
            at(median),
            color(bar.kind),
            LEFT + at(min),
            LEFT + at(max),
            LEFT + at(max) + 8.0,
        );
        y += STEP;
    }
}

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Towpath => "#1b7f5c",
        Kind::Nginx => "#9aa7b1",
        Kind::Haproxy => "#b3a58f",
        Kind::Envoy => "#a99bb8",
        Kind::Pingora => "#b89b9b",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(kind: Kind, median: f64, max: f64) -> Bar {
        Bar { label: kind.name().to_owned(), kind, cpu: Spread { median, min: median, max } }
    }

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_are_in_proportion() {
        let group = Group {
            title: "a -> b",
            bars: vec![bar(Kind::Towpath, 10.0, 10.0), bar(Kind::Envoy, 40.0, 40.0)],
        };
        let text = svg(&[group]);
        assert!(text.contains("width=\"140.0\" height=\"16\" fill=\"#1b7f5c\""), "{text}");
        assert!(text.contains("width=\"560.0\" height=\"16\" fill=\"#a99bb8\""), "{text}");
    }

    #[test]
    fn text_is_escaped_and_elements_are_closed() {
        let text = svg(&[Group { title: "a -> b", bars: vec![bar(Kind::Nginx, 1.0, 2.0)] }]);
        assert!(text.contains("a -&gt; b") && !text.contains("a -> b"));
        assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        assert!(svg(&[]).ends_with("</svg>\n"));
    }
}
