//! The items of a namespace to its rules file: policy, names, inlining, order, YAML. Pure.
