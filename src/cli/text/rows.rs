//! Lists: rows of named fields, shown as a table, as JSON lines or by a template.

use clap::Args;
use serde_json::{Map, Value};

use super::eval::Absent;
use super::table;
use super::template::Template;
use crate::cli::shell::Out;

/// A kind of list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// Docker's default template, without `table`.
    pub(crate) template: &'static str,
    /// Heading of each field; also the list of fields.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// The options that every list has.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ListArgs {
    /// Filter the output by conditions given, such as name=web; may be repeated
    #[arg(short = 'f', long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.ID}} {{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Only display ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// One row; a member `$labels` serves `.Label "key"` and is not shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(Map<String, Value>);

impl Row {
    /// With a field.
    #[must_use]
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// With labels, both as a text and for `.Label "key"`.
    #[must_use]
    pub(crate) fn with_labels(self, labels: &crate::domain::Labels) -> Self {
        let text: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let map: Map<String, Value> =
            labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        self.with("Labels", text.join(",")).with("$labels", map)
    }
}

impl Listing {
    /// Writes rows in the format that the user asked for.
    ///
    /// # Errors
    /// When the template is wrong or the output is closed.
    pub(crate) fn print(
        &self,
        out: &mut Out,
        format: Option<&str>,
        rows: Vec<Row>,
    ) -> anyhow::Result<()> {
        let rows: Vec<Value> = rows.into_iter().map(|row| Value::Object(row.0)).collect();
        out.text(self.render(format.unwrap_or("table"), &rows)?)?;
        Ok(())
    }

    fn render(&self, format: &str, rows: &[Value]) -> anyhow::Result<String> {
        let format = format.trim().replace("\\t", "\t").replace("\\n", "\n");
        let (heading, template) = match format.as_str() {
            "table" => (true, self.template),
            "json" => (false, "{{json .}}"),
            other => match other.strip_prefix("table ") {
                Some(template) => (true, template.trim()),
                None => (false, other),
            },
        };
        let template = Template::parse(template)?;
        let mut text = String::new();
        if heading {
            text.push_str(&template.render(&self.heading(), Absent::Refused)?);
            text.push('\n');
        }
        for row in rows {
            text.push_str(&template.render(row, Absent::Refused)?);
            text.push('\n');
        }
        Ok(if heading { table::align(&text) } else { text })
    }

    fn heading(&self) -> Value {
        let fields =
            self.headings.iter().map(|(field, text)| ((*field).to_owned(), (*text).into()));
        Value::Object(fields.collect())
    }
}

/// Prints objects of `inspect` by a template, one a line, or as a JSON array.
///
/// # Errors
/// When the template is wrong or the output is closed.
pub(crate) fn print_objects(
    out: &mut Out,
    format: Option<&str>,
    objects: &[String],
) -> anyhow::Result<()> {
    let Some(format) = format.filter(|format| *format != "json") else {
        let text = match format {
            Some(_) => objects.join("\n"),
            None => super::json::array(objects),
        };
        return Ok(out.line(text.trim_end())?);
    };
    let template = Template::parse(format)?;
    for object in objects {
        let value: Value = serde_json::from_str(object)?;
        out.line(template.render(&value, Absent::Shown)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: Listing = Listing {
        template: "{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}",
        headings: &[("ID", "ID"), ("Self", ""), ("Hostname", "HOSTNAME"), ("Status", "STATUS")],
    };

    fn rows() -> Vec<Value> {
        let row = Row::default()
            .with("ID", "k4x0wazur26nfs8sm441cyzbz")
            .with("Self", true)
            .with("Hostname", "vm")
            .with("Status", "Ready");
        vec![Value::Object(row.0)]
    }

    #[test]
    fn formats_are_dockers() {
        let table = NODES.render("table", &rows()).unwrap();
        assert_eq!(
            table,
            "ID                            HOSTNAME   STATUS\n\
             k4x0wazur26nfs8sm441cyzbz *   vm         Ready\n"
        );
        assert_eq!(NODES.render("{{.Hostname}}\\t{{.Status}}", &rows()).unwrap(), "vm\tReady\n");
        let custom = NODES.render("table {{.Hostname}}\\t{{.Status | upper}}", &rows()).unwrap();
        assert_eq!(custom, "HOSTNAME   STATUS\nvm         READY\n");
        let json = NODES.render("json", &rows()).unwrap();
        assert!(json.starts_with("{\"Hostname\":\"vm\""), "{json}");
        assert!(NODES.render("{{.Nope}}", &rows()).is_err());
    }
}
