//! Protobuf's text format, as far as model configurations use it: fields, messages, lists, strings, words and numbers.

use std::iter::Peekable;
use std::str::CharIndices;

/// Messages within messages; configurations have three.
const MAX_DEPTH: usize = 16;

/// A field and its value, in the order of the text. A list stands as one field for each of its values.
pub type Fields = Vec<(String, Value)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// A number, an enum's name, or a bool.
    Word(String),
    Message(Fields),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    Word(String),
    Mark(char),
}

/// Reads a message. The error names the line.
pub fn parse(text: &str) -> Result<Fields, String> {
    let mut parser = Parser {
        tokens: tokens(text)?.into_iter().peekable(),
        line: 1,
    };
    parser
        .fields(None, 0)
        .map_err(|error| format!("line {}: {error}", parser.line))
}

struct Parser<I: Iterator<Item = (usize, Token)>> {
    tokens: Peekable<I>,
    line: usize,
}

impl<I: Iterator<Item = (usize, Token)>> Parser<I> {
    fn next(&mut self) -> Option<Token> {
        let (line, token) = self.tokens.next()?;
        self.line = line;
        Some(token)
    }

    fn takes(&mut self, mark: char) -> bool {
        let found = self.tokens.next_if(|(_, token)| *token == Token::Mark(mark));
        found.is_some()
    }

    /// Fields up to the mark that ends the message, or the end of the text.
    fn fields(&mut self, end: Option<char>, depth: usize) -> Result<Fields, String> {
        if depth > MAX_DEPTH {
            return Err("messages are nested too deeply".to_owned());
        }
        let mut fields = Fields::new();
        loop {
            let name = match (self.next(), end) {
                (Some(Token::Word(name)), _) => name,
                (Some(Token::Mark(mark)), Some(end)) if mark == end => return Ok(fields),
                (None, None) => return Ok(fields),
                (None, Some(end)) => return Err(format!("the text ends before {end:?}")),
                (Some(other), _) => return Err(format!("{other:?} where a field's name is expected")),
            };
            let colon = self.takes(':');
            if self.takes('[') {
                self.list(&name, depth, &mut fields)?;
            } else {
                let value = self.value(colon, depth)?;
                fields.push((name, value));
            }
            let _ = self.takes(',') || self.takes(';');
        }
    }

    fn list(&mut self, name: &str, depth: usize, fields: &mut Fields) -> Result<(), String> {
        if self.takes(']') {
            return Ok(());
        }
        loop {
            let value = self.value(true, depth)?;
            fields.push((name.to_owned(), value));
            if self.takes(']') {
                return Ok(());
            }
            // Triton's own examples leave a comma behind the last.
            if !self.takes(',') {
                return Err(format!("{name}: ',' or ']' is expected"));
            }
            if self.takes(']') {
                return Ok(());
            }
        }
    }

    fn value(&mut self, scalar: bool, depth: usize) -> Result<Value, String> {
        match self.next() {
            Some(Token::Mark('{')) => Ok(Value::Message(self.fields(Some('}'), depth + 1)?)),
            Some(Token::Mark('<')) => Ok(Value::Message(self.fields(Some('>'), depth + 1)?)),
            Some(Token::Word(word)) if scalar => Ok(Value::Word(word)),
            Some(Token::Text(mut text)) if scalar => {
                // Neighbours are one string.
                while let Some((_, Token::Text(more))) =
                    self.tokens.next_if(|(_, token)| matches!(token, Token::Text(_)))
                {
                    text.push_str(&more);
                }
                Ok(Value::Text(text))
            }
            other => Err(format!("{other:?} where a value is expected")),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let token = match c {
            '\n' => {
                line += 1;
                continue;
            }
            '#' => {
                while chars.next_if(|(_, c)| *c != '\n').is_some() {}
                continue;
            }
            _ if c.is_whitespace() => continue,
            '{' | '}' | '[' | ']' | '<' | '>' | ':' | ',' | ';' => Token::Mark(c),
            '"' | '\'' => {
                Token::Text(quoted(&mut chars, c).map_err(|error| format!("line {line}: {error}"))?)
            }
            _ if is_word(c) => {
                let mut end = start + c.len_utf8();
                while let Some((at, c)) = chars.next_if(|(_, c)| is_word(*c)) {
                    end = at + c.len_utf8();
                }
                Token::Word(text[start..end].to_owned())
            }
            _ => return Err(format!("line {line}: {c:?} is not expected")),
        };
        tokens.push((line, token));
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.')
}

fn quoted(chars: &mut Peekable<CharIndices<'_>>, quote: char) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next().map(|(_, c)| c) {
            Some(c) if c == quote => return Ok(text),
            None | Some('\n') => return Err("a string does not end".to_owned()),
            Some('\\') => match chars.next().map(|(_, c)| c) {
                Some(c @ ('"' | '\'' | '\\')) => text.push(c),
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                other => return Err(format!("escape {other:?} is not read here")),
            },
            Some(c) => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(name: &str, word: &str) -> (String, Value) {
        (name.into(), Value::Word(word.into()))
    }

    #[test]
    fn fields_lists_and_messages() {
        let text = r#"
            name: "a" 'b'   # a comment: { [
            max_batch_size: 8;
            input [ { name: "x\"", dims: [ 1, -1 ] }, { dims: [] }, ]
            dynamic_batching { }
            group < count: 2 >, kind: CPU
        "#;
        let fields = parse(text).unwrap();
        let message = |name: &str, fields| (name.to_owned(), Value::Message(fields));
        let named = ("name".to_owned(), Value::Text("x\"".into()));
        let expected = vec![
            ("name".to_owned(), Value::Text("ab".into())),
            word("max_batch_size", "8"),
            message("input", vec![named, word("dims", "1"), word("dims", "-1")]),
            message("input", vec![]),
            message("dynamic_batching", vec![]),
            message("group", vec![word("count", "2")]),
            word("kind", "CPU"),
        ];
        assert_eq!(fields, expected);
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn what_is_broken_is_named_with_its_line() {
        for (text, named) in [
            ("a: 1\nb", "line 2"),
            ("a: 1\n\nb: \"x", "line 3: a string does not end"),
            ("a {\n b: 1", "the text ends before '}'"),
            ("a: }", "where a value is expected"),
            ("a: [1 2]", "',' or ']' is expected"),
            ("a: $", "'$' is not expected"),
            ("}", "where a field's name is expected"),
            ("a 1", "where a value is expected"),
            ("a: \"\\x41\"", "escape"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text:?}: {error}");
        }
        assert!(parse(&"a {".repeat(100_000)).unwrap_err().contains("too deeply"));
    }
}
