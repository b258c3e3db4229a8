//! Why something did not work, for people.

use alloc::string::String;
use core::fmt;

use abi::hypercall::Status;

/// Something that did not work, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel refused.
    Kernel {
        /// What was being done: "cannot ..." goes in front.
        doing: String,
        /// What the kernel said.
        status: Status,
    },
    /// Something else, in a sentence that says what to do about it.
    Other(String),
}

impl Failure {
    /// For [`Result::map_err`]: the kernel refused while this was being done.
    pub fn doing(doing: impl Into<String>) -> impl FnOnce(Status) -> Self {
        move |status| Self::Kernel { doing: doing.into(), status }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { doing, status: Status::Quota } => write!(
                f,
                "cannot {doing}: too little kernel memory; give the machine more memory or run \
                 fewer partitions"
            ),
            Self::Kernel { doing, status: Status::BadFeature } => {
                write!(f, "cannot {doing}: this processor has no such feature")
            }
            Self::Kernel { doing, status } => {
                write!(f, "cannot {doing}: the kernel says {status:?}")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let text = Failure::doing("start it")(Status::Quota).to_string();
        assert!(text.starts_with("cannot start it") && text.contains("more memory"), "{text}");
        let text = Failure::doing("start it")(Status::BadCpu).to_string();
        assert_eq!(text, "cannot start it: the kernel says BadCpu");
    }
}
