//! The phases of a namespace's rules file: one table, from which come the enum of the CRD, the labels of the metrics,
//! the diagram in the docs and the reachability test.

use crate::macros::state_machine;

state_machine! {
    /// Where the rules file of a namespace is on its way to the nodes.
    pub enum Phase {
        /// No rule, macro or list exists in the namespace.
        #[default]
        Empty,
        /// The items changed and the file for them is being made.
        Rendering,
        /// The target is being written for the agents.
        Distributing,
        /// A wave of nodes loads the target.
        RollingOut,
        /// Every available node has the target loaded.
        Active,
        /// A node that had the target has lost it or refuses it; the others go on.
        Degraded,
        /// Nodes return to the last good file, or to none.
        RollingBack,
        /// The last good file is loaded, the newest edit is not.
        RolledBack,
        /// The last item was deleted and nodes drop the file.
        Withdrawing,
    }
    /// What moves a rules file from one phase to the next.
    pub enum Event {
        /// The items of the namespace, or the policy for them, changed what is to be loaded.
        Edited,
        /// A file was made from the items.
        Rendered,
        /// The file made is the one that is already the target.
        Unchanged,
        /// The file made is the one that was rolled back; it is not tried again by itself.
        AlreadyRejected,
        /// The file is larger than the API server takes.
        TooLarge,
        /// No item exists any more.
        NothingLeft,
        /// The bundle with the target is written.
        Distributed,
        /// Every node of the wave has loaded the target, and there is another wave.
        WaveLoaded,
        /// Every available node has loaded the target.
        AllLoaded,
        /// The rollout is over, and not every available node has loaded the target: the others go on with it.
        SomeLoaded,
        /// More nodes refused the target than the policy allows.
        TooManyRefused,
        /// The deadline passed and not one node has loaded the target.
        NowhereLoaded,
        /// A node that had the target loaded has lost it or refuses it, or stays behind for longer than a wave may take.
        Drifted,
        /// Every available node is back at the last good file.
        AllRestored,
        /// Somebody asked to try the rejected file again.
        Retried,
        /// What is wished for is what runs.
        Reverted,
        /// No available node loads anything of the namespace.
        AllUnloaded,
    }
    Empty + Edited => Rendering;
    Empty + NothingLeft => Withdrawing;
    Rendering + Edited => Rendering;
    Rendering + Rendered => Distributing;
    Rendering + Unchanged => Active;
    Rendering + AlreadyRejected => RolledBack;
    Rendering + TooLarge => Rendering;
    Rendering + NothingLeft => Withdrawing;
    Distributing + Edited => Rendering;
    Distributing + NothingLeft => Withdrawing;
    Distributing + Distributed => RollingOut;
    RollingOut + Edited => Rendering;
    RollingOut + NothingLeft => Withdrawing;
    RollingOut + WaveLoaded => RollingOut;
    RollingOut + AllLoaded => Active;
    RollingOut + SomeLoaded => Degraded;
    RollingOut + TooManyRefused => RollingBack;
    RollingOut + NowhereLoaded => RollingBack;
    Active + Edited => Rendering;
    Active + NothingLeft => Withdrawing;
    Active + Drifted => Degraded;
    Degraded + Edited => Rendering;
    Degraded + NothingLeft => Withdrawing;
    Degraded + AllLoaded => Active;
    RollingBack + Edited => Rendering;
    RollingBack + NothingLeft => Withdrawing;
    RollingBack + AllRestored => RolledBack;
    RolledBack + Edited => Rendering;
    RolledBack + NothingLeft => Withdrawing;
    RolledBack + Retried => Rendering;
    RolledBack + Reverted => Active;
    Withdrawing + Edited => Rendering;
    Withdrawing + AllUnloaded => Empty;
}
