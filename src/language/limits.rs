//! What a rule may ask of an engine that bounds nothing itself.
//!
//! Falco accepts all of this without a limit and then overflows its stack, loops, or eats the node's memory; or, where it
//! has a limit, is told of it only when the whole file is refused.

/// Levels of parentheses in a condition, as written and as printed once macros are inserted.
pub const NESTING: usize = 100;
/// Levels of the tree at which the parser stops reading, so that no walk over a tree can overflow the stack.
pub(crate) const TREE_DEPTH: usize = 512;
/// Levels of transformers within transformers.
pub const TRANSFORMERS: usize = 16;
/// Operators, checks and values of a condition once macros, lists and exceptions are inserted.
pub const NODES: usize = 20_000;
/// Values of one list, once the lists named in it are inserted.
pub const LIST_ENTRIES: usize = 10_000;
/// Values that the lists of a namespace may take from each other in all.
pub const LISTED_VALUES: usize = 1_000_000;
/// Lists that are put into one condition of a rules file, each counted once.
pub const LISTS_PASTED: usize = 1000;
/// Bytes of a value that an event is compared with. Falco's own limit: one byte of its 256 is the end.
pub const VALUE_BYTES: usize = 255;
/// Bytes of a condition, as written and once macros and lists are inserted.
pub const CONDITION_BYTES: usize = 256 * 1024;
/// Bytes of an output.
pub const OUTPUT_BYTES: usize = 8192;
/// Fields in an output.
pub const OUTPUT_FIELDS: usize = 128;
/// Columns that an output may pad or cut a field to.
pub const OUTPUT_WIDTH: u64 = 1024;
/// Errors of one condition after which no more are looked for, and warnings that are told of one.
pub(crate) const FINDINGS: usize = 100;
/// Bytes of a rule's name.
pub const NAME_BYTES: usize = 253;
/// Repetitions of one part of a regular expression; the engine's own limit.
pub const REGEX_REPEAT: u32 = 1000;
