//! A partition that makes hypercalls at random.
#![no_std]
#![no_main]

runtime::entry!(system_tests::fuzz::main, heap: 2 << 20);
