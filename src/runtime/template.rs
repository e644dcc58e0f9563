//! Docker's templates in environment, host name and mounts: `{{.Task.Slot}}` and the like.
//!
//! The fields that Docker documents for services and the functions `index`, `lower` and `upper`; not
//! the whole of Go's template language. What is not known is an error that names the text, so that a
//! task is rejected with a reason instead of running with a wrong value.

use crate::domain::{Labels, Task};

use super::ContainerPlan;

/// A template that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid template {text:?}: {reason}")]
pub struct InvalidTemplate {
    /// The whole text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Expands the templates of a text with the facts of a task.
///
/// # Errors
/// [`InvalidTemplate`] for a field or function that does not exist, or braces that do not close.
pub fn expand(text: &str, plan: &ContainerPlan) -> Result<String, InvalidTemplate> {
    let fail = |reason: String| InvalidTemplate { text: text.to_owned(), reason };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, tail) =
            after.split_once("}}").ok_or_else(|| fail("\"{{\" without \"}}\"".to_owned()))?;
        let (action, trim_left) = action.strip_prefix('-').map_or((action, Trim::Keep), trimmed);
        let (action, trim_right) = action.strip_suffix('-').map_or((action, Trim::Keep), trimmed);
        out.push_str(match trim_left {
            Trim::Keep => before,
            Trim::Cut => before.trim_end(),
        });
        out.push_str(&value(action, plan).map_err(fail)?);
        rest = match trim_right {
            Trim::Keep => tail,
            Trim::Cut => tail.trim_start(),
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether the space beside an action stays.
#[derive(Clone, Copy)]
enum Trim {
    Keep,
    Cut,
}

const fn trimmed(action: &str) -> (&str, Trim) {
    (action, Trim::Cut)
}

fn value(action: &str, plan: &ContainerPlan) -> Result<String, String> {
    let mut stages = action.split('|');
    let first = words(stages.next().unwrap_or_default())?;
    let mut value = match first.as_slice() {
        [Word::Bare(function), arguments @ ..] if function == "index" => index(arguments, plan)?,
        [Word::Bare(function), argument] => apply(function, term(argument, plan)?)?,
        [single] => term(single, plan)?,
        _ => return Err(format!("cannot evaluate {:?}", action.trim())),
    };
    for stage in stages {
        value = apply(stage.trim(), value)?;
    }
    Ok(value)
}

/// A word of an action.
#[derive(Debug)]
enum Word {
    Bare(String),
    Quoted(String),
}

fn words(action: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let tail = if first == '"' || first == '`' {
            let (text, tail) = rest[1..]
                .split_once(first)
                .ok_or_else(|| "a quotation mark does not close".to_owned())?;
            words.push(Word::Quoted(text.to_owned()));
            tail
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(Word::Bare(rest[..end].to_owned()));
            &rest[end..]
        };
        rest = tail.trim_start();
    }
    Ok(words)
}

fn term(word: &Word, plan: &ContainerPlan) -> Result<String, String> {
    match word {
        Word::Quoted(text) => Ok(text.clone()),
        Word::Bare(path) => field(path, plan),
    }
}

fn apply(function: &str, value: String) -> Result<String, String> {
    match function {
        "lower" => Ok(value.to_lowercase()),
        "upper" => Ok(value.to_uppercase()),
        "print" => Ok(value),
        other => Err(format!("function {other:?} not defined")),
    }
}

fn index(arguments: &[Word], plan: &ContainerPlan) -> Result<String, String> {
    match arguments {
        [Word::Bare(map), Word::Quoted(key)] => Ok(labels(map, plan)
            .ok_or_else(|| format!("{map} cannot be indexed"))?
            .get(key)
            .cloned()
            .unwrap_or_default()),
        _ => Err("index wants a map and a quoted key".to_owned()),
    }
}

fn labels<'a>(path: &str, plan: &'a ContainerPlan) -> Option<&'a Labels> {
    (path == ".Service.Labels").then_some(&plan.spec.labels)
}

fn field(path: &str, plan: &ContainerPlan) -> Result<String, String> {
    let ContainerPlan { task, spec, node, .. } = plan;
    let value = match path {
        ".Service.ID" => task.service.to_string(),
        ".Service.Name" => spec.name.clone(),
        ".Node.ID" => node.id.to_string(),
        ".Node.Hostname" => node.hostname.clone(),
        ".Node.Platform.Architecture" => node.platform.architecture.clone(),
        ".Node.Platform.OS" => node.platform.os.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => name(task, &spec.name),
        ".Task.Slot" => slot(task),
        other => match other.strip_prefix(".Service.Labels.") {
            Some(key) => spec.labels.get(key).cloned().unwrap_or_default(),
            None => return Err(format!("can't evaluate field {other}")),
        },
    };
    Ok(value)
}

/// The name of a task and of its container: `web.1.<task id>`; of a global service
/// `web.<node id>.<task id>`.
#[must_use]
pub fn name(task: &Task, service: &str) -> String {
    format!("{service}.{}.{}", slot(task), task.id)
}

fn slot(task: &Task) -> String {
    match task.slot {
        crate::domain::task::Slot::Number(number) => number.to_string(),
        crate::domain::task::Slot::Node(node) => node.to_string(),
    }
}
