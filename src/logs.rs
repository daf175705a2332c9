//! The log: lines on standard output, text for people or JSON for machines.
//!
//! Lives here: format, filter, and that no value can forge a line. Does not: what is logged, and that it is masked.

mod lossy;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write as _},
    panic::{self, PanicHookInfo},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{
    Subscriber,
    field::{Field, display},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::MakeExt as _,
    fmt::{
        MakeWriter,
        format::{Writer, debug_fn},
        time::FormatTime,
    },
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::clock::Timestamp;

/// What the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// A line for people.
    Text,
    /// An object for machines.
    Json,
}

impl Format {
    /// Parses `auto`, `text` or `json`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn is_json(self, is_terminal: bool) -> bool {
        match self {
            Self::Auto => !is_terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }

    /// Text unless something else was asked for: for a command that people look at.
    #[must_use]
    pub fn for_people(self) -> Self {
        if self == Self::Auto { Self::Text } else { self }
    }
}

/// What is logged: levels, also per module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// Parses directives as `RUST_LOG` has them. A lone word has to be a level: as a module it would silence all else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_level =
            |word: &str| !word.is_empty() && word.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let is_meant = |part: &str| part.contains(['=', '[', ']', ':']) || is_level(part);
        let is_right = text.split(',').all(|part| is_meant(part.trim())) && EnvFilter::try_new(text).is_ok();
        is_right.then(|| Self(text.to_owned()))
    }
}

/// Which events get a log line of their own, at `info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// None.
    Off,
    /// The first of each second.
    Sampled,
    /// Each.
    All,
}

impl Events {
    /// Parses `off`, `sampled` or `all`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "sampled" => Some(Self::Sampled),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a line looks like.
    pub format: Format,
    /// Which lines there are.
    pub filter: Filter,
}

impl Options {
    /// Text unless something else was asked for: for a command that people look at.
    #[must_use]
    pub fn for_people(&self) -> Self {
        Self { format: self.format.for_people(), filter: self.filter.clone() }
    }
}

/// How long the end of the process waits for a reader of the log, or of standard error.
const LAST_WORDS: Duration = Duration::from_secs(1);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Starts the log of this process, on standard output, also for panics. No line waits for its reader: when too many are
/// unread, further ones are dropped and counted.
///
/// # Errors
/// When standard output can't be duplicated.
///
/// # Panics
/// When it was started before.
pub fn init(options: &Options) -> io::Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let json = options.format.is_json(is_terminal);
    subscriber(&options.filter, json, is_terminal, lossy::Lines::to_stdout()?).init();
    panic::set_hook(Box::new(panicked));
    Ok(())
}

/// Waits a second at most until the log's lines are written.
pub fn flush() {
    lossy::flush(Instant::now() + LAST_WORDS);
}

/// Lines of the log that were dropped because nobody read them.
#[must_use]
pub fn dropped_lines() -> u64 {
    lossy::dropped() as u64
}

/// Panics since the log was started, contained ones too.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Writes why the process ends to standard error, in one line: in JSON where the log would be, else after the program's
/// name. It waits a second at most for whoever reads it.
pub fn fatal(format: Format, error: &str) {
    let is_terminal = io::stderr().is_terminal();
    let error = one_line(error);
    let is_json = format.is_json(is_terminal);
    let (written, end) = mpsc::channel();
    thread::spawn(move || {
        if is_json {
            let errors = Filter("error".to_owned());
            let to_stderr = subscriber(&errors, true, false, io::stderr);
            tracing::subscriber::with_default(to_stderr, || tracing::error!("{error}"));
        } else {
            let _ = writeln!(io::stderr(), "nexo-receiver: {error}");
        }
        let _ = written.send(());
    });
    let _ = end.recv_timeout(LAST_WORDS);
}

/// Logs a panic, in place of the lines that would go to standard error and wait for whoever reads that.
fn panicked(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Relaxed);
    let place = panic.location().map(display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(panic = message, place, backtrace, "a task panicked");
}

