//! Finds the one type of a column from its cells.
//!
//! A column is of the narrowest type that all its cells have: bool, integer, float, else text. So one zip code `01067`
//! makes its whole column text, and a filter finds all of them or none. Datetimes are text unless the user tells the
//! type, and so is whatever is not written as a number is: `NaN`, `1_000`, `5 %`.

use super::ValueType;
use crate::value::Value;

/// The type that a cell looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Bool(bool),
    Integer(i64),
    /// Digits beyond 64 bits.
    LongInteger,
    Float(f64),
    Text,
}

impl Form {
    /// `-3`, `+4`, `0.5`, `.5`, `1E5`, `1.5e-05` are numbers, with blanks around or not. `007` is not: who writes zeros in
    /// front means digits, not a number. Beyond the range of a float digits are text.
    pub(super) fn of(cell: &str) -> Form {
        let cell = cell.trim_matches(' ');
        match cell {
            "true" | "True" | "TRUE" => return Form::Bool(true),
            "false" | "False" | "FALSE" => return Form::Bool(false),
            _ => {}
        }
        let unsigned = cell.strip_prefix(['-', '+']).unwrap_or(cell);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
            }
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let some_digits = |text: &str| !text.is_empty() && digits(text);
        let is_number = digits(whole)
            && fraction.is_none_or(some_digits)
            && exponent.is_none_or(some_digits)
            && (!whole.is_empty() || fraction.is_some())
            && (whole.len() < 2 || !whole.starts_with('0'));
        if !is_number {
            return Form::Text;
        }
        if fraction.is_none() && exponent.is_none() {
            return cell.parse().map_or(Form::LongInteger, Form::Integer);
        }
        match cell.parse::<f64>() {
            Ok(number) if number.is_finite() => Form::Float(number),
            _ => Form::Text,
        }
    }
}

/// What the cells of one column have in common so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    any: bool,
    bools: bool,
    integers: bool,
    numbers: bool,
}

impl Survey {
    pub(super) fn new() -> Self {
        Survey { any: false, bools: true, integers: true, numbers: true }
    }

    /// Takes in a cell; an empty one says nothing about the type.
    pub(super) fn see(&mut self, cell: &str) {
        if cell.is_empty() || (self.any && !self.bools && !self.numbers) {
            return;
        }
        self.any = true;
        let form = Form::of(cell);
        self.bools &= matches!(form, Form::Bool(_));
        self.integers &= matches!(form, Form::Integer(_) | Form::LongInteger);
        self.numbers &= matches!(form, Form::Integer(_) | Form::LongInteger | Form::Float(_));
    }

    /// The column's type; `None` if all its cells are empty.
    pub(super) fn kind(&self) -> Option<ValueType> {
        self.any.then_some(match self {
            Survey { bools: true, .. } => ValueType::Bool,
            Survey { integers: true, .. } => ValueType::Integer,
            Survey { numbers: true, .. } => ValueType::Float,
            _ => ValueType::String,
        })
    }
}

