//! What documents are not lost by once they are answered.

use crate::proto;

/// What an answered document survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Durability {
    /// The loss of power: each batch is synced before it is answered
    #[default]
    Power,
    /// The end of the server, however it ends; what the last second before a loss of power brought may be lost
    Process,
}

impl Durability {
    /// That of a request.
    pub fn to_wire(self) -> proto::Durability {
        match self {
            Durability::Power => proto::Durability::Power,
            Durability::Process => proto::Durability::Process,
        }
    }
}
