//! The text that Prometheus reads (format 0.0.4): each name once, with help and type before its
//! series.

use std::fmt::{Display, Write as _};

use super::kinds::{BOUNDS_MICROS, Counter, Family, Gauge, Histogram, Label};

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// The media type of the text.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(help);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind);
        self.text.push('\n');
    }

    /// A series; its labels are pairs of name and value.
    fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (place, (key, word)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(key);
            self.text.push_str("=\"");
            for char in word.chars() {
                match char {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { " " } else { "} " };
        // Writing to a string cannot fail.
        writeln!(self.text, "{end}{value}").unwrap_or_default();
    }

    /// One number as it is now.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.series(name, &[], value);
    }

    /// Numbers as they are now, one per set of labels. Without any, the name is left out.
    pub fn gauges<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        keys: &[&str],
        values: impl IntoIterator<Item = (Vec<&'a str>, V)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        self.head(name, help, "gauge");
        for (words, value) in values {
            let labels: Vec<_> = keys.iter().copied().zip(words).collect();
            self.series(name, &labels, value);
        }
    }

    /// A number that rises.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.series(name, &[], value);
    }

    pub(super) fn count(&mut self, name: &str, help: &str, counter: &Counter) {
        self.counter(name, help, counter.value());
    }

    pub(super) fn counts<L: Label>(&mut self, name: &str, help: &str, family: &Family<L, Counter>) {
        self.head(name, help, "counter");
        for (word, counter) in family.each() {
            self.series(name, &[(L::KEY, word)], counter.value());
        }
    }

    pub(super) fn level(&mut self, name: &str, help: &str, gauge: &Gauge) {
        self.gauge(name, help, gauge.value());
    }

    pub(super) fn times(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        self.buckets(name, None, histogram);
    }

    pub(super) fn times_by<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        family: &Family<L, Histogram>,
    ) {
        self.head(name, help, "histogram");
        for (word, histogram) in family.each() {
            self.buckets(name, Some((L::KEY, word)), histogram);
        }
    }

    fn buckets(&mut self, name: &str, label: Option<(&str, &str)>, histogram: &Histogram) {
        let counts = histogram.cumulative();
        let bucket = format!("{name}_bucket");
        for (place, count) in counts.iter().enumerate() {
            let bound = BOUNDS_MICROS.get(place).map_or_else(|| "+Inf".to_owned(), seconds);
            let labels: Vec<_> = label.into_iter().chain([("le", bound.as_str())]).collect();
            self.series(&bucket, &labels, count);
        }
        let labels: Vec<_> = label.into_iter().collect();
        self.series(&format!("{name}_sum"), &labels, histogram.sum().as_secs_f64());
        let all = counts.last().copied().unwrap_or_default();
        self.series(&format!("{name}_count"), &labels, all);
    }
}

fn seconds(micros: &u64) -> String {
    std::time::Duration::from_micros(*micros).as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.gauges("a", "Help.", &["x", "y"], [(vec!["q\"\\\n", "é"], 1.5)]);
        page.gauges("b", "Nothing.", &["x"], Vec::<(Vec<&str>, u8)>::new());
        let expected = "# HELP a Help.\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\",y=\"é\"} 1.5\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn a_histogram_counts_upwards_and_ends_with_all() {
        let histogram = Histogram::default();
        histogram.took(std::time::Duration::from_millis(3));
        histogram.took(std::time::Duration::from_secs(60));
        let mut page = Page::default();
        page.times("t_seconds", "Help.", &histogram);
        let text = page.text();
        assert!(text.contains("t_seconds_bucket{le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{le=\"30\"} 1\n"), "{text}");
        let end = "t_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 60.003\nt_seconds_count 2\n";
        assert!(text.ends_with(end), "{text}");
    }
}
