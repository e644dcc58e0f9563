//! The subset of Go's `text/template` that people use with `--format`: parsing. See `eval`.
//!
//! Fields and chains, literals, variables, pipes, parentheses, `if`/`else if`/`with`/`range`, comments
//! and trim markers. Not here: `define`, `template`, `block`, `break`.

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(pub(super) Vec<Node>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Text as it is.
    Text(String),
    /// The value of a pipeline.
    Print(Pipe),
    /// `{{$x := …}}`.
    Set(String, Pipe),
    /// `if`, with what follows `else`.
    If(Pipe, Vec<Self>, Vec<Self>),
    /// `with`.
    With(Pipe, Vec<Self>, Vec<Self>),
    /// `range`, with the names of index and element.
    Range(Vec<String>, Pipe, Vec<Self>, Vec<Self>),
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipe(pub(super) Vec<Vec<Term>>);

/// A word of a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// `.A.B`; `.` is the empty chain.
    Field(Vec<String>),
    /// `$x.A`; `$` has the empty name.
    Variable(String, Vec<String>),
    /// A function.
    Call(String),
    /// A literal.
    Literal(serde_json::Value),
    /// `(…).A`.
    Group(Pipe, Vec<String>),
}

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template parsing error: {0}")]
pub(crate) struct TemplateError(pub(crate) String);

type Parsed<T> = Result<T, TemplateError>;

fn fail<T>(reason: impl Into<String>) -> Parsed<T> {
    Err(TemplateError(reason.into()))
}

/// Text and actions, trim markers applied.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A field chain, variable, keyword or function.
    Word(String),
    Literal(serde_json::Value),
    Pipe,
    Open,
    Close,
    Comma,
    Define,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is not one, or uses what is not supported.
    pub(crate) fn parse(text: &str) -> Parsed<Self> {
        let pieces = pieces(text)?;
        let mut parser = Parser { pieces: pieces.into_iter(), depth: 0 };
        let (nodes, end) = parser.block()?;
        match end {
            End::Text => Ok(Self(nodes)),
            End::Block => fail("unexpected {{end}}"),
            End::Else(_) => fail("unexpected {{else}}"),
        }
    }
}

/// How deep blocks and parentheses may lie in one another: reading them is a recursion.
const DEPTH_MAX: usize = 100;
const TOO_DEEP: &str = "blocks or parentheses lie more than 100 deep in one another";

fn pieces(text: &str) -> Parsed<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, from) = rest.split_at(start);
        let inner = &from[2..];
        let left_trim = inner.starts_with("- ");
        let end = action_end(inner)?;
        let before = if trim { before.trim_start() } else { before };
        let before = if left_trim { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let mut action = &inner[..end];
        action = if left_trim { &action[1..] } else { action };
        trim = action.ends_with(" -");
        action = if trim { &action[..action.len() - 1] } else { action };
        if !action.trim().starts_with("/*") {
            pieces.push(Piece::Action(tokens(action.trim())?));
        }
        rest = &inner[end + 2..];
    }
    let last = if trim { rest.trim_start() } else { rest };
    if !last.is_empty() {
        pieces.push(Piece::Text(last.to_owned()));
    }
    Ok(pieces)
}

/// Where an action ends: the first `}}` that is not in quotes.
fn action_end(inner: &str) -> Parsed<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (place, char) in inner.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if char == '\\' => escaped = true,
            Some(open) if char == open => quote = None,
            Some(_) => {}
            None if char == '"' || char == '`' => quote = Some(char),
            None if inner[place..].starts_with("}}") => return Ok(place),
            None => {}
        }
    }
    fail("unclosed action: }} is missing")
}

fn tokens(action: &str) -> Parsed<Vec<Token>> {
    let tokens = words(action)?;
    let mut depth = 0usize;
    for token in &tokens {
        depth = match token {
            Token::Open => depth + 1,
            Token::Close => depth.saturating_sub(1),
            _ => depth,
        };
        if depth > DEPTH_MAX {
            return fail(TOO_DEEP);
        }
    }
    Ok(tokens)
}

fn words(action: &str) -> Parsed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = match first {
            '|' => push(&mut tokens, Token::Pipe, 1),
            '(' => push(&mut tokens, Token::Open, 1),
            ')' => push(&mut tokens, Token::Close, 1),
            ',' => push(&mut tokens, Token::Comma, 1),
            ':' if rest.starts_with(":=") => push(&mut tokens, Token::Define, 2),
            '"' => {
                let end = closing_quote(rest)?;
                let text: String = serde_json::from_str(&rest[..=end])
                    .or_else(|_| fail(format!("bad string {}", &rest[..=end])))?;
                push(&mut tokens, Token::Literal(text.into()), end + 1)
            }
            '`' => {
                let Some(end) = rest[1..].find('`') else { return fail("unclosed raw string") };
                push(&mut tokens, Token::Literal(rest[1..=end].into()), end + 2)
            }
            '0'..='9' | '-' => {
                let end = word_end(rest);
                let number: serde_json::Number = serde_json::from_str(&rest[..end])
                    .or_else(|_| fail(format!("bad number {}", &rest[..end])))?;
                push(&mut tokens, Token::Literal(number.into()), end)
            }
            _ => {
                let end = word_end(rest);
                if end == 0 {
                    return fail(format!("unexpected {first:?} in an action"));
                }
                push(&mut tokens, Token::Word(rest[..end].to_owned()), end)
            }
        };
        rest = rest[used..].trim_start_matches([' ', '\t', '\n', '\r']);
    }
    Ok(tokens)
}

