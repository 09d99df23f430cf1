//! The run as a picture: for every gated row, how far from its limit it is.

use std::fmt::Write;

use crate::judgement::Judgement;

const LEFT: f64 = 430.0;
const WIDTH: f64 = 420.0;
const LINE: f64 = 22.0;
/// Times the limit at the right edge.
const END: f64 = 2.0;

/// An SVG with one bar per gated row: the median, the range of the rounds, and the limit as a line.
pub fn of(judgements: &[Judgement<'_>], heading: &str) -> String {
    let gated: Vec<_> = judgements.iter().filter_map(|it| Some((it, it.shares()?))).collect();
    let height = 70.0 + LINE * gated.len() as f64;
    let x = |share: f64| LEFT + WIDTH * (share / END).clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{height}' \
         font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' \
         fill='white'/>\n<text x='10' y='20' font-size='14'>{}</text>\n",
        LEFT + WIDTH + 90.0,
        escaped(heading)
    );
    for (index, (judged, shares)) in gated.iter().enumerate() {
        let y = 50.0 + LINE * index as f64;
        let colour = if judged.passes == Some(true) { "#3a7d44" } else { "#b23a48" };
        let [median, min, max] = *shares;
        let middle = y - 4.0;
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<text x='{}' y='{y}' text-anchor='end'>{}</text>\n\
             <rect x='{LEFT}' y='{}' width='{}' height='12' fill='{colour}'/>\n\
             <line x1='{}' x2='{}' y1='{middle}' y2='{middle}' stroke='black'/>\n\
             <text x='{}' y='{y}'>{:.0} %</text>\n",
            LEFT - 8.0,
            escaped(&judged.row.title),
            y - 10.0,
            x(median) - LEFT,
            x(min),
            x(max),
            LEFT + WIDTH + 8.0,
            median * 100.0,
        );
    }
    let limit = x(1.0);
    let _ = write!(
        svg,
        "<line x1='{limit}' x2='{limit}' y1='34' y2='{}' stroke='black' stroke-dasharray='4 3'/>\n\
         <text x='{limit}' y='{}' text-anchor='middle'>gate</text>\n</svg>\n",
        height - 20.0,
        height - 6.0
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
