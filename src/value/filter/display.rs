//! Writes a [`Filter`] in its text form, such that reading it back gives an equal filter.
//!
//! Two shapes have no text of their own and read back as what they mean: an `and` or `or` of one part reads back as
//! that part. A filter that [`Filter::validate`] refuses is written for people only and may not read back.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    Filter,
    parse::{Keyword, is_bare_name},
};
use crate::value::{Value, datetime};

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Filter::And(parts) => join(f, parts, " and "),
            Filter::Or(parts) => join(f, parts, " or "),
            Filter::Not(part) => match &**part {
                Filter::And(_) | Filter::Or(_) | Filter::Range { .. } => write!(f, "not ({part})"),
                // `not exists(f)` is one condition, this is the negation of another.
                Filter::Exists { expected: true, .. } => write!(f, "not ({part})"),
                _ => write!(f, "not {part}"),
            },
            Filter::Eq { field, value } => write!(f, "{} = {}", Name(field), Literal(value)),
            Filter::Ne { field, value } => write!(f, "{} != {}", Name(field), Literal(value)),
            Filter::In { field, values } => {
                write!(f, "{} in [", Name(field))?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, Literal(value))?;
                }
                f.write_char(']')
            }
            Filter::Range { field, range } => {
                write!(f, "{}", Name(field))?;
                for (i, (sign, bound)) in range.set().enumerate() {
                    write!(f, "{} {sign} {}", if i == 0 { "" } else { " and" }, Literal(bound))?;
                }
                Ok(())
            }
            Filter::Exists { field, expected } => {
                write!(f, "{}exists({})", if *expected { "" } else { "not " }, Name(field))
            }
            Filter::Prefix { field, prefix } => {
                write!(f, "{} prefix {}", Name(field), Quoted(prefix))
            }
            Filter::Contains { field, value } => write!(f, "{} contains {}", Name(field), Literal(value)),
        }
    }
}

fn join(f: &mut Formatter<'_>, parts: &[Filter], between: &str) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { between })?;
        match part {
            Filter::And(_) | Filter::Or(_) => write!(f, "({part})")?,
            _ => write!(f, "{part}")?,
        }
    }
    Ok(())
}

/// A field's name, in backquotes where it needs them.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if is_bare_name(self.0) && Keyword::of(self.0).is_none() {
            return f.write_str(self.0);
        }
        write!(f, "`{}`", self.0.replace('`', "``"))
    }
}

struct Literal<'a>(&'a Value);

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => Quoted(text).fmt(f),
            Value::Integer(number) => number.fmt(f),
            // `Debug` always writes a point or an exponent, so it reads back as a float, and the same one.
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Bool(truth) => truth.fmt(f),
            Value::Datetime(micros) => f.write_str(&datetime::format(*micros)),
            Value::List(elements) => {
                f.write_char('[')?;
                for (i, element) in elements.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, Literal(element))?;
                }
                f.write_char(']')
            }
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
