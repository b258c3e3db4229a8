//! Which context runs next, and for how long.

mod bitmap;
mod budget;

pub use bitmap::PriorityBitmap;
pub use budget::{Budget, BudgetState};
