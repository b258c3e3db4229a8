//! A partition that makes hypercalls at random.
#![no_std]
#![no_main]

// Each life leaves the stacks of its handlers behind, one for each CPU.
runtime::entry!(system_tests::fuzz::main, heap: 8 << 20);
