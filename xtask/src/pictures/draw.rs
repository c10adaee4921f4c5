//! The drawing.

use std::path::Path;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::answer::{Panel, Series};
use super::words;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One column of Grafana's grid, and one row of it, in pixels.
const COLUMN: i32 = 60;
const ROW: i32 = 34;
const HEAD: i32 = 56;
const GAP: i32 = 8;

const PAGE: RGBColor = RGBColor(17, 18, 23);
const PANEL: RGBColor = RGBColor(24, 27, 31);
const BORDER: RGBColor = RGBColor(44, 48, 54);
const TEXT: RGBColor = RGBColor(204, 204, 220);
const DIM: RGBColor = RGBColor(140, 142, 152);
const LINES: [RGBColor; 10] = [
    RGBColor(115, 191, 105),
    RGBColor(242, 204, 12),
    RGBColor(87, 148, 242),
    RGBColor(255, 152, 48),
    RGBColor(242, 73, 92),
    RGBColor(184, 119, 217),
    RGBColor(138, 184, 255),
    RGBColor(250, 222, 42),
    RGBColor(150, 217, 141),
    RGBColor(255, 166, 176),
];

fn color(name: &str) -> RGBColor {
    match name {
        "green" => RGBColor(55, 135, 45),
        "yellow" => RGBColor(200, 140, 10),
        "red" => RGBColor(196, 22, 42),
        _ => RGBColor(31, 96, 196),
    }
}

fn font(size: i32, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color).pos(Pos::new(h, v))
}

/// Draws a dashboard into a file.
pub fn dashboard(path: &Path, title: &str, rows: &[(String, i32)], panels: &[Panel]) -> Result<()> {
    let bottom = panels.iter().map(|panel| panel.place[1] + panel.place[3]).max().unwrap_or(0);
    let size = ((24 * COLUMN + GAP).unsigned_abs(), (HEAD + bottom * ROW + GAP).unsigned_abs());
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&PAGE)?;
    root.draw(&Text::new(title.to_owned(), (GAP + 6, 18), font(20, TEXT, HPos::Left, VPos::Top)))?;
    for (title, y) in rows {
        let at = (GAP + 6, HEAD + y * ROW + ROW / 2);
        root.draw(&Text::new(format!("▾ {title}"), at, font(14, TEXT, HPos::Left, VPos::Center)))?;
    }
    for panel in panels {
        let [x, y, w, h] = panel.place;
        let corner = (GAP + x * COLUMN, HEAD + y * ROW);
        let area = root.clone().shrink(corner, (w * COLUMN - GAP, h * ROW - GAP));
        draw(&area, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw(area: &Area<'_>, panel: &Panel) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    area.fill(&PANEL)?;
    area.draw(&Rectangle::new([(0, 0), (width - 1, height - 1)], BORDER))?;
    if panel.kind == "stat" {
        return stat(area, panel, (width, height));
    }
    area.draw(&Text::new(panel.title.clone(), (10, 8), font(14, TEXT, HPos::Left, VPos::Top)))?;
    match panel.kind.as_str() {
        "timeseries" => over_time(area, panel, (width, height)),
        "bargauge" => bars(area, panel, width),
        _ => table(area, panel, (width, height)),
    }
}

fn stat(area: &Area<'_>, panel: &Panel, (width, height): (i32, i32)) -> Result<()> {
    let named = panel.named();
    let Some((name, series)) = named.first() else { return Ok(()) };
    let word = panel.unit == "none";
    let text = if word { name.clone() } else { words::value(series.last(), &panel.unit) };
    area.fill(&color(panel.color(series.last())))?;
    area.draw(&Text::new(panel.title.clone(), (10, 8), font(14, WHITE, HPos::Left, VPos::Top)))?;
    area.draw(&Text::new(text, (width / 2, height / 2 + 8), font(38, WHITE, HPos::Center, VPos::Center)))?;
    Ok(())
}

fn over_time(area: &Area<'_>, panel: &Panel, (width, height): (i32, i32)) -> Result<()> {
    let named = panel.named();
    if named.is_empty() {
        return Ok(());
    }
    let times = || named.iter().flat_map(|(_, series)| series.points.iter().map(|(time, _)| *time));
    let (from, to) = (times().fold(f64::MAX, f64::min), times().fold(f64::MIN, f64::max));
    let shown: Vec<Vec<(f64, f64, f64)>> = layers(&named, panel.stacked);
    let top = shown.iter().flatten().map(|(_, _, above)| *above).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };

    let lines = legend_lines(&named, width);
    let inner = area.clone().shrink((4, 32), (width - 14, height - 40 - lines * 18));
    let mut chart = ChartBuilder::on(&inner)
        .margin(2)
        .x_label_area_size(24)
        .y_label_area_size(58)
        .build_cartesian_2d(from..to.max(from + 1.0), 0.0..top)?;
    let clock = |time: &f64| {
        let seconds = (*time - from).round() as i64;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    };
    let unit = panel.unit.clone();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BORDER)
        .axis_style(BORDER)
        .x_labels(6)
        .y_labels(4)
        .label_style(("sans-serif", 12).into_font().color(&DIM))
        .x_label_formatter(&clock)
        .y_label_formatter(&|value| words::value(*value, &unit))
        .draw()?;
    for (limit, name) in panel.steps.iter().skip(1).filter(|(limit, _)| *limit <= top) {
        let line = color(name).mix(0.8).stroke_width(1);
        chart.draw_series(DashedLineSeries::new([(from, *limit), (to, *limit)], 6, 4, line))?;
    }
    for (at, points) in shown.iter().enumerate() {
        let line = LINES[at % LINES.len()];
        if panel.stacked {
            let upper = points.iter().map(|(time, _, above)| (*time, *above));
            let lower = points.iter().rev().map(|(time, below, _)| (*time, *below));
            let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
            chart.draw_series(std::iter::once(Polygon::new(outline, line.mix(0.35))))?;
        }
        chart.draw_series(LineSeries::new(
            points.iter().map(|(time, _, above)| (*time, *above)),
            line.stroke_width(2),
        ))?;
    }
    legend(area, &named, (width, height - lines * 18 - 6))
}

