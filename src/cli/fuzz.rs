//! The fuzz tests' way to the small languages of the command line.

use std::hint::black_box;

use super::text::eval::Absent;
use super::text::template::Template;
use super::text::units;
use super::values::{csv, files, mount, number, place, port, words};

/// A value of any flag.
pub(crate) fn values(text: &str) {
    drop(csv::fields(text));
    drop(files::parse(text));
    drop(mount::parse(text));
    drop(number::duration(text));
    drop(number::bytes(text));
    drop(number::cpus(text));
    drop(number::ratio(text));
    drop(number::ulimit(text));
    drop(place::preference(text));
    drop(place::generic(text));
    drop(place::network(text));
    drop(port::parse(text));
    drop(words::split(text));
    black_box(units::parse_time(text));
    drop(units::ellipsis(text, 7));
    drop(units::capital(text));
    units::short_id(text);
}

/// What `--format` takes, over an object of a list and over what is no such thing.
pub(crate) fn template(text: &str) {
    let Ok(template) = Template::parse(text) else { return };
    let object = serde_json::json!({"Name": "web", "Ports": [80, {"a": null}], "Labels": {"a": "b"},
        "N": -1.5e300, "Spec": {"Mode": {"Replicated": {"Replicas": 3}}}});
    for data in [object, serde_json::Value::Null, serde_json::json!([1, "two"])] {
        drop(template.render(&data, Absent::Shown));
        drop(template.render(&data, Absent::Refused));
    }
}
