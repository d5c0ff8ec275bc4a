//! Reads the text form of a [`Filter`]: a lexer makes tokens, and a recursive descent of bounded depth parses them.
//!
//! ```text
//! or      = and { "or" and }
//! and     = not { "and" not }
//! not     = "not" not | "(" or ")" | "exists" "(" field ")" | field test
//! test    = ("=" | "!=") value | sign value { "and" sign value }
//!         | "in" "[" value { "," value } "]" | "prefix" string | "contains" value
//! sign    = "<" | "<=" | ">" | ">="
//! ```
//!
//! `not exists(f)` is one condition (`expected: false`), not a negation. A sign right after `and` continues the range
//! before it, so that one element of a list has to satisfy both bounds.

use std::{fmt, iter::Peekable, str::CharIndices};

use super::{EXPRESSION_BYTES_MAX, Filter, FilterError, RangeBounds};
use crate::value::{Value, datetime};

/// Deepest nesting of parentheses and `not`s. Text that `Display` writes for a filter of the allowed depth needs less.
const RECURSION_MAX: usize = 2 * super::DEPTH_MAX;

const EXPECTED_CONDITION: &str = "a field name, `exists(field)`, `not` or `(`";
const EXPECTED_TEST: &str = "a test (=, !=, <, <=, >, >=, in, prefix or contains)";
const EXPECTED_VALUE: &str = "a value (\"text\" in quotes, a number, true, false, or a date such as 2024-01-31 or 2024-01-31T10:00:00Z)";

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(FilterError::Malformed {
            message: format!("the text has {} bytes, the limit is {EXPRESSION_BYTES_MAX}", text.len()),
        });
    }
    let mut parser = Parser { tokens: tokenize(text)?, next: 0, depth: 0 };
    let filter = parser.or()?;
    if *parser.peek() != Token::End {
        return parser.unexpected("`and`, `or` or the end");
    }
    filter.validate()?;
    Ok(filter)
}

/// Words that cannot be bare field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Or,
    Not,
    In,
    Exists,
    Prefix,
    Contains,
    True,
    False,
}

impl Keyword {
    const ALL: [(&'static str, Keyword); 9] = [
        ("and", Keyword::And),
        ("or", Keyword::Or),
        ("not", Keyword::Not),
        ("in", Keyword::In),
        ("exists", Keyword::Exists),
        ("prefix", Keyword::Prefix),
        ("contains", Keyword::Contains),
        ("true", Keyword::True),
        ("false", Keyword::False),
    ];

    /// The keyword that a word is, in any case.
    pub(super) fn of(word: &str) -> Option<Keyword> {
        Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, keyword)| *keyword)
    }
}

/// Whether a field may be written without backquotes (unless it is a [`Keyword`]).
pub(super) fn is_bare_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(starts_name) && chars.all(continues_name)
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    starts_name(c) || c.is_numeric() || c == '-' || c == '.'
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String, Option<Keyword>),
    /// A field in backquotes.
    Name(String),
    Literal(Value),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, `(`, `)`, `[`, `]`, `,`
    Sign(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(_, Some(keyword)) => {
                let (name, _) =
                    Keyword::ALL.iter().find(|(_, k)| k == keyword).expect("all keywords are listed");
                write!(f, "`{name}`")
            }
            Token::Word(word, None) => write!(f, "the word {:?}", shortened(word)),
            Token::Name(name) => write!(f, "the field {:?}", shortened(name)),
            Token::Literal(Value::String(text)) => write!(f, "the text {:?}", shortened(text)),
            Token::Literal(Value::Datetime(micros)) => {
                write!(f, "the datetime {}", datetime::format(*micros))
            }
            Token::Literal(Value::Integer(number)) => write!(f, "the number {number}"),
            Token::Literal(Value::Float(number)) => write!(f, "the number {number:?}"),
            Token::Literal(_) => f.write_str("a value"),
            Token::Sign(sign) => write!(f, "`{sign}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// The beginning of a text, long enough to find it again.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn syntax<T>(position: usize, message: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError::Syntax { position, message: message.into() })
}

/// The text ends at `position`, before the quotation mark that would close what begins at `start`.
fn unclosed<T>(position: usize, quote: char, what: &str, start: usize) -> Result<T, FilterError> {
    let message =
        format!("found the end, expected {quote} to close the {what} that begins at position {start}");
    syntax(position, message)
}

/// Walks the characters and counts them.
struct Lexer<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    /// Position of the next character, from 1.
    position: usize,
}

