//! Plots tables of numbers as SVG, for the curves of a training run and the tables of a sweep.
//!
//! The same input gives the same bytes. Points that are not finite, and on a logarithmic axis those at or below 0,
//! are left out; a plot without points says so. Texts are escaped, and cut where they would leave the picture.
//! Text is measured by rule of thumb, since the viewer chooses the font; so every text has room to spare.
//!
//! Guard around `plotters`: its own ticks on a logarithmic axis are sparse or crowded and its legend lies on the
//! curves, so ticks are chosen here and the legend stands beside the plot.

use std::ops::Range;

use plotters::{
    backend::SVGBackend,
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    },
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::{Circle, PathElement, Rectangle, Text},
    style::{Color, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE, text_anchor},
};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 480;
const FONT: &str = "sans-serif";
/// Height of letters in pixels: title; names of axes; everything else.
const TITLE: u32 = 20;
const LABEL: u32 = 15;
const SMALL: u32 = 13;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Told apart by people of every colour vision: Okabe & Ito 2008.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
/// A series of more points is drawn as a line alone.
const DOTS_MAX: usize = 40;
/// Ticks that an axis should have at most.
const TICKS_MAX: usize = 9;
/// Columns of a name in a legend.
const NAME_CHARS_MAX: usize = 28;
/// Larger numbers are as good as infinite: nothing that is measured comes near, and ranges of them overflow.
const LARGEST: f64 = 1e150;
/// From the worst value of a heat map to the best.
const COLD: RGBColor = RGBColor(255, 255, 255);
const WARM: RGBColor = RGBColor(120, 180, 225);
const MISSING: RGBColor = RGBColor(240, 240, 240);

/// A line of a [`LineChart`].
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// In the legend; may be empty where there is one series.
    pub name: String,
    /// x and y, drawn in order of x.
    pub points: Vec<(f64, f64)>,
}

/// Lines over one x axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Title over the chart.
    pub title: String,
    /// Name of the horizontal axis.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// Ticks then stand at the points' own x where those are few.
    pub log_x: bool,
    /// The lines, at least one.
    pub series: Vec<Series>,
}