fn subscriber<W>(filter: &Filter, json: bool, ansi: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_timer(Clock);
    let layer = if json {
        layer.json().flatten_event(true).with_span_list(false).boxed()
    } else {
        // Fields come out of `escaped`, so that the layer's own, lesser escaping is not needed.
        let fields = debug_fn(escaped).delimited(" ");
        layer.with_ansi(ansi).fmt_fields(fields).boxed()
    };
    let filter = EnvFilter::try_new(&filter.0).expect("a filter has been parsed before");
    tracing_subscriber::registry().with(filter).with(layer)
}

/// The time of a line, from the one clock.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", Timestamp::now())
    }
}

/// Writes one field, with every control character escaped.
fn escaped(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escape(writer), "{value:?}")
}

/// Passes text on with its control characters escaped, and those that reorder or break lines.
struct Escape<W>(W);

impl<W: fmt::Write> fmt::Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_bad =
            |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        text.split_inclusive(is_bad).try_for_each(|part| {
            match part.chars().next_back().filter(|c| is_bad(*c)) {
                None => self.0.write_str(part),
                Some(bad) => {
                    write!(self.0, "{}{}", &part[..part.len() - bad.len_utf8()], bad.escape_default())
                }
            }
        })
    }
}

/// Text that may be anybody's, as one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = Escape(String::with_capacity(text.len()));
    line.write_str(text).expect("writing to a string does not fail");
    line.0
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, json: bool, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(&Filter::parse(filter).unwrap(), json, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const FORGED: &str = "a\n2026-01-01T00:00:00Z  INFO forged\r\u{1b}[2J\u{9b}\u{2028}\u{202e}\t\0";

    #[test]
    fn no_value_forges_a_line() {
        for json in [false, true] {
            let log = logged("info", json, || {
                let _span = tracing::info_span!("request", path = %FORGED).entered();
                tracing::info!(display = %FORGED, debug = ?FORGED, text = FORGED, "message {FORGED}");
            });
            assert_eq!(log.matches('\n').count(), 1, "{log}");
            assert!(log.ends_with('\n'));
            let log = log.trim_end_matches('\n');
            assert!(json || !log.chars().any(char::is_control), "{log:?}");
            assert!(!json || serde_json::from_str::<serde_json::Value>(log).is_ok(), "{log:?}");
        }
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let log = logged("info", true, || tracing::warn!(count = 3, name = "x", "a message"));
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "a message");
        assert_eq!((&line["count"], &line["name"]), (&3.into(), &"x".into()));
        assert!(Timestamp::parse(line["timestamp"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn text_reads_like_a_line() {
        let log = logged("info", false, || tracing::info!(count = 3, name = %"x y", "a message"));
        let line = log.split_once("  INFO ").unwrap().1;
        assert_eq!(line, "nexo_receiver::logs::tests: a message count=3 name=x y\n");
    }

    #[test]
    fn a_panic_is_one_line_and_counted() {
        let before = panics();
        panic::set_hook(Box::new(panicked));
        let log = logged("info", true, || {
            let _ = panic::catch_unwind(|| panic!("of a test\nin two lines"));
        });
        drop(panic::take_hook());
        assert_eq!(log.lines().count(), 1, "{log}");
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        let fields = ["level", "message", "panic"].map(|name| line[name].as_str().unwrap());
        assert_eq!(fields, ["ERROR", "a task panicked", "of a test\nin two lines"]);
        assert!(line["place"].as_str().unwrap().contains("src/logs.rs:"), "{log}");
        assert!(panics() > before);
    }

    #[test]
    fn a_filter_silences_what_it_should_only() {
        let log = logged("warn,nexo_receiver=debug", false, || {
            tracing::debug!("ours");
            tracing::info!(target: "sqlx", "theirs");
        });
        assert!(log.contains("ours") && !log.contains("theirs"));
        for right in ["info", "off", "INFO", "info,sqlx=warn", "a::b=trace", "info,[span{x=1}]=debug"] {
            assert!(Filter::parse(right).is_some(), "{right}");
        }
        for wrong in ["", "verbose", "inof", "info,", "info;debug", "sqlx=loud", "=="] {
            assert_eq!(Filter::parse(wrong), None, "{wrong}");
        }
    }
}
