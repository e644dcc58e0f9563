//! The subset of Go's `text/template` that people use with `--format`: evaluation over JSON values.
//!
//! A field that is absent is `<no value>`, or an error where the template is strict (rows of a list,
//! whose fields are all known). Names of fields match without regard to case only as a last resort.

use std::cmp::Ordering;

use serde_json::Value;

use super::template::{Node, Pipe, Template, TemplateError, Term};

/// Whether a field that is absent is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is `<no value>`.
    Shown,
    /// It is an error that names the known fields.
    Refused,
}

type Evaluated<T> = Result<T, TemplateError>;

impl Template {
    /// Fills the template in.
    ///
    /// # Errors
    /// On an unknown function, a wrong argument, or an absent field where that is refused.
    pub(crate) fn render(&self, data: &Value, absent: Absent) -> Evaluated<String> {
        let mut scope = Scope { variables: vec![(String::new(), data.clone())], absent };
        let mut out = String::new();
        scope.nodes(&self.0, data, &mut out)?;
        Ok(out)
    }
}

struct Scope {
    variables: Vec<(String, Value)>,
    absent: Absent,
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Evaluated<()> {
        let depth = self.variables.len();
        for node in nodes {
            self.node(node, dot, out)?;
        }
        self.variables.truncate(depth);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Evaluated<()> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => match self.pipe(pipe, dot)? {
                Some(value) => out.push_str(&print(&value)),
                None => out.push_str("<no value>"),
            },
            Node::Set(name, pipe) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                self.variables.push((name.clone(), value));
            }
            Node::If(pipe, body, otherwise) => {
                let holds = self.pipe(pipe, dot)?.is_some_and(|value| truth(&value));
                self.nodes(if holds { body } else { otherwise }, dot, out)?;
            }
            Node::With(pipe, body, otherwise) => match self.pipe(pipe, dot)? {
                Some(value) if truth(&value) => self.nodes(body, &value, out)?,
                _ => self.nodes(otherwise, dot, out)?,
            },
            Node::Range(names, pipe, body, otherwise) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                let items = items(value);
                if items.is_empty() {
                    self.nodes(otherwise, dot, out)?;
                }
                for (index, item) in items {
                    self.bind(names, index, &item);
                    self.nodes(body, &item, out)?;
                    self.variables.truncate(self.variables.len().saturating_sub(names.len()));
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self, names: &[String], index: Value, item: &Value) {
        match names {
            [] => {}
            [name] => self.variables.push((name.clone(), item.clone())),
            [first, second, ..] => {
                self.variables.push((first.clone(), index));
                self.variables.push((second.clone(), item.clone()));
            }
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Evaluated<Option<Value>> {
        let mut last = None;
        for (number, command) in pipe.0.iter().enumerate() {
            let piped = if number == 0 { None } else { Some(last.take().unwrap_or_default()) };
            last = self.command(command, piped, dot)?;
        }
        Ok(last)
    }

    fn command(
        &mut self,
        words: &[Term],
        piped: Option<Value>,
        dot: &Value,
    ) -> Evaluated<Option<Value>> {
        let Some((first, rest)) = words.split_first() else { return Ok(None) };
        let mut arguments = Vec::new();
        for word in rest {
            arguments.push(self.term(word, dot)?.unwrap_or_default());
        }
        arguments.extend(piped);
        match first {
            Term::Call(name) => call(name, &arguments).map(Some),
            // `.Label "key"`: Docker's rows have this one method with an argument.
            Term::Field(chain) if chain.len() == 1 && chain[0] == "Label" => {
                let key = arguments.first().map(print).unwrap_or_default();
                let label = dot.get("$labels").and_then(|labels| labels.get(&key));
                Ok(Some(label.cloned().unwrap_or_else(|| "".into())))
            }
            _ if !arguments.is_empty() => {
                Err(TemplateError("a value is given arguments but is not a function".to_owned()))
            }
            _ => self.term(first, dot),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Evaluated<Option<Value>> {
        match term {
            Term::Literal(value) => Ok(Some(value.clone())),
            Term::Field(chain) => self.fields(Some(dot.clone()), chain),
            Term::Variable(name, chain) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = known else {
                    return Err(TemplateError(format!("undefined variable \"${name}\"")));
                };
                let value = value.clone();
                self.fields(Some(value), chain)
            }
            Term::Group(pipe, chain) => {
                let value = self.pipe(pipe, dot)?;
                self.fields(value, chain)
            }
            Term::Call(name) => call(name, &[]).map(Some),
        }
    }

    fn fields(&self, value: Option<Value>, chain: &[String]) -> Evaluated<Option<Value>> {
        let mut value = value;
        for name in chain {
            let next = value.as_ref().and_then(|value| member(value, name));
            if next.is_none() && self.absent == Absent::Refused {
                return Err(TemplateError(unknown_field(name, value.as_ref())));
            }
            value = next;
        }
        Ok(value)
    }
}

fn member(value: &Value, name: &str) -> Option<Value> {
    let object = value.as_object()?;
    object.get(name).cloned().or_else(|| {
        let same = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
        object.iter().find(same).map(|(_, value)| value.clone())
    })
}

fn unknown_field(name: &str, value: Option<&Value>) -> String {
    let known: Vec<&str> = value
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|object| object.keys())
        .filter(|key| !key.starts_with('$'))
        .map(|key| key.trim_start_matches('.'))
        .collect();
    format!("there is no field .{name} here; known fields: .{}", known.join(", ."))
}

fn items(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect()
        }
        Value::Object(members) => members
            .into_iter()
            .filter(|(key, _)| !key.starts_with('$'))
            .map(|(key, item)| (key.into(), item))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Go's notion of truth: everything but the zero value.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// A value as Go's `%v` prints it.
fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" "))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .filter(|(key, _)| !key.starts_with('$'))
                .map(|(key, value)| format!("{key}:{}", print(value)))
                .collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