/// For each series its times with where it begins and ends: on the one before where they add up.
fn layers(named: &[(String, &Series)], stacked: bool) -> Vec<Vec<(f64, f64, f64)>> {
    let mut below: Vec<(f64, f64)> = Vec::new();
    let mut all = Vec::new();
    for (_, series) in named {
        let mut layer = Vec::new();
        for (time, value) in &series.points {
            let floor = below.iter_mut().find(|(at, _)| (at - time).abs() < 0.01).filter(|_| stacked);
            let base = floor.as_ref().map_or(0.0, |(_, base)| *base);
            layer.push((*time, base, base + value));
            match floor {
                Some((_, base)) => *base += value,
                None if stacked => below.push((*time, *value)),
                None => {}
            }
        }
        all.push(layer);
    }
    all
}

fn entry_width(name: &str) -> i32 {
    34 + i32::try_from(name.chars().count()).unwrap_or(0) * 7
}

fn legend_lines(named: &[(String, &Series)], width: i32) -> i32 {
    let (mut lines, mut x) = (1, 14);
    for (name, _) in named {
        if x + entry_width(name) > width && x > 14 {
            (lines, x) = (lines + 1, 14);
        }
        x += entry_width(name);
    }
    lines.min(3)
}

fn legend(area: &Area<'_>, named: &[(String, &Series)], (width, top): (i32, i32)) -> Result<()> {
    let (mut x, mut y, mut line) = (14, top, 1);
    for (at, (name, _)) in named.iter().enumerate() {
        if x + entry_width(name) > width && x > 14 {
            (x, y, line) = (14, y + 18, line + 1);
            if line > 3 {
                break;
            }
        }
        area.draw(&Rectangle::new([(x, y + 6), (x + 14, y + 9)], LINES[at % LINES.len()].filled()))?;
        area.draw(&Text::new(name.clone(), (x + 20, y + 8), font(12, DIM, HPos::Left, VPos::Center)))?;
        x += entry_width(name);
    }
    Ok(())
}

fn bars(area: &Area<'_>, panel: &Panel, width: i32) -> Result<()> {
    let mut named = panel.named();
    named.sort_by(|a, b| b.1.last().total_cmp(&a.1.last()));
    let most = named.iter().map(|(_, series)| series.last()).fold(f64::MIN_POSITIVE, f64::max);
    for (at, (name, series)) in (0..).zip(named.iter().take(7)) {
        let y = 44 + at * 30;
        area.draw(&Text::new(words::cut(name, 18), (12, y + 9), font(13, TEXT, HPos::Left, VPos::Center)))?;
        let (left, full) = (120, width - 120 - 90);
        let long = (f64::from(full) * series.last() / most) as i32;
        area.draw(&Rectangle::new([(left, y), (left + full, y + 18)], PAGE.filled()))?;
        let filled = color(panel.color(series.last())).filled();
        area.draw(&Rectangle::new([(left, y), (left + long.max(2), y + 18)], filled))?;
        let text = words::value(series.last(), &panel.unit);
        area.draw(&Text::new(text, (width - 12, y + 9), font(13, TEXT, HPos::Right, VPos::Center)))?;
    }
    Ok(())
}

/// One line for each set of labels, one column for each label and each query.
fn table(area: &Area<'_>, panel: &Panel, (width, height): (i32, i32)) -> Result<()> {
    type Line = (Vec<(String, String)>, Vec<Option<f64>>);
    let mut lines: Vec<Line> = Vec::new();
    for (at, (_, series)) in panel.answers.iter().enumerate() {
        for one in series {
            let line = lines.iter().position(|(labels, _)| *labels == one.labels).unwrap_or_else(|| {
                lines.push((one.labels.clone(), vec![None; panel.answers.len()]));
                lines.len() - 1
            });
            if let Some(cell) = lines.get_mut(line).and_then(|(_, cells)| cells.get_mut(at)) {
                *cell = Some(one.last());
            }
        }
    }
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<String> =
        lines.first().map(|(labels, _)| labels.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
    let heads: Vec<String> = [names, panel.answers.iter().map(|(legend, _)| legend.clone()).collect()].concat();
    let column = (width - 20) / i32::try_from(heads.len().max(1))?;
    let fits = usize::try_from(column / 7)?;
    let mut y = 46;
    for (at, head) in (0..).zip(&heads) {
        let style = font(12, RGBColor(110, 159, 255), HPos::Left, VPos::Center);
        area.draw(&Text::new(words::cut(head, fits), (12 + at * column, y), style))?;
    }
    for (labels, cells) in lines {
        y += 26;
        if y > height - 10 {
            break;
        }
        area.draw(&PathElement::new(vec![(10, y - 13), (width - 10, y - 13)], BORDER))?;
        let cells =
            cells.into_iter().map(|cell| cell.map_or_else(String::new, |value| words::value(value, &panel.unit)));
        for (at, text) in (0..).zip(labels.into_iter().map(|(_, value)| value).chain(cells)) {
            let style = font(13, TEXT, HPos::Left, VPos::Center);
            area.draw(&Text::new(words::cut(&text, fits), (12 + at * column, y), style))?;
        }
    }
    Ok(())
}
