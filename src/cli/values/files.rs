//! `--secret NAME` and `--secret source=NAME,target=FILE,uid=0,gid=0,mode=0400`; configs alike.

use super::csv;
use crate::domain::container::FileTarget;

/// A secret or config as the user names it, before its id is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRequest {
    /// Its name.
    pub(crate) source: String,
    /// Where it appears.
    pub(crate) file: FileTarget,
}

/// Reads a reference to a secret or config.
///
/// # Errors
/// With Docker's words.
pub(crate) fn parse(text: &str) -> Result<FileRequest, String> {
    let mut request = FileRequest {
        source: String::new(),
        file: FileTarget {
            name: String::new(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        },
    };
    let fields = csv::fields(text)?;
    if let [name] = fields.as_slice()
        && !name.contains('=')
    {
        name.clone_into(&mut request.source);
        name.clone_into(&mut request.file.name);
        return if name.is_empty() { Err("source is required".to_owned()) } else { Ok(request) };
    }
    for field in &fields {
        let (key, value) = csv::pair(field)?;
        match key.as_str() {
            "source" | "src" => value.clone_into(&mut request.source),
            "target" => value.clone_into(&mut request.file.name),
            "uid" => value.clone_into(&mut request.file.uid),
            "gid" => value.clone_into(&mut request.file.gid),
            "mode" => {
                request.file.mode = u32::from_str_radix(value.trim_start_matches("0o"), 8)
                    .map_err(|_| format!("invalid mode specified: {value}"))?;
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if request.source.is_empty() {
        return Err("source is required".to_owned());
    }
    if request.file.name.is_empty() {
        request.source.clone_into(&mut request.file.name);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_dockers() {
        let short = parse("sec1").unwrap();
        assert_eq!((short.source.as_str(), short.file.name.as_str()), ("sec1", "sec1"));
        assert_eq!(short.file.mode, 0o444);
        let long = parse("source=sec2,target=x,mode=0400,uid=7").unwrap();
        assert_eq!((long.file.name.as_str(), long.file.mode), ("x", 0o400));
        assert_eq!(long.file.uid, "7");
        assert_eq!(parse("target=x").unwrap_err(), "source is required");
        assert_eq!(parse("source=a,mode=9").unwrap_err(), "invalid mode specified: 9");
        assert_eq!(parse("source=a,b").unwrap_err(), "invalid field 'b' must be a key=value pair");
    }
}