/// A figure for each pair of two settings.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// Title over the map.
    pub title: String,
    /// Name of the horizontal axis.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// Labels of the columns, from the left.
    pub columns: Vec<String>,
    /// Labels of the rows, from the top.
    pub rows: Vec<String>,
    /// Row by row; what is missing or not finite stays grey.
    pub values: Vec<Vec<f64>>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl LineChart {
    /// The picture, 860 pixels wide.
    pub fn svg(&self) -> String {
        draw((WIDTH, HEIGHT), |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let series: Vec<Vec<(f64, f64)>> = self.series.iter().map(|s| self.shown(s)).collect();
        let names: Vec<String> = self.series.iter().map(|s| clip(&s.name, NAME_CHARS_MAX)).collect();
        let legend = names.iter().map(|n| width(n, SMALL)).max().filter(|w| *w > 0).map_or(20, |w| w + 60);
        let (all_x, all_y): (Vec<f64>, Vec<f64>) = series.iter().flatten().copied().unzip();
        title(area, &self.title, WIDTH)?;
        if all_x.is_empty() {
            return text(area, "no points", (WIDTH as i32 / 2, HEIGHT as i32 / 2), LABEL, Place::Middle);
        }
        let x_ticks = if self.log_x { log_ticks(&all_x) } else { ticks(bounds(&all_x)) };
        let y_range = widen(bounds(&all_y));
        let y_ticks = ticks(y_range);
        let x_range =
            if bounds(&all_x).0 == bounds(&all_x).1 { widen(bounds(&all_x)) } else { bounds(&all_x) };
        let y_texts: Vec<String> = y_ticks.iter().map(|v| number(*v, step(&y_ticks))).collect();
        let y_room = y_texts.iter().map(|t| width(t, SMALL)).max().unwrap_or(0) + 14;

        let mut chart = ChartBuilder::on(area)
            .margin_top(44)
            .margin_left(34)
            .margin_right(legend)
            .margin_bottom(34)
            .x_label_area_size(28)
            .y_label_area_size(y_room)
            .build_cartesian_2d(Axis::new(x_range, &x_ticks), Axis::new(y_range, &y_ticks))?;
        self.axes(&mut chart, &x_ticks, &y_ticks)?;
        for (i, points) in series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            chart.draw_series([PathElement::new(points.clone(), colour.stroke_width(2))])?;
            if points.len() <= DOTS_MAX {
                chart.draw_series(points.iter().map(|p| dot(*p, i)))?;
            }
        }
        let (left, right) = (34 + y_room as i32, (WIDTH - legend) as i32);
        text(area, &clip(&self.x_label, 80), ((left + right) / 2, HEIGHT as i32 - 20), LABEL, Place::Middle)?;
        upright(area, &clip(&self.y_label, 48), (20, (HEIGHT as i32 - 62 + 44) / 2))?;
        for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let (x, y) = (right + 12, 56 + 20 * i as i32);
            let colour = COLOURS[i % COLOURS.len()];
            area.draw(&PathElement::new(vec![(x, y), (x + 24, y)], colour.stroke_width(2)))?;
            if series[i].len() <= DOTS_MAX {
                area.draw(&dot((x + 12, y), i))?;
            }
            text(area, name, (x + 31, y), SMALL, Place::Left)?;
        }
        Ok(())
    }

    /// What can be drawn, in order of x; on a logarithmic axis, x is the decimal logarithm from here on.
    fn shown(&self, series: &Series) -> Vec<(f64, f64)> {
        let x = |x: f64| if self.log_x { x.log10() } else { x };
        let points = series.points.iter().map(|&(at, y)| (x(at), y));
        let mut points: Vec<_> = points.filter(|(x, y)| drawable(*x) && drawable(*y)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    fn axes(
        &self,
        chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<Axis, Axis>>,
        x_ticks: &[f64],
        y_ticks: &[f64],
    ) -> Drawn {
        let (x_step, y_step) = (step(x_ticks), step(y_ticks));
        let x_text = |x: &f64| if self.log_x { plain(10f64.powf(*x)) } else { number(*x, x_step) };
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(GRID)
            .axis_style(INK)
            .x_label_style(font(SMALL))
            .y_label_style(font(SMALL))
            .x_label_formatter(&x_text)
            .y_label_formatter(&|y| number(*y, y_step))
            .draw()
    }
}

impl HeatMap {
    /// The picture, as large as its cells need. The largest value is framed.
    pub fn svg(&self) -> String {
        let (cell, left) = (self.cell_width(), self.left());
        let bar = 86;
        let across =
            (left + cell * self.columns.len().max(1) as u32 + bar).max(width(&self.title, TITLE) + 40);
        let down = TOP + CELL_HEIGHT * self.rows.len().max(1) as u32 + 66;
        draw((across, down), |area| self.draw(area, across))
    }

    fn draw(&self, area: &Area<'_>, across: u32) -> Drawn {
        title(area, &self.title, across)?;
        let (cell, left, top, tall) =
            (self.cell_width() as i32, self.left() as i32, TOP as i32, CELL_HEIGHT as i32);
        let (right, bottom) = (left + cell * self.columns.len() as i32, top + tall * self.rows.len() as i32);
        let all: Vec<f64> = (0..self.rows.len())
            .flat_map(|r| (0..self.columns.len()).map(move |c| (r, c)))
            .filter_map(|(r, c)| self.value(r, c))
            .collect();
        let (least, largest) = bounds(&all);
        let digits = decimals(least, largest);
        let mut best = None;
        for (r, name) in self.rows.iter().enumerate() {
            let y = top + tall * r as i32;
            text(area, &clip(name, NAME_CHARS_MAX), (left - 10, y + tall / 2), SMALL, Place::Right)?;
            for c in 0..self.columns.len() {
                let x = left + cell * c as i32;
                let value = self.value(r, c);
                let colour = value.map_or(MISSING, |v| between(share(v, least, largest)));
                area.draw(&Rectangle::new([(x, y), (x + cell, y + tall)], colour.filled()))?;
                area.draw(&Rectangle::new([(x, y), (x + cell, y + tall)], WHITE.stroke_width(2)))?;
                let shown = value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"));
                text(area, &shown, (x + cell / 2, y + tall / 2), SMALL, Place::Middle)?;
                if best.is_none() && value == Some(largest) {
                    best = Some((x, y));
                }
            }
        }
        if let Some((x, y)) = best {
            let frame = [(x + 1, y + 1), (x + cell - 1, y + tall - 1)];
            area.draw(&Rectangle::new(frame, INK.stroke_width(2)))?;
        }
        for (c, name) in self.columns.iter().enumerate() {
            let x = left + cell * c as i32 + cell / 2;
            text(area, &clip(name, NAME_CHARS_MAX), (x, bottom + 16), SMALL, Place::Middle)?;
        }
        text(area, &clip(&self.x_label, 80), ((left + right) / 2, bottom + 44), LABEL, Place::Middle)?;
        upright(area, &clip(&self.y_label, 40), (18, (top + bottom) / 2))?;
        if all.is_empty() {
            return Ok(());
        }
        // The scale of the colours, best above.
        let steps = 24;
        let at = |i: i32| bottom - (bottom - top) * i / steps;
        for i in 0..steps {
            let colour = between(f64::from(i) / f64::from(steps - 1));
            area.draw(&Rectangle::new([(right + 14, at(i + 1)), (right + 26, at(i))], colour.filled()))?;
        }
        area.draw(&Rectangle::new([(right + 14, top), (right + 26, bottom)], GRID.stroke_width(1)))?;
        text(area, &format!("{largest:.digits$}"), (right + 32, top + 7), SMALL, Place::Left)?;
        text(area, &format!("{least:.digits$}"), (right + 32, bottom - 7), SMALL, Place::Left)
    }

    fn value(&self, row: usize, column: usize) -> Option<f64> {
        self.values.get(row)?.get(column).copied().filter(|v| drawable(*v))
    }

    fn cell_width(&self) -> u32 {
        let widest = self.columns.iter().map(|c| width(&clip(c, NAME_CHARS_MAX), SMALL)).max().unwrap_or(0);
        (widest + 16).max(76)
    }

    /// Where the cells begin: behind the name of the axis and those of the rows.
    fn left(&self) -> u32 {
        let widest = self.rows.iter().map(|r| width(&clip(r, NAME_CHARS_MAX), SMALL)).max().unwrap_or(0);
        48 + widest
    }
}

/// A linear axis with ticks of our choice.
struct Axis {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Axis {
    /// Shows the ticks that lie in the range; where none does, its ends.
    fn new(range: (f64, f64), ticks: &[f64]) -> Self {
        let slack = (range.1 - range.0) * 1e-9;
        let within = |t: &f64| *t >= range.0 - slack && *t <= range.1 + slack;
        let ticks: Vec<f64> = ticks.iter().copied().filter(within).collect();
        Axis { range, ticks: if ticks.is_empty() { vec![range.0, range.1] } else { ticks } }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

/// Above the cells of a heat map.
const TOP: u32 = 48;
const CELL_HEIGHT: u32 = 38;

/// A white picture with something on it.
fn draw(size: (u32, u32), on: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = area.fill(&WHITE).and_then(|()| on(&area)).and_then(|()| area.present());
        drawn.expect("a picture in memory has no file that could fail");
    }
    svg
}

/// Where a text stands from its point; always in the middle of its height.
#[derive(Clone, Copy)]
enum Place {
    Left,
    Middle,
    Right,
}

fn font(size: u32) -> TextStyle<'static> {
    // The backend divides by this to come from a font's box to its letters.
    TextStyle::from((FONT, f64::from(size) * 1.24).into_font()).color(&INK)
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, place: Place) -> Drawn {
    use text_anchor::{HPos, Pos, VPos};
    let across = match place {
        Place::Left => HPos::Left,
        Place::Middle => HPos::Center,
        Place::Right => HPos::Right,
    };
    area.draw(&Text::new(printable(text), at, font(size).pos(Pos::new(across, VPos::Center))))
}

fn title(area: &Area<'_>, title: &str, across: u32) -> Drawn {
    let fits = (across - 20) as usize * 20 / (TITLE as usize * 12);
    text(area, &clip(title, fits), (across as i32 / 2, 22), TITLE, Place::Middle)
}

/// Text that is read from below upwards.
fn upright(area: &Area<'_>, text: &str, at: (i32, i32)) -> Drawn {
    use text_anchor::{HPos, Pos, VPos};
    let font = (FONT, f64::from(LABEL) * 1.24).into_font().transform(FontTransform::Rotate270);
    let style = TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(printable(text), at, style))
}

/// Every further series of one colour is hollow, so that eight and more can be told apart.
fn dot<C>(at: C, series: usize) -> Circle<C, u32> {
    let colour = COLOURS[series % COLOURS.len()];
    let filled = (series / COLOURS.len()).is_multiple_of(2);
    let style = ShapeStyle { color: colour.to_rgba(), filled, stroke_width: 1 };
    Circle::new(at, if filled { 3 } else { 5 }, style)
}

/// Characters that XML cannot hold become one that it can.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || c > '\u{fffd}' && c < '\u{10000}' { '\u{fffd}' } else { c })
        .collect()
}

