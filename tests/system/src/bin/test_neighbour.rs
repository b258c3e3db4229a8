//! A partition that notices what goes on beside it.
#![no_std]
#![no_main]

runtime::entry!(system_tests::neighbour::main);
