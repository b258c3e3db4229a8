//! Which context runs next, for how long, and what must happen when.

mod bitmap;
mod budget;
mod timeouts;

pub use bitmap::PriorityBitmap;
pub use budget::{Budget, BudgetState};
pub use timeouts::{Links, Node, Timeouts};