/// At most `chars` characters, the last an ellipsis where something was cut.
fn clip(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars.saturating_sub(1)).chain(['…']).collect()
}

/// Pixels that a text takes in common sans-serif fonts, with some to spare.
fn width(text: &str, size: u32) -> u32 {
    text.chars().count() as u32 * size * 3 / 5
}

fn drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= LARGEST
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)))
}

/// A twentieth more on either side; where all is one value, something around it.
fn widen((least, largest): (f64, f64)) -> (f64, f64) {
    let more = match largest - least {
        0.0 if least == 0.0 => 1.0,
        0.0 => least.abs() / 10.0,
        range => range / 20.0,
    };
    (least - more, largest + more)
}

/// Round numbers over a range: multiples of 1, 2 or 5 times a power of ten.
fn ticks((least, largest): (f64, f64)) -> Vec<f64> {
    let range = largest - least;
    if !(range > 0.0 && range.is_finite()) {
        return vec![least];
    }
    let power = 10f64.powf((range / TICKS_MAX as f64).log10().floor());
    let places = |factor: f64| {
        let step = factor * power;
        (step, (least / step - 1e-9).ceil(), (largest / step + 1e-9).floor())
    };
    let few = |(_, first, last): &(f64, f64, f64)| last - first < TICKS_MAX as f64;
    // Ten steps of ten powers are more than the range, so one of these is coarse enough.
    let (step, first, last) = [1.0, 2.0, 5.0, 10.0].map(places).into_iter().find(few).unwrap_or(places(20.0));
    let count = (last - first).max(0.0) as usize;
    // Counted, not added up, so that errors do not gather; and -0 is 0.
    (0..=count).map(|i| (first + i as f64) * step + 0.0).collect()
}