fn call(name: &str, arguments: &[Value]) -> Evaluated<Value> {
    let text = |place: usize| arguments.get(place).map(print).unwrap_or_default();
    let value = match (name, arguments) {
        ("json", [value]) => visible(value).to_string().into(),
        ("upper", [_]) => text(0).to_uppercase().into(),
        ("lower", [_]) => text(0).to_lowercase().into(),
        ("title", [_]) => super::units::capital(&text(0)).into(),
        ("join", [Value::Array(items), _]) => {
            items.iter().map(print).collect::<Vec<_>>().join(&text(1)).into()
        }
        ("join", [Value::Null, _]) => "".into(),
        ("split", [Value::String(whole), Value::String(by)]) => {
            whole.split(by.as_str()).map(Value::from).collect()
        }
        ("println", _) => format!("{}\n", spaced(arguments)).into(),
        ("print", _) => arguments.iter().map(print).collect::<String>().into(),
        ("printf", [Value::String(format), rest @ ..]) => printf(format, rest)?.into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(members)]) => members.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("truncate", [_, length]) => {
            let most = length.as_u64().and_then(|most| usize::try_from(most).ok());
            text(0).chars().take(most.unwrap_or(usize::MAX)).collect::<String>().into()
        }
        ("index", [whole, path @ ..]) => {
            path.iter().try_fold(whole.clone(), |whole, key| index(&whole, key))?
        }
        ("not", [value]) => (!truth(value)).into(),
        ("and", [_, ..]) => chosen(arguments, |value| !truth(value)),
        ("or", [_, ..]) => chosen(arguments, truth),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            rest.iter().any(|other| order(first, other) == Some(Ordering::Equal)).into()
        }
        ("ne", [a, b]) => (order(a, b) != Some(Ordering::Equal)).into(),
        ("lt", [a, b]) => (order(a, b) == Some(Ordering::Less)).into(),
        ("le", [a, b]) => order(a, b).is_some_and(Ordering::is_le).into(),
        ("gt", [a, b]) => (order(a, b) == Some(Ordering::Greater)).into(),
        ("ge", [a, b]) => order(a, b).is_some_and(Ordering::is_ge).into(),
        (
            "json" | "upper" | "lower" | "title" | "join" | "split" | "printf" | "len" | "truncate"
            | "index" | "not" | "and" | "or" | "eq" | "ne" | "lt" | "le" | "gt" | "ge",
            _,
        ) => return Err(TemplateError(format!("wrong arguments of {name}"))),
        _ => return Err(TemplateError(format!("function \"{name}\" not defined"))),
    };
    Ok(value)
}

/// A row without the members that are for the engine of templates only.
fn visible(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| !key.starts_with('$'))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn spaced(arguments: &[Value]) -> String {
    arguments.iter().map(print).collect::<Vec<_>>().join(" ")
}

fn chosen(arguments: &[Value], stop: impl Fn(&Value) -> bool) -> Value {
    let found = arguments.iter().find(|value| stop(value));
    found.or_else(|| arguments.last()).cloned().unwrap_or_default()
}

