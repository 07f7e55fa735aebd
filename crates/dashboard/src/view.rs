//! What pages show, as plain values and text.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use warren_control::{BuildRecord, EventRecord, Sandbox, TemplateSummary};
use warren_types::{LogEntry, MetricsPoint, SandboxState};

const MIB: f64 = 1024.0 * 1024.0;

/// A sandbox in the list and at the head of its page.
#[derive(Debug)]
pub(crate) struct SandboxRow {
    pub(crate) id: String,
    pub(crate) template: String,
    pub(crate) template_id: String,
    pub(crate) state: &'static str,
    pub(crate) started: String,
    pub(crate) age: String,
    pub(crate) left: String,
    pub(crate) cpus: u32,
    pub(crate) memory: String,
    pub(crate) disk: String,
    pub(crate) metadata: Vec<(String, String)>,
    /// Figures of now, if there are any yet.
    pub(crate) cpu_now: String,
    pub(crate) memory_now: String,
    /// Points of small lines of the last minutes.
    pub(crate) cpu_line: String,
    pub(crate) memory_line: String,
}

impl SandboxRow {
    /// With its figures of the last minutes, oldest first.
    pub(crate) fn new(sandbox: &Sandbox, figures: &[MetricsPoint], now: Timestamp) -> Self {
        let record = &sandbox.record;
        let newest = figures.last();
        let column = |value: fn(&MetricsPoint) -> f64| {
            let values: Vec<f64> = figures.iter().map(value).collect();
            small_line(&values)
        };
        let paused = record.state == SandboxState::Paused;
        Self {
            id: record.id.to_string(),
            template: record
                .alias
                .clone()
                .unwrap_or_else(|| record.template_id.to_string()),
            template_id: record.template_id.to_string(),
            state: if paused { "paused" } else { "running" },
            started: moment(record.started_at),
            age: span(now.as_second() - record.started_at.as_second()),
            left: if paused {
                "–".to_owned()
            } else {
                span(record.end_at.as_second() - now.as_second())
            },
            cpus: record.cpu_count,
            memory: mib(record.memory_mib),
            disk: mib(record.disk_mib),
            metadata: record.metadata.clone().into_iter().collect(),
            cpu_now: newest.map_or_else(|| "–".to_owned(), |p| format!("{:.0} %", p.cpu_used_pct)),
            memory_now: newest.map_or_else(|| "–".to_owned(), |p| bytes(p.mem_used)),
            cpu_line: column(|p| p.cpu_used_pct / 100.0),
            memory_line: column(|p| as_float(p.mem_used) / as_float(p.mem_total.max(1))),
        }
    }
}

/// A template in the list.
#[derive(Debug)]
pub(crate) struct TemplateRow {
    pub(crate) id: String,
    pub(crate) names: String,
    pub(crate) access: &'static str,
    pub(crate) status: &'static str,
    pub(crate) size: String,
    pub(crate) builds: u64,
    pub(crate) spawned: u64,
    pub(crate) last_spawned: String,
    pub(crate) created: String,
}

impl TemplateRow {
    pub(crate) fn new(summary: &TemplateSummary) -> Self {
        let names: Vec<&str> = summary.aliases.iter().map(|a| a.alias.as_str()).collect();
        Self {
            id: summary.template.id.to_string(),
            names: names.join(", "),
            access: if summary.template.public {
                "public"
            } else {
                "private"
            },
            status: summary.status.map_or("none", |status| status.as_str()),
            size: summary.ready.as_ref().map_or_else(
                || "–".to_owned(),
                |build| {
                    let resources = build_resources(build);
                    format!(
                        "{} CPUs, {}, disk {}",
                        resources.cpu_count,
                        mib(resources.memory_mib),
                        mib(resources.disk_mib)
                    )
                },
            ),
            builds: summary.build_count,
            spawned: summary.template.spawn_count,
            last_spawned: summary
                .template
                .last_spawned_at
                .map_or_else(|| "never".to_owned(), moment),
            created: moment(summary.template.created_at),
        }
    }
}

fn build_resources(build: &BuildRecord) -> warren_types::Resources {
    build.content.resources
}

/// A build of a template.
#[derive(Debug)]
pub(crate) struct BuildRow {
    pub(crate) id: String,
    pub(crate) status: &'static str,
    pub(crate) requested: String,
    pub(crate) took: String,
}

impl BuildRow {
    pub(crate) fn new(build: &BuildRecord) -> Self {
        Self {
            id: build.id.to_string(),
            status: build.status.as_str(),
            requested: moment(build.created_at),
            took: build.finished_at.map_or_else(
                || "–".to_owned(),
                |end| span(end.as_second() - build.created_at.as_second()),
            ),
        }
    }
}

