//! A strict reader of the text format of Prometheus: what `promtool check metrics` would refuse
//! fails here.

use std::collections::{BTreeMap, BTreeSet};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "counter" => Some(Self::Counter),
            "gauge" => Some(Self::Gauge),
            "histogram" => Some(Self::Histogram),
            _ => None,
        }
    }
}

type Labels = Vec<(String, String)>;

/// A metric with all its series.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) kind: Kind,
    samples: Vec<(String, Labels, f64)>,
}

impl Metric {
    pub(super) fn value(&self, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(&self.name, labels)
    }

    pub(super) fn count(&self, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(&format!("{}_count", self.name), labels)
    }

    pub(super) fn series(&self) -> usize {
        self.samples.len()
    }

    fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let same = |found: &Labels| {
            found.len() == labels.len()
                && found
                    .iter()
                    .zip(labels)
                    .all(|((key, word), wanted)| (key.as_str(), word.as_str()) == *wanted)
        };
        self.samples
            .iter()
            .find(|(found, with, _)| found == name && same(with))
            .map(|(_, _, value)| *value)
    }
}

/// Reads a page; panics with the line that breaks a rule.
pub(super) fn parse(text: &str) -> Vec<Metric> {
    assert!(text.ends_with('\n'), "the last line is cut");
    let mut metrics: Vec<Metric> = Vec::new();
    let mut names = BTreeSet::new();
    let mut helped: Option<String> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            assert!(names.insert(name.to_owned()), "twice: {line}");
            assert!(helped.replace(name.to_owned()).is_none(), "help without type before {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(helped.take().as_deref(), Some(name), "{line}");
            let kind = Kind::parse(kind).unwrap_or_else(|| panic!("{line}"));
            metrics.push(Metric { name: name.to_owned(), kind, samples: Vec::new() });
        } else {
            assert!(helped.is_none(), "help without type before {line}");
            let metric = metrics.last_mut().unwrap_or_else(|| panic!("no type before {line}"));
            let sample = sample(line);
            let suffix = sample.0.strip_prefix(&metric.name).unwrap_or_else(|| panic!("{line}"));
            let allowed: &[&str] = match metric.kind {
                Kind::Counter | Kind::Gauge => &[""],
                Kind::Histogram => &["_bucket", "_sum", "_count"],
            };
            assert!(allowed.contains(&suffix), "{line}");
            metric.samples.push(sample);
        }
    }
    metrics.iter().for_each(check);
    metrics
}

fn is_name(name: &str) -> bool {
    let good = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    name.starts_with(|char: char| char.is_ascii_lowercase()) && name.chars().all(good)
}

/// `name{key="value",…} number`.
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    assert!(value.is_finite(), "{line}");
    let Some((name, labels)) = head.split_once('{') else {
        assert!(is_name(head), "{line}");
        return (head.to_owned(), Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut rest = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(key), "{line}");
        let (mut word, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => word.push('\n'),
                    Some((_, escaped @ ('\\' | '"'))) => word.push(escaped),
                    other => panic!("{other:?} is escaped: {line}"),
                },
                Some((_, char)) => word.push(char),
                None => panic!("{line}"),
            }
        };
        found.push((key.to_owned(), word));
        rest = &after[end + 1..];
        if let Some(next) = rest.strip_prefix(',') {
            assert!(!next.is_empty(), "{line}");
            rest = next;
        } else {
            assert!(rest.is_empty(), "{line}");
        }
    }
    (name.to_owned(), found, value)
}

/// What is wrong with a metric as a whole.
fn check(metric: &Metric) {
    let Metric { name, kind, samples } = metric;
    assert!(!samples.is_empty(), "{name} has no series");
    let mut seen = BTreeSet::new();
    for (name, labels, _) in samples {
        assert!(seen.insert((name, labels)), "twice: {name} {labels:?}");
        let keys: BTreeSet<_> = labels.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), labels.len(), "{name} {labels:?}");
    }
    assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
    for suffix in ["_bucket", "_sum", "_count"] {
        assert!(!name.ends_with(suffix), "{name}");
    }
    for unit in ["_milliseconds", "_ms", "_micros", "_kilobytes", "_mib", "_percent"] {
        assert!(!name.contains(unit), "{name} is not in a base unit");
    }
    if *kind == Kind::Histogram {
        assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name} has no unit");
        check_histogram(metric);
    }
    if *kind == Kind::Counter {
        assert!(samples.iter().all(|(_, _, value)| *value >= 0.0), "{name}");
    }
}

fn check_histogram(metric: &Metric) {
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, labels, value) in &metric.samples {
        if name.ends_with("_bucket") {
            let bound = labels.iter().find(|(key, _)| key == "le").expect(name).1.clone();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            let others = labels.iter().filter(|(key, _)| key != "le").cloned().collect();
            buckets.entry(others).or_default().push((bound, *value));
        }
    }
    for (labels, buckets) in buckets {
        let rises = buckets.windows(2).all(|it| it[0].0 < it[1].0 && it[0].1 <= it[1].1);
        assert!(rises, "{} {labels:?}: {buckets:?}", metric.name);
        let last = buckets.last().unwrap();
        assert!(last.0.is_infinite(), "{} has no +Inf", metric.name);
        let pairs: Vec<_> = labels.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(metric.count(&pairs), Some(last.1), "{}", metric.name);
        assert!(metric.find(&format!("{}_sum", metric.name), &pairs).is_some());
    }
}
