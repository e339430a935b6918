//! Kubernetes quantities such as `500m` or `5Gi`: carried as written, compared by value.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Form of a quantity that the resource accepts: up to 12 digits, up to 9 decimals, one suffix.
pub const QUANTITY_PATTERN: &str = r"^[0-9]{1,12}(\.[0-9]{1,9})?([KMGTPE]i|[numkMGTPE])?$";

/// An amount of CPU, memory or storage, as text; a plain integer is accepted on input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

impl Quantity {
    /// Takes the text as it is; whether it is an amount shows in [`Quantity::nanos`].
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The amount as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The amount in billionths of its unit; `None` if the text is not a quantity.
    pub fn nanos(&self) -> Option<i128> {
        nanos(&self.0)
    }
}

/// Amounts of CPU and memory for a container.
#[derive(Clone, Copy, Debug)]
pub struct Amounts<'a> {
    /// CPUs that the scheduler reserves.
    pub cpu: &'a Quantity,
    /// Octets of memory that the scheduler reserves.
    pub memory: &'a Quantity,
    /// CPUs that it may not exceed, if there is a limit.
    pub cpu_limit: Option<&'a Quantity>,
    /// Octets of memory that it may not exceed.
    pub memory_limit: &'a Quantity,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        }))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
        })
    }
}

/// The value of a quantity in billionths of its unit, or `None` if `text` is not one.
///
/// Reads what an API server writes too (exponents and signs, `k8s.io/apimachinery/pkg/api/resource`).
pub fn nanos(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 || whole.len() > 18 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    let number = whole.checked_mul(NANO)?.checked_add(fraction)?;
    let scaled = scale(number, suffix)?;
    Some(if negative { -scaled } else { scaled })
}

const NANO: i128 = 1_000_000_000;

fn scale(number: i128, suffix: &str) -> Option<i128> {
    let decimal = |exponent: u32| number.checked_mul(10_i128.checked_pow(exponent)?);
    match suffix {
        "n" => Some(number / NANO),
        "u" => Some(number / 1_000_000),
        "m" => Some(number / 1_000),
        "" => Some(number),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => number.checked_shl_exact(10),
        "Mi" => number.checked_shl_exact(20),
        "Gi" => number.checked_shl_exact(30),
        "Ti" => number.checked_shl_exact(40),
        "Pi" => number.checked_shl_exact(50),
        "Ei" => number.checked_shl_exact(60),
        _ => exponent(suffix).and_then(decimal),
    }
}

fn exponent(suffix: &str) -> Option<u32> {
    suffix.strip_prefix(['e', 'E'])?.parse().ok()
}

/// Multiplication by a power of two that reports overflow.
trait CheckedShift: Sized {
    fn checked_shl_exact(self, bits: u32) -> Option<Self>;
}

impl CheckedShift for i128 {
    fn checked_shl_exact(self, bits: u32) -> Option<Self> {
        self.checked_mul(1_i128.checked_shl(bits)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_amounts_in_different_writing_have_one_value() {
        for (left, right) in
            [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("5e3", "5k"), (".5", "500m"), ("1000000n", "1m")]
        {
            assert_eq!(nanos(left), nanos(right), "{left} and {right}");
            assert!(nanos(left).is_some(), "{left}");
        }
        assert!(nanos("1G") < nanos("1Gi"));
        assert_eq!(nanos("-1"), Some(-NANO));
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in ["", ".", "Gi", "1.2.3", "1Q", "1 Gi", "5gi", "9999999999999999999"] {
            assert_eq!(nanos(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_integer_is_taken_for_its_text() {
        assert_eq!(serde_json::from_str::<Quantity>("2").unwrap(), Quantity::new("2"));
        assert_eq!(serde_json::from_str::<Quantity>("\"2\"").unwrap(), Quantity::new("2"));
        assert!(serde_json::from_str::<Quantity>("-2").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = nanos(&text);
        }

        #[test]
        fn order_follows_the_number(a in 0_u32..1_000_000, b in 0_u32..1_000_000, suffix in "(Ki|Mi|Gi|m|k|M|)") {
            let value = |n: u32| nanos(&format!("{n}{suffix}")).unwrap();
            prop_assert_eq!(a.cmp(&b), value(a).cmp(&value(b)));
        }
    }
}