/// Tokens with the position of their first character; the last one is [`Token::End`].
fn tokenize(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut lexer = Lexer { text, chars: text.char_indices().peekable(), position: 1 };
    let mut tokens = Vec::new();
    loop {
        while lexer.peek().is_some_and(char::is_whitespace) {
            lexer.bump();
        }
        let position = lexer.position;
        let token = lexer.token()?;
        let ended = token == Token::End;
        tokens.push((position, token));
        if ended {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn bump(&mut self) -> Option<char> {
        let (_, c) = self.chars.next()?;
        self.position += 1;
        Some(c)
    }

    /// Byte offset of the next character.
    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let start = self.offset();
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        let end = self.offset();
        self.text[start..end].to_owned()
    }

    fn token(&mut self) -> Result<Token, FilterError> {
        let position = self.position;
        let Some(c) = self.peek() else { return Ok(Token::End) };
        match c {
            '"' | '\'' => self.string(c),
            '`' => self.quoted_name(),
            '-' | '+' | '0'..='9' | '.' => self.number_or_datetime(),
            c if starts_name(c) => {
                let word = self.take_while(continues_name);
                let keyword = Keyword::of(&word);
                Ok(Token::Word(word, keyword))
            }
            '(' | ')' | '[' | ']' | ',' => {
                self.bump();
                Ok(Token::Sign(match c {
                    '(' => "(",
                    ')' => ")",
                    '[' => "[",
                    ']' => "]",
                    _ => ",",
                }))
            }
            '=' | '!' | '<' | '>' => {
                self.bump();
                let equals = self.peek() == Some('=');
                if equals {
                    self.bump();
                }
                match (c, equals) {
                    // `==` is what programmers type.
                    ('=', _) => Ok(Token::Sign("=")),
                    ('!', true) => Ok(Token::Sign("!=")),
                    ('!', false) => syntax(position, "found `!`, expected `!=` or the word `not`"),
                    ('<', true) => Ok(Token::Sign("<=")),
                    ('<', false) => Ok(Token::Sign("<")),
                    (_, true) => Ok(Token::Sign(">=")),
                    (_, false) => Ok(Token::Sign(">")),
                }
            }
            c => syntax(
                position,
                format!(
                    "found {c:?}, expected a field name, a test, a value, a bracket, `and`, `or` or `not`"
                ),
            ),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, FilterError> {
        let start = self.position;
        self.bump();
        let mut text = String::new();
        loop {
            let position = self.position;
            match self.bump() {
                None => return unclosed(position, quote, "text", start),
                Some(c) if c == quote => return Ok(Token::Literal(Value::String(text))),
                Some('\\') => text.push(self.escape(position)?),
                Some(c) => text.push(c),
            }
        }
    }

    /// Reads the rest of an escape whose backslash stands at `position`.
    fn escape(&mut self, position: usize) -> Result<char, FilterError> {
        match self.bump() {
            Some(c @ ('"' | '\'' | '\\' | '/' | '`')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') if self.peek() == Some('{') => {
                self.bump();
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                let c = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                match (c, self.bump()) {
                    (Some(c), Some('}')) => Ok(c),
                    _ => syntax(position, "expected a character's number in hexadecimal, such as \\u{e9}"),
                }
            }
            found => {
                let found = found.map_or_else(|| "the end".to_owned(), |c| format!("`\\{c}`"));
                syntax(
                    position,
                    format!("found {found}, expected one of \\\" \\' \\\\ \\/ \\` \\n \\r \\t \\u{{…}}"),
                )
            }
        }
    }

    fn quoted_name(&mut self) -> Result<Token, FilterError> {
        let start = self.position;
        self.bump();
        let mut name = String::new();
        loop {
            let position = self.position;
            match self.bump() {
                None => return unclosed(position, '`', "field name", start),
                Some('`') if self.peek() == Some('`') => {
                    self.bump();
                    name.push('`');
                }
                Some('`') if name.is_empty() => {
                    return syntax(start, "the field name between backquotes is empty");
                }
                Some('`') => return Ok(Token::Name(name)),
                Some(c) => name.push(c),
            }
        }
    }

    fn number_or_datetime(&mut self) -> Result<Token, FilterError> {
        let position = self.position;
        let text = self.take_while(|c| c.is_alphanumeric() || matches!(c, '+' | '-' | '.' | ':' | '_'));
        let bytes = text.as_bytes();
        if datetime::starts_like_date(bytes) || datetime::starts_like_far_date(bytes) {
            return match datetime::read(&text) {
                Ok(micros) => Ok(Token::Literal(Value::Datetime(micros))),
                Err(reason) => syntax(position, format!("{:?} is {reason}", shortened(&text))),
            };
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Token::Literal(Value::Integer(number)));
        }
        // The words that Rust reads as floats ("inf", "nan") have no digit.
        if text.contains(|c: char| c.is_ascii_digit()) && text.contains(['.', 'e', 'E']) {
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() => return Ok(Token::Literal(Value::Float(number))),
                Ok(_) => return syntax(position, format!("the number {} is too large", shortened(&text))),
                Err(_) => {}
            }
        } else if text.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit()) && text.len() > 1 {
            return syntax(
                position,
                format!(
                    "the integer {} is out of bounds ({} to {}); write it as a float ({0}.0), or in quotes to compare it as text",
                    shortened(&text),
                    i64::MIN,
                    i64::MAX
                ),
            );
        }
        syntax(position, format!("found {:?}, expected a number or a date", shortened(&text)))
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn position(&self) -> usize {
        self.tokens[self.next].0
    }

    /// Takes the next token; the end is never passed.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, FilterError> {
        syntax(self.position(), format!("found {}, expected {expected}", self.peek()))
    }

    fn at(&self, keyword: Keyword) -> bool {
        matches!(self.peek(), Token::Word(_, Some(k)) if *k == keyword)
    }

    fn expect(&mut self, sign: &'static str, expected: &str) -> Result<(), FilterError> {
        if *self.peek() != Token::Sign(sign) {
            return self.unexpected(expected);
        }
        self.take();
        Ok(())
    }

    fn or(&mut self) -> Result<Filter, FilterError> {
        self.chain(Keyword::Or, Filter::Or, |parser| parser.chain(Keyword::And, Filter::And, Self::not))
    }

    /// Parts with a keyword between them; a single part stays itself.
    fn chain(
        &mut self,
        between: Keyword,
        join: fn(Vec<Filter>) -> Filter,
        part: fn(&mut Self) -> Result<Filter, FilterError>,
    ) -> Result<Filter, FilterError> {
        let first = part(self)?;
        if !self.at(between) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.at(between) {
            self.take();
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn not(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > RECURSION_MAX {
            return syntax(
                self.position(),
                format!("`not` and parentheses are nested more than {RECURSION_MAX} deep"),
            );
        }
        let filter = self.not_within_depth()?;
        self.depth -= 1;
        Ok(filter)
    }

    fn not_within_depth(&mut self) -> Result<Filter, FilterError> {
        let field = match self.peek().clone() {
            Token::Word(_, Some(Keyword::Not)) => {
                self.take();
                if self.at(Keyword::Exists) {
                    return self.exists(false);
                }
                return Ok(Filter::Not(Box::new(self.not()?)));
            }
            Token::Sign("(") => {
                self.take();
                let filter = self.or()?;
                self.expect(")", "`and`, `or` or `)`")?;
                return Ok(filter);
            }
            Token::Word(_, Some(Keyword::Exists)) => return self.exists(true),
            Token::Word(name, None) | Token::Name(name) => name,
            Token::Word(word, Some(_)) => {
                return self.unexpected(&format!(
                    "{EXPECTED_CONDITION} (a field of this name is written in backquotes: `{word}`)"
                ));
            }
            _ => return self.unexpected(EXPECTED_CONDITION),
        };
        self.take();
        self.test(field)
    }

    fn exists(&mut self, expected: bool) -> Result<Filter, FilterError> {
        self.take();
        self.expect("(", "`(` and a field name (a field named exists is written in backquotes)")?;
        let field = match self.peek().clone() {
            Token::Word(name, None) | Token::Name(name) => name,
            _ => return self.unexpected("a field name"),
        };
        self.take();
        self.expect(")", "`)`")?;
        Ok(Filter::Exists { field, expected })
    }

    fn test(&mut self, field: String) -> Result<Filter, FilterError> {
        match self.peek() {
            Token::Sign("=") => {
                self.take();
                Ok(Filter::Eq { field, value: self.value()? })
            }
            Token::Sign("!=") => {
                self.take();
                Ok(Filter::Ne { field, value: self.value()? })
            }
            Token::Sign("<" | "<=" | ">" | ">=") => Ok(Filter::Range { field, range: self.range()? }),
            Token::Word(_, Some(Keyword::In)) => {
                self.take();
                Ok(Filter::In { field, values: self.list()? })
            }
            Token::Word(_, Some(Keyword::Contains)) => {
                self.take();
                Ok(Filter::Contains { field, value: self.value()? })
            }
            Token::Word(_, Some(Keyword::Prefix)) => {
                self.take();
                let Token::Literal(Value::String(prefix)) = self.peek().clone() else {
                    return self.unexpected("a text in quotes");
                };
                self.take();
                Ok(Filter::Prefix { field, prefix })
            }
            _ => self.unexpected(EXPECTED_TEST),
        }
    }

    fn range(&mut self) -> Result<RangeBounds, FilterError> {
        let mut range = RangeBounds::default();
        loop {
            let position = self.position();
            let sign = self.take();
            let bound = match sign {
                Token::Sign(">") => &mut range.gt,
                Token::Sign(">=") => &mut range.gte,
                Token::Sign("<") => &mut range.lt,
                _ => &mut range.lte,
            };
            if bound.is_some() {
                return syntax(
                    position,
                    format!("this range has {sign} twice; name the field again to give both"),
                );
            }
            let value_position = self.position();
            let value = self.value()?;
            if matches!(value, Value::Bool(_)) {
                return syntax(
                    value_position,
                    "found a bool, expected a number, a date or a text to bound the range",
                );
            }
            *bound = Some(value);
            let goes_on = self.at(Keyword::And)
                && matches!(self.tokens.get(self.next + 1), Some((_, Token::Sign("<" | "<=" | ">" | ">="))));
            if !goes_on {
                return Ok(range);
            }
            self.take();
        }
    }

    fn list(&mut self) -> Result<Vec<Value>, FilterError> {
        self.expect("[", "`[` and values with commas between them")?;
        let mut values = vec![self.value()?];
        while *self.peek() == Token::Sign(",") {
            self.take();
            values.push(self.value()?);
        }
        self.expect("]", "`,` or `]`")?;
        Ok(values)
    }

    fn value(&mut self) -> Result<Value, FilterError> {
        let value = match self.peek() {
            Token::Literal(value) => value.clone(),
            Token::Word(_, Some(Keyword::True)) => Value::Bool(true),
            Token::Word(_, Some(Keyword::False)) => Value::Bool(false),
            _ => return self.unexpected(EXPECTED_VALUE),
        };
        self.take();
        Ok(value)
    }
}
