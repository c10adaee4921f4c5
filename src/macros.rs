//! Declarative macros that turn one table into everything that must agree with it.

/// A state machine from one table: the two enums, `next`, the list of transitions, names for labels, a Mermaid diagram.
///
/// States decode leniently: a name that this version does not know becomes `Unknown`, which no transition leaves or
/// enters. A doubled transition does not compile.
macro_rules! state_machine {
    (
        $(#[$smeta:meta])* pub enum $State:ident { $( $(#[doc = $sdoc:literal])+ $(#[$dflt:ident])? $state:ident ),+ $(,)? }
        $(#[$emeta:meta])* pub enum $Event:ident { $( $(#[doc = $edoc:literal])+ $event:ident ),+ $(,)? }
        $( $from:ident + $on:ident => $to:ident; )+
    ) => {
        $(#[$smeta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $State {
            $( $(#[doc = $sdoc])+ $(#[$dflt])? $state, )+
            /// A phase that a newer version wrote; this one leaves it alone.
            #[serde(other)]
            Unknown,
        }

        $(#[$emeta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Event { $( $(#[doc = $edoc])+ $event, )+ }

        impl $State {
            /// Every state of the table, in its order.
            pub const ALL: &'static [Self] = &[ $( Self::$state ),+ ];
            /// Every transition of the table, in its order.
            pub const TRANSITIONS: &'static [(Self, $Event, Self)] = &[ $( (Self::$from, $Event::$on, Self::$to) ),+ ];

            /// Where `event` leads from here; `None` where it means nothing.
            #[must_use]
            #[deny(unreachable_patterns)]
            pub const fn next(self, event: $Event) -> Option<Self> {
                match (self, event) {
                    $( (Self::$from, $Event::$on) => Some(Self::$to), )+
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }

            /// The name as the API and the metrics write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$state => stringify!($state), )+ Self::Unknown => "Unknown" }
            }

            /// What the state means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$state => concat!($($sdoc),+), )+ Self::Unknown => "A newer version wrote it." }
            }

            /// The table as a Mermaid state diagram.
            #[must_use]
            pub fn diagram() -> String {
                let mut text = String::from("stateDiagram-v2\n    [*] --> ");
                text.push_str(Self::default().name());
                text.push('\n');
                for (from, event, to) in Self::TRANSITIONS {
                    text.push_str(&format!("    {} --> {}: {}\n", from.name(), to.name(), event.name()));
                }
                text
            }
        }

        impl std::fmt::Display for $State {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl $Event {
            /// Every event of the table, in its order.
            pub const ALL: &'static [Self] = &[ $( Self::$event ),+ ];

            /// The name as the docs and the logs write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$event => stringify!($event) ),+ }
            }

            /// What the event means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$event => concat!($($edoc),+) ),+ }
            }
        }
    };
}
pub(crate) use state_machine;