/// Something that befell a sandbox.
#[derive(Debug)]
pub(crate) struct EventRow {
    pub(crate) at: String,
    pub(crate) kind: &'static str,
    pub(crate) sandbox: String,
    pub(crate) facts: String,
}

impl EventRow {
    pub(crate) fn new(event: &EventRecord) -> Self {
        let name = event.kind.as_str();
        Self {
            at: moment(event.at),
            kind: name.rsplit('.').next().unwrap_or(name),
            sandbox: event.sandbox_id.to_string(),
            facts: facts(&event.data),
        }
    }
}

/// The facts of an event in one line. Labels are those of the sandbox, and say nothing of
/// what befell it.
fn facts(data: &Value) -> String {
    let mut out = String::new();
    for (name, value) in data.as_object().into_iter().flatten() {
        match value {
            _ if name == "sandbox_metadata" => {}
            Value::Null => {}
            Value::Object(_) => {
                write!(out, "{}  ", facts(value)).ok();
            }
            // Writing to a string can't fail.
            Value::String(text) => {
                write!(out, "{name} {text}  ").ok();
            }
            other => {
                write!(out, "{name} {other}  ").ok();
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// A line of a log.
#[derive(Debug)]
pub(crate) struct LogRow {
    pub(crate) at: String,
    /// The same with the date.
    pub(crate) moment: String,
    pub(crate) level: &'static str,
    pub(crate) message: String,
    pub(crate) fields: String,
}

impl LogRow {
    pub(crate) fn new(entry: &LogEntry) -> Self {
        let mut fields = String::new();
        for (name, value) in &entry.fields {
            // Writing to a string can't fail.
            write!(fields, " {name}={value}").ok();
        }
        Self {
            at: entry.timestamp.strftime("%H:%M:%S%.3f").to_string(),
            moment: entry.timestamp.to_string(),
            level: entry.level.as_str(),
            message: entry.message.clone(),
            fields,
        }
    }
}

/// A figure over time.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) now: String,
    pub(crate) most: String,
    /// Points of an SVG line in a box of 300 by 60.
    pub(crate) points: String,
    /// Points of what is below the line.
    pub(crate) area: String,
}

/// A span of time that a chart shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
}

impl Span {
    /// The last seconds until now.
    pub(crate) fn last(seconds: i64) -> Self {
        let end = Timestamp::now();
        let start = end.checked_sub(SignedDuration::from_secs(seconds));
        Self {
            start: start.unwrap_or(Timestamp::MIN),
            end,
        }
    }

    /// How far a moment is from the start, as a share of the whole.
    fn share(self, at: Timestamp) -> f64 {
        let whole = self.end.duration_since(self.start).as_secs_f64();
        let passed = at.duration_since(self.start).as_secs_f64();
        if whole > 0.0 {
            (passed / whole).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }
}

pub(crate) const CHART_WIDTH: f64 = 300.0;
pub(crate) const CHART_HEIGHT: f64 = 60.0;

impl Chart {
    /// A chart of values between 0 and `full`, each with its moment, oldest first.
    fn new(
        title: &'static str,
        span: Span,
        values: &[(Timestamp, f64)],
        full: f64,
        show: fn(f64) -> String,
    ) -> Self {
        let last = values.last().map_or(0.0, |(_, value)| *value);
        let places: Vec<_> = values
            .iter()
            .map(|(at, value)| {
                let share = if full > 0.0 { value / full } else { 0.0 };
                (span.share(*at), share.clamp(0.0, 1.0))
            })
            .collect();
        let (points, area) = line_in(&places, CHART_WIDTH, CHART_HEIGHT);
        Self {
            title,
            now: show(last),
            most: show(full),
            points,
            area,
        }
    }

    /// The charts of a sandbox over a span; none without a sample.
    pub(crate) fn of_sandbox(samples: &[MetricsPoint], span: Span) -> Vec<Self> {
        let column = |value: fn(&MetricsPoint) -> f64| -> Vec<(Timestamp, f64)> {
            let points = samples.iter().map(|point| (point.at, value(point)));
            points.collect()
        };
        let last = samples.last();
        if last.is_none() {
            return Vec::new();
        }
        vec![
            Self::new("CPU", span, &column(|p| p.cpu_used_pct), 100.0, |v| {
                format!("{v:.0} %")
            }),
            Self::new(
                "Memory",
                span,
                &column(|p| as_float(p.mem_used)),
                last.map_or(1.0, |p| as_float(p.mem_total)),
                |v| format!("{:.0} MiB", v / MIB),
            ),
            Self::new(
                "Disk",
                span,
                &column(|p| as_float(p.disk_used)),
                last.map_or(1.0, |p| as_float(p.disk_total)),
                |v| format!("{:.0} MiB", v / MIB),
            ),
        ]
    }

    /// One figure whose highest value fills the box.
    pub(crate) fn peaking(
        title: &'static str,
        span: Span,
        values: &[(Timestamp, f64)],
        show: fn(f64) -> String,
    ) -> Self {
        let highest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let full = if highest > 0.0 { highest } else { 1.0 };
        Self::new(title, span, values, full, show)
    }
}

#[expect(clippy::cast_precision_loss, reason = "charts have few pixels")]
fn as_float(value: u64) -> f64 {
    value as f64
}

/// Shares of one in a box of 80 by 20; a line needs two points.
#[expect(clippy::cast_precision_loss, reason = "charts have few points")]
fn small_line(values: &[f64]) -> String {
    if values.len() < 2 {
        return String::new();
    }
    let step = 1.0 / (values.len() - 1) as f64;
    let places: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(index, value)| (index as f64 * step, value.clamp(0.0, 1.0)))
        .collect();
    line_in(&places, 80.0, 20.0).0
}

/// A line through places, each a share of the width and of the height, and the corners of
/// what is below it.
fn line_in(places: &[(f64, f64)], width: f64, height: f64) -> (String, String) {
    let mut points = String::new();
    for (x, y) in places {
        // Writing to a string can't fail.
        write!(points, "{:.1},{:.1} ", x * width, height * (1.0 - y)).ok();
    }
    let mut area = String::new();
    if let (Some((first, _)), Some((last, _))) = (places.first(), places.last()) {
        let (first, last) = (first * width, last * width);
        write!(area, "{first:.1},{height:.1} {points}{last:.1},{height:.1}").ok();
    }
    (points, area)
}

/// A moment in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The day of a moment in UTC.
pub(crate) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// The same to the minute.
pub(crate) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A span of seconds by its two greatest units; spans that are over are none.
pub(crate) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

fn mib(value: u32) -> String {
    if value >= 1024 && value.is_multiple_of(1024) {
        format!("{} GiB", value / 1024)
    } else {
        format!("{value} MiB")
    }
}

fn bytes(value: u64) -> String {
    format!("{:.0} MiB", as_float(value) / MIB)
}

/// A number of bytes in the unit that suits it.
pub(crate) fn size(value: u64) -> String {
    let value = as_float(value);
    if value >= 1024.0 * MIB {
        format!("{:.1} GiB", value / MIB / 1024.0)
    } else if value >= MIB {
        format!("{:.1} MiB", value / MIB)
    } else if value >= 1024.0 {
        format!("{:.1} KiB", value / 1024.0)
    } else {
        format!("{value:.0} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(span(-5), "0 s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(61), "1 min 1 s");
        assert_eq!(span(3_700), "1 h 1 min");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(mib(512), "512 MiB");
        assert_eq!(mib(2048), "2 GiB");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }

    #[test]
    fn facts_are_one_line() {
        let data = serde_json::json!({
            "reason": "killed", "none": null, "n": { "a": 1, "b": {} }, "sandbox_metadata": { "x": "y" },
        });
        assert_eq!(facts(&data), "a 1  reason killed");
        assert_eq!(facts(&Value::Null), "");
    }

    #[test]
    fn a_small_line_needs_two_points() {
        assert_eq!(small_line(&[0.5]), "");
        assert_eq!(small_line(&[0.0, 1.0]), "0.0,20.0 80.0,0.0 ");
    }

    #[test]
    fn a_line_fills_its_box() {
        assert_eq!(line_in(&[], 300.0, 60.0), (String::new(), String::new()));
        let (points, area) = line_in(&[(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)], 300.0, 60.0);
        assert_eq!(points, "0.0,60.0 150.0,30.0 300.0,0.0 ");
        assert_eq!(area, "0.0,60.0 0.0,60.0 150.0,30.0 300.0,0.0 300.0,60.0");
    }

    #[test]
    fn values_stand_where_their_time_is() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let span = Span {
            start: at(0),
            end: at(100),
        };
        // What began late does not fill the whole width.
        let values = [(at(50), 0.0), (at(100), 200.0)];
        let chart = Chart::new("x", span, &values, 100.0, |v| format!("{v:.0}"));
        assert_eq!(chart.points, "150.0,60.0 300.0,0.0 ");
        assert_eq!((chart.now.as_str(), chart.most.as_str()), ("200", "100"));
        assert_eq!(
            Chart::new("x", span, &[], 0.0, |_| String::new()).points,
            ""
        );
        let flat = Chart::peaking("x", span, &[(at(0), 0.0)], |v| format!("{v:.0}"));
        assert_eq!(flat.points, "0.0,60.0 ");
        let empty = Span {
            start: at(5),
            end: at(5),
        };
        assert_eq!(empty.share(at(5)), 1.0);
    }
}
