//! Arithmetic with the sums of reports, modulo 2²⁵⁶.

use crate::api::{NONE, add_to_sum, sum_text};

/// A sum over rules files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum([u8; 32]);

impl Sum {
    /// What one file of one namespace adds; no file adds nothing.
    pub fn of(namespace: &str, hash: &str) -> Self {
        let mut sum = [0; 32];
        if hash != NONE {
            add_to_sum(&mut sum, namespace, hash);
        }
        Self(sum)
    }

    /// This sum and the other.
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self.0;
        let mut carry = 0u16;
        for (place, byte) in sum.iter_mut().zip(other.0).rev() {
            let total = u16::from(*place) + u16::from(byte) + carry;
            *place = (total & 0xff) as u8;
            carry = total >> 8;
        }
        Self(sum)
    }

    /// This sum without the other.
    pub fn minus(self, other: Self) -> Self {
        let mut sum = self.0;
        let mut borrow = 0i16;
        for (place, byte) in sum.iter_mut().zip(other.0).rev() {
            let total = i16::from(*place) - i16::from(byte) - borrow;
            *place = (total & 0xff) as u8;
            borrow = i16::from(total < 0);
        }
        Self(sum)
    }

    /// As reports write it.
    pub fn text(&self) -> String {
        sum_text(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn taking_away_undoes_adding_and_agrees_with_the_api(files in proptest::collection::vec(("[a-c]", "[0-9a-f]{4}"), 0..8)) {
            let mut api = [0; 32];
            let mut sum = Sum::default();
            for (namespace, hash) in &files {
                add_to_sum(&mut api, namespace, hash);
                sum = sum.plus(Sum::of(namespace, hash));
            }
            proptest::prop_assert_eq!(sum.text(), sum_text(&api));
            for (namespace, hash) in &files {
                sum = sum.minus(Sum::of(namespace, hash));
            }
            proptest::prop_assert_eq!(sum, Sum::default());
        }
    }
}
