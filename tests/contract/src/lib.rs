//! Operator and runtime import nothing of each other; between them there is HTTP. The tests of this crate hand what the
//! one says to what the other reads.
