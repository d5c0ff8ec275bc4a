//! Reads words of the command line as values of the library; `--help` and errors list the allowed words.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::model::Pooling;

/// A pooling by name.
pub fn pooling() -> impl TypedValueParser<Value = Pooling> {
    PossibleValuesParser::new(Pooling::ALL.map(Pooling::name)).map(|name| {
        Pooling::ALL.into_iter().find(|p| p.name() == name).expect("clap lets only these names through")
    })
}