/// A cell as a value of its column's type.
///
/// # Errors
/// Why it cannot be, for the user: digits that the type would change, or another form than the column had where it was
/// surveyed.
pub(super) fn value(cell: &str, kind: ValueType) -> Result<Value, String> {
    let long = || {
        Err(format!(
            "the integer {} does not fit into 64 bits; read the field with --type as string, which keeps its digits",
            cell.trim()
        ))
    };
    Ok(match (kind, Form::of(cell)) {
        (ValueType::Bool, Form::Bool(truth)) => Value::Bool(truth),
        (ValueType::Integer, Form::Integer(number)) => Value::Integer(number),
        (ValueType::Float, Form::Float(number)) => Value::Float(number),
        (ValueType::Float, Form::Integer(number)) => {
            let float = number as f64;
            if float as i128 != i128::from(number) {
                return Err(format!(
                    "the integer {number} stands among floats and would lose digits as one; read the field with --type as \
                     string, or as float if that does not matter"
                ));
            }
            Value::Float(float)
        }
        (ValueType::Integer | ValueType::Float, Form::LongInteger) => return long(),
        (ValueType::Bool | ValueType::Integer | ValueType::Float, _) => {
            let cell: String = cell.chars().take(40).collect();
            return Err(format!(
                "{cell:?} is not of the type {kind} that the beginning of the file shows; tell the type of the field with \
                 --type"
            ));
        }
        (ValueType::String | ValueType::Datetime, _) => Value::String(cell.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_number_are_numbers() {
        for (cell, expected) in [
            ("5", Form::Integer(5)),
            ("-3", Form::Integer(-3)),
            ("+4", Form::Integer(4)),
            ("0", Form::Integer(0)),
            (" 5 ", Form::Integer(5)),
            ("9223372036854775807", Form::Integer(i64::MAX)),
            ("9223372036854775808", Form::LongInteger),
            ("-99999999999999999999", Form::LongInteger),
            ("0.05", Form::Float(0.05)),
            ("1e-05", Form::Float(1e-5)),
            ("1.5e-05", Form::Float(1.5e-5)),
            ("1E5", Form::Float(1e5)),
            ("+1.5E+3", Form::Float(1500.0)),
            (".5", Form::Float(0.5)),
            ("-.5", Form::Float(-0.5)),
            ("1.50", Form::Float(1.5)),
            ("true", Form::Bool(true)),
            ("FALSE", Form::Bool(false)),
        ] {
            assert_eq!(Form::of(cell), expected, "{cell}");
        }
        for cell in [
            "",
            " ",
            "007",
            "00.5",
            "01067",
            "1_000",
            "1,000",
            "5.",
            ".",
            "+",
            "-",
            "e5",
            "1e",
            "1e+",
            "1.e5",
            "--1",
            "1.2.3",
            "1.5e999",
            "NaN",
            "inf",
            "Infinity",
            "0x10",
            "2024-01-31",
            "5 %",
            "١",
            "yes",
        ] {
            assert_eq!(Form::of(cell), Form::Text, "{cell}");
        }
    }

    #[test]
    fn a_column_has_one_type() {
        for (cells, expected) in [
            (&["10115", "01067", "80331"][..], Some(ValueType::String)),
            (&["0.05", "1e-05", "1.5e-05"], Some(ValueType::Float)),
            (&["1", "", "2.5"], Some(ValueType::Float)),
            (&["1", "-2", "+3"], Some(ValueType::Integer)),
            (&["1", "99999999999999999999"], Some(ValueType::Integer)),
            (&["true", "False"], Some(ValueType::Bool)),
            (&["true", "1"], Some(ValueType::String)),
            (&["1", "x"], Some(ValueType::String)),
            (&["2024-01-31"], Some(ValueType::String)),
            (&["", ""], None),
        ] {
            let mut survey = Survey::new();
            cells.iter().for_each(|cell| survey.see(cell));
            assert_eq!(survey.kind(), expected, "{cells:?}");
        }
    }

    #[test]
    fn no_digit_is_lost_without_a_word() {
        assert_eq!(value("+4", ValueType::Integer), Ok(Value::Integer(4)));
        assert_eq!(value("4", ValueType::Float), Ok(Value::Float(4.0)));
        assert_eq!(value("01067", ValueType::String), Ok(Value::String("01067".into())));
        for (cell, kind, part) in [
            ("18446744073709551615", ValueType::Integer, "does not fit into 64 bits"),
            ("18446744073709551614", ValueType::Float, "does not fit into 64 bits"),
            ("9007199254740993", ValueType::Float, "would lose digits"),
            ("x", ValueType::Integer, "not of the type integer"),
            ("1", ValueType::Bool, "not of the type bool"),
        ] {
            let reason = value(cell, kind).unwrap_err();
            assert!(reason.contains(part) && reason.contains("--type"), "{reason}");
        }
    }
}