/// Ticks of an axis of decimal logarithms: the points' own places where those are few and far enough apart, else
/// 1, 2 and 5 of every power of ten, else the powers alone.
fn log_ticks(points: &[f64]) -> Vec<f64> {
    let (least, largest) = bounds(points);
    let mut own = points.to_vec();
    own.sort_by(f64::total_cmp);
    own.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    let near = (largest - least) / 14.0;
    if own.len() <= TICKS_MAX && own.windows(2).all(|pair| pair[1] - pair[0] >= near) {
        return own;
    }
    let powers = least.floor() as i32..=largest.ceil() as i32;
    let within = |t: &f64| (least - 1e-9..=largest + 1e-9).contains(t);
    let each = |digits: &[f64]| -> Vec<f64> {
        let all = powers.clone().flat_map(|p| digits.iter().map(move |d| d.log10() + f64::from(p)));
        all.filter(within).collect()
    };
    let fine = each(&[1.0, 2.0, 5.0]);
    if (2..=TICKS_MAX).contains(&fine.len()) { fine } else { each(&[1.0]) }
}

fn step(ticks: &[f64]) -> f64 {
    if ticks.len() > 1 { ticks[1] - ticks[0] } else { 0.0 }
}

/// A tick's number, with as many decimals as the step between ticks needs.
fn number(value: f64, step: f64) -> String {
    let largest = value.abs().max(step.abs());
    if step == 0.0 || !(1e-4..1e6).contains(&largest) || step < 1e-6 {
        return plain(value);
    }
    let digits = (-step.log10() - 1e-9).ceil().clamp(0.0, 8.0) as usize;
    format!("{value:.digits$}")
}

/// A number alone, in three significant digits or as a power.
fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let power = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&power) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    trimmed(&format!("{value:.*}", (2.0 - power).clamp(0.0, 8.0) as usize)).to_owned()
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Decimals that tell the values of a table apart.
fn decimals(least: f64, largest: f64) -> usize {
    let (range, size) = (largest - least, least.abs().max(largest.abs()));
    if size == 0.0 || !size.is_finite() {
        return 1;
    }
    let wanted = if range > 0.0 { 1.0 - range.log10().floor() } else { 2.0 - size.log10().floor() };
    wanted.clamp(if size < 1000.0 { 1.0 } else { 0.0 }, 6.0) as usize
}

fn share(value: f64, least: f64, largest: f64) -> f64 {
    if largest > least { (value - least) / (largest - least) } else { 0.5 }
}

/// A colour of the scale, `share` 0 to 1.
fn between(share: f64) -> RGBColor {
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    RGBColor(mix(COLD.0, WARM.0), mix(COLD.1, WARM.1), mix(COLD.2, WARM.2))
}

#[cfg(test)]
mod tests;
