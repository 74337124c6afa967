//! TODO head.

use super::Spec;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[];
