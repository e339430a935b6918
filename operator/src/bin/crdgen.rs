//! prints
fn main() {
    println!("{}", serde_yaml::to_string(&commpool_operator::crd::definition().unwrap()).unwrap());
}
