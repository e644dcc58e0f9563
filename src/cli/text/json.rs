//! JSON text, indented as Go's `json.Indent` does it: the order of members is kept, which a parsed
//! value would lose.

/// Indents a JSON document by four spaces a level, each line after the first with `prefix`.
pub(crate) fn indent(json: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.trim().chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                out.push('"');
                copy_string(&mut chars, &mut out);
            }
            '{' | '[' => {
                let close = if char == '{' { '}' } else { ']' };
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                out.push(char);
                if chars.next_if_eq(&close).is_some() {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, prefix, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, prefix, depth);
                out.push(char);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, prefix, depth);
            }
            ':' => out.push_str(": "),
            _ if char.is_whitespace() => {}
            _ => out.push(char),
        }
    }
    out
}

fn copy_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(char) = chars.next() {
        out.push(char);
        match char {
            '"' => return,
            '\\' => out.extend(chars.next()),
            _ => {}
        }
    }
}

fn new_line(out: &mut String, prefix: &str, depth: usize) {
    out.push('\n');
    out.push_str(prefix);
    out.extend(std::iter::repeat_n("    ", depth));
}

/// What `inspect` prints: an array of objects.
pub(crate) fn array(objects: &[String]) -> String {
    let joined = objects.join(",");
    indent(&format!("[{joined}]"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_empty_things_stay_short() {
        let json = r#"{"ID":"x","Spec":{"Name":"a, \"b\": {c}","Labels":{}, "L":[ ]},"A":[1,2]}"#;
        assert_eq!(
            array(&[json.to_owned()]),
            r#"[
    {
        "ID": "x",
        "Spec": {
            "Name": "a, \"b\": {c}",
            "Labels": {},
            "L": []
        },
        "A": [
            1,
            2
        ]
    }
]"#
        );
        assert_eq!(array(&[]), "[]");
    }
}
