//! Who has which address.