fn push(tokens: &mut Vec<Token>, token: Token, used: usize) -> usize {
    tokens.push(token);
    used
}

fn closing_quote(text: &str) -> Parsed<usize> {
    let mut escaped = false;
    for (place, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(place),
            _ => {}
        }
    }
    fail("unterminated string")
}

fn word_end(text: &str) -> usize {
    text.find(|char: char| !(char.is_alphanumeric() || matches!(char, '.' | '_' | '$' | '-' | '+')))
        .unwrap_or(text.len())
}

/// How a block ended.
enum End {
    Text,
    Block,
    /// `else`, with what follows it: `if …`.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Blocks that are open.
    depth: usize,
}

impl Parser {
    fn block(&mut self) -> Parsed<(Vec<Node>, End)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                Some(_) => "",
                None => return fail("missing value for command"),
            };
            match keyword {
                "end" => return Ok((nodes, End::Block)),
                "else" => return Ok((nodes, End::Else(tokens[1..].to_vec()))),
                "if" | "with" | "range" => nodes.push(self.control(keyword, &tokens[1..])?),
                "define" | "template" | "block" | "break" | "continue" => {
                    return fail(format!("{{{{{keyword}}}}} is not supported here"));
                }
                _ => nodes.push(simple(&tokens)?),
            }
        }
        Ok((nodes, End::Text))
    }

    fn control(&mut self, keyword: &str, tokens: &[Token]) -> Parsed<Node> {
        let (names, tokens) = declared(tokens);
        let pipe = pipe(tokens)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return fail(TOO_DEEP);
        }
        let (body, end) = self.block()?;
        let otherwise = match end {
            End::Text => return fail(format!("{{{{{keyword}}}}} has no {{{{end}}}}")),
            End::Block => Vec::new(),
            End::Else(more) if more.is_empty() => match self.block()? {
                (nodes, End::Block) => nodes,
                _ => return fail("{{else}} has no {{end}}"),
            },
            End::Else(more) => match more.first() {
                Some(Token::Word(word)) if word == "if" || word == "with" => {
                    let word = word.clone();
                    vec![self.control(&word, &more[1..])?]
                }
                _ => return fail("unexpected words after else"),
            },
        };
        self.depth -= 1;
        match (keyword, names.as_slice()) {
            ("range", _) => Ok(Node::Range(names, pipe, body, otherwise)),
            ("if", []) => Ok(Node::If(pipe, body, otherwise)),
            ("with", []) => Ok(Node::With(pipe, body, otherwise)),
            _ => fail("variables are declared by {{$x := …}} or {{range}} only"),
        }
    }
}

fn simple(tokens: &[Token]) -> Parsed<Node> {
    let (names, rest) = declared(tokens);
    match names.as_slice() {
        [] => Ok(Node::Print(pipe(tokens)?)),
        [name] => Ok(Node::Set(name.clone(), pipe(rest)?)),
        _ => fail("only {{range}} declares two variables"),
    }
}

/// Splits `$i, $x := …`.
fn declared(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let Some(place) = tokens.iter().position(|token| *token == Token::Define) else {
        return (Vec::new(), tokens);
    };
    let names = tokens[..place].iter().filter_map(|token| match token {
        Token::Word(word) => word.strip_prefix('$').map(str::to_owned),
        _ => None,
    });
    (names.collect(), &tokens[place + 1..])
}

fn pipe(tokens: &[Token]) -> Parsed<Pipe> {
    let mut place = 0;
    let pipe = pipe_until(tokens, &mut place)?;
    if place < tokens.len() { fail("unexpected right parenthesis") } else { Ok(pipe) }
}

fn pipe_until(tokens: &[Token], place: &mut usize) -> Parsed<Pipe> {
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.get(*place) {
        let term = match token {
            Token::Close => break,
            Token::Pipe => {
                *place += 1;
                commands.push(Vec::new());
                continue;
            }
            Token::Open => {
                *place += 1;
                let inner = pipe_until(tokens, place)?;
                if tokens.get(*place) != Some(&Token::Close) {
                    return fail("unclosed left parenthesis");
                }
                let chain = match tokens.get(*place + 1) {
                    Some(Token::Word(word)) if word.starts_with('.') && word.len() > 1 => {
                        *place += 1;
                        chain(word)
                    }
                    _ => Vec::new(),
                };
                Term::Group(inner, chain)
            }
            Token::Word(word) => term(word),
            Token::Literal(value) => Term::Literal(value.clone()),
            Token::Comma | Token::Define => return fail("unexpected , or := in an action"),
        };
        *place += 1;
        if let Some(command) = commands.last_mut() {
            command.push(term);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return fail("missing value for command");
    }
    Ok(Pipe(commands))
}

fn term(word: &str) -> Term {
    if word.starts_with('.') {
        return Term::Field(chain(word));
    }
    if let Some(rest) = word.strip_prefix('$') {
        let (name, fields) = rest.split_once('.').unwrap_or((rest, ""));
        return Term::Variable(name.to_owned(), chain(fields));
    }
    match word {
        "true" => Term::Literal(true.into()),
        "false" => Term::Literal(false.into()),
        "nil" => Term::Literal(serde_json::Value::Null),
        _ => Term::Call(word.to_owned()),
    }
}

fn chain(word: &str) -> Vec<String> {
    word.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