fn index(whole: &Value, key: &Value) -> Evaluated<Value> {
    let found = match (whole, key) {
        (Value::Array(items), Value::Number(place)) => place
            .as_u64()
            .and_then(|place| usize::try_from(place).ok())
            .map(|place| items.get(place).cloned()),
        (Value::Object(members), Value::String(key)) => {
            return Ok(members.get(key).cloned().unwrap_or_else(|| "".into()));
        }
        _ => None,
    };
    found.flatten().ok_or_else(|| TemplateError(format!("index out of range: {}", print(key))))
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn printf(format: &str, arguments: &[Value]) -> Evaluated<String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut width = String::new();
        let verb = loop {
            match chars.next() {
                Some(digit) if digit.is_ascii_digit() || digit == '-' => width.push(digit),
                Some(verb) => break verb,
                None => return Err(TemplateError("printf: % at the end".to_owned())),
            }
        };
        let text = match verb {
            '%' => "%".to_owned(),
            'q' => Value::from(arguments.next().map(print).unwrap_or_default()).to_string(),
            's' | 'v' | 'd' | 't' => {
                arguments.next().map_or_else(|| format!("%!{verb}(MISSING)"), print)
            }
            _ => return Err(TemplateError(format!("printf: %{verb} is not supported"))),
        };
        let columns: usize = width.trim_start_matches('-').parse().unwrap_or_default();
        if width.starts_with('-') {
            out.push_str(&format!("{text:<columns$}"));
        } else {
            out.push_str(&format!("{text:>columns$}"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> String {
        let data = json!({
            "ID": "abc", "Name": "web", "Replicas": 3, "On": true, "None": null,
            "Args": ["sh", "-c"], "Labels": {"a": "1", "b": "2"}, "$labels": {"k.x": "v"},
            "Spec": {"TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}},
        });
        let rendered = Template::parse(template).and_then(|it| it.render(&data, Absent::Shown));
        rendered.unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn templates_do_what_gos_do() {
        for (template, expected) in [
            ("{{.ID}} {{.Name}}", "abc web"),
            ("{{ .Spec.TaskTemplate.ContainerSpec.Image }}", "nginx"),
            ("{{json .Args}}", r#"["sh","-c"]"#),
            ("{{.Args}} {{.Labels}}", "[sh -c] map[a:1 b:2]"),
            ("{{join .Args \",\"}}", "sh,-c"),
            ("{{.Name | upper | printf \"%s!\"}}", "WEB!"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if not .On}}yes{{else if eq .Name \"web\"}}web{{else}}no{{end}}", "web"),
            ("{{range .Args}}<{{.}}>{{end}}", "<sh><-c>"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
            ("{{range $i, $v := .Args}}{{$i}}{{$v}}{{end}}", "0sh1-c"),
            ("{{with .Spec}}{{.TaskTemplate.ContainerSpec.Image}}{{end}}", "nginx"),
            ("{{range .Nothing}}x{{else}}empty{{end}}", "empty"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{/* comment */}}x", "x"),
            ("{{.Missing.Deep}}", "<no value>"),
            ("{{.None}}", "<nil>"),
            ("{{$x := .Name}}{{$x}}{{$.ID}}", "webabc"),
            ("{{.Label \"k.x\"}}", "v"),
            ("{{len .Args}} {{index .Args 1}} {{index .Labels \"a\"}}", "2 -c 1"),
            ("{{if and .On (gt .Replicas 2)}}big{{end}}", "big"),
            ("{{println \"a\" 1}}", "a 1\n"),
            ("{{printf \"%-5s|%3d\" .Name .Replicas}}", "web  |  3"),
            ("{{\"}}\"}}", "}}"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (template, part) in [
            ("{{.ID", "unclosed action"),
            ("{{if .ID}}x", "no {{end}}"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{nope .ID}}", "function \"nope\" not defined"),
            ("{{(.ID}}", "unclosed left parenthesis"),
            ("{{.ID | }}", "missing value"),
            ("{{template \"x\"}}", "not supported"),
        ] {
            assert!(render(template).contains(part), "{template}: {}", render(template));
        }
        let strict = Template::parse("{{.Nmae}}").unwrap();
        let error = strict.render(&json!({"Name": 1}), Absent::Refused).unwrap_err();
        assert!(error.to_string().contains("known fields: .Name"), "{error}");
    }
}
