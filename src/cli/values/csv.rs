//! `key=value,key=value`, with quotes as in CSV: `"volume-opt=o=a,b"`.

/// Splits at commas that are not in double quotes; quotes around a field go away.
///
/// # Errors
/// When a quote is not closed.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(char),
        }
    }
    if quoted { Err(format!("unclosed quote in {text}")) } else { Ok(fields) }
}

/// Splits `key=value`; the key in lower case.
///
/// # Errors
/// When there is no `=`.
pub(crate) fn pair(field: &str) -> Result<(String, &str), String> {
    match field.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_lowercase(), value)),
        _ => Err(format!("invalid field '{field}' must be a key=value pair")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas() {
        assert_eq!(fields("a=b,c").unwrap(), ["a=b", "c"]);
        assert_eq!(fields(r#"type=volume,"volume-opt=o=a,b",x"#).unwrap()[1], "volume-opt=o=a,b");
        assert!(fields("\"a").is_err());
        assert!(pair("ro").is_err());
        assert_eq!(pair("SRC=/a=b").unwrap(), ("src".to_owned(), "/a=b"));
    }
}
