//! What an administrator decides about rollouts.

use std::{fmt, str::FromStr, time::Duration};

/// How rollouts are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The waves, smallest first; a last one of all nodes is added where it is missing.
    pub waves: Vec<Wave>,
    /// How many nodes may refuse a file before it is rolled back.
    pub max_failed: u32,
    /// How long a wave may take; nodes that said nothing until then are not waited for.
    pub deadline: Duration,
}

impl Default for Policy {
    /// All nodes at once, no refusal allowed, five minutes for a wave.
    fn default() -> Self {
        Self { waves: vec![Wave::All], max_failed: 0, deadline: Duration::from_secs(300) }
    }
}

impl Policy {
    /// How many of `nodes` nodes the wave counted from 1 takes in; `None` for all, the last wave.
    pub(super) fn size(&self, wave: i32, nodes: usize) -> Option<usize> {
        let index = usize::try_from(wave.saturating_sub(1)).unwrap_or(0);
        match self.waves.get(index)? {
            Wave::All => None,
            Wave::Nodes(count) => Some((*count as usize).max(1)),
            // Rounded up: a wave of one per cent of three nodes is one node.
            Wave::Percent(percent) => Some((nodes * usize::from(*percent)).div_ceil(100).max(1)),
        }
    }
}

/// How many nodes a wave takes in, those of earlier waves among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wave {
    /// So many nodes.
    Nodes(u32),
    /// So many of a hundred available nodes, rounded up.
    Percent(u8),
    /// Every node.
    All,
}

/// A wave that is written wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a wave of the rollout is a number of nodes such as `1`, a percentage such as `10%`, or `all`, not `{0}`")]
pub struct WaveError(String);

impl FromStr for Wave {
    type Err = WaveError;

    fn from_str(text: &str) -> Result<Self, WaveError> {
        let wrong = || WaveError(text.to_owned());
        match text.trim() {
            "all" | "100%" => Ok(Self::All),
            text => match text.strip_suffix('%') {
                Some(percent) => match percent.parse() {
                    Ok(percent @ 1..=99) => Ok(Self::Percent(percent)),
                    _ => Err(wrong()),
                },
                None => match text.parse() {
                    Ok(count @ 1..) => Ok(Self::Nodes(count)),
                    _ => Err(wrong()),
                },
            },
        }
    }
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_read_as_they_are_written() {
        for text in ["1", "25", "10%", "all"] {
            assert_eq!(text.parse::<Wave>().map(|wave| wave.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("100%".parse(), Ok(Wave::All));
        for text in ["", "0", "0%", "101%", "-1", "1.5", "some"] {
            assert_eq!(text.parse::<Wave>(), Err(WaveError(text.to_owned())));
        }
    }

    #[test]
    fn the_last_wave_is_all_and_a_small_percentage_is_one_node() {
        let policy = Policy { waves: vec![Wave::Nodes(1), Wave::Percent(10)], ..Policy::default() };
        assert_eq!([1, 2, 3].map(|wave| policy.size(wave, 25)), [Some(1), Some(3), None]);
        assert_eq!(policy.size(2, 1), Some(1));
    }
}
