//! Holds a pod's namespaces open: does nothing until it is killed.
#![forbid(unsafe_code)]

fn main() {
    loop {
        std::thread::park();
    }
}
