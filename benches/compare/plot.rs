//! What the medians look like, as an SVG: throughput, processor time, and latency at fixed rates.

use anyhow::Context as _;
use plotters::{
    coord::{Shift, ranged1d::ValueFormatter, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{load::Load, measure::Figures, peer::Peer, results::Results};

const WIDTH: u32 = 960;
/// A peer's row, and what stands above and below the rows.
const ROW: u32 = 26;
const AROUND: u32 = 84;
/// For the peers' names, and for a figure behind a bar.
const NAMES: u32 = 120;
const ROOM: f64 = 1.22;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x33);
const FAINT: RGBColor = RGBColor(0xdd, 0xe2, 0xe6);
/// Ours and the others': the server's, and the database's or lower rates' paler ones.
const OURS: [RGBColor; 3] =
    [RGBColor(0x0b, 0x6e, 0x8c), RGBColor(0x5a, 0xa9, 0xc0), RGBColor(0xa9, 0xd3, 0xdf)];
const THEIRS: [RGBColor; 3] =
    [RGBColor(0x5f, 0x69, 0x73), RGBColor(0x9a, 0xa3, 0xab), RGBColor(0xcb, 0xd1, 0xd6)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn colours(peer: &Peer) -> [RGBColor; 3] {
    if peer.name.starts_with("ours") { OURS } else { THEIRS }
}

fn text(size: u32, colour: RGBColor, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour).pos(Pos::new(side, VPos::Center))
}

/// One panel below the other, for the loads that were measured.
pub(crate) fn svg(results: &Results, machine: &str) -> anyhow::Result<String> {
    let peers = results.peers();
    let loads = results.loads();
    let highest = loads.iter().copied().filter(|load| matches!(load, Load::Closed(_))).max();
    let open: Vec<_> = loads.iter().copied().filter(|load| matches!(load, Load::Open(_))).collect();
    let panels = u32::from(highest.is_some()) * 2 + u32::from(!open.is_empty());
    let height = AROUND + ROW * u32::try_from(peers.len())?;
    let mut drawn = String::new();
    {
        let root = SVGBackend::with_string(&mut drawn, (WIDTH, height * panels + ROW)).into_drawing_area();
        root.fill(&WHITE)?;
        let (rest, foot) = root.split_vertically(height * panels);
        foot.draw_text(machine, &text(12, INK, HPos::Left), (12, 8))?;
        let mut areas = rest.split_evenly((panels as usize, 1)).into_iter();
        if let Some(load) = highest {
            let rates = |it: &Figures| vec![it.events_per_second];
            let title = format!("events a second: {}", load.describe());
            bars(&areas.next().context("a panel")?, &title, results, load, rates, thousands)?;
            let times = |it: &Figures| vec![it.server_ms, it.database_ms];
            let title =
                "ms of processor time for 1,000 events, of server (dark) and database (pale): the same load";
            bars(&areas.next().context("a panel")?, title, results, load, times, |sum| format!("{sum:.0}"))?;
        }
        if let Some(area) = areas.next() {
            latencies(&area, results, &open)?;
        }
        root.present()?;
    }
    Ok(drawn)
}

/// A bar for each peer, of one or more pieces.
fn bars(
    area: &Area<'_>,
    title: &str,
    results: &Results,
    load: Load,
    pieces: impl Fn(&Figures) -> Vec<f64>,
    show: impl Fn(&f64) -> String,
) -> anyhow::Result<()> {
    let rows: Vec<_> = results
        .peers()
        .into_iter()
        .filter_map(|peer| Some((peer, pieces(&results.median(peer.name, load)?))))
        .collect();
    let most = rows.iter().map(|(_, pieces)| pieces.iter().sum()).fold(0.0, f64::max);
    let mut chart = builder(area, title).build_cartesian_2d(0.0..most * ROOM, below(rows.len()))?;
    draw_mesh(&mut chart, 6, &show)?;
    for (row, (peer, pieces)) in (0..).map(f64::from).zip(&rows) {
        let mut start = 0.0;
        for (piece, colour) in pieces.iter().zip(colours(peer)) {
            let bar = [(start, row + 0.2), (start + piece, row + 0.8)];
            chart.draw_series([Rectangle::new(bar, colour.filled())])?;
            start += piece;
        }
        chart
            .draw_series([EmptyElement::at((start, row + 0.5))
                + Text::new(show(&start), (6, 0), text(13, INK, HPos::Left))])?;
        chart.draw_series([EmptyElement::at((0.0, row + 0.5)) + name(peer)])?;
    }
    Ok(())
}

/// A dot for each peer and rate; 99 of 100 answers came within that time.
fn latencies(area: &Area<'_>, results: &Results, loads: &[Load]) -> anyhow::Result<()> {
    let peers = results.peers();
    let p99 = |peer: &Peer, load| results.median(peer.name, load).map(|it| it.p99_ms);
    let all: Vec<_> =
        peers.iter().flat_map(|peer| loads.iter().filter_map(|load| p99(peer, *load))).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min) / 1.5;
    let most = all.iter().copied().fold(0.0, f64::max) * 2.0;
    let rates: Vec<_> = loads.iter().filter_map(|load| load.rate()).map(|it| thousands(&it.into())).collect();
    let title =
        format!("ms within which 99 % are answered, at {} events a second (pale to dark)", rates.join(", "));
    let mut chart =
        builder(area, &title).build_cartesian_2d((least..most).log_scale(), below(peers.len()))?;
    draw_mesh(&mut chart, 10, &|ms| format!("{ms}"))?;
    for (row, peer) in (0..).map(f64::from).zip(&peers) {
        let dots = loads.iter().rev().zip(colours(peer).into_iter().cycle());
        for (load, colour) in dots.collect::<Vec<_>>().into_iter().rev() {
            if let Some(ms) = p99(peer, *load) {
                chart.draw_series([Circle::new((ms, row + 0.5), 6, colour.filled())])?;
            }
        }
        chart.draw_series([EmptyElement::at((least, row + 0.5)) + name(peer)])?;
    }
    Ok(())
}

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, text(16, INK, HPos::Left))
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(NAMES);
    builder
}

/// Faint lines at about so many figures, which stand below.
fn draw_mesh<X: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, RangedCoordf64>>,
    figures: usize,
    show: &dyn Fn(&f64) -> String,
) -> anyhow::Result<()> {
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_labels(figures)
        .x_label_formatter(&show)
        .label_style(text(12, INK, HPos::Center))
        .draw()?;
    Ok(())
}

/// So many rows, the first on top.
fn below(rows: usize) -> std::ops::Range<f64> {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))..0.0
}

/// A peer's name, before its row.
fn name(peer: &Peer) -> Text<'static, (i32, i32), &'static str> {
    Text::new(peer.name, (-8, 0), text(14, colours(peer)[0], HPos::Right))
}

/// With a comma for each thousand.
fn thousands(number: &f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
