//! The example of the documentation does what it says.

#[path = "../examples/back_to_back.rs"]
#[allow(dead_code, reason = "its entry is called below")]
mod back_to_back;

#[test]
fn two_stacks_back_to_back() {
    back_to_back::main();
}
