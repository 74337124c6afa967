//! The charts of the page, as SVG that follows the page's light or dark mode.
//!
//! What is drawn in black becomes `currentColor`, so that text and axes take the
//! colour of the text around them; the colours of the engines are of a middle
//! brightness that stands on both.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figure;

const WIDTH: u32 = 520;
const BAR_HEIGHT: u32 = 22;
const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(128, 128, 128);

/// Percentiles that get a line across the chart.
const TICKS: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

/// The colour of an engine, the same in every chart.
pub fn colour(engine: &str) -> (u8, u8, u8) {
    match engine {
        "floor" => (138, 143, 152),
        "floor-plain" => (176, 180, 187),
        "mmap" => (190, 110, 200),
        "uring" => (59, 130, 246),
        "uring-sqpoll" => (96, 165, 250),
        "uring-iopoll" => (37, 99, 200),
        "epoll" => (34, 160, 107),
        "epoll-level" => (94, 190, 140),
        "poll" => (150, 170, 50),
        "select" => (180, 150, 30),
        "threads" => (224, 138, 43),
        "blocking" => (217, 83, 79),
        "aio" => (20, 158, 168),
        "fio psync" => (200, 120, 160),
        "fio posixaio" => (176, 146, 92),
        "fio libaio" => (110, 160, 150),
        "fio io_uring" => (147, 112, 219),
        "fio io_uring fixed" => (106, 90, 205),
        _ => (160, 120, 90),
    }
}

fn rgb(engine: &str) -> RGBColor {
    let (red, green, blue) = colour(engine);
    RGBColor(red, green, blue)
}

/// One bar for each engine, with its figure at the end.
pub fn bars(title: &str, values: &[(&str, f64)]) -> String {
    let longest = values.iter().map(|&(_, value)| value).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let height = 34 + BAR_HEIGHT * values.len() as u32;
    draw(title, height, |area| {
        let (left, right) = (128, 76);
        let scale = f64::from(WIDTH - left - right) / longest;
        for (index, &(engine, value)) in values.iter().enumerate() {
            let top = 30 + BAR_HEIGHT as i32 * index as i32;
            let middle = top + BAR_HEIGHT as i32 / 2 - 2;
            let start = left as i32;
            let end = start + (value * scale).round().max(1.0) as i32;
            let bar = [(start, top), (end, top + BAR_HEIGHT as i32 - 5)];
            area.draw(&Rectangle::new(bar, rgb(engine).filled()))?;
            let name = text(14).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(engine.to_owned(), (start - 6, middle), name))?;
            let number = text(14).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(figure(value), (end + 5, middle), number))?;
        }
        Ok(())
    })
}

/// Latency by percentile for each engine, both on scales that stretch the tail:
/// each nine is as wide as the one before, each decade of latency as high.
pub fn percentiles(title: &str, curves: &[(&str, &[(f64, f64)])]) -> String {
    let points = || curves.iter().flat_map(|(_, curve)| curve.iter());
    let lowest = points().map(|point| point.1).fold(f64::INFINITY, f64::min).max(0.05);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    let farthest = points().map(|point| nines(point.0)).fold(0.0, f64::max);
    if highest <= 0.0 || farthest <= 0.0 {
        return String::new();
    }
    draw(title, 330, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(26)
            .margin_right(30)
            .x_label_area_size(26)
            .y_label_area_size(64)
            .build_cartesian_2d(Nines(farthest), Decades(lowest / 1.2, highest * 1.2))?;
        chart
            .configure_mesh()
            .axis_style(GRID.mix(0.6))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.mix(0.3))
            .label_style(text(13))
            .draw()?;
        for (engine, curve) in curves {
            let line = curve.iter().map(|&(at, us)| (nines(at), us.max(lowest)));
            chart.draw_series(LineSeries::new(line, rgb(engine).stroke_width(2)))?;
        }
        Ok(())
    })
}

/// An axis of nines, from none to so many, with the usual percentiles as its ticks.
struct Nines(f64);

impl Ranged for Nines {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (left, right): (i32, i32)) -> i32 {
        left + (value / self.0 * f64::from(right - left)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        TICKS.map(nines).into_iter().filter(|&at| at <= self.0 + 1e-9).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0
    }
}

impl ValueFormatter<f64> for Nines {
    fn format_ext(&self, value: &f64) -> String {
        percentile_of(*value)
    }
}

/// An axis of microseconds on which every decade is as long as the one before.
struct Decades(f64, f64);

impl Ranged for Decades {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (bottom, top): (i32, i32)) -> i32 {
        let share = (value / self.0).ln() / (self.1 / self.0).ln();
        bottom + (share * f64::from(top - bottom)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let decades = (self.1 / self.0).log10();
        let steps: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = self.0.log10().floor() as i32..=self.1.log10().floor() as i32;
        let points = powers.flat_map(|power| steps.iter().map(move |s| s * 10f64.powi(power)));
        points.filter(|at| (self.0..=self.1).contains(at)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0..self.1
    }
}

impl ValueFormatter<f64> for Decades {
    fn format_ext(&self, value: &f64) -> String {
        time(*value)
    }
}

/// How many nines a percentile has: 1 for 90 %, 2 for 99 %.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn percentile_of(nines: f64) -> String {
    let percentile = 100.0 - 100.0 / 10f64.powf(nines);
    let text = format!("{percentile:.3}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn time(us: f64) -> String {
    match us {
        seconds if seconds >= 1e6 => format!("{} s", short(seconds / 1e6)),
        millis if millis >= 1e3 => format!("{} ms", short(millis / 1e3)),
        _ => format!("{} µs", short(us)),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&BLACK)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw(title: &str, height: u32, paint: impl for<'a, 'b> Fn(&'b Area<'a>) -> Drawn<'a>) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let heading = text(16).pos(Pos::new(HPos::Left, VPos::Top));
        let drawn = area
            .draw(&Text::new(title.to_owned(), (4, 6), heading))
            .and_then(|()| paint(&area))
            .and_then(|()| area.present());
        if drawn.is_err() {
            return String::new(); // the tables say the same
        }
    }
    let label = maud::html! { (title) }.into_string();
    svg.replace("#000000", "currentColor").replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{label}\" "),
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_for_each_engine_without_a_fixed_text_colour() {
        let svg = bars("ops/s <here>", &[("floor", 1000.0), ("uring", 990.0)]);
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("uring") && svg.contains("990") && svg.contains("1,000"));
        assert!(svg.contains("currentColor") && !svg.contains("#000000"));
        assert!(!svg.contains("<here>"));
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert_eq!(bars("x", &[]), "");
        assert_eq!(percentiles("x", &[("uring", &[])]), "");
    }

    #[test]
    fn percentile_axes_name_the_nines() {
        let curve = [(1.0, 20.0), (50.0, 80.0), (99.0, 400.0), (99.99, 9000.0)];
        let svg = percentiles("latency", &[("uring", &curve)]);
        for label in ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "100 µs", "1 ms"] {
            assert!(svg.contains(label), "{label}\n{svg}");
        }
        assert!(!svg.contains("99.999 %"));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(percentile_of(nines(99.99)), "99.99 %");
        assert_eq!(percentile_of(nines(50.0)), "50 %");
        assert_eq!(
            (time(0.5), time(2500.0), time(3e6)),
            ("0.5 µs".into(), "2.5 ms".into(), "3 s".into())
        );
    }
}
