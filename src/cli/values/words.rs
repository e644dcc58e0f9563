//! A command line in one flag (`--args "sh -c 'sleep 1'"`), split as a shell would.

/// Splits a command line into words: quotes and backslashes as in sh, nothing is expanded.
///
/// # Errors
/// When a quote is not closed.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                quoted(&mut chars, char, word)
                    .ok_or_else(|| format!("unclosed quote in {text:?}"))?;
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            _ if char.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            char if char == quote => return Some(()),
            '\\' if quote == '"' => match chars.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            char => word.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell() {
        let words = split(r#"sh -c "echo \"a b\"; sleep 1" '' x\ y 'it"s'"#).unwrap();
        assert_eq!(words, ["sh", "-c", "echo \"a b\"; sleep 1", "", "x y", "it\"s"]);
        assert_eq!(split("  ").unwrap(), Vec::<String>::new());
        assert!(split("'a").is_err());
    }
}
