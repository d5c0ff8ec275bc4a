//! Records how the columns of a file were understood: which is the id, the title and the text, and which type the
//! others have.
//!
//! A reader notes it before a file's first document. It is kept once for all files that are understood alike, and for at
//! most [`FILES_MAX`] kinds of files, so that a folder of many files neither floods a terminal nor fills memory.

use std::{fmt, sync::Mutex};

use super::ValueType;

/// Most descriptions that wait to be reported.
const FILES_MAX: usize = 100;
/// Payload columns that [`Understood`] names when it is written out.
const COLUMNS_SHOWN: usize = 12;

/// How one file was understood, and with it all later files of the same columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    /// The first file, as the user gave it or found below a folder.
    pub file: String,
    /// What separates the cells of a table; `None` for JSON.
    pub delimiter: Option<char>,
    /// The columns in the order of the file; for JSON, the fields of its first record.
    pub columns: Vec<UnderstoodColumn>,
}

/// One column of a table or field of a JSON record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderstoodColumn {
    /// Its name in the file.
    pub name: String,
    /// What the column is taken for.
    pub role: Role,
    /// The type of a table's payload column, or the type that the user gave; `None` where each value has its
    /// own.
    pub kind: Option<ValueType>,
}

/// What a column is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The document's id.
    Id,
    /// The document's title.
    Title,
    /// The document's text.
    Text,
    /// The document's vector.
    Vector,
    /// A payload field.
    Payload,
}

impl fmt::Display for Understood {
    /// One line: `prices.csv (cells separated by ';'): id from "ID", text from "Body"; fields year (integer), zip (string)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match self.delimiter {
            Some('\t') => write!(f, " (cells separated by tabs)")?,
            Some(delimiter) => write!(f, " (cells separated by {delimiter:?})")?,
            None => {}
        }
        let of_role = |wanted: Role| self.columns.iter().filter(move |column| column.role == wanted);
        let mut between = ": ";
        if of_role(Role::Id).next().is_none() {
            write!(f, ": id made from the content")?;
            between = ", ";
        }
        for (role, word) in
            [(Role::Id, "id"), (Role::Title, "title"), (Role::Text, "text"), (Role::Vector, "vector")]
        {
            for column in of_role(role) {
                write!(f, "{between}{word} from {:?}", column.name)?;
                between = ", ";
            }
        }
        between = "; fields ";
        for column in of_role(Role::Payload).take(COLUMNS_SHOWN) {
            write!(f, "{between}{}", column.name)?;
            if let Some(kind) = column.kind {
                write!(f, " ({kind})")?;
            }
            between = ", ";
        }
        match of_role(Role::Payload).count().saturating_sub(COLUMNS_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Descriptions that were noted and not yet reported.
#[derive(Debug, Default)]
pub struct UnderstoodFiles {
    files: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    waiting: Vec<Understood>,
    /// All that were noted, to know what is understood alike.
    met: Vec<Understood>,
}

impl UnderstoodFiles {
    /// Takes out what was noted since the last call.
    pub fn take(&self) -> Vec<Understood> {
        std::mem::take(&mut self.files.lock().expect("nothing panics while it is held").waiting)
    }

    /// Notes a file, unless an earlier one was understood alike.
    pub(super) fn note(&self, understood: Understood) {
        let mut files = self.files.lock().expect("nothing panics while it is held");
        let alike = |other: &Understood| {
            (other.delimiter, &other.columns) == (understood.delimiter, &understood.columns)
        };
        if files.met.len() < FILES_MAX && !files.met.iter().any(alike) {
            files.met.push(understood.clone());
            files.waiting.push(understood);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, role: Role, kind: Option<ValueType>) -> UnderstoodColumn {
        UnderstoodColumn { name: name.into(), role, kind }
    }

    #[test]
    fn a_file_is_described_in_one_line() {
        let mut understood = Understood {
            file: "a.csv".into(),
            delimiter: Some(';'),
            columns: vec![
                column("ID", Role::Id, None),
                column("Body", Role::Text, None),
                column("year", Role::Payload, Some(ValueType::Integer)),
                column("zip", Role::Payload, Some(ValueType::String)),
            ],
        };
        assert_eq!(
            understood.to_string(),
            "a.csv (cells separated by ';'): id from \"ID\", text from \"Body\"; fields year (integer), zip (string)"
        );
        understood.delimiter = None;
        understood.columns = vec![column("text", Role::Text, None)];
        understood.columns.extend((0..14).map(|i| column(&format!("c{i}"), Role::Payload, None)));
        let told = understood.to_string();
        assert!(
            told.starts_with("a.csv: id made from the content, text from \"text\"; fields c0, c1"),
            "{told}"
        );
        assert!(told.ends_with("c11 and 2 more"), "{told}");
    }

    #[test]
    fn files_understood_alike_are_told_once() {
        let files = UnderstoodFiles::default();
        let one =
            Understood { file: "a".into(), delimiter: None, columns: vec![column("x", Role::Text, None)] };
        files.note(one.clone());
        files.note(Understood { file: "b".into(), ..one.clone() });
        files.note(Understood { file: "c".into(), columns: Vec::new(), ..one.clone() });
        assert_eq!(files.take().iter().map(|u| u.file.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        files.note(one);
        assert!(files.take().is_empty());
    }
}
